//! Is a history linearizable? Wing & Gong's search with Lowe's memory, for one register.
//!
//! A history is a set of reads and writes with the times of their calls and returns. An operation whose return was
//! never seen may have taken effect at any time after its call, or never. The search is bounded; a history that it
//! can't decide is reported as undecided, never as good.

use std::collections::HashSet;

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

/// What the search found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order.
    Linearizable,
    /// There is none.
    Broken,
    /// The search was given up.
    Undecided,
}

/// Steps after which the search is given up.
const STEPS_MAX: usize = 2_000_000;

/// Looks for an order of the operations that agrees with the times and with a register that begins empty.
pub fn check(operations: &[Operation]) -> Verdict {
    // A read that never returned says nothing.
    let keep = |op: &&Operation| op.returned.is_some() || matches!(op.did, Did::Write(_));
    let mut history: Vec<Operation> = operations.iter().filter(keep).copied().collect();
    history.sort_by_key(|op| (op.called, op.returned));
    let words = history.len().div_ceil(64);
    let mut seen = HashSet::new();
    let mut stack = vec![(vec![0_u64; words], None::<u64>)];
    let mut steps = 0;
    while let Some((done, value)) = stack.pop() {
        steps += 1;
        if steps > STEPS_MAX {
            return Verdict::Undecided;
        }
        let is_done = |place: usize| done[place / 64] >> (place % 64) & 1 == 1;
        let open = || (0..history.len()).filter(|place| !is_done(*place));
        let Some(first_return) = open().filter_map(|place| history[place].returned).min() else {
            return Verdict::Linearizable;
        };
        for place in open() {
            let op = history[place];
            if op.called > first_return {
                break;
            }
            let next = match op.did {
                Did::Write(written) => written,
                Did::Read(saw) if saw == value => value,
                Did::Read(_) => continue,
            };
            let mut then = done.clone();
            then[place / 64] |= 1 << (place % 64);
            if seen.insert((then.clone(), next)) {
                stack.push((then, next));
            }
        }
    }
    Verdict::Broken
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
        assert_eq!(check(&stale), Verdict::Broken);
        let overlapping = [op(1, 2, Write(Some(1))), op(3, 7, Write(Some(2))), op(5, 6, Read(Some(1)))];
        assert_eq!(check(&overlapping), Verdict::Linearizable);
        let back_and_forth = [op(1, 9, Write(Some(1))), op(2, 3, Read(Some(1))), op(4, 5, Read(None))];
        assert_eq!(check(&back_and_forth), Verdict::Broken);
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
            assert_eq!(found, if expected { Verdict::Linearizable } else { Verdict::Broken }, "{history:?}");
            verdicts[usize::from(expected)] += 1;
        }
        assert!(verdicts.iter().all(|count| *count > 100), "both verdicts occur: {verdicts:?}");
    }
}
