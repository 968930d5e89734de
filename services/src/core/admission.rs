//! Which writes a group takes: those that won't wait for too long.
//!
//! A leader that is given more than its disk and its followers can do must say so at once. Queueing only makes everybody
//! wait, and once clients give up, what is done is done for nobody. So a write is refused **before** it enters the log, when
//! it would wait for longer than `limits.write_wait_ms_max` (the bound).
//!
//! How long it would wait isn't told from the length of the queue alone: a thousand writes are nothing on one disk and a
//! second on another. As in CoDel, what counts is for how long the queue has been standing:
//!
//! ```text
//! the oldest waiting write has waited
//!    for longer than the bound                     refused: nothing moves, or far too slowly
//!    for longer than an eighth of it,
//!    and others have been done twice meanwhile     refused if the queue, at the rate at which it is drained now, lasts for
//!                                                  longer than half the bound
//! something was refused lately                      the same, at the rate of then
//! else                                              taken
//! ```
//!
//! Twice: what comes while a commit is under way is in the next one, if the disk keeps up. Who has seen two and still waits
//! is in a queue that stands, and only then is the rate at which it is drained what is possible, and not what was asked. Commits
//! that are under way at once end at once: they count as one. And while nothing at all is done, there is no rate to go by: a
//! disk that pauses is slow once the pause is longer than the bound, and not because little was asked for before.
//!
//! So a burst after quiet times is taken whole, however long: nobody has waited yet, and how fast the disk is when it has
//! much to do isn't known yet. Under lasting overload the queue stays at half the bound, which leaves the other half for the
//! disk's moods, and it is never empty: nothing that could be done is left undone.
//!
//! The rate is remembered for as long as writes are refused. If the queue runs empty meanwhile, it was too low. Work is counted
//! in bytes, with an allowance for each entry.
//!
//! Beyond this, a group bounds the entries and bytes that aren't committed ([`flotilla_consensus::RaftConfig`]), and the log
//! those of its open frame: they bound memory whatever the rate, and what is taken before overload is noticed.

use flotilla_runtime::Nanos;
use flotilla_runtime::machine::MILLISECOND;
use std::collections::VecDeque;

/// What an entry costs besides its bytes, in bytes.
const ENTRY_WORK: u64 = 512;
/// Writes up to so much work share a mark, if they come within a millisecond.
const MARK_WORK_MAX: u64 = 64 * 1024;

/// The first of some writes that came together.
#[derive(Clone, Copy, Debug)]
struct Mark {
    index: u64,
    since: Nanos,
    /// All work that was taken before it.
    before: u64,
    /// How often others had been done by then.
    batches: u64,
}

/// So much work in so much time.
#[derive(Clone, Copy, Debug)]
struct Rate {
    work: u64,
    span: Nanos,
}

/// One group's queue of writes that aren't applied yet, as far as admission needs to know it.
#[derive(Debug)]
pub(super) struct Admission {
    /// The bound; 0: none.
    wait_max: Nanos,
    /// In the order of their indices.
    marks: VecDeque<Mark>,
    /// Work taken, and done, since the beginning.
    taken: u64,
    done: u64,
    /// How often some was done, a thirty-second of the bound apart; and when that was last.
    batches: u64,
    batch_at: Nanos,
    /// When some was done last.
    done_at: Nanos,
    /// (when, work done by then): since the queue was empty last, and no older than a quarter of the bound.
    samples: VecDeque<(Nanos, u64)>,
    /// What was drained in what time when the last write was refused, and when that was.
    rate: Option<Rate>,
    refused_at: Nanos,
    /// Writes that were refused.
    pub(super) refused_total: u64,
}

impl Admission {
    /// A write may wait for so long from here on; 0: for as long as it takes.
    pub(super) fn set_wait_max(&mut self, wait_ms_max: u64) {
        self.wait_max = wait_ms_max.saturating_mul(MILLISECOND);
    }

    /// `wait_ms_max`: see the module; 0 takes everything.
    pub(super) fn new(wait_ms_max: u64) -> Self {
        Self {
            wait_max: wait_ms_max.saturating_mul(MILLISECOND),
            marks: VecDeque::new(),
            taken: 0,
            done: 0,
            batches: 0,
            batch_at: 0,
            done_at: 0,
            samples: VecDeque::new(),
            rate: None,
            refused_at: 0,
            refused_total: 0,
        }
    }

    /// Whether a write that comes now may enter the log. Counts it if not.
    pub(super) fn admits(&mut self, now: Nanos) -> bool {
        let Some(head) = self.marks.front().filter(|_| self.wait_max > 0) else { return true };
        let age = now.saturating_sub(head.since);
        let is_moving = now.saturating_sub(self.done_at) <= self.wait_max / 16;
        let is_standing = age > self.wait_max / 8 && self.batches >= head.batches + 2 && is_moving;
        let is_refusing = self.is_refusing(now);
        if age <= self.wait_max && !is_standing && !is_refusing {
            return true;
        }
        let measured = self.measured(now).filter(|_| is_standing);
        let known = if is_refusing { self.rate } else { None };
        let rate = measured.or(known);
        let queued = u128::from(self.taken - self.done);
        let is_short = |rate: Rate| {
            queued * u128::from(rate.span) <= u128::from(rate.work) * u128::from(self.wait_max / 2)
        };
        if age <= self.wait_max && rate.is_none_or(is_short) {
            return true;
        }
        self.rate = measured.or(self.rate);
        self.refused_at = now;
        self.refused_total += 1;
        false
    }

    /// Whether something was refused lately, and the rate of then is known.
    fn is_refusing(&self, now: Nanos) -> bool {
        self.rate.is_some() && now < self.refused_at.saturating_add(self.wait_max)
    }

    /// The rate of late, if the queue has been standing for long enough to tell.
    fn measured(&self, now: Nanos) -> Option<Rate> {
        let (since, done) = self.samples.front()?;
        let rate = Rate { work: self.done - done, span: now.saturating_sub(*since) };
        (rate.span >= self.wait_max / 16 && rate.work > 0).then_some(rate)
    }

    /// A write of so many bytes has entered the log at `index`.
    pub(super) fn took(&mut self, now: Nanos, index: u64, bytes: usize) {
        let is_new = self.marks.back().is_none_or(|mark| {
            now > mark.since.saturating_add(MILLISECOND) || self.taken - mark.before >= MARK_WORK_MAX
        });
        if is_new {
            let batches = self.batches;
            self.marks.push_back(Mark { index, since: now, before: self.taken, batches });
        }
        self.taken += bytes as u64 + ENTRY_WORK;
    }

    /// Everything up to `index` is applied.
    pub(super) fn applied(&mut self, now: Nanos, index: u64) {
        if self.marks.is_empty() {
            return;
        }
        // A mark is gone once the next one's first write is due, or everything is done.
        while self.marks.get(1).is_some_and(|next| next.index <= index + 1) {
            self.marks.pop_front();
        }
        let done = self.marks.front().map_or(self.taken, |mark| mark.before);
        let every = self.wait_max / 32;
        if done > self.done {
            (self.done, self.done_at) = (done, now);
            if now >= self.batch_at + every {
                (self.batches, self.batch_at) = (self.batches + 1, now);
            }
        }
        if self.samples.back().is_none_or(|(at, _)| now >= at + every) {
            self.samples.push_back((now, self.done));
        }
        while self.samples.get(1).is_some_and(|(at, _)| at + self.wait_max / 4 <= now) {
            self.samples.pop_front();
        }
    }

    /// Nobody waits any more: everything is applied, or another node leads.
    pub(super) fn emptied(&mut self, now: Nanos) {
        if self.marks.is_empty() {
            return;
        }
        self.marks.clear();
        self.samples.clear();
        self.done = self.taken;
        match self.is_refusing(now) {
            // More could have been taken.
            true => self.rate = self.rate.map(|rate| Rate { work: rate.work.saturating_mul(2), ..rate }),
            false => self.rate = None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What consensus bounds besides.
    const ENTRIES_MAX: usize = 64 * 1024;
    const BYTES: usize = 488;
    const WORK: u64 = BYTES as u64 + ENTRY_WORK;

    /// A group whose writes are applied in order, so much work in a millisecond.
    struct Queue {
        admission: Admission,
        /// When each waiting write came.
        waiting: VecDeque<Nanos>,
        now: Nanos,
        last: u64,
        /// Work that could be done, and hasn't been.
        credit: u64,
        /// Milliseconds that each write of this phase waited, and how many were refused.
        waited: Vec<u64>,
        refused: u64,
    }

    impl Queue {
        fn new(wait_ms_max: u64) -> Self {
            let admission = Admission::new(wait_ms_max);
            let (waiting, waited) = Default::default();
            Self { admission, waiting, now: 0, last: 0, credit: 0, waited, refused: 0 }
        }

        fn offer(&mut self, writes: u64) {
            for _ in 0..writes {
                if self.waiting.len() < ENTRIES_MAX && self.admission.admits(self.now) {
                    self.last += 1;
                    self.admission.took(self.now, self.last, BYTES);
                    self.waiting.push_back(self.now);
                } else {
                    self.refused += 1;
                }
            }
        }

        /// Lets milliseconds pass in each of which so many writes come and so many could be done.
        fn run(&mut self, milliseconds: u64, offered: u64, possible: u64) {
            (self.waited, self.refused) = (Vec::new(), 0);
            for _ in 0..milliseconds {
                self.now += MILLISECOND;
                self.offer(offered);
                self.credit += possible * WORK;
                // A commit takes two milliseconds.
                if (self.now / MILLISECOND).is_multiple_of(2) {
                    while self.credit >= WORK && !self.waiting.is_empty() {
                        let since = self.waiting.pop_front().unwrap();
                        self.waited.push((self.now - since) / MILLISECOND);
                        self.credit -= WORK;
                    }
                    if self.waiting.is_empty() {
                        self.credit = 0;
                        self.admission.emptied(self.now);
                    } else {
                        let applied = self.last - self.waiting.len() as u64;
                        self.admission.applied(self.now, applied);
                    }
                }
            }
            self.waited.sort_unstable();
        }

        fn percentile(&self, of: usize) -> u64 {
            self.waited[(self.waited.len() - 1) * of / 100]
        }
    }

    #[test]
    fn what_can_be_done_is_taken() {
        let mut queue = Queue::new(1000);
        for offered in [1, 50, 100] {
            queue.run(10_000, offered, 100);
            assert_eq!((queue.refused, queue.waited.len() as u64), (0, offered * 10_000));
        }
    }

    #[test]
    fn under_lasting_overload_everything_possible_is_done_and_nobody_waits_for_longer_than_the_bound() {
        for (wait, times) in [(1000, 2), (1000, 10), (1000, 100), (200, 10), (5000, 10)] {
            let mut queue = Queue::new(wait);
            // However it begins.
            queue.run(8000 + wait, 10 * times, 10);
            queue.run(10 * wait, 10 * times, 10);
            let (done, possible) = (queue.waited.len() as u64, 10 * wait * 10);
            assert!(done * 100 >= possible * 99, "{wait} ms, {times}: {done} of {possible}");
            let (middle, most) = (queue.percentile(50), queue.percentile(100));
            assert!(middle >= wait / 4 && most <= wait + 2, "{wait} ms, {times}: {middle} and {most}");
            assert_eq!(queue.admission.refused_total > 0, queue.refused > 0);
            assert!(queue.refused > (times - 1) * possible * 9 / 10);
            // And when it is over, nothing of it is left.
            queue.run(2 * wait, 5, 10);
            queue.run(wait, 5, 10);
            assert_eq!((queue.refused, queue.percentile(100)), (0, 1), "{wait} ms, {times}");
        }
    }

    #[test]
    fn a_burst_after_quiet_times_is_taken_whole() {
        let mut queue = Queue::new(1000);
        queue.run(1000, 1, 100);
        queue.offer(60_000);
        assert_eq!(queue.refused, 0, "they wait for less than a second");
        queue.run(602, 0, 100);
        assert_eq!(queue.waited.len(), 60_000);
    }

    #[test]
    fn a_disk_that_becomes_slower_is_noticed_and_one_that_becomes_faster_too() {
        let mut queue = Queue::new(1000);
        queue.run(5000, 1000, 100);
        for possible in [25, 200, 10, 400] {
            // What was taken at the old rate is done at the new one.
            queue.run(10_000, 1000, possible);
            queue.run(5000, 1000, possible);
            let (done, most) = (queue.waited.len() as u64, queue.percentile(100));
            assert!(done * 100 >= 5000 * possible * 99, "{done} at {possible}");
            assert!(most <= 1100, "{most} ms at {possible}");
        }
    }

    #[test]
    fn when_nothing_moves_writes_are_refused_after_the_bound_and_taken_again_afterwards() {
        let mut queue = Queue::new(1000);
        queue.run(1000, 10, 100);
        queue.run(1000, 10, 0);
        assert!(queue.refused <= 10, "{}", queue.refused);
        queue.run(1000, 10, 0);
        assert!(queue.refused >= 9990, "{}", queue.refused);
        queue.run(300, 10, 100);
        queue.run(1000, 10, 100);
        assert_eq!((queue.refused, queue.percentile(100)), (0, 1));
        // A stall that is shorter is nobody's business.
        for stall in [20, 100] {
            queue.run(stall, 10, 0);
            assert_eq!(queue.refused, 0);
            queue.run(1000, 10, 100);
            assert_eq!(queue.refused, 0, "after {stall} ms");
        }
    }

    #[test]
    fn a_pause_just_after_a_slow_moment_isn_t_taken_for_the_rate() {
        // Some wait for a little longer while the disk is slow, and then nothing is done for less than the bound.
        for (slow, pause) in [(10, 120), (30, 110), (30, 400), (60, 800)] {
            let mut queue = Queue::new(1000);
            queue.run(1000, 10, 100);
            for (milliseconds, possible) in [(slow, 5), (pause, 0), (1000, 100), (1000, 100)] {
                queue.run(milliseconds, 10, possible);
                assert_eq!(queue.refused, 0, "{slow} ms, {pause} ms, at {possible}");
            }
            assert_eq!(queue.percentile(100), 1);
        }
    }

    #[test]
    fn a_slow_disk_that_keeps_up_isn_t_taken_for_a_queue() {
        // A commit takes 300 ms, whatever is in it.
        let mut queue = Queue::new(1000);
        for burst in [1, 1, 1, 1, 1, 1, 1, 1, 40, 1, 1, 500, 1, 1] {
            for _ in 0..3 {
                queue.run(299, 0, 0);
                queue.offer(burst);
                queue.run(1, 0, 1000);
                assert_eq!(queue.refused, 0, "{burst}");
            }
        }
    }

    #[test]
    fn without_a_bound_everything_is_taken() {
        let mut queue = Queue::new(0);
        queue.run(1000, 50, 10);
        assert_eq!(queue.refused, 0);
    }

    #[test]
    fn memory_is_that_of_a_few_marks() {
        let mut queue = Queue::new(1000);
        queue.run(5000, 1000, 100);
        let (marks, samples) = (queue.admission.marks.len(), queue.admission.samples.len());
        assert!(marks <= 1200 && samples <= 10, "{marks} marks, {samples} samples");
    }
}
