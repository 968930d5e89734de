//! Numbers as Redis reads and writes them.

/// A whole number in its shortest form: no plus, no leading zeros, no space.
pub fn integer(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    let value: i64 = text.parse().ok()?;
    (value.to_string() == text).then_some(value)
}

/// A floating point number that is one.
pub fn float(text: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(text).ok()?;
    let value: f64 = match text.to_ascii_lowercase().as_str() {
        "inf" | "+inf" | "infinity" | "+infinity" => f64::INFINITY,
        "-inf" | "-infinity" => f64::NEG_INFINITY,
        _ if text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) => text.parse().ok()?,
        _ => return None,
    };
    (!value.is_nan()).then_some(value)
}

/// At most 17 digits behind the point, no trailing zeros, no exponent.
pub fn print_float(value: f64) -> String {
    let text = format!("{value:.17}");
    let shortest = format!("{value}");
    let shorter = if shortest.len() < text.len() { shortest } else { text };
    match shorter.contains('.') {
        true => shorter.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => shorter,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_have_one_form() {
        assert_eq!(
            [&b"12"[..], b"-7", b"0", b"012", b"+1", b" 1", b"", b"-0", b"9223372036854775808"].map(integer),
            [Some(12), Some(-7), Some(0), None, None, None, None, None, None]
        );
    }

    #[test]
    fn floats_are_printed_short() {
        assert_eq!(
            [3.0, 10.6, -5.5, 5e3, 0.1 + 0.2].map(print_float),
            ["3", "10.6", "-5.5", "5000", "0.30000000000000004"]
        );
        assert_eq!(
            [&b"3.5"[..], b"1e3", b"abc", b"", b"nan"].map(float),
            [Some(3.5), Some(1000.0), None, None, None]
        );
    }
}
