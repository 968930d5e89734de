//! Files between map and reduce, from one machine to another.
//!
//! Whoever needs a file asks the worker that wrote it for a piece at a time, and for the next when it has used that up: that is all
//! the back-pressure there is, and neither side holds more than a piece of each. Each piece has its checksum, besides those that
//! are in the file.
//!
//! ```text
//! request: READ folder name offset length\n        answer: OK length crc32\n bytes | NO why\n
//! ```
//!
//! A folder's name has 64 random bits that only the job's workers know; nobody else gets anything. Under TLS ([`super::talk`]) nobody
//! without a certificate gets to ask. Who comes without TLS then, or with it where it isn't spoken, is answered `TLS why`.

use super::talk::cover::Cover;
use super::talk::door::{Door, Manner};
use super::talk::trouble::NoTls;
use super::talk::{Stream, connect};
use crate::hands::pause;
use crate::mapreduce::run::ReadAt;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// No piece is longer.
const PIECE_BYTES_MAX: usize = 1 << 20;
/// The pieces of all that one task reads take about this much.
const WINDOWS_BYTES: usize = 32 << 20;
/// A worker that says nothing for so long is asked again.
const ANSWER: Duration = Duration::from_secs(5);
/// Before it is asked again; after the last, what it has is taken for lost.
const PAUSES_MS: [u64; 3] = [50, 200, 1000];
/// No request is longer.
const REQUEST_BYTES_MAX: u64 = 512;

/// Serves the files below `folder` at `listen`, under `cover` if there is one; the address.
///
/// # Errors
/// If it can't listen there.
pub fn serve(folder: &Path, listen: &str, cover: Option<Cover>) -> io::Result<String> {
    let refusal = |why: &str| format!("TLS {why}\n");
    let door = Door::open(listen, cover, Manner { what: "the files of this worker", refusal })?;
    let (address, folder) = (door.address().to_owned(), folder.to_owned());
    door.serve(move |stream| answer_all(&folder, stream));
    Ok(address)
}

fn answer_all(folder: &Path, mut stream: BufReader<Stream>) -> io::Result<()> {
    let (mut line, mut piece) = (String::new(), Vec::new());
    loop {
        line.clear();
        if (&mut stream).take(REQUEST_BYTES_MAX).read_line(&mut line)? == 0 {
            return Ok(());
        }
        let out = stream.get_mut();
        match read(folder, &line, &mut piece) {
            Ok(()) => {
                let head = format!("OK {} {:08x}\n", piece.len(), crc32fast::hash(&piece));
                out.write_all(head.as_bytes())?;
                out.write_all(&piece)?;
            }
            Err(why) => out.write_all(format!("NO {}\n", why.to_string().replace('\n', " ")).as_bytes())?,
        }
        out.flush()?;
    }
}

/// What a request asks for.
fn read(folder: &Path, line: &str, piece: &mut Vec<u8>) -> io::Result<()> {
    let words: Vec<&str> = line.trim_end().split(' ').collect();
    let ["READ", job, name, offset, length] = words[..] else {
        return Err(io::Error::other("say READ folder name offset length"));
    };
    let is_plain = |name: &str| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    if !is_plain(job) || !is_plain(name) {
        return Err(io::Error::other("that is no name"));
    }
    let number = |text: &str| text.parse::<u64>().map_err(io::Error::other);
    let (offset, length) = (number(offset)?, number(length)?);
    if length > PIECE_BYTES_MAX as u64 {
        return Err(io::Error::other("too much at once"));
    }
    let path: PathBuf = [folder, Path::new(job), Path::new(name)].iter().collect();
    piece.resize(usize::try_from(length).map_err(io::Error::other)?, 0);
    File::open(path)?.read_exact_at(piece, offset)
}

/// Connections to other workers.
#[derive(Debug, Default)]
pub struct Fetcher {
    cover: Option<Cover>,
    idle: Mutex<BTreeMap<String, Vec<BufReader<Stream>>>>,
}

impl Fetcher {
    /// One that connects under `cover`, if there is one.
    pub fn new(cover: Option<Cover>) -> Self {
        Self { cover, ..Self::default() }
    }

    fn connection(&self, address: &str) -> io::Result<BufReader<Stream>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(connection) = idle.get_mut(address).and_then(Vec::pop) {
            return Ok(connection);
        }
        drop(idle);
        connect(address, self.cover.as_ref(), ANSWER)
    }

    fn ask(&self, file: &Name, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let mut connection = self.connection(&file.address)?;
        let Name { folder, name, .. } = file;
        let request = format!("READ {folder} {name} {offset} {}\n", into.len());
        connection.get_mut().write_all(request.as_bytes())?;
        connection.get_mut().flush()?;
        let mut head = String::new();
        (&mut connection).take(REQUEST_BYTES_MAX).read_line(&mut head)?;
        let words: Vec<&str> = head.trim_end().split(' ').collect();
        match words[..] {
            ["OK", length, crc] if length.parse() == Ok(into.len()) => {
                connection.read_exact(into)?;
                if u32::from_str_radix(crc, 16) != Ok(crc32fast::hash(into)) {
                    return Err(io::Error::other("damaged on its way"));
                }
            }
            ["NO", ..] => return Err(io::Error::new(io::ErrorKind::NotFound, head.trim_end()[2..].trim())),
            ["TLS", ..] => {
                let why = head.trim_end()[3..].trim();
                return Err(NoTls(format!("no connection with {}: {why}", file.address)).into());
            }
            _ => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the answer makes no sense")),
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.entry(file.address.clone()).or_default().push(connection);
        Ok(())
    }

    /// The same, and again if it didn't work.
    fn fetch(&self, file: &Name, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let mut pauses = PAUSES_MS.iter();
        loop {
            match self.ask(file, offset, into) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => match pauses.next() {
                    Some(ms) => pause(Duration::from_millis(*ms)),
                    None => {
                        if NoTls::is_in(&error) {
                            tracing::warn!(%error, "what another worker has can't be read");
                        }
                        return Err(error);
                    }
                },
                done => return done,
            }
            // Others of that age are broken, too.
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).remove(&file.address);
        }
    }
}

/// Where a file is.
#[derive(Clone, Debug)]
pub struct Name {
    /// Of the worker that has it.
    pub address: String,
    /// Of the job, below the worker's own.
    pub folder: String,
    /// Of the file in it.
    pub name: String,
}

/// A part of a file that another worker has, read from its beginning to its end.
#[derive(Debug)]
pub struct Remote {
    fetcher: Arc<Fetcher>,
    name: Name,
    end: u64,
    window_bytes: usize,
    /// Where it begins, and what is in it.
    window: Mutex<(u64, Vec<u8>)>,
}

impl Remote {
    /// Up to byte `end` of the file. `parts`: how many a task reads at the same time.
    pub fn new(fetcher: Arc<Fetcher>, name: Name, end: u64, parts: usize) -> Self {
        let window_bytes = (WINDOWS_BYTES / parts.max(1)).clamp(16 << 10, PIECE_BYTES_MAX);
        Self { fetcher, name, end, window_bytes, window: Mutex::default() }
    }
}

impl ReadAt for Remote {
    fn read_exact_at(&self, mut into: &mut [u8], mut offset: u64) -> io::Result<()> {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        while !into.is_empty() {
            let (begin, bytes) = &mut *window;
            let place = offset.checked_sub(*begin).and_then(|place| usize::try_from(place).ok());
            if let Some(found) = place.and_then(|place| bytes.get(place..)).filter(|it| !it.is_empty()) {
                let count = found.len().min(into.len());
                into[..count].copy_from_slice(&found[..count]);
                into = &mut into[count..];
                offset += count as u64;
                continue;
            }
            let left = self.end.saturating_sub(offset);
            if left == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            bytes.clear();
            bytes.resize(usize::try_from(left).unwrap_or(usize::MAX).min(self.window_bytes), 0);
            *begin = offset;
            let fetched = self.fetcher.fetch(&self.name, offset, bytes);
            if fetched.is_err() {
                bytes.clear();
            }
            fetched?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapreduce::hands::talk::tests::Authority;
    use std::net::{TcpListener, TcpStream};

    fn served() -> (tempfile::TempDir, Vec<u8>, Name) {
        served_under(None)
    }

    fn served_under(cover: Option<Cover>) -> (tempfile::TempDir, Vec<u8>, Name) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("job-1")).unwrap();
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n * 7 / 3) as u8).collect();
        std::fs::write(folder.path().join("job-1/map-1"), &bytes).unwrap();
        std::fs::write(folder.path().join("secret"), "x").unwrap();
        let address = serve(folder.path(), "127.0.0.1:0", cover).unwrap();
        (folder, bytes, Name { address, folder: "job-1".into(), name: "map-1".into() })
    }

    #[test]
    fn a_file_comes_as_it_is_in_whatever_pieces_it_is_read() {
        let (_folder, bytes, name) = served();
        for (parts, step) in [(1, 1_000_000), (10_000, 5_000), (1, 2_999_999), (40, 12)] {
            let remote = Remote::new(Arc::default(), name.clone(), bytes.len() as u64, parts);
            let mut at = 0;
            while at < bytes.len().min(400 * step) {
                let mut into = vec![0; step.min(bytes.len() - at)];
                remote.read_exact_at(&mut into, at as u64).unwrap();
                assert!(into == bytes[at..at + into.len()], "{parts} {step} {at}");
                at += into.len();
            }
        }
        let remote = Remote::new(Arc::default(), name, 100, 1);
        let error = remote.read_exact_at(&mut [0; 101], 0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn under_cover_it_comes_to_workers_of_the_same_authority_only() {
        let certificates = tempfile::tempdir().unwrap();
        let cover = |authority: &str| {
            Authority::new(certificates.path(), authority).cover(&format!("{authority}-worker"))
        };
        let own = cover("harbour");
        let (_folder, bytes, name) = served_under(Some(own.clone()));
        let read = |cover: Option<Cover>| {
            let remote = Remote::new(Arc::new(Fetcher::new(cover)), name.clone(), bytes.len() as u64, 1);
            let mut into = vec![0; bytes.len()];
            remote.read_exact_at(&mut into, 0).map(|()| into)
        };
        assert!(read(Some(own)).unwrap() == bytes);
        for (cover, words) in [(None, "it speaks TLS only"), (Some(cover("stranger")), "isn't signed by")] {
            let error = read(cover).unwrap_err();
            let said = error.to_string();
            assert!(NoTls::is_in(&error) && said.contains(words) && said.contains(&name.address), "{said}");
        }
    }

    #[test]
    fn nothing_else_is_served() {
        let (_folder, _, name) = served();
        for (folder, file) in
            [("job-1", "map-2"), ("..", "secret"), ("job-1/..", "secret"), ("", "secret"), ("job-2", "x")]
        {
            let name = Name { folder: folder.into(), name: file.into(), ..name.clone() };
            let remote = Remote::new(Arc::default(), name, 1, 1);
            assert!(remote.read_exact_at(&mut [0; 1], 0).is_err(), "{folder} {file}");
        }
        let mut stream = TcpStream::connect(&name.address).unwrap();
        stream.write_all(b"\xff\xff\n").unwrap();
        let mut said = Vec::new();
        stream.read_to_end(&mut said).unwrap();
        assert!(said.is_empty(), "bytes that are no text end the talk");
    }

    #[test]
    fn a_worker_that_has_gone_is_an_error_and_no_hang() {
        let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let name = Name { address: gone, folder: "job".into(), name: "map".into() };
        let remote = Remote::new(Arc::default(), name, 10, 1);
        assert_eq!(
            remote.read_exact_at(&mut [0; 1], 0).unwrap_err().kind(),
            io::ErrorKind::ConnectionRefused
        );
    }
}
