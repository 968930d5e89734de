//! The kernel's requests, taken apart and answered.
//!
//! Every file is opened so that the kernel caches nothing of it: each write and sync of a program comes through here,
//! when it happens, as it was given.

use super::files::Open;
use super::requests::{Shared, attributes, kind};
use fuser::{
    FileHandle, Filesystem, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig, LockOwner, OpenFlags,
    RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use rustix::fs::{AtFlags, Mode};
use std::ffi::OsStr;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// The kernel asks again each time: the folder behind may be changed by hand.
const TTL: Duration = Duration::ZERO;

/// The mounted side.
#[derive(Debug)]
pub(super) struct Passthrough(pub(super) Arc<Shared>);

/// Answers with what came out of it.
macro_rules! answer {
    ($reply:ident, $result:expr, $done:pat => $answer:expr) => {
        match $result {
            Ok($done) => $answer,
            Err(error) => $reply.error(fuser::Errno::from(error)),
        }
    };
}

impl Filesystem for Passthrough {
    /// Without asynchronous direct I/O, FUSE doesn't move on behind a short read or write, and io_uring, which tries
    /// again then, gets the same bytes twice (seen with Linux 6.18).
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let missing = |_| io::Error::other("this kernel's FUSE has no asynchronous direct I/O");
        config.add_capabilities(InitFlags::FUSE_ASYNC_DIO).map_err(missing)
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        answer!(reply, self.0.look_up(parent, name), (found, _) => reply.entry(&TTL, &found, Generation(0)));
    }

    fn forget(&self, _: &Request, number: INodeNo, lookups: u64) {
        self.0.files().forget(number.0, lookups);
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let inode = self.0.files().inode(number.0);
        let found = inode.map_err(io::Error::from).and_then(|inode| attributes(number.0, &inode));
        answer!(reply, found, found => reply.attr(&TTL, &found));
    }

    /// Times and owners stay as they are: nobody here cares.
    fn setattr(
        &self,
        _: &Request,
        number: INodeNo,
        mode: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        answer!(reply, self.0.set_attributes(number, mode, size), found => reply.attr(&TTL, &found));
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let folder = self.0.files().inode(parent.0);
        let mode = Mode::from_raw_mode(mode & !umask);
        let made = folder.and_then(|folder| rustix::fs::mkdirat(&folder.path, name, mode));
        let found = made.map_err(io::Error::from).and_then(|()| self.0.look_up(parent, name));
        answer!(reply, found, (found, _) => reply.entry(&TTL, &found, Generation(0)));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer!(reply, self.0.unlink(parent, name, AtFlags::empty()), () => reply.ok());
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer!(reply, self.0.unlink(parent, name, AtFlags::REMOVEDIR), () => reply.ok());
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let done = self.0.rename((parent, name), (new_parent, new_name), flags);
        answer!(reply, done, () => reply.ok());
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let created = self.0.create(parent, name, Mode::from_raw_mode(mode & !umask), flags);
        answer!(reply, created, (found, handle) => {
            reply.created(&TTL, &found, Generation(0), FileHandle(handle), FopenFlags::FOPEN_DIRECT_IO);
        });
    }

    fn open(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let inode = self.0.files().inode(number.0).map_err(io::Error::from);
        let opened = inode.and_then(|inode| Ok(Open { file: inode.open()?, inode, entries: Vec::new() }));
        answer!(reply, opened, opened => {
            let handle = self.0.files().remember_open(opened);
            reply.opened(FileHandle(handle), FopenFlags::FOPEN_DIRECT_IO);
        });
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        bytes: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        answer!(reply, self.0.read(handle, offset, bytes), content => reply.data(&content));
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        bytes: &[u8],
        _: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        answer!(reply, self.0.write(handle, offset, bytes, flags), written => reply.written(written));
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.0.files().close(handle.0);
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        answer!(reply, self.0.sync(handle), () => reply.ok());
    }

    fn opendir(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let opened = self.0.open_folder(number);
        answer!(reply, opened, handle => reply.opened(FileHandle(handle), FopenFlags::empty()));
    }

    fn readdir(&self, _: &Request, _: INodeNo, handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let open = match self.0.files().opened(handle.0) {
            Ok(open) => open,
            Err(errno) => return reply.error(io::Error::from(errno).into()),
        };
        let skipped = usize::try_from(offset).unwrap_or(usize::MAX);
        for (next, (number, of_kind, name)) in (offset + 1..).zip(open.entries.iter().skip(skipped)) {
            if reply.add(INodeNo(*number), next, kind(*of_kind), name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(&self, _: &Request, _: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.0.files().close(handle.0);
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        answer!(reply, self.0.sync(handle), () => reply.ok());
    }

    fn statfs(&self, _: &Request, number: INodeNo, reply: ReplyStatfs) {
        let inode = self.0.files().inode(number.0);
        let found = inode.and_then(|inode| rustix::fs::fstatvfs(&inode.path)).map_err(io::Error::from);
        answer!(reply, found, found => {
            let small = |number: u64| u32::try_from(number).unwrap_or(4096);
            let room = self.0.script().room().map_or(u64::MAX, |bytes| bytes / found.f_frsize);
            let (free, available) = (found.f_bfree.min(room), found.f_bavail.min(room));
            let (block, fragment) = (small(found.f_bsize), small(found.f_frsize));
            reply.statfs(found.f_blocks, free, available, found.f_files, found.f_ffree, block, 255, fragment);
        });
    }

    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        bytes: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        answer!(reply, self.0.fallocate(handle, offset, bytes, mode), () => reply.ok());
    }
}
