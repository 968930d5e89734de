//! A file system that injects faults: hands everything on to a folder behind it, except what its owner has scripted.
//!
//! For tests of what runs on the real driver. `LD_PRELOAD` and `strace` don't see what goes through io_uring, and a
//! device that fails needs kernel modules; a FUSE file system needs `/dev/fuse` and root only. It lives in the process
//! that mounts it, on threads of its own, until the [`FaultFs`] is dropped.
//!
//! | file | what |
//! |---|---|
//! | `script.rs` | which operations fail, and when |
//! | `files.rs` | inodes, open files, and what of their content isn't durable yet |
//! | `requests.rs` | what each request does to the folder behind |
//! | `passthrough.rs` | the kernel's requests, taken apart and answered |
//!
//! A loss of power takes back writes, but neither names nor folders.
//!
//! A process that is killed leaves its mounts behind, and can't even end if it was waiting for one of them. The next
//! one that mounts clears them away; by hand it is `umount -f -l`.

mod files;
mod passthrough;
mod requests;
mod script;

pub use rustix::io::Errno;
pub use script::{Fault, Operation, RuleId, When};

use files::Files;
use fuser::{BackgroundSession, Config, MountOption};
use passthrough::Passthrough;
use requests::Shared;
use rustix::fs::{Mode, OFlags};
use rustix::mount::{UnmountFlags, unmount};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// Requests answered at a time: one that is delayed doesn't hold up the others.
const THREADS: usize = 4;
/// How its mounts are called in `/proc/mounts`, before the number of the process.
const SOURCE: &str = "flotilla-faultfs-";

/// A file system that can't be mounted.
#[derive(Debug, thiserror::Error)]
#[error("can't mount {} over {}: {source}", backing.display(), mounted.display())]
pub struct MountError {
    /// The folder behind.
    pub backing: PathBuf,
    /// Where it should have appeared.
    pub mounted: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// A mounted file system. Dropped, it is unmounted, whoever uses it.
#[derive(Debug)]
pub struct FaultFs {
    backing: PathBuf,
    mounted: PathBuf,
    shared: Arc<Shared>,
    session: Option<BackgroundSession>,
}

/// Why this process can't mount, if it can't.
pub fn unavailable() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("mounting needs root".to_owned());
    }
    let device = File::options().read(true).write(true).open("/dev/fuse");
    device.err().map(|error| format!("/dev/fuse: {error}"))
}

/// For tests: whether this process can mount. If it can't, and nobody insists, that is said aloud.
///
/// # Panics
/// If `FLOTILLA_REQUIRE_FUSE` is set.
pub fn is_here() -> bool {
    let Some(reason) = unavailable() else { return true };
    let insisted = std::env::var_os("FLOTILLA_REQUIRE_FUSE").is_some();
    assert!(!insisted, "a file system with faults is required, and can't be had: {reason}");
    eprintln!("skipped: no file system with faults can be mounted ({reason})");
    false
}

impl FaultFs {
    /// Shows the folder `backing` at `mounted`. Both are made if they are missing.
    ///
    /// # Errors
    /// [`MountError`].
    pub fn mount(backing: &Path, mounted: &Path) -> Result<Self, MountError> {
        let failed = |source| MountError { backing: backing.into(), mounted: mounted.into(), source };
        sweep();
        for folder in [backing, mounted] {
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(backing, flags, Mode::empty()).map_err(|errno| failed(errno.into()))?;
        let shared = Arc::new(Shared { files: Mutex::new(Files::new(root)), script: Mutex::default() });
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName(format!("{SOURCE}{}", std::process::id()))];
        config.n_threads = Some(THREADS);
        let session =
            fuser::spawn_mount(Passthrough(Arc::clone(&shared)), mounted, &config).map_err(failed)?;
        Ok(Self { backing: backing.into(), mounted: mounted.into(), shared, session: Some(session) })
    }

    /// The folder behind, untouched by any rule.
    pub fn backing(&self) -> &Path {
        &self.backing
    }

    /// The folder in which things go wrong.
    pub fn mounted(&self) -> &Path {
        &self.mounted
    }

    /// From now on, `fault` happens to the operations on files whose names match `pattern` (`*` stands for anything),
    /// `when` they are so many. If several rules apply, the eldest does.
    pub fn inject(&self, operation: Operation, pattern: &str, when: When, fault: Fault) -> RuleId {
        self.shared.script().add(operation, pattern, when, fault)
    }

    /// How often a rule has applied.
    pub fn fired(&self, rule: RuleId) -> u64 {
        self.shared.script().fired(rule)
    }

    /// Files may grow by so many bytes in all; a write that goes beyond fails with `ENOSPC`. What is removed makes
    /// room again. `None`: as far as the disk goes.
    pub fn set_room(&self, bytes: Option<u64>) {
        self.shared.script().set_room(bytes);
    }

    /// No rule applies any more, and there is room again.
    pub fn heal(&self) {
        self.shared.script().heal();
    }

    /// How many of these operations there were on files whose names match.
    pub fn count(&self, operation: Operation, pattern: &str) -> u64 {
        self.shared.script().count(operation, pattern)
    }

    /// The power fails: whatever was written and not synced is as it was before. Whoever had written it must be dead.
    ///
    /// # Errors
    /// Of the folder behind.
    pub fn lose_unsynced(&self) -> io::Result<()> {
        let all = self.shared.files().all();
        all.iter().try_for_each(|inode| inode.lose_unsynced())
    }
}

impl Drop for FaultFs {
    fn drop(&mut self) {
        // By force, so that nobody who still uses it can hold us up. It fails only if it isn't mounted any more.
        let _ = unmount(&self.mounted, UnmountFlags::FORCE | UnmountFlags::DETACH);
        if let Some(session) = self.session.take() {
            // Its threads have ended with an error of theirs, or without: either way they are gone.
            let _ = session.umount_and_join();
        }
    }
}

/// Unmounts what tests left behind that were killed.
fn sweep() {
    let Ok(mounts) = std::fs::read_to_string("/proc/self/mounts") else { return };
    for line in mounts.lines() {
        let mut fields = line.split(' ');
        let owner = fields.next().and_then(|source| source.strip_prefix(SOURCE));
        let (Some(owner), Some(mounted)) = (owner, fields.next()) else { continue };
        let stat = std::fs::read_to_string(format!("/proc/{owner}/stat"));
        let is_dead =
            stat.map_or(true, |stat| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')));
        if is_dead {
            // Somebody else may sweep, too.
            let _ = unmount(mounted, UnmountFlags::FORCE | UnmountFlags::DETACH);
        }
    }
}

#[cfg(test)]
mod tests;
