//! Words: the longest runs of letters, as Unicode has them, in UTF-8.
//!
//! 64 bytes at a time become a mask with a bit for every byte of a letter, and words are its runs of ones. English text
//! takes no branch for a byte; only blocks with bytes beyond ASCII are decoded.

/// Calls `word(start, end)` for every word.
#[inline]
pub fn words(text: &[u8], mut word: impl FnMut(usize, usize)) {
    // The word that goes on over the edge of a chunk; bits of a letter that does.
    let (mut open, mut carry) = (None, 0_u64);
    let mut at = 0;
    while at < text.len() {
        let (mut letters, beyond) = match text[at..].first_chunk() {
            Some(chunk) => classify(chunk),
            None => {
                let mut padded = [0; 64];
                padded[..text.len() - at].copy_from_slice(&text[at..]);
                classify(&padded)
            }
        };
        if beyond != 0 || carry != 0 {
            (letters, carry) = decode(text, at, letters | carry, beyond);
        }
        let mut left = letters;
        if let Some(start) = open {
            let ones = (!left).trailing_zeros() as usize;
            if ones == 64 {
                at += 64;
                continue;
            }
            word(start, at + ones);
            open = None;
            left = left >> ones << ones;
        }
        while left != 0 {
            let start = left.trailing_zeros() as usize;
            let length = (!(left >> start)).trailing_zeros() as usize;
            if start + length == 64 {
                open = Some(at + start);
                break;
            }
            word(at + start, at + start + length);
            left = left >> (start + length) << (start + length);
        }
        at += 64;
    }
    if let Some(start) = open {
        word(start, text.len());
    }
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// A bit for every byte that is an ASCII letter, and one for every byte that isn't ASCII.
#[inline]
fn classify(chunk: &[u8; 64]) -> (u64, u64) {
    let (mut letters, mut beyond) = (0, 0);
    for place in 0..8 {
        let bytes = u64::from_le_bytes(chunk[place * 8..place * 8 + 8].try_into().expect("eight bytes"));
        let lower = (bytes | (ONES * 0x20)) & !HIGH;
        // The high bit says: at least 'a', and not above 'z'.
        let is_letter = (lower + ONES * (0x80 - 0x61)) & !(lower + ONES * (0x80 - 0x7b)) & !bytes & HIGH;
        letters |= gather(is_letter) << (place * 8);
        beyond |= gather(bytes & HIGH) << (place * 8);
    }
    (letters, beyond)
}

/// The high bits of eight bytes, side by side.
#[inline]
fn gather(high: u64) -> u64 {
    (high >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56
}

/// Adds the letters beyond ASCII that begin in the chunk at `at`; returns also the bits that lie in the next.
#[cold]
fn decode(text: &[u8], at: usize, mut letters: u64, mut beyond: u64) -> (u64, u64) {
    let mut carry = 0;
    while beyond != 0 {
        let place = beyond.trailing_zeros() as usize;
        beyond &= beyond - 1;
        let Some((letter, length)) = letter_at(&text[at + place..]) else { continue };
        if letter {
            let bits = ((1_u128 << length) - 1) << place;
            letters |= bits as u64;
            carry |= (bits >> 64) as u64;
        }
    }
    (letters, carry)
}

/// Whether a character begins here that is a letter, and its length. Continuation bytes and nonsense are none.
fn letter_at(bytes: &[u8]) -> Option<(bool, usize)> {
    let length = match bytes[0] {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => return None,
    };
    let text = std::str::from_utf8(bytes.get(..length)?).ok()?;
    Some((text.chars().next()?.is_alphabetic(), length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &[u8]) -> Vec<&[u8]> {
        let mut found = Vec::new();
        words(text, |start, end| found.push(&text[start..end]));
        found
    }

    #[test]
    fn words_are_those_of_the_characters_at_every_place_of_a_chunk() {
        let texts = [
            "The quick brown fox; it's a façade — naïve “quotes” and αβγ, 日本語 too!",
            "",
            "x",
            "@AZ[`az{ 0 9",
            "onewordthatismuchlongerthansixtyfourbytesandsogoesonoverseveralchunksofthetextwithoutanyend",
        ];
        for text in texts {
            for shift in 0..70 {
                let text = " ".repeat(shift) + text;
                let expected: Vec<&str> =
                    text.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty()).collect();
                let expected: Vec<&[u8]> = expected.into_iter().map(str::as_bytes).collect();
                assert_eq!(found(text.as_bytes()), expected, "{shift} {text}");
            }
        }
    }

    #[test]
    fn every_ascii_byte_is_what_it_is_and_nonsense_separates() {
        for byte in 0..128_u8 {
            assert_eq!(found(&[byte]).len(), usize::from(byte.is_ascii_alphabetic()), "{byte}");
        }
        assert_eq!(found(b"ab\xffcd\xc3"), [b"ab", b"cd"]);
        assert_eq!(found(b"ab\xe9\xa9"), [b"ab"]);
    }
}
