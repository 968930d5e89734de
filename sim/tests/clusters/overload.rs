//! A simulated leader that is asked for more than it can do: which writes it takes, and how soon it says no.

use flotilla_services::client::Reply;
use flotilla_sim::script::{Answer, CallId, Script, Setup};

/// What a write may wait by default, in milliseconds.
const WAIT_MS: u64 = 1000;

fn is_busy(answer: Option<&Answer>) -> bool {
    matches!(answer, Some(Answer::Reply(Reply::Error(text))) if text.starts_with("BUSY "))
}

/// A leader that hears nobody, and hasn't given up yet, takes writes for as long as one may wait; then it refuses at once.
/// When it hears the others again, what it took is done, and it takes writes as before.
#[test]
fn writes_that_would_wait_for_too_long_are_refused_at_once() {
    let setup = Setup { heartbeat_ms: 500, election_ms: 6_000, ..Setup::new(3) };
    let mut script = Script::new(setup);
    let leader = script.elected(setup.elected_within_ms()).unwrap();
    script.one(&["SET", "k", "v"], 3, true).unwrap();
    (0..3).filter(|node| *node != leader).for_each(|node| script.cut(node, leader));
    let (mut taken, mut refused) = (Vec::new(), 0);
    let begun = script.now_ms();
    while script.now_ms() < begun + 2 * WAIT_MS {
        let age = script.now_ms() - begun;
        let call = script.ask(leader, &["INCR", "counter"]);
        script.run_for(2).unwrap();
        match script.answer(call) {
            None => {
                assert!(age <= WAIT_MS + 5, "it was taken after {age} ms");
                taken.push(call);
            }
            answer => {
                assert!(is_busy(answer) && age > WAIT_MS - 5, "{answer:?} after {age} ms");
                refused += 1;
            }
        }
        script.run_for(8).unwrap();
    }
    assert!(taken.len() >= 90 && refused >= 90, "{} taken, {refused} refused", taken.len());
    script.heal();
    let all = |script: &Script| taken.iter().all(|call| script.answer(*call).is_some());
    script.wait(2_000, "what was taken is done", all).unwrap();
    for (number, call) in (1..).zip(&taken) {
        assert_eq!(script.answer(*call), Some(&Answer::Reply(Reply::Integer(number))));
    }
    let call = script.ask(leader, &["INCR", "counter"]);
    let expected = i64::try_from(taken.len()).unwrap() + 1;
    assert_eq!(script.answered(call, 100).unwrap(), Answer::Reply(Reply::Integer(expected)));
    script.converged(2_000).unwrap();
}

/// Writes that were answered within some time: done and refused, and the longest time that one which was done took.
struct Offered {
    done: usize,
    refused: usize,
    longest_ms: u64,
}

/// Offers so many writes a second for so long, and waits for all answers.
fn offer(script: &mut Script, leader: usize, per_second: u64, seconds: u64) -> Offered {
    let value = "v".repeat(100_000);
    let mut open: Vec<(CallId, u64)> = Vec::new();
    let mut seen = Offered { done: 0, refused: 0, longest_ms: 0 };
    let (begun, every) = (script.now_ms(), 1000 / per_second);
    let end = begun + seconds * 1000;
    while script.now_ms() < end || !open.is_empty() {
        assert!(script.now_ms() < end + 10_000, "{} are never answered", open.len());
        let now = script.now_ms();
        if now < end && (now - begun).is_multiple_of(every) {
            open.push((script.ask(leader, &["SET", "k", &value]), now));
        }
        script.run_for(1).unwrap();
        let now = script.now_ms();
        open.retain(|(call, since)| match script.answer(*call) {
            None => true,
            answer if is_busy(answer) => {
                assert!(now - since <= 2, "a refusal took {} ms", now - since);
                seen.refused += 1;
                false
            }
            Some(answer) => {
                assert!(answer.is_done(), "{answer:?}");
                // What was taken in time counts; the rest is the queue's end.
                seen.done += usize::from(now <= end);
                seen.longest_ms = seen.longest_ms.max(now - since);
                false
            }
        });
    }
    seen
}

/// A disk that takes 100 ms for a commit of some writes, offered more than ten times what that makes: as much is done as at a
/// little more than it can do, and nobody waits for longer than the bound and a few commits. A refusal comes within the turn.
/// Before and afterwards nothing is refused.
#[test]
fn under_overload_what_the_disk_can_do_is_done() {
    let setup = Setup { disk_us: 100_000, heartbeat_ms: 500, election_ms: 6_000, ..Setup::new(3) };
    let mut script = Script::new(setup);
    let leader = script.elected(setup.elected_within_ms()).unwrap();
    script.one(&["SET", "k", "v"], 3, true).unwrap();
    let calm = offer(&mut script, leader, 10, 10);
    assert_eq!(calm.refused, 0);
    // Before it is noticed more is taken than can be done in time.
    offer(&mut script, leader, 1000, 10);
    let least = offer(&mut script, leader, 200, 20);
    let most = offer(&mut script, leader, 1000, 20);
    for (name, seen) in [("200", &least), ("1000", &most)] {
        let Offered { done, refused, longest_ms } = seen;
        println!("{name} offered a second: {done} done in 20 s, {refused} refused, {longest_ms} ms at most");
        assert!(*longest_ms <= WAIT_MS + 600, "{name}: somebody waited for {longest_ms} ms");
    }
    assert!(most.refused > 9 * most.done, "that is ten times what it can do");
    assert!(most.done * 100 >= least.done * 80, "{} were done at more, {} at less", most.done, least.done);
    let calm = offer(&mut script, leader, 10, 10);
    assert_eq!(calm.refused, 0);
    script.converged(2_000).unwrap();
}
