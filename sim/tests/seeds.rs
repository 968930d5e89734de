//! Seeds that once found a bug. What a seed draws changes with the simulator, so each says what it was about.

use flotilla_sim::world::simulate;

fn holds(seed: u64) {
    let outcome = simulate(seed, false);
    assert!(outcome.failure.is_none(), "seed {seed}: {}", outcome.failure.unwrap_or_default());
}

/// A node died while a segment was being made; the next life wrote to it, half as long as it should have been.
#[test]
fn a_half_made_segment_is_not_written_to() {
    holds(96);
}
