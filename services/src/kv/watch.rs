//! Who reads a shard's data a little at a time while it changes: a snapshot of a moment ([`super::frozen`]), and a copy that
//! follows ([`super::copying`]). Both hear of every change.

use super::copying::Copying;
use super::frozen::Frozen;
use super::keyspace::{Entry, Keyspace};

/// Those who read.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch {
    pub(super) frozen: Option<Box<Frozen>>,
    pub(super) copying: Option<Box<Copying>>,
}

impl Watch {
    /// A key changes. Whether somebody needs its entry as it was: then [`Self::put_aside`] is next.
    pub(super) fn note(&mut self, key: &[u8]) -> bool {
        let copy_needs = self.copying.as_mut().is_some_and(|copying| copying.note(key));
        copy_needs || self.frozen.as_ref().is_some_and(|frozen| frozen.needs(key))
    }

    /// Its entry, as it was; `None` if there was none.
    pub(super) fn put_aside(&mut self, key: &[u8], former: Option<Entry>) {
        if let (Some(copying), Some(former)) = (&mut self.copying, &former)
            && copying.is_halfway(key)
        {
            copying.put_aside(former.clone());
        }
        if let Some(frozen) = self.frozen.as_mut().filter(|frozen| frozen.needs(key)) {
            frozen.put_aside(key, former);
        }
    }
}

impl Keyspace {
    /// A fresh keyspace, but for those who read it.
    pub(super) fn empty(&mut self) {
        let Self { keys, mut watch, .. } = std::mem::take(self);
        if let Some(frozen) = &mut watch.frozen {
            frozen.put_all_aside(keys);
        }
        if let Some(copying) = &mut watch.copying {
            copying.make_void();
        }
        self.watch = watch;
    }
}
