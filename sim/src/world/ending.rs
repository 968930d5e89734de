//! Whether all is well at last: everybody served, every replica alike, nothing left lying about.

use super::World;
use crate::check::promises::standing;

/// Segments that a core may need in the end: the bound at which groups are made to let go of old ones, and those that they
/// have still to let go of.
const LIVE_SEGMENTS_MAX: usize = 64;

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

    /// Whether somebody has yet to apply what is committed.
    pub(super) fn is_applying(&self) -> bool {
        let living = self.cores.iter().filter_map(|this| this.core.as_ref());
        living.flat_map(|core| core.inspect().groups).any(|group| group.applied < group.commit)
    }

    /// Commands that wait somewhere for something.
    fn waiting(&self) -> usize {
        let living = self.cores.iter().filter_map(|this| this.core.as_ref());
        living.map(|core| core.waiting()).sum()
    }

    /// Files that nobody knows stay until the core starts again. Those that are known and not needed are waited for: a disk
    /// that stalls, or a removal that failed, holds them up.
    pub(super) fn leak(&self) -> Option<String> {
        self.cores.iter().find_map(|this| {
            let core = this.core.as_ref()?;
            if let Some(lost) = this.disk.files().find(|file| !core.has_file(*file)) {
                return Some(format!("leak: {this} has {lost}, and doesn't know it"));
            }
            let inspection = core.inspect();
            let live = inspection.live_segments;
            let pinning = inspection.groups.iter().filter(|group| group.is_pinning);
            let pinning = pinning.map(|it| (it.group, it.first_index, it.last_index, it.log_bytes()));
            (live > LIVE_SEGMENTS_MAX).then(|| {
                format!(
                    "leak: {this} needs {live} segments of its log, the oldest for (group, first, last, bytes) {:?}",
                    pinning.collect::<Vec<_>>()
                )
            })
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
            "{unserved} clients were not served, final: {is_final}, shards astray: {:?}, {waiting} commands still wait",
            self.shards_astray()
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
