//! What the groups are called: by a number from 0, and one that is none of those for the controller's.

use crate::kv::number;

/// The number of the controller's group, which serves no shard.
pub(crate) const CONTROLLER: u32 = u32::MAX;

/// At the head of a line: `group 3`, or `controller`.
pub(crate) fn name_of(number: u32) -> String {
    if number == CONTROLLER { "controller".to_owned() } else { format!("group {number}") }
}

/// In a sentence: `group 3`, or `the controller`.
pub(crate) fn in_words(number: u32) -> String {
    if number == CONTROLLER { "the controller".to_owned() } else { format!("group {number}") }
}

/// In a command: `3`, or `controller`.
pub(crate) fn word_of(number: u32) -> String {
    if number == CONTROLLER { "controller".to_owned() } else { number.to_string() }
}

/// Reads [`word_of`] back; `None` if it names no group of any cluster.
pub(crate) fn parse(word: &[u8]) -> Option<u32> {
    if word.eq_ignore_ascii_case(b"CONTROLLER") {
        return Some(CONTROLLER);
    }
    number::integer(word).and_then(|number| u32::try_from(number).ok()).filter(|number| *number != CONTROLLER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_back_and_the_controller_has_no_number() {
        for number in [0, 7, CONTROLLER] {
            assert_eq!(parse(word_of(number).as_bytes()), Some(number));
        }
        assert_eq!(parse(b"Controller"), Some(CONTROLLER));
        for word in [&b"4294967295"[..], b"-1", b"", b"group 3"] {
            assert_eq!(parse(word), None);
        }
    }
}
