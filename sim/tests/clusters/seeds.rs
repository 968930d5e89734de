//! Seeds that once found a bug. What a seed draws changes with the simulator, so each says what it was about.

use flotilla_sim::hazards::Hazard;
use flotilla_sim::trace::Detail;
use flotilla_sim::world::{Plan, simulate};

fn holds(plan: &Plan) {
    let outcome = simulate(plan, Detail::Faults);
    assert!(outcome.failure.is_none(), "{plan:?}: {}", outcome.failure.unwrap_or_default());
}

/// A node died while a segment was being made; the next life wrote to it, half as long as it should have been.
#[test]
fn a_half_made_segment_is_not_written_to() {
    holds(&Plan::new(96));
}

/// A command was sent on to the leader, and the frame, or the one with its answer, was dropped: nobody ever told the
/// client.
#[test]
fn a_command_that_was_lost_on_its_way_to_the_leader_is_given_up() {
    holds(&Plan::new(36));
    holds(&Plan::new(37));
}

/// A node that had sent commands on died and started again; the answers came, and were taken for those to the first commands
/// of its new life.
#[test]
fn answers_to_a_former_life_are_nobody_s() {
    holds(&Plan::new(986));
}

/// A follower was being sent a snapshot when it was elected. It went on waiting for the rest, so it took none of its own, and
/// its log grew as long as it led.
#[test]
fn a_leader_waits_for_nobody_s_snapshot() {
    holds(&Plan { hazard: Some(Hazard::Unrest), ..Plan::new(78) });
}

/// A read and writes were on their way to a node when the link broke: the client was cut off because of the writes, and got the replies
/// behind the read's in its place.
#[test]
fn a_client_that_is_cut_off_gets_nobody_else_s_reply() {
    holds(&Plan::new(47));
}

/// Without a bug a scene plays to its end.
#[test]
fn an_answer_of_an_earlier_term_counts_for_nothing() {
    for seed in 0..3 {
        flotilla_sim::scenes::late_answer(seed).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
    }
}

/// The tester, tested: `flotilla-sim prove` does this with all of them.
#[test]
#[cfg(debug_assertions)]
fn a_planted_bug_is_found_and_gone_afterwards() {
    use flotilla_runtime::planted::{Bug, planted};
    flotilla_sim::run::quiet_panics();
    let proofs = flotilla_sim::prove::prove(&[Bug::AckBeforeSync, Bug::VotesTwice], 2, |_| ());
    let rules: Vec<&str> = proofs.iter().map(flotilla_sim::prove::Proof::rule).collect();
    // In the order of the list of bugs.
    assert_eq!(rules, ["one vote", "promise"], "{proofs:?}");
    assert!(proofs.iter().all(|proof| proof.holds() && proof.tried <= 10), "{proofs:?}");
    assert!(!planted(Bug::AckBeforeSync));
}
