//! Clerks that append to keys of their own, exactly once, whatever happens to the groups meanwhile; and clerks that share keys.

use crate::clerk::{Clerk, Done, Wish};
use flotilla_services::client::Reply;
use flotilla_sim::script::Script;

/// Keys that are shared.
const SHARED: u64 = 3;

/// Some clerks, each with a key of its own, and what its appends have made of that.
pub(super) struct Clerks {
    list: Vec<(Clerk, String)>,
    events: u64,
    done: u64,
}

impl Clerks {
    pub(super) fn new(script: &Script, count: usize) -> Self {
        let clerk = |_| (Clerk::new(script.setup().nodes, false), String::new());
        Self { list: (0..count).map(clerk).collect(), events: 0, done: 0 }
    }

    /// Everybody goes on; who is bored appends once more, if it may.
    fn turn(&mut self, script: &mut Script, begins: bool) {
        for (number, (clerk, value)) in self.list.iter_mut().enumerate() {
            if begins && clerk.is_bored(script) {
                let piece = format!("{number}.{} ", value.len());
                clerk.begin(&key_of(number), Wish::Append(piece), &mut self.events);
            }
            let Some(Done { wish: Wish::Append(piece), reply, .. }) = clerk.step(script, &mut self.events)
            else {
                continue;
            };
            value.push_str(&piece);
            let Reply::Integer(length) = reply else { panic!("an append was answered with {reply}") };
            assert_eq!(
                usize::try_from(length).unwrap(),
                value.len(),
                "{} has too much or too little",
                key_of(number)
            );
            self.done += 1;
        }
        script.run_for(1).unwrap();
    }

    /// Lets time pass while they append.
    pub(super) fn work_for(&mut self, script: &mut Script, milliseconds: u64) {
        let end = script.now_ms() + milliseconds;
        while script.now_ms() < end {
            self.turn(script, true);
        }
    }

    /// Appends that were answered.
    pub(super) fn done(&self) -> u64 {
        self.done
    }

    /// Each waits until its last append is answered; then every value is what was appended.
    pub(super) fn finish(mut self, script: &mut Script, limit_ms: u64) {
        let end = script.now_ms() + limit_ms;
        while !self.list.iter().all(|(clerk, _)| clerk.is_idle()) {
            self.turn(script, false);
            assert!(script.now_ms() < end, "some appends aren't answered within {limit_ms} ms");
        }
        for (number, (_, value)) in self.list.iter().enumerate() {
            assert_eq!(super::get(script, &key_of(number)).unwrap_or_default(), *value, "{}", key_of(number));
        }
    }
}

fn key_of(clerk: usize) -> String {
    format!("clerk:{clerk}")
}

/// So many clerks put and get shared keys for so many milliseconds; `meanwhile` is told each hundred milliseconds how many have
/// passed. Returns what was done, and the clerks, who may be at something still.
pub(super) fn share(
    script: &mut Script,
    count: usize,
    milliseconds: u64,
    mut meanwhile: impl FnMut(&mut Script, u64),
) -> (Vec<Done>, Vec<Clerk>) {
    let mut clerks: Vec<Clerk> = (0..count).map(|_| Clerk::new(script.setup().nodes, false)).collect();
    let (mut events, mut value, mut done) = (0, 0_u64, Vec::new());
    let (start, mut told) = (script.now_ms(), 0);
    while script.now_ms() < start + milliseconds {
        for clerk in &mut clerks {
            if clerk.is_bored(script) {
                value += 1;
                let wish = if script.chance(40) { Wish::Put(value.to_string()) } else { Wish::Get };
                clerk.begin(&format!("shared:{}", script.draw(0, SHARED - 1)), wish, &mut events);
            }
            done.extend(clerk.step(script, &mut events));
        }
        script.run_for(1).unwrap();
        while told * 100 <= script.now_ms() - start {
            meanwhile(script, told * 100);
            told += 1;
        }
    }
    (done, clerks)
}
