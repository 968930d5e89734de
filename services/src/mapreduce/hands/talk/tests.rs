//! Both ends of connections in one process, with certificates made for each test.

// The tests of nodes have the same ones.
#[path = "../../../../tests/security/authority.rs"]
mod authority;

use super::cover::{Cover, Files};
use super::door::{Door, Limits, Manner};
use super::trouble::NoTls;
use super::{Stream, connect};
use crate::hands::spawn;
pub(crate) use authority::Authority;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const HERE: &str = "127.0.0.1";
const PATIENCE: Duration = Duration::from_secs(60);
const MANNER: Manner = Manner { what: "a test", refusal: |why| format!("NO {why}\n") };

impl Authority {
    fn files(&self, identity: Option<(PathBuf, PathBuf)>) -> Files {
        Files { ca: self.cert.clone(), identity, checks_host: true }
    }

    /// With a certificate for this machine.
    pub(crate) fn cover(&self, name: &str) -> Cover {
        Cover::read(self.files(Some(self.certify(name, &[HERE])))).unwrap()
    }

    fn odd(&self, name: &str, host: &str, change: impl FnOnce(&mut CertificateParams)) -> Cover {
        Cover::read(self.files(Some(self.certify_with(name, &[host], change)))).unwrap()
    }

    fn expired(&self) -> Cover {
        self.odd("expired", HERE, |it| it.not_after = rcgen::date_time_ymd(2020, 1, 1))
    }
}

/// Says every line back.
fn echo(cover: Option<Cover>) -> String {
    served(Door::open("127.0.0.1:0", cover, MANNER).unwrap())
}

fn served(door: Door) -> String {
    let address = door.address().to_owned();
    door.serve(|mut stream: BufReader<Stream>| {
        let mut line = String::new();
        while stream.read_line(&mut line)? > 0 {
            stream.get_mut().write_all(line.as_bytes())?;
            line.clear();
        }
        Ok(())
    });
    address
}

fn ask(address: &str, cover: Option<&Cover>, line: &str) -> io::Result<String> {
    let mut stream = connect(address, cover, PATIENCE)?;
    stream.get_mut().write_all(line.as_bytes())?;
    let mut answer = String::new();
    stream.read_line(&mut answer)?;
    Ok(answer)
}

/// A port that leads to another, and what has gone through it in either direction.
fn overheard(address: &str) -> (String, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, heard) = (listener.local_addr().unwrap().to_string(), Arc::<Mutex<Vec<u8>>>::default());
    let (address, hears) = (address.to_owned(), Arc::clone(&heard));
    spawn(move || {
        let (caller, called) = (listener.accept().unwrap().0, TcpStream::connect(address).unwrap());
        for (mut from, mut to) in
            [(caller.try_clone().unwrap(), called.try_clone().unwrap()), (called, caller)]
        {
            let hears = Arc::clone(&hears);
            spawn(move || {
                let mut bytes = [0; 1 << 14];
                while let Ok(count @ 1..) = from.read(&mut bytes) {
                    hears.lock().unwrap().extend_from_slice(&bytes[..count]);
                    to.write_all(&bytes[..count]).unwrap();
                }
                let _ = to.shutdown(Shutdown::Both);
            });
        }
    });
    (port, heard)
}

#[test]
fn what_goes_under_cover_is_nothing_to_those_who_listen() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "harbour");
    for cover in [None, Some(authority.cover("worker"))] {
        let (port, heard) = overheard(&echo(cover.clone()));
        assert_eq!(ask(&port, cover.as_ref(), "a secret\n").unwrap(), "a secret\n");
        let heard = heard.lock().unwrap();
        let told = heard.windows(8).filter(|bytes| bytes == b"a secret").count();
        assert!(heard.len() >= 18);
        assert_eq!(told, if cover.is_some() { 0 } else { 2 }, "{cover:?}");
    }
}

#[test]
fn whoever_does_not_fit_hears_why_at_once_and_others_are_served() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "harbour");
    let stranger = Authority::new(folder.path(), "stranger");
    let good = authority.cover("worker");
    let blank = Cover::read(authority.files(None)).unwrap();
    let called_only = |it: &mut CertificateParams| {
        it.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    };
    let abroad = Cover::read(Files {
        ca: authority.cert.clone(),
        ..stranger.files(Some(stranger.certify("abroad", &[HERE])))
    });
    let elsewhere = authority.odd("elsewhere", "elsewhere.example", |_| {});
    for (called, caller, words) in [
        (&good, &stranger.cover("strange"), "its certificate isn't signed by an authority in"),
        (&good, &abroad.unwrap(), "it doesn't know its authority"),
        (&good, &authority.expired(), "it has expired: renew it"),
        (&good, &authority.odd("one-sided", HERE, called_only), "needs serverAuth and clientAuth"),
        (&good, &blank, "give --tls-cert and --tls-key"),
        (&authority.expired(), &good, "its certificate has expired: renew it"),
        (&elsewhere, &good, "isn't for that host"),
    ] {
        let address = echo(Some(called.clone()));
        let error = ask(&address, Some(caller), "x\n").unwrap_err();
        let said = error.to_string();
        assert!(NoTls::is_in(&error) && said.contains(words) && said.contains(&address), "{words}: {said}");
        assert!(!said.contains('\n'), "{said}");
    }
    // Whoever says something else than it hears.
    let address = echo(Some(good.clone()));
    let answer = ask(&address, None, "a plain request\n").unwrap();
    assert!(answer.starts_with("NO it speaks TLS only: give --tls-ca"), "{answer}");
    assert_eq!(ask(&address, Some(&good), "x\n").unwrap(), "x\n");
    let plain = echo(None);
    let error = ask(&plain, Some(&good), "x\n").unwrap_err();
    assert!(NoTls::is_in(&error) && error.to_string().contains("speaks no TLS"), "{error}");
    assert_eq!(ask(&plain, None, "x\n").unwrap(), "x\n");
    // Unless names don't count.
    let any =
        Cover::read(Files { checks_host: false, ..authority.files(Some(authority.certify("any", &[HERE]))) });
    assert_eq!(ask(&echo(Some(elsewhere)), Some(&any.unwrap()), "x\n").unwrap(), "x\n");
}

#[test]
fn who_dawdles_is_cut_off_and_keeps_nobody_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let good = Authority::new(folder.path(), "harbour").cover("worker");
    let open = |limits| served(Door::open_with("127.0.0.1:0", Some(good.clone()), MANNER, limits).unwrap());
    let long = Limits { handshake: PATIENCE, silence: PATIENCE, taking: PATIENCE };
    let address = open(long);
    let begin = |address: &str, bytes: &[u8]| {
        let mut socket = TcpStream::connect(address).unwrap();
        socket.write_all(bytes).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    };
    let dawdling: Vec<TcpStream> =
        [&b""[..], b"\x16", b"\x16\x03\x01\x02"].iter().map(|bytes| begin(&address, bytes)).collect();
    assert_eq!(ask(&address, Some(&good), "x\n").unwrap(), "x\n");
    drop(dawdling);
    let moment = Duration::from_millis(20);
    let address = open(Limits { handshake: moment, ..long });
    for bytes in [&b""[..], b"\x16", b"\x16\x03\x01\x02"] {
        // The end, or what it left unread is told as a reset.
        is_over(begin(&address, bytes).read_to_end(&mut Vec::new()));
    }
    let address = open(Limits { silence: moment, ..long });
    let mut silent = connect(&address, Some(&good), PATIENCE).unwrap();
    is_over(silent.read(&mut [0; 1]));
}

/// And not because nothing was said for too long.
fn is_over(read: io::Result<usize>) {
    assert_ne!(read.map_err(|error| error.kind()), Err(io::ErrorKind::WouldBlock));
}

#[test]
fn a_worker_whose_certificate_others_would_refuse_hears_it_at_its_start() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "harbour");
    assert_eq!(authority.cover("worker").rehearse(HERE), Ok(()));
    let called_only = |it: &mut CertificateParams| {
        it.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    };
    let stranger = Authority::new(folder.path(), "stranger");
    let mixed =
        Files { ca: authority.cert.clone(), ..stranger.files(Some(stranger.certify("mixed", &[HERE]))) };
    for (cover, words) in [
        (authority.expired(), "it has expired"),
        (authority.odd("elsewhere", "elsewhere.example", |_| {}), "it isn't for that host"),
        (authority.odd("one-sided", HERE, called_only), "extendedKeyUsage"),
        (Cover::read(mixed).unwrap(), "it isn't signed by an authority in"),
        (Cover::read(authority.files(None)).unwrap(), "give --tls-cert and --tls-key"),
    ] {
        let said = cover.rehearse(HERE).unwrap_err();
        assert!(said.contains(words) && !said.contains('\n'), "{said}");
    }
}

#[test]
fn certificates_are_renewed_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (Authority::new(folder.path(), "old"), Authority::new(folder.path(), "new"));
    let cover = old.cover("worker");
    let address = echo(Some(cover.clone()));
    let later = new.cover("later");
    // Both, for the time in which the others change over.
    let [first, second] = [&old.cert, &new.cert].map(|path| std::fs::read_to_string(path).unwrap());
    std::fs::write(&old.cert, first + &second).unwrap();
    std::fs::copy(folder.path().join("later.crt"), folder.path().join("worker.crt")).unwrap();
    cover.look();
    assert!(ask(&address, Some(&later), "x\n").is_err(), "a certificate without its key is in use");
    std::fs::copy(folder.path().join("later.key"), folder.path().join("worker.key")).unwrap();
    cover.look();
    assert_eq!(ask(&address, Some(&later), "x\n").unwrap(), "x\n");
}
