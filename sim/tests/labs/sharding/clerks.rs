//! Clients that append to keys of their own, exactly once, whatever happens to the groups meanwhile.

use flotilla_services::client::Reply;
use flotilla_sim::script::{Answer, CallId, Script, is_for_another};

/// A clerk tries another node when it hasn't heard for so long.
const PATIENCE_MS: u64 = 400;

struct Clerk {
    key: String,
    session: String,
    /// Numbers of its writes; what was acknowledged is up to the one before.
    write: u64,
    value: String,
    call: Option<(CallId, u64)>,
    /// It was sent, and its answer must be had.
    is_begun: bool,
}

/// Some clerks, each with a key, a session, and one append on its way at a time.
pub(super) struct Clerks {
    list: Vec<Clerk>,
    is_ending: bool,
}

impl Clerks {
    /// So many, on keys that spread over the shards.
    pub(super) fn new(script: &mut Script, count: usize) -> Self {
        let clerk = |number: usize| {
            let key = format!("clerk:{number}");
            let session = match script.clerk(&["FLOTILLA.SESSION", &key], 20_000).unwrap() {
                Reply::Integer(session) => session.to_string(),
                other => panic!("a session was answered with {other}"),
            };
            Clerk { key, session, write: 1, value: String::new(), call: None, is_begun: false }
        };
        Self { list: (0..count).map(clerk).collect(), is_ending: false }
    }

    /// Looks at what was answered, and appends on.
    fn turn(&mut self, script: &mut Script) {
        let now = script.now_ms();
        for (number, clerk) in self.list.iter_mut().enumerate() {
            let token = format!("{number}.{} ", clerk.write);
            if let Some((call, since)) = clerk.call {
                match script.answer(call) {
                    Some(Answer::Reply(Reply::Integer(length))) => {
                        clerk.value.push_str(&token);
                        assert_eq!(
                            *length,
                            clerk.value.len() as i64,
                            "{} has one too many or few",
                            clerk.key
                        );
                        (clerk.write, clerk.call, clerk.is_begun) = (clerk.write + 1, None, false);
                    }
                    Some(Answer::Reply(Reply::Error(error))) if is_for_another(error) => clerk.call = None,
                    Some(Answer::Lost) => clerk.call = None,
                    Some(answer) => panic!("{}: {answer:?}", clerk.key),
                    None if now >= since + PATIENCE_MS => clerk.call = None,
                    None => {}
                }
            }
            if clerk.call.is_none() && (clerk.is_begun || !self.is_ending) {
                clerk.is_begun = true;
                let token = format!("{number}.{} ", clerk.write);
                let (write, acknowledged) = (clerk.write.to_string(), (clerk.write - 1).to_string());
                let args =
                    ["FLOTILLA.ONCE", &clerk.session, &write, &acknowledged, "APPEND", &clerk.key, &token];
                clerk.call = script.ask_any(&args).map(|call| (call, now));
            }
        }
    }

    /// Lets time pass while they append.
    pub(super) fn work_for(&mut self, script: &mut Script, milliseconds: u64) {
        let end = script.now_ms() + milliseconds;
        while script.now_ms() < end {
            self.turn(script);
            script.run_for(5).unwrap();
        }
    }

    /// Appends that were answered.
    pub(super) fn done(&self) -> u64 {
        self.list.iter().map(|clerk| clerk.write - 1).sum()
    }

    /// Each waits until its last append is answered; then every value is what was appended.
    pub(super) fn finish(mut self, script: &mut Script, limit_ms: u64) {
        self.is_ending = true;
        let end = script.now_ms() + limit_ms;
        while self.list.iter().any(|clerk| clerk.is_begun) {
            self.turn(script);
            script.run_for(5).unwrap();
            assert!(script.now_ms() < end, "some appends aren't answered within {limit_ms} ms");
        }
        for clerk in &self.list {
            assert_eq!(super::get(script, &clerk.key).unwrap_or_default(), clerk.value, "{}", clerk.key);
        }
    }
}
