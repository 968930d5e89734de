//! The driver on the real kernel: sockets, rings, disks, two cores, two nodes, with a machine made for it.

#![allow(clippy::unwrap_used, reason = "a test fails as it does")]

use flotilla_runtime::driver::{
    CoreOptions, Limits, NodeError, NodeHandle, NodeOptions, PeerAddress, Reload, TlsOptions, run,
};
use flotilla_runtime::{
    Answer, BlockPool, ConnId, CoreBoot, CoreId, DiskError, DiskReply, Effect, Effects, Event, FileId,
    Machine, Nanos, NodeId, Now, OpId, PeerId,
};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

/// Takes lines: `E text` echo, `B n` n bytes, `W n` write block n, `R n` read it, `M text` by way of the other core,
/// `P text` by way of the other node, `S` the settings, `H` halt.
struct Parrot {
    core: CoreId,
    pool: BlockPool,
    last_op: u64,
    asked: BTreeMap<u64, (ConnId, String)>,
    other_node: Option<PeerId>,
    settings: u32,
}

impl Parrot {
    fn new(boot: &CoreBoot) -> Self {
        Self {
            core: boot.core,
            pool: boot.pool.clone(),
            last_op: 0,
            asked: BTreeMap::new(),
            other_node: None,
            settings: 0,
        }
    }

    fn line(&mut self, conn: ConnId, line: &str, out: &mut Effects<String>) {
        let (command, rest) = line.split_once(' ').unwrap_or((line, ""));
        let file = FileId::segment(1);
        let reply = |text: &str| Effect::Reply { conn, bytes: format!("{text}\n").into_bytes() };
        self.last_op += 1;
        let op = OpId(self.last_op);
        match command {
            "E" => out.push(reply(rest)),
            "B" => out.push(Effect::Reply { conn, bytes: vec![b'x'; rest.parse().unwrap()] }),
            "C" => {
                self.asked.insert(op.0, (conn, "created".to_owned()));
                out.push(Effect::CreateFile { op, file, bytes: 64 * 4096 });
            }
            "W" => {
                let number: u64 = rest.parse().unwrap();
                self.asked.insert(op.0, (conn, format!("wrote {number}")));
                let block = self.pool.copy_of(&[u8::try_from(number).unwrap(); 100]);
                out.push(Effect::Write { op, file, offset: number * 4096, block, sync: true });
            }
            "R" => {
                let number: u64 = rest.parse().unwrap();
                self.asked.insert(op.0, (conn, "read".to_owned()));
                out.push(Effect::Read { op, file, offset: number * 4096, bytes: 4096 });
            }
            "M" => {
                let to = CoreId(1 - self.core.0);
                out.push(Effect::Mesh { to, message: format!("ask {} {rest}", conn.0) });
            }
            "P" => match self.other_node {
                Some(to) => {
                    out.push(Effect::Send { to, frame: format!("ask {} {rest}", conn.0).into_bytes() })
                }
                None => out.push(reply("no link")),
            },
            "S" => out.push(reply(&self.settings.to_string())),
            "H" => out.push(Effect::Halt { reason: "a client asked for it".to_owned() }),
            _ => out.push(Effect::Close { conn }),
        }
    }

    fn disk(&mut self, op: OpId, result: Result<DiskReply, DiskError>, out: &mut Effects<String>) {
        let (conn, what) = self.asked.remove(&op.0).unwrap();
        let text = match result {
            Ok(DiskReply::Done) => what,
            Ok(DiskReply::Read(bytes)) => format!("read {} of {}", bytes[99], bytes.len()),
            Err(error) => error.to_string(),
        };
        out.push(Effect::Reply { conn, bytes: format!("{text}\n").into_bytes() });
    }

    fn passed_on(&self, text: &str) -> Result<String, (ConnId, String)> {
        let (kind, rest) = text.split_once(' ').unwrap();
        let (conn, words) = rest.split_once(' ').unwrap();
        match kind {
            "ask" => Ok(format!("tell {conn} {} says {words}", self.core.0)),
            _ => Err((ConnId(conn.parse().unwrap()), format!("{words}\n"))),
        }
    }
}

impl Machine for Parrot {
    type Message = String;

    fn step(&mut self, _: Now, event: Event<'_, String>, out: &mut Effects<String>) {
        match event {
            Event::Client { conn, bytes, taken } => {
                while let Some(end) = bytes[taken.bytes..].iter().position(|byte| *byte == b'\n') {
                    let line = std::str::from_utf8(&bytes[taken.bytes..taken.bytes + end]).unwrap();
                    taken.bytes += end + 1;
                    self.line(conn, line, out);
                }
            }
            Event::Disk { op, result } => self.disk(op, result, out),
            Event::Mesh { from, message } => match self.passed_on(&message) {
                Ok(message) => out.push(Effect::Mesh { to: from, message }),
                Err((conn, text)) => out.push(Effect::Reply { conn, bytes: text.into_bytes() }),
            },
            Event::Peer { from, frame } => match self.passed_on(std::str::from_utf8(frame).unwrap()) {
                Ok(text) => out.push(Effect::Send { to: from, frame: text.into_bytes() }),
                Err((conn, text)) => out.push(Effect::Reply { conn, bytes: text.into_bytes() }),
            },
            Event::PeerUp { peer } => self.other_node = Some(peer),
            Event::PeerDown { .. } => self.other_node = None,
            Event::Shutdown => out.push(Effect::Drained),
            Event::Reloaded { settings } => {
                self.settings = *settings.downcast_ref::<u32>().unwrap();
            }
            Event::Asked { question, path } => {
                let (status, text) = (if path == "/" { 200 } else { 404 }, format!("you asked for {path}\n"));
                if path != "/never" {
                    let render = Box::new(move || text.into_bytes());
                    let answer = Answer { status, content_type: "text/plain", render };
                    out.push(Effect::Answer { question, answer });
                }
            }
            Event::Tick | Event::Opened { .. } | Event::Closed { .. } => {}
        }
    }

    fn flush(&mut self, _: Now, _: &mut Effects<String>) {}

    fn deadline(&self) -> Option<Nanos> {
        None
    }
}

struct Node {
    clients: Vec<SocketAddr>,
    admin: SocketAddr,
    stop: NodeHandle,
    thread: std::thread::JoinHandle<Result<(), NodeError>>,
}

impl Node {
    fn start(
        number: u32,
        peers: Vec<TcpListener>,
        others: Vec<PeerAddress>,
        folder: &Path,
        output_max: usize,
    ) -> Self {
        let mut options = NodeOptions::new(NodeId(number), 7, 1);
        let mut clients = Vec::new();
        for (core, peers) in peers.into_iter().enumerate() {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            clients.push(listener.local_addr().unwrap());
            let folder = folder.join(format!("{number}-{core}"));
            std::fs::create_dir_all(&folder).unwrap();
            options.cores.push(CoreOptions { clients: listener, peers, folder });
        }
        let admin = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = admin.local_addr().unwrap();
        options.admin = Some(admin);
        options.peers = others;
        options.limits.client_output_bytes_max = output_max;
        let (ready, is_ready) = mpsc::channel();
        let stop = NodeHandle::new();
        let handle = stop.clone();
        let build = |boot: CoreBoot| Ok(Parrot::new(&boot));
        let thread = std::thread::spawn(move || run(options, build, handle, move || ready.send(()).unwrap()));
        is_ready.recv_timeout(PATIENCE).unwrap();
        Self { clients, admin: address, stop, thread }
    }

    fn alone(folder: &Path, cores: usize) -> Self {
        let peers = (0..cores).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        Self::start(1, peers, Vec::new(), folder, 1 << 20)
    }

    fn connect(&self, core: usize) -> Client {
        let stream = TcpStream::connect(self.clients[core]).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Client(BufReader::new(stream))
    }

    fn end(self) -> Result<(), NodeError> {
        self.stop.stop();
        self.thread.join().unwrap()
    }
}

#[test]
fn settings_change_while_a_node_runs() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::alone(folder.path(), 2);
    let mut clients = [node.connect(0), node.connect(1)];
    assert_eq!(clients[0].ask("S"), "0");
    for settings in [7_u32, 8] {
        let limits = Limits { connections_max: 1, ..Limits::default() };
        let (tls, settings_of_all) = (TlsOptions::default(), Arc::new(settings));
        node.stop.reload(Reload { limits, tls, settings: settings_of_all });
        for client in &mut clients {
            client.ask_until("S", &settings.to_string());
        }
    }
    // There may be one, and there is.
    assert!(node.connect(0).hear().contains("max number of clients"));
    clients[0].ask_until("E still here", "still here");
    node.end().unwrap();
}

/// Says this to a port, and hears what comes until the other side ends.
fn say_to(address: SocketAddr, text: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn operators_ask_over_http_and_hold_nobody_up() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::alone(folder.path(), 2);
    let answer = say_to(node.admin, "GET /?x=1 HTTP/1.1\r\n\r\n");
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nyou asked for /\n"),
        "{answer}"
    );
    assert!(say_to(node.admin, "GET /x HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404 "));
    assert!(say_to(node.admin, "PUT / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405 "));
    assert!(say_to(node.admin, "nonsense\r\n\r\n").starts_with("HTTP/1.1 400 "));
    // One that says half, one that waits for an answer which never comes: the node serves, and ends.
    let mut half = TcpStream::connect(node.admin).unwrap();
    half.write_all(b"GET / HT").unwrap();
    let mut waiting = TcpStream::connect(node.admin).unwrap();
    waiting.write_all(b"GET /never HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(node.connect(0).ask("E here"), "here");
    assert!(say_to(node.admin, "GET / HTTP/1.1\r\n\r\n").contains(" 200 "));
    node.end().unwrap();
    for mut cut in [half, waiting] {
        cut.set_read_timeout(Some(PATIENCE)).unwrap();
        // An end, or a reset: nothing comes any more.
        let _ = cut.read_to_end(&mut Vec::new());
    }
}

struct Client(BufReader<TcpStream>);

impl Client {
    fn say(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
    }

    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Asks again and again, since what goes over a link may be lost, until this is heard.
    fn ask_until(&mut self, text: &str, expected: &str) {
        let begun = Instant::now();
        self.0.get_ref().set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let mut line = String::new();
        while line.trim_end() != expected {
            assert!(begun.elapsed() < PATIENCE, "{expected:?} is never heard");
            self.say(&format!("{text}\n"));
            line.clear();
            // Nothing within the time: the question or its answer was lost.
            let _ = self.0.read_line(&mut line);
        }
    }

    fn ask(&mut self, text: &str) -> String {
        self.say(&format!("{text}\n"));
        self.hear()
    }
}

#[test]
fn replies_come_in_order_however_the_bytes_are_cut() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::alone(folder.path(), 1);
    let mut client = node.connect(0);
    let text: String = (0..5000).map(|number| format!("E {number}\n")).collect();
    let (first, second) = text.split_at(text.len() / 2 + 1);
    client.say(first);
    client.say(second);
    for number in 0..5000 {
        assert_eq!(client.hear(), number.to_string());
    }
    let mut other = node.connect(0);
    assert_eq!(other.ask("E hello"), "hello");
    client.say("X\n");
    assert_eq!(client.hear(), "", "the machine closed it");
    assert_eq!(other.ask("E still"), "still");
    assert_eq!(node.end(), Ok(()));
}

#[test]
fn what_is_written_is_read_back_and_on_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::alone(folder.path(), 1);
    let mut client = node.connect(0);
    assert_eq!(client.ask("C"), "created");
    assert!(client.ask("C").contains("create of"), "a file isn't created twice");
    for number in 1..20 {
        assert_eq!(client.ask(&format!("W {number}")), format!("wrote {number}"));
    }
    // Many at once go through the ring, one alone on the spot.
    client.say(&(20..60).map(|number| format!("W {number}\n")).collect::<String>());
    let mut heard: Vec<String> = (20..60).map(|_| client.hear()).collect();
    heard.sort();
    assert_eq!(heard, (20..60).map(|number| format!("wrote {number}")).collect::<Vec<_>>());
    for number in 1..60 {
        assert_eq!(client.ask(&format!("R {number}")), format!("read {number} of 4096"));
    }
    assert_eq!(node.end(), Ok(()));
    let image = std::fs::read(folder.path().join("1-0").join(FileId::segment(1).to_string())).unwrap();
    assert_eq!(image.len(), 64 * 4096);
    assert!((1..60).all(|number| image[number * 4096 + 99] == u8::try_from(number).unwrap()));
}

#[test]
fn cores_talk_over_the_mesh() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::alone(folder.path(), 2);
    let (mut zero, mut one) = (node.connect(0), node.connect(1));
    for number in 0..500 {
        assert_eq!(zero.ask(&format!("M {number}")), format!("1 says {number}"));
        assert_eq!(one.ask(&format!("M {number}")), format!("0 says {number}"));
    }
    assert_eq!(node.end(), Ok(()));
}

/// The kernel takes a moment to give the port back.
fn bind(address: SocketAddr) -> TcpListener {
    let begun = Instant::now();
    loop {
        match TcpListener::bind(address) {
            Ok(listener) => return listener,
            Err(error) => assert!(begun.elapsed() < PATIENCE, "{address}: {error}"),
        }
    }
}

#[test]
fn links_come_back_after_the_other_node_does() {
    let folder = tempfile::tempdir().unwrap();
    let listeners: Vec<TcpListener> = (0..2).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let address = |node: usize| PeerAddress {
        peer: PeerId { node: NodeId(u32::try_from(node + 1).unwrap()), core: CoreId(0) },
        address: listeners[node].local_addr().unwrap(),
    };
    let (first, second) = (address(0), address(1));
    let start = |number: u32, listener: TcpListener, other| {
        Node::start(number, vec![listener], vec![other], folder.path(), 1 << 20)
    };
    let mut listeners = listeners.into_iter();
    let one = start(1, listeners.next().unwrap(), second);
    let mut two = Some(start(2, listeners.next().unwrap(), first));
    let mut client = one.connect(0);
    for round in 0..2 {
        client.ask_until(&format!("P {round}"), &format!("0 says {round}"));
        if let Some(node) = two.take() {
            assert_eq!(node.end(), Ok(()));
            two = Some(start(2, bind(second.address), first));
        }
    }
    assert_eq!(two.unwrap().end(), Ok(()));
    assert_eq!(one.end(), Ok(()));
}

/// NET-03, NET-09: what is sent while the other node is away is lost at once: it never arrives later, and holds up nothing
/// that is sent when the link stands again.
#[test]
fn what_was_sent_over_a_broken_link_never_arrives_net_03_net_09() {
    let folder = tempfile::tempdir().unwrap();
    let listeners: Vec<TcpListener> = (0..2).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let address = |node: usize| PeerAddress {
        peer: PeerId { node: NodeId(u32::try_from(node + 1).unwrap()), core: CoreId(0) },
        address: listeners[node].local_addr().unwrap(),
    };
    let (first, second) = (address(0), address(1));
    let start = |number: u32, listener: TcpListener, other| {
        Node::start(number, vec![listener], vec![other], folder.path(), 1 << 20)
    };
    let mut listeners = listeners.into_iter();
    let one = start(1, listeners.next().unwrap(), second);
    let two = start(2, listeners.next().unwrap(), first);
    let mut client = one.connect(0);
    client.ask_until("P before", "0 says before");
    assert_eq!(two.end(), Ok(()));
    client.ask_until("P gone", "no link");
    for number in 0..20 {
        assert_eq!(client.ask(&format!("P late {number}")), "no link");
    }
    let two = start(2, bind(second.address), first);
    let mut other = one.connect(0);
    other.ask_until("P again", "0 says again");
    let asked = Instant::now();
    other.say("P now\n");
    let mut heard = other.hear();
    while heard == "0 says again" {
        heard = other.hear();
    }
    assert_eq!(heard, "0 says now");
    assert!(asked.elapsed() < Duration::from_secs(1), "it took {:?}", asked.elapsed());
    // Nothing of what was late has come: the next that this client hears is its own next answer.
    assert_eq!(client.ask("E after all"), "after all");
    assert_eq!(two.end(), Ok(()));
    assert_eq!(one.end(), Ok(()));
}

#[test]
fn a_client_that_reads_nothing_is_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::alone(folder.path(), 1);
    let mut greedy = node.connect(0);
    let mut other = node.connect(0);
    let begun = Instant::now();
    while greedy.0.get_mut().write_all(b"B 100000\n").is_ok() {
        assert!(begun.elapsed() < PATIENCE, "it is never cut off");
        assert_eq!(other.ask("E fine"), "fine");
    }
    let mut left = Vec::new();
    // What the kernel still had, then the end.
    let _ = greedy.0.read_to_end(&mut left);
    assert_eq!(other.ask("E fine"), "fine");
    assert_eq!(node.end(), Ok(()));
}

#[test]
fn a_machine_that_gives_up_ends_the_node_with_its_words() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::alone(folder.path(), 2);
    let mut client = node.connect(1);
    client.say("E before\nH\nE after\n");
    assert_eq!(client.hear(), "before");
    let mut left = Vec::new();
    // Cut off, politely or not.
    let _ = client.0.read_to_end(&mut left);
    assert!(left.is_empty(), "what the machine asked for behind that isn't done");
    assert_eq!(node.thread.join().unwrap(), Err(NodeError::Halted("a client asked for it".to_owned())));
}

#[test]
fn a_node_ends_while_clients_are_busy() {
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..10 {
        let node = Node::alone(folder.path(), 2);
        let mut clients: Vec<Client> = (0..20).map(|number| node.connect(number % 2)).collect();
        for client in &mut clients {
            client.say("E a\nM b\nE c\n");
        }
        assert_eq!(node.end(), Ok(()));
    }
}
