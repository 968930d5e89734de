//! The least that a replicated, synced write can be here: three threads that do nothing else, one disk under all of them.
//!
//! ```text
//! client → leader → follower 1 → leader → client        each arrow: 100 bytes of loopback TCP
//!             ↓  ↘ follower 2
//!           disk       ↓ disk                            each disk: one O_DIRECT write of 4 KiB with RWF_DSYNC
//! ```
//!
//! A majority is the leader and the faster of the followers. No parsing, no log, no Raft; blocking system calls only.
//! The three syncs meet on one device, which a cluster of three machines doesn't suffer: a ratio to this tells a store's
//! own share, a ratio to the lone sync tells the machine's too.

use std::fs::File;
use std::io::{IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use flotilla_runtime::block::{BLOCK_BYTES, BlockPool, Slice};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags, fdatasync, open};
use rustix::io::{ReadWriteFlags, pwrite, pwritev2};

use super::{Floor, percentiles};
use crate::error::{BenchError, Result};
use crate::interrupt::Interrupt;
use crate::recorder::latencies;

/// Blocks of each scratch file, overwritten in turn.
const BLOCKS: u64 = 1024;
/// What goes over each socket.
const MESSAGE: [u8; 100] = [1; 100];

/// The latency of a bare replicated write, for a client that waits for each before it sends the next.
pub(crate) fn write(folder: &Path, lasting: Duration, interrupt: &Interrupt) -> Result<Floor> {
    let doing = || BenchError::io("measuring a bare replicated write");
    let disks = [0, 1, 2].map(|number| Disk::create(folder, number));
    let [of_leader, of_one, of_other] = disks;
    let (mut client, from_client) = connected().map_err(doing())?;
    let (one, from_leader) = connected().map_err(doing())?;
    let (other, from_leader_too) = connected().map_err(doing())?;
    let (of_leader, of_one, of_other) =
        (of_leader.map_err(doing())?, of_one.map_err(doing())?, of_other.map_err(doing())?);
    std::thread::scope(|scope| {
        scope.spawn(|| follow(from_leader, of_one));
        scope.spawn(|| follow(from_leader_too, of_other));
        scope.spawn(|| lead(from_client, [one, other], of_leader));
        let mut seen = latencies();
        let end = Instant::now() + lasting;
        let outcome = loop {
            let from = Instant::now();
            if from >= end || interrupt.is_set() {
                break Ok(());
            }
            if let Err(error) = client.write_all(&MESSAGE).and_then(|()| client.read_exact(&mut [0])) {
                break Err(doing()(error));
            }
            seen.saturating_record(u64::try_from(from.elapsed().as_nanos()).unwrap_or(u64::MAX));
        };
        // The leader ends when its client does, the followers when their leader does, and the scope waits for them.
        drop(client);
        outcome?;
        interrupt.check()?;
        Ok(percentiles(&seen))
    })
}

/// Passes each write on, writes it itself, and answers when one of the two has it as well. An error ends it: the client
/// then finds its connection closed.
fn lead(mut client: TcpStream, followers: [TcpStream; 2], disk: Disk) -> std::io::Result<()> {
    let (mut message, block) = (MESSAGE, block());
    // Answers that each owes.
    let mut owed = [0_usize; 2];
    for follower in &followers {
        follower.set_nonblocking(true)?;
    }
    for place in 0.. {
        client.read_exact(&mut message)?;
        for (mut follower, owed) in followers.iter().zip(&mut owed) {
            follower.write_all(&message)?;
            *owed += 1;
        }
        disk.write(place, &block)?;
        while owed.iter().all(|owed| *owed > 0) {
            let mut fds = [0, 1].map(|place| PollFd::new(&followers[place], PollFlags::IN));
            poll(&mut fds, None)?;
            for (mut follower, owed) in followers.iter().zip(&mut owed) {
                let mut answers = [0; 64];
                match follower.read(&mut answers) {
                    Ok(0) => return Ok(()),
                    Ok(count) => *owed -= count,
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
        }
        client.write_all(&[1])?;
    }
    Ok(())
}

fn follow(mut leader: TcpStream, disk: Disk) -> std::io::Result<()> {
    let (mut message, block) = (MESSAGE, block());
    for place in 0.. {
        leader.read_exact(&mut message)?;
        disk.write(place, &block)?;
        leader.write_all(&[1])?;
    }
    Ok(())
}

fn connected() -> std::io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let (far, _) = listener.accept()?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    Ok((near, far))
}

/// A scratch file whose blocks have been written before; it has no name any more.
struct Disk {
    file: File,
}

/// Aligned as direct I/O wants it.
fn block() -> Slice {
    BlockPool::new().copy_of(&[0x5a; BLOCK_BYTES])
}

impl Disk {
    fn create(folder: &Path, number: u32) -> std::io::Result<Self> {
        let path = folder.join(format!("replicated-probe-{number}"));
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::DIRECT | OFlags::CLOEXEC;
        let file = File::from(open(&path, flags, Mode::RUSR | Mode::WUSR)?);
        std::fs::remove_file(&path)?;
        let block = block();
        for place in 0..BLOCKS {
            pwrite(&file, &block, place * BLOCK_BYTES as u64)?;
        }
        fdatasync(&file)?;
        Ok(Self { file })
    }

    /// Writes the block at `place`, counted round and round.
    fn write(&self, place: u64, block: &Slice) -> std::io::Result<()> {
        let offset = place % BLOCKS * BLOCK_BYTES as u64;
        match pwritev2(&self.file, &[IoSlice::new(block)], offset, ReadWriteFlags::DSYNC)? {
            BLOCK_BYTES => Ok(()),
            _ => Err(std::io::ErrorKind::WriteZero.into()),
        }
    }
}
