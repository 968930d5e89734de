//! What several commands read and say in the same words.

use std::ops::RangeInclusive;

/// A number of bytes, for people.
pub(super) fn bytes(value: u64) -> String {
    #[allow(clippy::cast_precision_loss, reason = "for people")]
    let mut value = value as f64;
    let mut unit = "B";
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, next);
    }
    if unit == "B" || value >= 10.0 { format!("{value:.0} {unit}") } else { format!("{value:.1} {unit}") }
}

/// A number of seconds that somebody has typed.
pub(super) fn seconds(text: &str, allowed: RangeInclusive<f64>) -> Result<f64, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| allowed.contains(seconds));
    seconds.ok_or_else(|| format!("{} to {} seconds", allowed.start(), allowed.end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_two_digits_or_more() {
        let said = [17, 1023, 1536, 10 << 20, 3 << 40].map(bytes);
        assert_eq!(said, ["17 B", "1023 B", "1.5 KiB", "10 MiB", "3.0 TiB"]);
    }

    #[test]
    fn seconds_are_a_number_within_bounds() {
        assert_eq!(seconds("0.5", 0.1..=600.0), Ok(0.5));
        for bad in ["x", "", "0", "601", "NaN", "-1"] {
            assert_eq!(seconds(bad, 0.1..=600.0), Err("0.1 to 600 seconds".to_owned()), "{bad}");
        }
    }
}
