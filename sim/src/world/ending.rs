//! Whether all is well at last: everybody served, every replica alike, nothing left lying about.

use super::World;
use crate::check::promises::standing;
use flotilla_runtime::FileKind;

/// Segments that a core may have: in use at most, spare, and one each being made and being removed.
const SEGMENTS_MAX: usize = 8 + 2 + 2;

impl World {
    pub(super) fn is_finished(&self) -> bool {
        self.stopping
            && self.clients.is_final()
            && self.clients.list.iter().all(|user| user.served > 0)
            && self.waiting() == 0
            && self.members_agree()
    }

    /// Commands that wait somewhere for something.
    fn waiting(&self) -> usize {
        let living = self.cores.iter().filter_map(|this| this.core.as_ref());
        living.map(|core| core.waiting()).sum()
    }

    /// Segments that nobody needs are used again or removed.
    ///
    /// # Errors
    /// What leaks.
    pub(super) fn nothing_leaks(&self) -> Result<(), String> {
        for this in &self.cores {
            let segments = this.disk.count(FileKind::Segment);
            if segments > SEGMENTS_MAX {
                return Err(format!("leak: {this} has {segments} segments"));
            }
        }
        Ok(())
    }

    pub(super) fn what_is_wrong(&self) -> String {
        let unserved = self.clients.list.iter().filter(|user| user.served == 0).count();
        let (is_final, waiting) = (self.clients.is_final(), self.waiting());
        let mut text =
            format!("{unserved} clients were not served, final: {is_final}, {waiting} commands still wait");
        for this in &self.cores {
            match &this.core {
                Some(core) => {
                    let (waiting, groups) = (core.waiting(), standing(&core.inspect()));
                    text.push_str(&format!("; {this} {groups}, {waiting} waiting"));
                }
                None => text.push_str(&format!("; {this} is down")),
            }
        }
        text
    }
}
