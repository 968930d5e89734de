//! Scenes that no dice would play: step by step to where a planted bug must show.

use crate::script::{Script, Setup};
use flotilla_consensus::{Kind, Role};

/// An answer that a leader got in an earlier term comes again when it leads anew, and meanwhile the entry that it was about
/// is another one, which the follower that gave it doesn't have.
///
/// # Errors
/// The rule that broke, or the step that didn't come.
pub fn late_answer(seed: u64) -> Result<(), String> {
    let mut script = Script::new(Setup::new(5).seed(seed));
    let old = script.elected(10_000)?;
    script.one(&["SET", "key", "everywhere"], 5, true)?;
    let leader = script.elected(10_000)?;
    if leader != old {
        return Err("scene: the leadership has changed by itself".to_owned());
    }
    let follower = (leader + 1) % 5;
    script.partition(&[leader, follower]);
    script.record();
    let lost = script.ask(leader, &["SET", "key", "on two of five"]);
    script.run_for(100)?;
    let (index, _) = script.placed(lost).ok_or("scene: the old leader took nothing")?;
    let tape = script.take_tape();
    let is_answer = |sent: &&crate::script::Sent| {
        (sent.from, sent.to) == (follower, leader) && sent.kinds.contains(&Kind::AppendReply)
    };
    let answer = tape.iter().rfind(is_answer).ok_or("scene: the follower didn't answer")?.clone();

    let others: Vec<usize> = (0..5).filter(|node| ![leader, follower].contains(node)).collect();
    let leads = |script: &Script, node: usize| script.role(node) == Some(Role::Leader);
    script.wait(10_000, "the others elect", |script| others.iter().any(|node| leads(script, *node)))?;
    let next = others.iter().copied().find(|node| leads(&script, *node)).unwrap_or(others[0]);
    let kept = script.ask(next, &["SET", "key", "on three of five"]);
    script.answered(kept, 10_000)?;
    script.partition(&[follower]);
    let is_replaced = |script: &Script| script.commit(leader) >= index && !leads(script, leader);
    script.wait(10_000, "the old leader follows and has the new entry", is_replaced)?;
    let transfer = script.ask(next, &["FLOTILLA.TRANSFER", "0", &(leader + 1).to_string()]);
    script.wait(10_000, "the old leader leads again", |script| leads(script, leader))?;
    script.deliver_late(&answer);
    script.run_for(20)?;
    script.hang_up(next, transfer);
    Ok(())
}
