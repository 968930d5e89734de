//! Numbers in as few bytes as they need: seven bits a byte, the lowest first.

/// Appends a number.
#[inline]
pub fn put(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push((n & 0x7f) as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Reads a number from the front: it and its length. `None` if it isn't whole, or none.
#[inline]
pub fn get(bytes: &[u8]) -> Option<(u64, usize)> {
    let first = *bytes.first()?;
    if first < 0x80 {
        return Some((u64::from(first), 1));
    }
    let mut n = u64::from(first & 0x7f);
    for (place, byte) in bytes.iter().enumerate().skip(1).take(9) {
        n |= u64::from(byte & 0x7f) << (7 * place);
        if *byte < 0x80 {
            return Some((n, place + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_comes_back_and_half_of_one_does_not() {
        for n in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = Vec::new();
            put(&mut bytes, n);
            assert_eq!(get(&bytes), Some((n, bytes.len())));
            assert_eq!(get(&bytes[..bytes.len() - 1]), None);
        }
        assert_eq!(get(&[0xff; 20]), None);
    }
}
