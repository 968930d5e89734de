//! Commands that wait, as copies: readers for their tickets, everybody during a handover.

use super::group::Call;
use super::remote::Origin;
use crate::command::Spec;
use crate::entry::Args;
use crate::slot::Slot;

/// A command that can't be executed yet: a copy of it.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) origin: Origin,
    pub(super) spec: &'static Spec,
    pub(super) slot: Option<Slot>,
    command: Vec<u8>,
    /// Where each argument ends in it.
    ends: Vec<u32>,
}

impl Held {
    pub(super) fn new(call: &Call<'_>) -> Self {
        let mut command = Vec::with_capacity(call.args.iter().map(|arg| arg.len()).sum());
        let mut ends = Vec::with_capacity(call.args.len());
        for arg in call.args {
            command.extend_from_slice(arg);
            ends.push(u32::try_from(command.len()).expect("a request is bounded far below 4 GiB"));
        }
        Self { origin: call.origin, spec: call.spec, slot: call.slot, command, ends }
    }

    pub(super) fn args(&self) -> Args<'_> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.command[start as usize..*end as usize]).collect()
    }

    /// Memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.command.len() + self.ends.len() * size_of::<u32>()
    }

    /// The command again. It is behind others of its client, perhaps.
    pub(super) fn call(&self, act: impl FnOnce(&Call<'_>)) {
        let (origin, spec, slot) = (self.origin, self.spec, self.slot);
        act(&Call { origin, spec, slot, args: &self.args(), in_order: true });
    }
}
