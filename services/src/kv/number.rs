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

/// The sum of two floating point numbers as it is stored; `None` if it is none.
///
/// Redis adds with 64 bits of precision and prints 17 digits behind the point. What has no more digits than that, and fewer
/// than 22 before the point, is added exactly here, with the same result; anything else with the 53 bits of an `f64`.
pub fn add_floats(one: &[u8], other: &[u8]) -> Option<String> {
    let exact = decimal(one).zip(decimal(other)).and_then(|(one, other)| one.checked_add(other));
    if let Some(sum) = exact {
        return Some(print_decimal(sum));
    }
    let sum = float(one)? + float(other)?;
    sum.is_finite().then(|| print_float(sum))
}

/// Digits behind the point.
const DECIMALS: usize = 17;
const UNIT: u128 = 10_u128.pow(17);

/// A number in units of its last decimal, if it has no more decimals and isn't too large.
fn decimal(text: &[u8]) -> Option<i128> {
    let text = std::str::from_utf8(text).ok()?;
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (digits, exponent) = digits.split_once(['e', 'E']).unwrap_or((digits, "0"));
    let exponent: i32 = exponent.parse().ok()?;
    let (whole, decimals) = digits.split_once('.').unwrap_or((digits, ""));
    if ![whole, decimals].iter().all(|text| text.bytes().all(|byte| byte.is_ascii_digit())) {
        return None;
    }
    // The digits, and how many zeros behind them make it a whole number of units.
    let digits = format!("{whole}{decimals}");
    let decimals = i32::try_from(decimals.len()).ok()?;
    let zeros = i32::try_from(DECIMALS).ok()?.checked_sub(decimals)?.checked_add(exponent)?;
    let zeros = usize::try_from(zeros).ok().filter(|zeros| digits.len() + zeros <= 21 + DECIMALS)?;
    let value: i128 = format!("{digits}{:0<zeros$}", "").parse().ok()?;
    Some(if negative { -value } else { value })
}

fn print_decimal(value: i128) -> String {
    let (whole, decimals) = (value.unsigned_abs() / UNIT, value.unsigned_abs() % UNIT);
    let sign = if value < 0 { "-" } else { "" };
    let text = format!("{sign}{whole}.{decimals:0DECIMALS$}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// At most 17 digits behind the point, no trailing zeros, no exponent.
fn print_float(value: f64) -> String {
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
        assert_eq!([3.0, 10.6, -5.5, 5e3].map(print_float), ["3", "10.6", "-5.5", "5000"]);
        for (one, other, sum) in [
            ("0.1", "0.2", Some("0.3")),
            ("1", "-1.1", Some("-0.1")),
            ("10.50", "0.1", Some("10.6")),
            ("-3", "3.0", Some("0")),
            ("5.0e3", "2.0e2", Some("5200")),
            ("17179869184", "1.5", Some("17179869185.5")),
            ("+1.", "-.25", Some("0.75")),
            ("9223372036854775806", "1e2", Some("9223372036854775906")),
            ("1e-3", "25E-1", Some("2.501")),
            ("1", "inf", None),
        ] {
            let found = add_floats(one.as_bytes(), other.as_bytes());
            assert_eq!(found.as_deref(), sum, "{one} + {other}");
        }
        assert_eq!(
            [&b"3.5"[..], b"1e3", b"abc", b"", b"nan"].map(float),
            [Some(3.5), Some(1000.0), None, None, None]
        );
    }
}
