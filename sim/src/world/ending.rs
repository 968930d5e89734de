//! Whether all is well at last: everybody served, every replica alike, nothing left lying about.

use super::World;
use crate::check::promises::standing;
use flotilla_runtime::FileKind;

/// Segments that a core may have: far above what is in use at most, spare, or on its way, which depends on what the slowest
/// follower needed last.
const SEGMENTS_MAX: usize = 64;
/// Files of snapshots for each group: the newest, one being made, one on its way here, one being removed.
const SNAPSHOTS_MAX: usize = 4;

impl World {
    pub(super) fn is_finished(&self) -> bool {
        self.stopping
            && self.clients.is_final()
            && self.clients.list.iter().all(|user| user.served > 0)
            && self.waiting() == 0
            && self.members_agree()
            && self.shards_are_home()
            && self.leak().is_none()
    }

    /// Commands that wait somewhere for something.
    fn waiting(&self) -> usize {
        let living = self.cores.iter().filter_map(|this| this.core.as_ref());
        living.map(|core| core.waiting()).sum()
    }

    /// Files that should be gone: segments that nobody needs are used again or removed, and so are former snapshots. A disk
    /// that stalls holds that up, so it is waited for.
    pub(super) fn leak(&self) -> Option<String> {
        self.cores.iter().find_map(|this| {
            let segments = this.disk.count(FileKind::Segment);
            let snapshots = this.disk.count(FileKind::Snapshot) + this.disk.count(FileKind::Unfinished);
            let groups = this.core.as_ref().map_or(0, |core| core.inspect().groups.len());
            let is_much = segments > SEGMENTS_MAX || snapshots > SNAPSHOTS_MAX * groups;
            is_much
                .then(|| format!("leak: {this} has {segments} segments and {snapshots} files of snapshots"))
        })
    }

    pub(super) fn what_is_wrong(&self) -> String {
        if self.members_agree()
            && let Some(leak) = self.leak()
        {
            return leak;
        }
        let unserved = self.clients.list.iter().filter(|user| user.served == 0).count();
        let (is_final, waiting) = (self.clients.is_final(), self.waiting());
        let mut text = format!(
            "{unserved} clients were not served, final: {is_final}, shards at home: {}, {waiting} commands still wait",
            self.shards_are_home()
        );
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
