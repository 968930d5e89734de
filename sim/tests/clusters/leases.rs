//! Reads under leases: linearizable as long as the clocks keep to the bound that was stated. That they aren't beyond it is
//! shown step by step in `consensus/tests/raft/reads.rs`: seeds find a lease without its bound too seldom.

use flotilla_sim::world::simulate_with;

/// A seed with leases, in which leaders are cut off, and the clocks drift apart as far as was stated.
fn run(seed: u64) -> Option<String> {
    let outcome = simulate_with(seed, |swarm| {
        swarm.nodes = swarm.nodes.max(3);
        (swarm.leases, swarm.drift_ppm) = (true, 200_000);
        (swarm.heartbeat_ms, swarm.election_ms) = (100, 1_000);
        (swarm.partitions, swarm.clients, swarm.keys) = (1_000_000_000, 12, 1);
    });
    outcome.failure
}

#[test]
fn within_the_bound_nothing_stale_is_read() {
    for seed in 0..20 {
        let failure = run(seed);
        assert!(failure.is_none(), "seed {seed}: {}", failure.unwrap_or_default());
    }
}
