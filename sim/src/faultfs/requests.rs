//! What each request does to the folder behind, unless the script says otherwise.

use super::files::{Files, Inode, Open};
use super::script::{Fault, Operation, Script};
use flotilla_services::hands::pause;
use fuser::{FileAttr, FileHandle, FileType, INodeNo, OpenFlags, RenameFlags};
use rustix::fs::{AtFlags, FallocateFlags, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, UNIX_EPOCH};

/// The state that the mounted file system and its owner share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) files: Mutex<Files>,
    pub(super) script: Mutex<Script>,
}

impl Shared {
    pub(super) fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().expect("nobody panics holding it")
    }

    pub(super) fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().expect("nobody panics holding it")
    }

    /// An operation is about to happen. What is left to the caller: to shorten it.
    fn disturb(&self, operation: Operation, name: &str) -> Result<Option<usize>, Errno> {
        let fault = self.script().happens(operation, name);
        match fault {
            Some(Fault::Error(errno)) => Err(errno),
            Some(Fault::Short(bytes)) => Ok(Some(bytes)),
            Some(Fault::Delay(time)) => {
                pause(time);
                Ok(None)
            }
            None => Ok(None),
        }
    }

    pub(super) fn look_up(&self, parent: INodeNo, name: &OsStr) -> io::Result<(FileAttr, Arc<Inode>)> {
        let (number, inode) = self.files().look_up(parent.0, name)?;
        Ok((attributes(number, &inode)?, inode))
    }

    pub(super) fn create(
        &self,
        parent: INodeNo,
        name: &OsStr,
        mode: Mode,
        flags: i32,
    ) -> io::Result<(FileAttr, u64)> {
        self.disturb(Operation::Create, &name.to_string_lossy())?;
        let folder = self.files().inode(parent.0)?;
        let asked = OFlags::from_bits_truncate(flags.cast_unsigned()) & (OFlags::EXCL | OFlags::TRUNC);
        let flags = asked | OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(&folder.path, name, flags, mode)?);
        let (found, inode) = self.look_up(parent, name)?;
        Ok((found, self.files().remember_open(Open { inode, file, entries: Vec::new() })))
    }

    pub(super) fn open_folder(&self, number: INodeNo) -> io::Result<u64> {
        let inode = self.files().inode(number.0)?;
        let file = File::open(format!("/proc/self/fd/{}", inode.path.as_raw_fd()))?;
        let mut entries = Vec::new();
        for entry in rustix::fs::Dir::read_from(&file)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes()).to_owned();
            entries.push((entry.ino(), entry.file_type(), name));
        }
        Ok(self.files().remember_open(Open { inode, file, entries }))
    }

    pub(super) fn write(
        &self,
        handle: FileHandle,
        offset: u64,
        bytes: &[u8],
        flags: OpenFlags,
    ) -> io::Result<u32> {
        let open = self.files().opened(handle.0)?;
        let name = open.inode.name();
        let count = self.disturb(Operation::Write, &name)?.unwrap_or(bytes.len()).min(bytes.len());
        let durable = OFlags::from_bits_retain(flags.0.cast_unsigned()).intersects(OFlags::DSYNC);
        if durable {
            self.disturb(Operation::Sync, &name)?;
        }
        let written = open.inode.write(&open.file, offset, &bytes[..count], durable, &self.script)?;
        Ok(u32::try_from(written).expect("a request is small"))
    }

    pub(super) fn read(&self, handle: FileHandle, offset: u64, bytes: u32) -> io::Result<Vec<u8>> {
        let open = self.files().opened(handle.0)?;
        let bytes =
            self.disturb(Operation::Read, &open.inode.name())?.unwrap_or(bytes as usize).min(bytes as usize);
        let mut content = vec![0; bytes];
        let mut read = 0;
        while read < bytes {
            match open.file.read_at(&mut content[read..], offset + read as u64)? {
                0 => break,
                more => read += more,
            }
        }
        content.truncate(read);
        Ok(content)
    }

    pub(super) fn sync(&self, handle: FileHandle) -> io::Result<()> {
        let open = self.files().opened(handle.0)?;
        if let Err(errno) = self.disturb(Operation::Sync, &open.inode.name()) {
            open.inode.lose_unsynced()?;
            return Err(errno.into());
        }
        open.inode.sync(&open.file)
    }

    pub(super) fn set_attributes(
        &self,
        number: INodeNo,
        mode: Option<u32>,
        size: Option<u64>,
    ) -> io::Result<FileAttr> {
        let inode = self.files().inode(number.0)?;
        if let Some(mode) = mode {
            rustix::fs::fchmod(&inode.open()?, Mode::from_raw_mode(mode))?;
        }
        if let Some(size) = size {
            let freed = inode.length()?.saturating_sub(size);
            inode.set_length(size)?;
            self.script().give_room(freed);
        }
        attributes(number.0, &inode)
    }

    pub(super) fn unlink(&self, parent: INodeNo, name: &OsStr, flags: AtFlags) -> io::Result<()> {
        if flags.is_empty() {
            self.disturb(Operation::Remove, &name.to_string_lossy())?;
        }
        let freed = if flags.is_empty() { self.files().length_freed(parent.0, name) } else { 0 };
        let parent = self.files().inode(parent.0)?;
        rustix::fs::unlinkat(&parent.path, name, flags)?;
        self.script().give_room(freed);
        Ok(())
    }

    pub(super) fn rename(
        &self,
        from: (INodeNo, &OsStr),
        to: (INodeNo, &OsStr),
        flags: RenameFlags,
    ) -> io::Result<()> {
        self.disturb(Operation::Rename, &from.1.to_string_lossy())?;
        let freed = self.files().length_freed(to.0.0, to.1);
        let old = self.files().inode(from.0.0)?;
        let new = self.files().inode(to.0.0)?;
        let flags = rustix::fs::RenameFlags::from_bits_truncate(flags.bits());
        rustix::fs::renameat_with(&old.path, from.1, &new.path, to.1, flags)?;
        self.script().give_room(freed);
        Ok(())
    }

    pub(super) fn fallocate(&self, handle: FileHandle, offset: u64, bytes: u64, mode: i32) -> io::Result<()> {
        let open = self.files().opened(handle.0)?;
        self.disturb(Operation::Fallocate, &open.inode.name())?;
        let growth = (offset + bytes).saturating_sub(open.inode.length()?);
        let fitting = self.script().take_room(growth);
        if fitting < growth {
            self.script().give_room(fitting);
            return Err(Errno::NOSPC.into());
        }
        let mode = FallocateFlags::from_bits_truncate(mode.cast_unsigned());
        Ok(rustix::fs::fallocate(&open.file, mode, offset, bytes)?)
    }
}

pub(super) fn attributes(number: u64, inode: &Inode) -> io::Result<FileAttr> {
    let stat = rustix::fs::fstat(&inode.path)?;
    let time = |seconds: i64, nanoseconds: i64| {
        let seconds = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        UNIX_EPOCH + seconds + Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0))
    };
    Ok(FileAttr {
        ino: INodeNo(number),
        size: u64::try_from(stat.st_size).unwrap_or(0),
        blocks: u64::try_from(stat.st_blocks).unwrap_or(0),
        atime: time(stat.st_atime, stat.st_atime_nsec.cast_signed()),
        mtime: time(stat.st_mtime, stat.st_mtime_nsec.cast_signed()),
        ctime: time(stat.st_ctime, stat.st_ctime_nsec.cast_signed()),
        crtime: UNIX_EPOCH,
        kind: kind(rustix::fs::FileType::from_raw_mode(stat.st_mode)),
        perm: u16::try_from(stat.st_mode & 0o7777).expect("twelve bits"),
        nlink: u32::try_from(stat.st_nlink).unwrap_or(u32::MAX),
        uid: stat.st_uid,
        gid: stat.st_gid,
        rdev: 0,
        blksize: u32::try_from(stat.st_blksize).unwrap_or(4096),
        flags: 0,
    })
}

pub(super) fn kind(kind: rustix::fs::FileType) -> FileType {
    match kind {
        rustix::fs::FileType::Directory => FileType::Directory,
        rustix::fs::FileType::Symlink => FileType::Symlink,
        rustix::fs::FileType::Socket => FileType::Socket,
        rustix::fs::FileType::Fifo => FileType::NamedPipe,
        rustix::fs::FileType::CharacterDevice => FileType::CharDevice,
        rustix::fs::FileType::BlockDevice => FileType::BlockDevice,
        _ => FileType::RegularFile,
    }
}
