//! The files under a [`FaultFs`](super::FaultFs): which of them the kernel knows, which are open, and what of their
//! content isn't durable yet.

use super::script::Script;
use rustix::fs::{AtFlags, Mode, OFlags, fstat, openat, statat};
use rustix::io::{Errno, ReadWriteFlags, pwritev2};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard};

/// The inode number that FUSE gives to the root.
const ROOT: u64 = 1;

/// What a loss of power would take back.
#[derive(Debug, Default)]
struct Unsynced {
    /// The length that the file would have; `None`: everything is durable.
    durable_length: Option<u64>,
    /// What was there before each write, oldest first: offset and bytes.
    before: Vec<(u64, Vec<u8>)>,
}

/// A file or folder that the kernel knows.
#[derive(Debug)]
pub(super) struct Inode {
    /// Good for its attributes, and for opening it, whatever it is called by now.
    pub(super) path: OwnedFd,
    name: Mutex<String>,
    unsynced: Mutex<Unsynced>,
}

/// What is open.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) inode: Arc<Inode>,
    pub(super) file: File,
    /// Of a folder: number, kind and name of everything in it.
    pub(super) entries: Vec<(u64, rustix::fs::FileType, OsString)>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics holding it")
}

impl Inode {
    pub(super) fn new(path: OwnedFd, name: String) -> Self {
        Self { path, name: Mutex::new(name), unsynced: Mutex::default() }
    }

    /// The name under which it was last looked for.
    pub(super) fn name(&self) -> String {
        locked(&self.name).clone()
    }

    pub(super) fn length(&self) -> io::Result<u64> {
        Ok(u64::try_from(fstat(&self.path)?.st_size).expect("no file has a negative size"))
    }

    /// Opens it for reading and writing, whatever the kernel's client wants it for.
    pub(super) fn open(&self) -> io::Result<File> {
        File::options().read(true).write(true).open(format!("/proc/self/fd/{}", self.path.as_raw_fd()))
    }

    /// Writes, if there is room for all of it. What is `durable` outlives a loss of power, alone.
    pub(super) fn write(
        &self,
        file: &File,
        offset: u64,
        bytes: &[u8],
        durable: bool,
        script: &Mutex<Script>,
    ) -> io::Result<usize> {
        let mut unsynced = locked(&self.unsynced);
        let length = self.length()?;
        let growth = (offset + bytes.len() as u64).saturating_sub(length);
        let fitting = locked(script).take_room(growth);
        if fitting < growth {
            locked(script).give_room(fitting);
            return Err(Errno::NOSPC.into());
        }
        if durable {
            let written = pwritev2(file, &[IoSlice::new(bytes)], offset, ReadWriteFlags::DSYNC)?;
            unsynced.keep(offset, &bytes[..written]);
            return Ok(written);
        }
        let mut before = vec![0; bytes.len()];
        let mut read = 0;
        while read < before.len() {
            match file.read_at(&mut before[read..], offset + read as u64)? {
                0 => break,
                more => read += more,
            }
        }
        unsynced.durable_length.get_or_insert(length);
        unsynced.before.push((offset, before));
        file.write_at(bytes, offset)
    }

    pub(super) fn sync(&self, file: &File) -> io::Result<()> {
        let mut unsynced = locked(&self.unsynced);
        file.sync_data()?;
        *unsynced = Unsynced::default();
        Ok(())
    }

    /// Takes back what isn't durable.
    pub(super) fn lose_unsynced(&self) -> io::Result<()> {
        let Unsynced { durable_length, before } = std::mem::take(&mut *locked(&self.unsynced));
        let Some(length) = durable_length else { return Ok(()) };
        let file = self.open()?;
        for (offset, bytes) in before.into_iter().rev() {
            file.write_all_at(&bytes, offset)?;
        }
        file.set_len(length)
    }

    /// Its length changed at once and for good.
    pub(super) fn set_length(&self, length: u64) -> io::Result<()> {
        let mut unsynced = locked(&self.unsynced);
        self.open()?.set_len(length)?;
        if let Some(durable) = &mut unsynced.durable_length {
            *durable = length;
        }
        Ok(())
    }

    fn is_durable(&self) -> bool {
        locked(&self.unsynced).durable_length.is_none()
    }
}

impl Unsynced {
    /// These bytes are durable, whatever becomes of the writes before them.
    fn keep(&mut self, offset: u64, bytes: &[u8]) {
        let end = offset + bytes.len() as u64;
        if let Some(length) = &mut self.durable_length {
            *length = end.max(*length);
        }
        for (at, before) in &mut self.before {
            let (from, to) = (offset.max(*at), end.min(*at + before.len() as u64));
            if from < to {
                let place = |of: u64, start: u64| usize::try_from(of - start).expect("within a write");
                before[place(from, *at)..place(to, *at)]
                    .copy_from_slice(&bytes[place(from, offset)..place(to, offset)]);
            }
        }
    }
}

/// Everything that the kernel knows or has open, by number.
#[derive(Debug)]
pub(super) struct Files {
    known: BTreeMap<u64, (Arc<Inode>, u64)>,
    open: BTreeMap<u64, Arc<Open>>,
    last_open: u64,
}

impl Files {
    pub(super) fn new(root: OwnedFd) -> Self {
        let root = Arc::new(Inode::new(root, String::new()));
        Self { known: BTreeMap::from([(ROOT, (root, 1))]), open: BTreeMap::new(), last_open: 0 }
    }

    pub(super) fn inode(&self, number: u64) -> Result<Arc<Inode>, Errno> {
        self.known.get(&number).map(|(inode, _)| Arc::clone(inode)).ok_or(Errno::STALE)
    }

    /// Finds a name in a folder; the kernel knows it from now on.
    pub(super) fn look_up(&mut self, parent: u64, name: &OsStr) -> Result<(u64, Arc<Inode>), Errno> {
        let parent = self.inode(parent)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let path = openat(&parent.path, name, flags, Mode::empty())?;
        let number = fstat(&path)?.st_ino;
        let name = name.to_string_lossy().into_owned();
        let (inode, lookups) =
            self.known.entry(number).or_insert_with(|| (Arc::new(Inode::new(path, String::new())), 0));
        *lookups += 1;
        *locked(&inode.name) = name;
        Ok((number, Arc::clone(inode)))
    }

    /// The kernel forgets what it had looked up. What isn't durable yet we remember, for a loss of power.
    pub(super) fn forget(&mut self, number: u64, lookups: u64) {
        if let Some((inode, known)) = self.known.get_mut(&number) {
            *known = known.saturating_sub(lookups);
            if *known == 0 && number != ROOT && inode.is_durable() {
                self.known.remove(&number);
            }
        }
    }

    /// The length of a file whose name is about to go, if that is its last.
    pub(super) fn length_freed(&self, parent: u64, name: &OsStr) -> u64 {
        let Ok(parent) = self.inode(parent) else { return 0 };
        match statat(&parent.path, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if stat.st_nlink == 1 => u64::try_from(stat.st_size).unwrap_or(0),
            _ => 0,
        }
    }

    pub(super) fn remember_open(&mut self, open: Open) -> u64 {
        self.last_open += 1;
        self.open.insert(self.last_open, Arc::new(open));
        self.last_open
    }

    pub(super) fn opened(&self, handle: u64) -> Result<Arc<Open>, Errno> {
        self.open.get(&handle).cloned().ok_or(Errno::BADF)
    }

    pub(super) fn close(&mut self, handle: u64) {
        self.open.remove(&handle);
    }

    pub(super) fn all(&self) -> Vec<Arc<Inode>> {
        self.known.values().map(|(inode, _)| Arc::clone(inode)).collect()
    }
}
