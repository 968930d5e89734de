//! Jobs over types instead of bytes.
//!
//! [`Typed`] makes a [`Job`] of a [`TypedJob`]: keys and values are encoded so that keys compare as their types do.

use super::job::{Combiner, Done, Emit, InputFormat, Job, Record, Values};
use std::fmt::Display;
use std::marker::PhantomData;

/// A type that can be a key or a value.
pub trait Field: Sized {
    /// Appends its bytes; those of two keys compare as the keys do.
    fn encode(&self, out: &mut Vec<u8>);
    /// Reads it back; `None` if these are no such bytes.
    fn decode(bytes: &[u8]) -> Option<Self>;
}

impl Field for String {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        std::str::from_utf8(bytes).ok().map(str::to_owned)
    }
}

impl Field for Vec<u8> {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        Some(bytes.to_vec())
    }
}

impl Field for u64 {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_be_bytes());
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self::from_be_bytes)
    }
}

impl Field for i64 {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.cast_unsigned() ^ 1 << 63).to_be_bytes());
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(|bytes| (u64::from_be_bytes(bytes) ^ 1 << 63).cast_signed())
    }
}

impl Field for f64 {
    fn encode(&self, out: &mut Vec<u8>) {
        let bits = self.to_bits();
        let ordered = if bits >> 63 == 0 { bits | 1 << 63 } else { !bits };
        out.extend_from_slice(&ordered.to_be_bytes());
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        let bits = bytes.try_into().ok().map(u64::from_be_bytes)?;
        Some(Self::from_bits(if bits >> 63 == 0 { !bits } else { bits & !(1 << 63) }))
    }
}

impl Field for () {
    fn encode(&self, _: &mut Vec<u8>) {}
    fn decode(bytes: &[u8]) -> Option<Self> {
        bytes.is_empty().then_some(())
    }
}

/// Makes one value of two.
pub type Combine<V> = fn(V, V) -> V;

/// A job over lines of text and types.
pub trait TypedJob: Send + Sync + 'static {
    /// By what is grouped and sorted.
    type Key: Field + Display;
    /// What goes with it.
    type Value: Field;
    /// What becomes of a key's values.
    type Output: Display;

    /// Looks at one line; `emit` takes pairs.
    ///
    /// # Errors
    /// Any.
    fn map(&self, line: &str, emit: &mut dyn FnMut(Self::Key, Self::Value)) -> Done;

    /// Puts two values of a key together, if that can be done before all are there, and in any order.
    fn combine(&self) -> Option<Combine<Self::Value>> {
        None
    }

    /// Looks at a key and its values.
    ///
    /// # Errors
    /// Any.
    fn reduce(
        &self,
        key: &Self::Key,
        values: &mut dyn Iterator<Item = Self::Value>,
    ) -> Result<Self::Output, Box<dyn std::error::Error + Send + Sync>>;
}

/// A [`TypedJob`] as a [`Job`].
#[derive(Debug)]
pub struct Typed<T>(pub T);

struct Decoded<'a, V> {
    values: &'a mut dyn Values,
    bad: bool,
    of: PhantomData<V>,
}

impl<V: Field> Iterator for Decoded<'_, V> {
    type Item = V;
    fn next(&mut self) -> Option<V> {
        let value = V::decode(self.values.next()?);
        self.bad |= value.is_none();
        value
    }
}

impl<T: TypedJob> Job for Typed<T> {
    fn input(&self) -> InputFormat {
        InputFormat::Lines
    }

    fn combiner(&self) -> Combiner {
        if self.0.combine().is_some() { Combiner::Fold } else { Combiner::None }
    }

    fn map(&self, record: &Record<'_>, out: &mut dyn Emit) -> Done {
        let line = String::from_utf8_lossy(record.bytes);
        let (mut key, mut value) = (Vec::new(), Vec::new());
        self.0.map(&line, &mut |one: T::Key, other: T::Value| {
            key.clear();
            value.clear();
            one.encode(&mut key);
            other.encode(&mut value);
            out.emit(&key, &value);
        })
    }

    fn fold(&self, _: &[u8], into: &mut Vec<u8>, value: &[u8]) {
        if let (Some(combine), Some(one), Some(other)) =
            (self.0.combine(), T::Value::decode(into), T::Value::decode(value))
        {
            into.clear();
            combine(one, other).encode(into);
        }
    }

    fn reduce(&self, key: &[u8], values: &mut dyn Values, out: &mut dyn Emit) -> Done {
        let key = T::Key::decode(key).ok_or("a key that can't be decoded")?;
        let mut decoded = Decoded { values, bad: false, of: PhantomData };
        let output = self.0.reduce(&key, &mut decoded)?;
        if decoded.bad {
            return Err("a value that can't be decoded".into());
        }
        out.emit(key.to_string().as_bytes(), output.to_string().as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(field: &impl Field) -> Vec<u8> {
        let mut out = Vec::new();
        field.encode(&mut out);
        out
    }

    #[test]
    fn keys_compare_as_their_types_do() {
        let numbers = [i64::MIN, -300, -1, 0, 1, 255, 256, i64::MAX];
        assert!(numbers.map(|n| bytes(&n)).is_sorted());
        assert!(numbers.iter().all(|n| i64::decode(&bytes(n)) == Some(*n)));
        let floats = [f64::NEG_INFINITY, -1.5, -1.0, 0.0, 1e-300, 1.0, 2.5, f64::INFINITY];
        assert!(floats.map(|n| bytes(&n)).is_sorted());
        assert!(floats.iter().all(|n| f64::decode(&bytes(n)) == Some(*n)));
        assert!([0_u64, 1, 256, u64::MAX].map(|n| bytes(&n)).is_sorted());
        assert_eq!(u64::decode(b"short"), None);
    }
}
