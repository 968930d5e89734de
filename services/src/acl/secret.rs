//! Passwords, as little of them as is needed: a hash, compared in constant time and never shown by accident.

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use sha2::{Digest, Sha256};
use std::fmt;
use subtle::ConstantTimeEq;

/// Bytes of a hash.
const HASH_BYTES: usize = 32;

/// The SHA-256 of a password, as Redis keeps it. Comparisons take the same time wherever two differ.
#[derive(Clone, Copy)]
pub struct PasswordHash([u8; HASH_BYTES]);

impl PasswordHash {
    /// Of a password.
    pub fn of(password: &[u8]) -> Self {
        Self(Sha256::digest(password).into())
    }

    /// From 64 lowercase hexadecimal digits.
    pub fn parse(hex: &[u8]) -> Option<Self> {
        if hex.len() != 2 * HASH_BYTES {
            return None;
        }
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let mut bytes = [0; HASH_BYTES];
        for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Self(bytes))
    }

    /// 64 lowercase hexadecimal digits.
    pub fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl PartialEq for PasswordHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for PasswordHash {}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(redacted)")
    }
}

impl Serialize for PasswordHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.hex())
    }
}

impl<'de> Deserialize<'de> for PasswordHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Hex)
    }
}

/// What a hash must look like. Whatever else is there isn't repeated in the error: it may be a password.
const FORM: &str = "must be the SHA-256 of the password, exactly 64 characters and only lowercase hexadecimal ones, \
                    as `printf %s PASSWORD | sha256sum` shows it";

struct Hex;

impl Visitor<'_> for Hex {
    type Value = PasswordHash;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a hash")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<PasswordHash, E> {
        PasswordHash::parse(text.as_bytes()).ok_or_else(|| E::custom(FORM))
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<PasswordHash, E> {
        Err(E::custom(FORM))
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<PasswordHash, E> {
        Err(E::custom(FORM))
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<PasswordHash, E> {
        Err(E::custom(FORM))
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<PasswordHash, E> {
        Err(E::custom(FORM))
    }
}

/// A secret on its way from whoever knows it to where it is used: `Debug` doesn't show it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Of these bytes.
    pub fn new(secret: impl Into<Vec<u8>>) -> Self {
        Self(secret.into())
    }

    /// The bytes.
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(redacted)")
    }
}

/// Random bytes that nobody can foretell from those before: a hash is drawn, and what it was drawn from replaced by
/// another.
pub(super) struct Randomness([u8; HASH_BYTES]);

impl Randomness {
    pub(super) fn new(seed: [u8; HASH_BYTES]) -> Self {
        Self(seed)
    }

    /// Hexadecimal digits.
    pub(super) fn hex(&mut self, digits: usize) -> String {
        let mut text = String::new();
        while text.len() < digits {
            let draw = |purpose: u8| Sha256::new().chain_update(self.0).chain_update([purpose]).finalize();
            text.push_str(&PasswordHash(draw(0).into()).hex());
            self.0 = draw(1).into();
        }
        text.truncate(digits);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_that_of_redis() {
        let hex = "34344e4d60c2b6d639b7bd22e18f2b0b91bc34bf0ac5f9952744435093cfb4e6";
        let hash = PasswordHash::of(b"passwd4");
        assert_eq!((hash.hex(), PasswordHash::parse(hex.as_bytes())), (hex.to_owned(), Some(hash)));
        assert_ne!(hash, PasswordHash::of(b"passwd5"));
        for bad in [&hex[1..], &hex.to_uppercase(), &format!("{}q", &hex[1..]), ""] {
            assert_eq!(PasswordHash::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let shown = format!("{:?} {:?}", PasswordHash::of(b"x"), Secret::new("geheim"));
        assert_eq!(shown, "(redacted) (redacted)");
    }

    #[test]
    fn random_digits_are_as_many_as_asked_for_and_never_the_same() {
        let mut randomness = Randomness::new([7; 32]);
        let drawn: Vec<String> = [1, 64, 64, 1024].map(|digits| randomness.hex(digits)).into();
        assert_eq!(drawn.iter().map(String::len).collect::<Vec<_>>(), [1, 64, 64, 1024]);
        assert_ne!(drawn[1], drawn[2]);
        assert_eq!(drawn[0], Randomness::new([7; 32]).hex(1));
    }
}
