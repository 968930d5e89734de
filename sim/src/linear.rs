//! Is a history linearizable? Wing & Gong's search with Lowe's memory, for one register.
//!
//! A history is a set of reads and writes with the times of their calls and returns. An operation whose return was
//! never seen may have taken effect at any time after its call, or never. The search is bounded; a history that it
//! can't decide is reported as undecided, never as good.
//!
//! An operation without a return is tried only where it explains a read: right before one that saw its value. In any order
//! that holds it can be moved there, since between the two nothing but reads of the same value can stand; and what no read
//! saw can be left out.

use crate::fast_hash::FastHash;
use std::collections::{BTreeSet, HashSet};

/// What an operation did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Did {
    /// Set the register (`None`: removed it).
    Write(Option<u64>),
    /// Saw this.
    Read(Option<u64>),
}

/// One operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// When it was called.
    pub called: u64,
    /// When it returned, if it did.
    pub returned: Option<u64>,
    /// What it did.
    pub did: Did,
}

impl Operation {
    /// What it saw, if it is a read.
    fn saw(&self) -> Option<Option<u64>> {
        match self.did {
            Did::Read(saw) => Some(saw),
            Did::Write(_) => None,
        }
    }
}

/// What the search found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order.
    Linearizable,
    /// There is none: no order goes on beyond the operation called at `at`.
    Broken {
        /// When it was called.
        at: u64,
    },
    /// The search was given up.
    Undecided,
}

/// Steps after which the search is given up.
const STEPS_MAX: usize = 2_000_000;

/// Where a search stands.
#[derive(Clone, PartialEq, Eq, Hash)]
struct State {
    /// Every operation that returned before this place (by call) is in the order already...
    base: usize,
    /// ...and of those behind it the ones whose bit is set, counted from `base`.
    ahead: Vec<u64>,
    /// The writes without a return that are in the order, a bit each.
    unreturned: Vec<u64>,
    /// What the register holds.
    value: Option<u64>,
}

fn bit(bits: &[u64], place: usize) -> bool {
    bits.get(place / 64).is_some_and(|word| word >> (place % 64) & 1 == 1)
}

fn set(bits: &mut Vec<u64>, place: usize) {
    if bits.len() <= place / 64 {
        bits.resize(place / 64 + 1, 0);
    }
    bits[place / 64] |= 1 << (place % 64);
}

impl State {
    /// With the operation at `base + offset` in the order, too.
    fn with_returned(&self, offset: usize, value: Option<u64>) -> Self {
        let mut next = Self { value, ..self.clone() };
        if offset > 0 {
            set(&mut next.ahead, offset);
            return next;
        }
        let mut gone = 1;
        while bit(&self.ahead, gone) {
            gone += 1;
        }
        next.base += gone;
        next.ahead.clear();
        for place in gone..self.ahead.len() * 64 {
            if bit(&self.ahead, place) {
                set(&mut next.ahead, place - gone);
            }
        }
        next
    }
}

/// Looks for an order of the operations that agrees with the times and with a register that begins empty.
pub fn check(operations: &[Operation]) -> Verdict {
    let mut returned: Vec<Operation> =
        operations.iter().filter(|op| op.returned.is_some()).copied().collect();
    returned.sort_by_key(|op| (op.called, op.returned));
    // A read that never returned says nothing.
    let writes = operations.iter().filter(|op| op.returned.is_none() && matches!(op.did, Did::Write(_)));
    let mut unreturned: Vec<Operation> = writes.copied().collect();
    unreturned.sort_by_key(|op| op.called);

    let saw: BTreeSet<Option<u64>> = returned.iter().filter_map(|op| op.saw()).collect();
    unreturned.retain(|op| matches!(op.did, Did::Write(value) if saw.contains(&value)));

    let mut seen: HashSet<State, FastHash> = HashSet::default();
    let mut stack = vec![State { base: 0, ahead: Vec::new(), unreturned: Vec::new(), value: None }];
    let (mut steps, mut furthest) = (0, 0);
    while let Some(state) = stack.pop() {
        steps += 1;
        if steps > STEPS_MAX {
            return Verdict::Undecided;
        }
        if state.base == returned.len() {
            return Verdict::Linearizable;
        }
        furthest = furthest.max(state.base);
        // Nothing may be put before what returned before it was called.
        let mut first_return = u64::MAX;
        for (offset, op) in returned[state.base..].iter().enumerate() {
            if op.called > first_return {
                break;
            }
            if !bit(&state.ahead, offset) {
                first_return = first_return.min(op.returned.unwrap_or(u64::MAX));
            }
        }
        let mut next = Vec::new();
        for (offset, op) in returned[state.base..].iter().enumerate() {
            if op.called > first_return {
                break;
            }
            if !bit(&state.ahead, offset) {
                match op.did {
                    Did::Write(value) => next.push(state.with_returned(offset, value)),
                    Did::Read(saw) if saw == state.value => next.push(state.with_returned(offset, saw)),
                    Did::Read(saw) => {
                        // All that were called by now and wrote this are alike: any of them will do.
                        let explains = |(place, op): &(usize, &Operation)| {
                            op.did == Did::Write(saw)
                                && op.called <= first_return
                                && !bit(&state.unreturned, *place)
                        };
                        if let Some((place, _)) = unreturned.iter().enumerate().find(explains) {
                            let mut next_state = state.with_returned(offset, saw);
                            set(&mut next_state.unreturned, place);
                            next.push(next_state);
                        }
                    }
                }
            }
        }
        // The last one is tried first: what returned, before what may never have happened.
        stack.extend(next.into_iter().filter(|state| seen.insert(state.clone())));
    }
    Verdict::Broken { at: returned[furthest].called }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn op(called: u64, returned: u64, did: Did) -> Operation {
        Operation { called, returned: (returned > 0).then_some(returned), did }
    }

    #[test]
    fn known_histories() {
        use Did::{Read, Write};
        let stale = [op(1, 2, Write(Some(1))), op(3, 4, Write(Some(2))), op(5, 6, Read(Some(1)))];
        assert_eq!(check(&stale), Verdict::Broken { at: 5 });
        let overlapping = [op(1, 2, Write(Some(1))), op(3, 7, Write(Some(2))), op(5, 6, Read(Some(1)))];
        assert_eq!(check(&overlapping), Verdict::Linearizable);
        let back_and_forth = [op(1, 9, Write(Some(1))), op(2, 3, Read(Some(1))), op(4, 5, Read(None))];
        assert_eq!(check(&back_and_forth), Verdict::Broken { at: 4 });
        let unknown = [op(1, 0, Write(Some(1))), op(2, 3, Read(None)), op(4, 5, Read(Some(1)))];
        assert_eq!(check(&unknown), Verdict::Linearizable);
        let never = [op(1, 0, Write(Some(1))), op(2, 3, Read(None))];
        assert_eq!(check(&never), Verdict::Linearizable);
    }

    /// Every order of the operations, tried one by one.
    fn brute_force(history: &[Operation], done: &mut Vec<bool>, value: Option<u64>) -> bool {
        let left: Vec<usize> = (0..history.len()).filter(|place| !done[*place]).collect();
        if left.iter().all(|place| history[*place].returned.is_none()) {
            return true;
        }
        for place in &left {
            let op = history[*place];
            let too_late = left.iter().any(|other| history[*other].returned.is_some_and(|at| at < op.called));
            let next = match op.did {
                Did::Write(written) => written,
                Did::Read(saw) if saw == value && op.returned.is_some() => value,
                Did::Read(_) => continue,
            };
            if !too_late {
                done[*place] = true;
                if brute_force(history, done, next) {
                    return true;
                }
                done[*place] = false;
            }
        }
        false
    }

    #[test]
    fn agrees_with_trying_every_order() {
        let mut rng = Rng::new(7);
        let mut verdicts = [0, 0];
        for _ in 0..3000 {
            let history: Vec<Operation> = (0..rng.between(1, 6))
                .map(|number| {
                    let called = rng.between(1, 20);
                    let returned = if rng.between(0, 5) == 0 { 0 } else { called + rng.between(1, 8) };
                    let did = match rng.between(0, 1) {
                        0 => Did::Write(Some(number)),
                        _ => Did::Read(if rng.between(0, 3) == 0 { None } else { Some(rng.between(0, 3)) }),
                    };
                    op(called, returned, did)
                })
                .collect();
            let expected = brute_force(&history, &mut vec![false; history.len()], None);
            let found = check(&history);
            assert_eq!(found == Verdict::Linearizable, expected, "{history:?}");
            assert_ne!(found, Verdict::Undecided);
            verdicts[usize::from(expected)] += 1;
        }
        assert!(verdicts.iter().all(|count| *count > 100), "both verdicts occur: {verdicts:?}");
    }
}
