//! The files of a core's folder, by direct I/O.
//!
//! Writes and syncs go to a ring of their own (`write_ring.rs`), a lone write is done on the spot; anything else is a task of
//! its own. Each ends with an [`Event::Disk`]. An error is passed on as it is; what
//! follows from it is the machine's to decide, and nothing is ever tried twice.

use super::SyncMode;
use super::boot::read_whole;
use super::core_loop::CoreLoop;
use super::fd::{self, Durably};
use super::removal;
use super::tasks::Tasks;
use super::write_ring::{Durable, Finished, WriteRing};
use crate::block::{BLOCK_BYTES, BlockPool, Slice};
use crate::machine::{DiskError, DiskReply, Effect, Event, FileId, FileKind, Machine, OpId};
use crate::vitals::Vitals;
use glommio::GlommioError;
use glommio::io::{Directory, DmaFile, OpenOptions};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Large reads and writes go in pieces of this size.
pub(super) const PIECE_BYTES: usize = 1 << 20;
/// What the system says to a kind of `fallocate` that it, the file system or the device doesn't know.
const EINVAL: i32 = 22;
const ENOSYS: i32 = 38;
const EOPNOTSUPP: i32 = 95;
/// `O_DSYNC` on Linux.
const O_DSYNC: i32 = 0o10000;
/// A write of at most this is done on the spot if nothing else is going on.
const LONE_BYTES_MAX: usize = BLOCK_BYTES;
/// A core may lose so much to a write on the spot...
const ON_THE_SPOT_MAX: Duration = Duration::from_micros(700);
/// ...or it waits so many times that before it tries again: at most a tenth of its time is lost.
const PENALTY: u32 = 10;

/// An open file, and which of its writes are under way.
pub(super) struct OpenFile {
    id: FileId,
    file: DmaFile,
    last_write: Cell<u64>,
    writing: RefCell<BTreeSet<u64>>,
    /// Syncs that wait for writes given before them, up to this one.
    syncs: RefCell<VecDeque<(u64, OpId)>>,
}

impl AsRawFd for OpenFile {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

/// One core's folder.
pub(super) struct Disk {
    folder: PathBuf,
    sync: SyncMode,
    files: RefCell<BTreeMap<FileId, Rc<OpenFile>>>,
    tasks: Rc<Tasks>,
    ring: WriteRing<OpenFile>,
    /// Operations of glommio's that are under way.
    operations: Rc<Cell<u32>>,
    /// No write on the spot before this instant: the last one took long.
    on_the_spot_from: Cell<Option<Instant>>,
    vitals: Rc<Vitals>,
}

/// An operation of glommio's, until it is dropped: as long as there is one, glommio gets its passes.
struct Operation(Rc<Cell<u32>>);

impl Operation {
    fn begin(under_way: &Rc<Cell<u32>>) -> Self {
        under_way.set(under_way.get() + 1);
        Self(Rc::clone(under_way))
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// A durable write that a machine asked for.
pub(super) struct Write {
    pub(super) op: OpId,
    pub(super) file: FileId,
    pub(super) offset: u64,
    pub(super) block: Slice,
    pub(super) sync: bool,
}

/// How an operation ended, as the machine is told.
pub(super) type DiskOutcome = Result<DiskReply, DiskError>;

/// What failed, before it is given a file and an offset.
type Failure = (&'static str, io::Error);

fn failed<T>(operation: &'static str, error: GlommioError<T>) -> Failure {
    // Its own conversion would lose the system's number.
    let error = match error {
        GlommioError::EnhancedIoError { source, .. } => source,
        other => other.into(),
    };
    (operation, error)
}

impl Disk {
    /// Reads the whole folder: everything that the machine is built from. Unfinished files are removed.
    pub(super) async fn open(
        folder: PathBuf,
        sync: SyncMode,
        tasks: Rc<Tasks>,
        vitals: Rc<Vitals>,
    ) -> Result<(Self, Vec<(FileId, Slice)>), String> {
        let disk = Self {
            folder,
            sync,
            files: RefCell::default(),
            tasks,
            ring: WriteRing::new()
                .map_err(|error| format!("io_uring: {error}; is memlock (ulimit -l) too small?"))?,
            operations: Rc::default(),
            on_the_spot_from: Cell::new(None),
            vitals,
        };
        let at = |error: io::Error| format!("{}: {error}", disk.folder.display());
        disk.prime().await.map_err(at)?;
        let mut contents = Vec::new();
        for file in disk.list().map_err(at)? {
            if file.kind == FileKind::Unfinished {
                std::fs::remove_file(disk.path(file)).map_err(at)?;
                continue;
            }
            disk.open_file(file).await.map_err(|(_, error)| at(error))?;
            let path = disk.path(file);
            let content = read_whole(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            contents.push((file, content));
        }
        Ok((disk, contents))
    }

    /// glommio decides by its first file of a device whether the device can be polled; an empty file misleads it.
    async fn prime(&self) -> io::Result<()> {
        // A disk that is full has no room for a probe, and a log that can still be read.
        let is_there = |file: &FileId| {
            std::fs::metadata(self.path(*file)).is_ok_and(|found| found.len() >= BLOCK_BYTES as u64)
        };
        let read = match self.list()?.into_iter().find(is_there) {
            Some(file) => probe(&self.path(file)).await,
            None => {
                let path = self.folder.join("probe");
                std::fs::write(&path, [0; BLOCK_BYTES])?;
                let read = probe(&path).await;
                std::fs::remove_file(&path)?;
                read
            }
        };
        match read {
            Ok(()) => Ok(()),
            Err((_, error)) => {
                Err(io::Error::other(format!("no direct I/O on this file system ({error}): use ext4 or XFS")))
            }
        }
    }

    fn list(&self) -> io::Result<Vec<FileId>> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            if let Some(file) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) {
                files.push(file);
            }
        }
        files.sort_unstable();
        Ok(files)
    }

    fn path(&self, file: FileId) -> PathBuf {
        self.folder.join(file.to_string())
    }

    async fn open_file(&self, file: FileId) -> Result<Rc<OpenFile>, Failure> {
        if let Some(open) = self.files.borrow().get(&file) {
            return Ok(Rc::clone(open));
        }
        let opened = self.options().dma_open(self.path(file)).await.map_err(|error| failed("open", error))?;
        Ok(self.remember(file, opened))
    }

    fn options(&self) -> OpenOptions {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        if self.sync == SyncMode::Dsync {
            options.custom_flags(O_DSYNC);
        }
        options
    }

    fn remember(&self, id: FileId, file: DmaFile) -> Rc<OpenFile> {
        let open = Rc::new(OpenFile {
            id,
            file,
            last_write: Cell::new(0),
            writing: RefCell::default(),
            syncs: RefCell::default(),
        });
        self.files.borrow_mut().insert(id, Rc::clone(&open));
        open
    }

    /// Closes everything, once all writes are over.
    pub(super) async fn close(&self) {
        while self.ring.under_way() > 0 {
            self.ring.wait();
            self.ring.reap(drop);
        }
        let files = std::mem::take(&mut *self.files.borrow_mut());
        for open in files.into_values() {
            if let Ok(open) = Rc::try_unwrap(open) {
                // The process ends; what had to be durable was synced.
                let _ = open.file.close().await;
            }
        }
    }

    /// What to watch for writes that are over.
    pub(super) fn ring(&self) -> &WriteRing<OpenFile> {
        &self.ring
    }

    /// Begins a disk effect.
    pub(super) fn carry_out<M: Machine + 'static>(&self, effect: Effect<M::Message>, core: Rc<CoreLoop<M>>) {
        match effect {
            Effect::Write { op, file, offset, block, sync } => {
                self.begin_write(Write { op, file, offset, block, sync }, core);
            }
            Effect::Sync { op, file } => {
                self.when_open(op, file, 0, core, move |disk, open| disk.sync(open, op))
            }
            Effect::Read { op, file, offset, bytes } => {
                self.begin(op, file, offset, core, async move |disk| disk.read(file, offset, bytes).await);
            }
            Effect::CreateFile { op, file, bytes } => self.begin_create(op, file, bytes, core),
            Effect::RenameFile { op, from, to } => {
                self.begin(op, from, 0, core, async move |disk| disk.rename(from, to).await);
            }
            Effect::RemoveFile { op, file } => {
                self.begin(op, file, 0, core, async move |disk| disk.remove(file).await);
            }
            Effect::Reply { .. }
            | Effect::Close { .. }
            | Effect::Resume { .. }
            | Effect::Send { .. }
            | Effect::Mesh { .. }
            | Effect::Answer { .. }
            | Effect::Halt { .. }
            | Effect::Drained => unreachable!("carried out by the core loop"),
        }
    }

    fn begin<M: Machine + 'static>(
        &self,
        op: OpId,
        file: FileId,
        offset: u64,
        core: Rc<CoreLoop<M>>,
        work: impl AsyncFnOnce(&Self) -> Result<DiskReply, Failure> + 'static,
    ) {
        let operation = Operation::begin(&self.operations);
        self.tasks
            .spawn("disk", async move {
                let result = work(core.disk()).await;
                drop(operation);
                core.disk_done(op, file, offset, result);
            })
            .detach();
    }

    /// Whether glommio has anything to do.
    pub(super) fn is_busy(&self) -> bool {
        self.operations.get() > 0
    }

    /// Does a small write on the spot if nothing else is going on: for a lone write, a plain system call is faster
    /// than any way through a ring and a kernel worker, and the core has nothing better to do. Gives the write
    /// back if it is to go the usual way.
    pub(super) fn write_on_the_spot(&self, write: Write) -> Result<(OpId, DiskOutcome), Write> {
        let allowed = write.sync
            && write.block.len() <= LONE_BYTES_MAX
            && self.ring.under_way() == 0
            && self.on_the_spot_from.get().is_none_or(|from| Instant::now() >= from);
        let open = self.files.borrow().get(&write.file).cloned();
        let Some(open) = open.filter(|_| allowed) else { return Err(write) };
        let start = Instant::now();
        // A frame of the log stands alone: a commit of several has a sync of its own. With several nodes on one disk a
        // write that is durable by itself waits less for the others' than a write and a sync (135 against 165 us).
        let how = match (self.sync, write.file.kind) {
            (SyncMode::Fdatasync, FileKind::Segment) => Durably::Alone,
            (SyncMode::Fdatasync, _) => Durably::WithAllBefore,
            _ => Durably::AsOpened,
        };
        let result = match fd::write_now(&open.file, &write.block, write.offset, how) {
            Ok(bytes) if bytes == write.block.len() => Ok(DiskReply::Done),
            Ok(bytes) => Err(("write", short("written", bytes, write.block.len()))),
            Err(error) => Err(("write", error)),
        };
        let took = start.elapsed();
        self.count(write.file, true, took);
        self.on_the_spot_from.set((took > ON_THE_SPOT_MAX).then(|| Instant::now() + took * PENALTY));
        Ok((write.op, self.outcome(write.file, write.offset, result)))
    }

    pub(super) fn begin_write<M: Machine + 'static>(&self, write: Write, core: Rc<CoreLoop<M>>) {
        let Write { op, file, offset, block, sync } = write;
        self.when_open(op, file, offset, core, move |disk, open| {
            let durable = match (disk.sync, file.kind) {
                _ if !sync => Durable::No,
                (SyncMode::Dsync, _) => Durable::No,
                (SyncMode::Fdatasync, FileKind::Segment) => Durable::Alone,
                (SyncMode::Fdatasync, _) => Durable::WithAllBefore,
            };
            let number = open.last_write.get() + 1;
            open.last_write.set(number);
            open.writing.borrow_mut().insert(number);
            disk.ring.write(op, Rc::clone(open), number, offset, block, durable);
        });
    }

    fn sync(&self, open: &Rc<OpenFile>, op: OpId) {
        open.syncs.borrow_mut().push_back((open.last_write.get(), op));
        self.begin_syncs(open);
    }

    /// Begins the syncs whose writes are over.
    fn begin_syncs(&self, open: &Rc<OpenFile>) {
        let oldest = open.writing.borrow().first().copied().unwrap_or(u64::MAX);
        while let Some((_, op)) = open.syncs.borrow_mut().pop_front_if(|(mark, _)| *mark < oldest) {
            match self.sync {
                SyncMode::Fdatasync => self.ring.sync(op, Rc::clone(open)),
                // Each of its writes was durable when it was done.
                SyncMode::Dsync => self.ring.nothing(op, Rc::clone(open)),
            }
        }
    }

    /// Does something with a file: now, since whatever a machine writes to is open, or when it is.
    fn when_open<M: Machine + 'static>(
        &self,
        op: OpId,
        file: FileId,
        offset: u64,
        core: Rc<CoreLoop<M>>,
        then: impl FnOnce(&Self, &Rc<OpenFile>) + 'static,
    ) {
        let open = self.files.borrow().get(&file).cloned();
        if let Some(open) = open {
            return then(self, &open);
        }
        let operation = Operation::begin(&self.operations);
        self.tasks
            .spawn("opening a file", async move {
                let disk = core.disk();
                let opened = disk.open_file(file).await;
                drop(operation);
                match opened {
                    Ok(open) => then(disk, &open),
                    Err(failure) => core.disk_done(op, file, offset, Err(failure)),
                }
            })
            .detach();
    }

    /// Hands over which writes and syncs are over.
    pub(super) fn finished(&self, mut f: impl FnMut(OpId, DiskOutcome)) {
        self.ring.reap(|Finished { op, offset, file, write, result, is_sync, took }| {
            self.count(file.id, is_sync, took);
            if let Some(number) = write {
                file.writing.borrow_mut().remove(&number);
                self.begin_syncs(&file);
            }
            f(op, self.outcome(file.id, offset, result.map(|()| DiskReply::Done)));
        });
    }

    /// Takes down how long an operation on the log took.
    fn count(&self, file: FileId, is_sync: bool, took: Duration) {
        if file.kind == FileKind::Segment {
            let Vitals { segment_writes, segment_syncs, .. } = &*self.vitals;
            let times = if is_sync { segment_syncs } else { segment_writes };
            times.borrow_mut().record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        }
    }

    async fn read(&self, file: FileId, offset: u64, bytes: u32) -> Result<DiskReply, Failure> {
        let open = self.open_file(file).await?;
        let read =
            open.file.read_at_aligned(offset, bytes as usize).await.map_err(|error| failed("read", error))?;
        if read.len() < bytes as usize {
            // At the end of the file, and nowhere else.
            let size = std::fs::metadata(self.path(file)).map_err(|error| ("read", error))?.len();
            let there = u64::from(bytes).min(size.saturating_sub(offset));
            if (read.len() as u64) < there {
                return Err(("read", short("read", read.len(), there)));
            }
        }
        let mut block = BlockPool::new().allocate(read.len(), 0);
        block.append(&read);
        Ok(DiskReply::Read(block.slice(0, read.len())))
    }

    /// Has glommio's helper thread compute something.
    pub(super) async fn elsewhere<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let _operation = Operation::begin(&self.operations);
        glommio::executor().spawn_blocking(work).await
    }

    fn begin_create<M: Machine + 'static>(&self, op: OpId, file: FileId, bytes: u64, core: Rc<CoreLoop<M>>) {
        let operation = Operation::begin(&self.operations);
        self.tasks.spawn_bulk("a new file", async move {
            let result = core.disk().create(file, bytes).await;
            drop(operation);
            core.disk_done(op, file, 0, result);
        });
    }

    /// A new file, written once so that later writes change no metadata.
    async fn create(&self, file: FileId, bytes: u64) -> Result<DiskReply, Failure> {
        let path = self.path(file);
        let created = OpenOptions::new().read(true).write(true).create_new(true).dma_open(&path).await;
        let created = created.map_err(|error| failed("create", error))?;
        if let Err(failure) = self.finish_creating(file, created, bytes).await {
            // Give the space back; the error that matters is the first.
            let _ = std::fs::remove_file(&path);
            return Err(failure);
        }
        Ok(DiskReply::Done)
    }

    async fn finish_creating(&self, file: FileId, created: DmaFile, bytes: u64) -> Result<(), Failure> {
        let filled = fill(&created, bytes).await;
        let closed = created.close().await.map_err(|error| failed("create", error));
        filled.and(closed)?;
        self.sync_folder().await?;
        self.open_file(file).await?;
        Ok(())
    }

    async fn sync_folder(&self) -> Result<(), Failure> {
        let folder = Directory::open(&self.folder).await.map_err(|error| failed("sync", error))?;
        let synced = folder.sync().await.map_err(|error| failed("sync", error));
        folder.close().await.map_err(|error| failed("sync", error))?;
        synced
    }

    async fn rename(&self, from: FileId, to: FileId) -> Result<DiskReply, Failure> {
        for file in [from, to] {
            let open = self.files.borrow_mut().remove(&file);
            drop(open);
        }
        // It may have to wait for the file system's journal.
        let (old, new) = (self.path(from), self.path(to));
        let renamed = glommio::executor().spawn_blocking(move || std::fs::rename(old, new)).await;
        renamed.map_err(|error| ("rename", error))?;
        self.sync_folder().await?;
        self.open_file(to).await?;
        Ok(DiskReply::Done)
    }

    async fn remove(&self, file: FileId) -> Result<DiskReply, Failure> {
        let open = self.files.borrow_mut().remove(&file);
        // Whoever still reads it reads on.
        let is_unread = open.is_none_or(|open| Rc::try_unwrap(open).is_ok());
        let removed = removal::remove(&self.folder, file, is_unread).await;
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(("remove", error)),
            _ => Ok(DiskReply::Done),
        }
    }
}

impl Disk {
    fn outcome(&self, file: FileId, offset: u64, result: Result<DiskReply, Failure>) -> DiskOutcome {
        result.map_err(|(operation, error)| DiskError {
            operation,
            file: self.path(file).display().to_string(),
            offset,
            errno: error.raw_os_error().unwrap_or(0),
            reason: in_words(&error),
        })
    }
}

impl<M: Machine + 'static> CoreLoop<M> {
    fn disk_done(&self, op: OpId, file: FileId, offset: u64, result: Result<DiskReply, Failure>) {
        let result = self.disk().outcome(file, offset, result);
        self.step(Event::Disk { op, result });
    }
}

/// Without the number that the standard library puts behind the words.
fn in_words(error: &io::Error) -> String {
    let text = error.to_string();
    let number = error.raw_os_error().map(|errno| format!(" (os error {errno})"));
    number.and_then(|number| text.strip_suffix(&number)).unwrap_or(&text).to_owned()
}

pub(super) fn short(how: &str, done: usize, wanted: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("only {done} of {wanted} bytes were {how}"))
}

async fn probe(path: &Path) -> Result<(), Failure> {
    let opened = OpenOptions::new().read(true).dma_open(path).await;
    let file = opened.map_err(|error| failed("open", error))?;
    let read = file.read_at_aligned(0, BLOCK_BYTES).await.map_err(|error| failed("read", error));
    file.close().await.map_err(|error| failed("open", error))?;
    read.map(|_| ())
}

/// Makes the file `bytes` long, all of it written zeros: overwriting them later changes no metadata.
pub(super) async fn fill(file: &DmaFile, bytes: u64) -> Result<(), Failure> {
    if bytes > 0 && zero_by_device(file, bytes).await? {
        return file.fdatasync().await.map_err(|error| failed("create", error));
    }
    let mut offset = 0;
    while offset < bytes {
        let piece = usize::try_from(bytes - offset).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        let mut zeros = file.alloc_dma_buffer(piece);
        zeros.as_bytes_mut().fill(0);
        let written = file.write_at(zeros, offset).await.map_err(|error| failed("create", error))?;
        // A disk that becomes full takes a part, and says so at the next try.
        if written == 0 || !written.is_multiple_of(BLOCK_BYTES) {
            return Err(("create", short("written", written, piece)));
        }
        offset += written as u64;
        glommio::yield_if_needed().await;
    }
    file.fdatasync().await.map_err(|error| failed("create", error))
}

/// Some devices write zeros by themselves (`FALLOC_FL_WRITE_ZEROES`, Linux 6.17), without a byte over the bus. Returns
/// whether this one did.
async fn zero_by_device(file: &DmaFile, bytes: u64) -> Result<bool, Failure> {
    let file = fd::duplicate_file(file).map_err(|error| ("create", error))?;
    let done = glommio::executor().spawn_blocking(move || fd::write_zeroes(&file, bytes)).await;
    match done {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(EINVAL | ENOSYS | EOPNOTSUPP)) => Ok(false),
        Err(error) => Err(("create", error)),
    }
}
