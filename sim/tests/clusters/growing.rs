//! Nodes come and go under all faults at once, by the operator's plan: every group's replicas, the controller's too, go from some
//! nodes to others, while shards go from group to group.

use flotilla_sim::hazards::Hazard;
use flotilla_sim::trace::Detail;
use flotilla_sim::world::{Plan, simulate};

#[test]
fn every_group_goes_from_node_to_node_and_nothing_is_lost() {
    let (mut spreads, mut answered) = (0, 0);
    for seed in 0..10 {
        let plan = Plan { hazard: Some(Hazard::Grows), ..Plan::new(seed) };
        let outcome = simulate(&plan, Detail::Faults);
        assert!(outcome.failure.is_none(), "seed {seed}: {}", outcome.failure.unwrap_or_default());
        spreads += outcome.spreads;
        answered += outcome.answered;
    }
    assert!(
        spreads > 20 && answered > 10_000,
        "{spreads} times all groups were spread as planned, {answered} answers"
    );
}
