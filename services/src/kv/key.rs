//! A key as the trees of a shard hold it.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::ops::Deref;

/// Bytes of a key that needs no memory of its own.
const SHORT_MAX: usize = 22;

/// A key in 24 bytes: as most are short, they lie in the tree's nodes themselves. To look for one in a tree of millions costs little but the
/// memory that isn't in a cache, and an address that has to be followed for each comparison would be most of that.
///
/// Keys have the order of their bytes.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Key {
    /// Behind `length` there are zeros.
    Short { length: u8, bytes: [u8; SHORT_MAX] },
    /// Longer than that.
    Long(Box<[u8]>),
}

const _: () = assert!(size_of::<Key>() == 24);

impl Key {
    /// A short key: without an allocation.
    pub(super) fn short(key: &[u8]) -> Option<Self> {
        let mut bytes = [0; SHORT_MAX];
        bytes.get_mut(..key.len())?.copy_from_slice(key);
        Some(Self::Short { length: key.len() as u8, bytes })
    }
}

impl From<&[u8]> for Key {
    fn from(key: &[u8]) -> Self {
        Self::short(key).unwrap_or_else(|| Self::Long(key.into()))
    }
}

impl Deref for Key {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Short { length, bytes } => &bytes[..usize::from(*length)],
            Self::Long(bytes) => bytes,
        }
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        self
    }
}

/// The zeros behind a key are less than whatever another has there; if it has zeros there as well, it is the longer one.
fn in_order(bytes: &[u8; SHORT_MAX]) -> (u128, u64) {
    let (first, rest) = bytes.split_first_chunk::<16>().expect("there are 22");
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    (u128::from_be_bytes(*first), u64::from_be_bytes(last))
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Short { length, bytes }, Self::Short { length: other_length, bytes: other }) => {
                in_order(bytes).cmp(&in_order(other)).then(length.cmp(other_length))
            }
            _ => (**self).cmp(&**other),
        }
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Around the longest short one, and alike.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop::sample::select(&[0_u8, 1, 255][..]), 0..=SHORT_MAX + 3)
    }

    proptest! {
        #[test]
        fn keys_have_the_order_of_their_bytes(one in bytes(), other in bytes(), common in 0..=SHORT_MAX) {
            let mut near = one.clone();
            near.truncate(common);
            near.extend_from_slice(other.get(common..).unwrap_or_default());
            for other in [&other, &near] {
                let keys = (Key::from(&one[..]), Key::from(&other[..]));
                prop_assert_eq!((&*keys.0, &*keys.1), (&one[..], &other[..]));
                prop_assert_eq!(keys.0.cmp(&keys.1), one.cmp(other));
                prop_assert_eq!(keys.0 == keys.1, one == *other);
                prop_assert_eq!(Key::short(&one).is_some(), one.len() <= SHORT_MAX);
            }
        }
    }
}
