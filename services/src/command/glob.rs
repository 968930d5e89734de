//! Patterns of keys.

/// Whether `text` matches a pattern of `*`, `?`, `[a-z]` and plain characters, as Redis' `KEYS` does.
///
/// A mismatch goes back to the last `*` only: what an earlier one could take, that one could as well. So the time is
/// bounded by the two lengths multiplied, whatever the pattern.
pub fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut read) = (0, 0);
    // Behind the last star, and where the text goes on that it hasn't taken.
    let mut star: Option<(usize, usize)> = None;
    while at < pattern.len() || read < text.len() {
        if pattern.get(at) == Some(&b'*') {
            at += 1;
            star = Some((at, read));
            continue;
        }
        if let Some(next) = text.get(read).and_then(|byte| matches_one(pattern, at, *byte)) {
            (at, read) = (next, read + 1);
            continue;
        }
        match star {
            Some((behind, taken)) if taken < text.len() => {
                star = Some((behind, taken + 1));
                (at, read) = (behind, taken + 1);
            }
            _ => return false,
        }
    }
    true
}

/// Where the pattern goes on if what is at `at` matches the byte.
fn matches_one(pattern: &[u8], at: usize, byte: u8) -> Option<usize> {
    match *pattern.get(at)? {
        b'?' => Some(at + 1),
        b'[' => {
            let (matches, next) = matches_class(pattern, at + 1, byte);
            matches.then_some(next)
        }
        b'\\' if at + 1 < pattern.len() => (pattern[at + 1] == byte).then_some(at + 2),
        plain => (plain == byte).then_some(at + 1),
    }
}

/// Whether a byte is in the class that begins at `at`, and where the class ends. One that isn't closed ends with the pattern.
fn matches_class(pattern: &[u8], mut at: usize, byte: u8) -> (bool, usize) {
    let is_negated = pattern.get(at) == Some(&b'^');
    at += usize::from(is_negated);
    let mut is_in = false;
    while let Some(first) = pattern.get(at) {
        match (*first, pattern.get(at + 1), pattern.get(at + 2)) {
            (b'\\', Some(escaped), _) => {
                is_in |= *escaped == byte;
                at += 2;
            }
            (b']', _, _) => {
                at += 1;
                break;
            }
            (low, Some(b'-'), Some(high)) => {
                is_in |= (low.min(*high)..=low.max(*high)).contains(&byte);
                at += 3;
            }
            (plain, _, _) => {
                is_in |= plain == byte;
                at += 1;
            }
        }
    }
    (is_in != is_negated, at)
}

#[cfg(test)]
mod tests {
    use super::glob;

    #[test]
    fn patterns_match_as_in_redis() {
        for (pattern, text, matches) in [
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("h?llo", "hello", true),
            ("h[ae]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-b]llo", "hbllo", true),
            ("h[b-a]llo", "hbllo", true),
            ("h[\\]a]llo", "h]llo", true),
            ("h[ae", "ha", true),
            ("h[", "h[", false),
            ("a**c", "abc", true),
            ("a*b*c", "aXbYbZc", true),
            ("*ab", "aab", true),
            ("*ab", "aba", false),
            ("a\\*c", "abc", false),
            ("a\\*c", "a*c", true),
            ("max*", "maxmemory", true),
            ("max", "maxmemory", false),
            ("a?", "a", false),
        ] {
            assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), matches, "{pattern} {text}");
        }
    }

    #[test]
    fn many_stars_take_no_time() {
        let text = "a".repeat(50_000);
        assert!(!glob(format!("{}b", "a*".repeat(1000)).as_bytes(), text.as_bytes()));
    }

    /// By the definition, as slow as that is.
    fn slow(pattern: &[u8], text: &[u8]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some((b'*', rest)) => (0..=text.len()).any(|skip| slow(rest, &text[skip..])),
            Some((first, rest)) => {
                text.first().is_some_and(|byte| *first == b'?' || first == byte) && slow(rest, &text[1..])
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn as_the_definition_says(pattern in "[ab*?]{0,8}", text in "[ab]{0,8}") {
            let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
            proptest::prop_assert_eq!(glob(pattern, text), slow(pattern, text));
        }
    }
}
