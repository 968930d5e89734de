//! Writes by the hundred thousand: as fast as they are answered, or as fast as somebody likes.

use flotilla_services::hands::{Stopwatch, pause, spawn};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc;
use std::time::Duration;

/// The longest that anything may take, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Keys of one connection.
const KEYS: usize = 500;
/// How often the open loop sends.
const BEAT: Duration = Duration::from_millis(2);

/// What became of the writes.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) sent: u64,
    pub(crate) done: u64,
    pub(crate) refused: u64,
    pub(crate) lasted: Duration,
}

impl Outcome {
    /// Done in a second.
    pub(crate) fn goodput(&self) -> f64 {
        self.done as f64 / self.lasted.as_secs_f64()
    }

    pub(crate) fn offered(&self) -> f64 {
        self.sent as f64 / self.lasted.as_secs_f64()
    }

    fn add(&mut self, other: Self) {
        self.sent += other.sent;
        self.done += other.done;
        self.refused += other.refused;
        self.lasted = self.lasted.max(other.lasted);
    }
}

pub(crate) fn percentile(of: &mut [Duration], percent: usize) -> Duration {
    of.sort_unstable();
    of[(of.len() - 1) * percent / 100]
}

/// What to write.
#[derive(Clone, Debug)]
pub(crate) struct Writes {
    pub(crate) address: String,
    pub(crate) connections: usize,
    pub(crate) value_bytes: usize,
    pub(crate) time: Duration,
}

impl Writes {
    /// The same few keys again and again, a command after the other; and where each begins.
    fn commands(&self, connection: usize) -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut starts) = (Vec::new(), vec![0]);
        for number in 0..KEYS {
            let key = format!("{connection}:{number}");
            let (length, value) = (self.value_bytes, "v".repeat(self.value_bytes));
            let command = format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${length}\r\n{value}\r\n", key.len());
            bytes.extend_from_slice(command.as_bytes());
            starts.push(bytes.len());
        }
        (bytes, starts)
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn on_each(&self, run: impl Fn(Self, usize) -> Outcome + Copy + Send + 'static) -> Outcome {
        let threads = (0..self.connections).map(|number| {
            let this = self.clone();
            spawn(move || run(this, number))
        });
        let mut all = Outcome::default();
        threads.collect::<Vec<_>>().into_iter().for_each(|thread| all.add(thread.join().unwrap()));
        all
    }

    /// So many at once on each connection; the next ones when all of them are answered.
    pub(crate) fn closed(&self, at_once: usize) -> Outcome {
        self.on_each(move |this, number| {
            let (bytes, starts) = this.commands(number);
            let (mut stream, mut outcome) = (this.connect(), Outcome::default());
            let mut replies = Replies::new(stream.try_clone().unwrap());
            let clock = Stopwatch::start();
            while clock.elapsed() < this.time {
                stream.write_all(&bytes[..starts[at_once]]).unwrap();
                outcome.sent += at_once as u64;
                replies.take(at_once, &mut outcome);
            }
            outcome.lasted = clock.elapsed();
            outcome
        })
    }

    /// So many a second on all connections together, whatever is answered.
    pub(crate) fn open(&self, rate: f64) -> Outcome {
        let each = rate / self.connections as f64;
        self.on_each(move |this, number| {
            let (bytes, starts) = this.commands(number);
            let mut stream = this.connect();
            let (tell, told) = mpsc::channel();
            let mut replies = Replies::new(stream.try_clone().unwrap());
            let clock = Stopwatch::start();
            let reader = spawn(move || {
                let mut outcome = Outcome::default();
                for count in told {
                    replies.take(count, &mut outcome);
                }
                outcome
            });
            let mut sent = 0_usize;
            while clock.elapsed() < this.time {
                let due = (clock.elapsed().as_secs_f64() * each) as usize;
                // What couldn't be sent in time isn't made up for.
                let most = (BEAT.as_secs_f64() * each * 4.0) as usize + 1;
                let mut count = due.saturating_sub(sent).min(most);
                sent = due;
                while count > 0 {
                    let some = count.min(KEYS);
                    tell.send(some).unwrap();
                    stream.write_all(&bytes[..starts[some]]).unwrap();
                    count -= some;
                }
                pause(BEAT);
            }
            drop(tell);
            let mut outcome = reader.join().unwrap();
            outcome.sent = outcome.done + outcome.refused;
            outcome.lasted = clock.elapsed();
            outcome
        })
    }
}

/// Replies to writes, as they come in.
struct Replies {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// What is read and not looked at.
    start: usize,
    end: usize,
}

impl Replies {
    fn new(stream: TcpStream) -> Self {
        Self { stream, buffer: vec![0; 256 * 1024], start: 0, end: 0 }
    }

    fn take(&mut self, count: usize, outcome: &mut Outcome) {
        for _ in 0..count {
            let line = loop {
                let unseen = &self.buffer[self.start..self.end];
                if let Some(length) = unseen.iter().position(|byte| *byte == b'\n') {
                    break &self.buffer[self.start..self.start + length + 1];
                }
                self.buffer.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
                let read = self.stream.read(&mut self.buffer[self.end..]).unwrap();
                assert!(read > 0, "the connection was closed");
                self.end += read;
            };
            match line[0] {
                b'+' => outcome.done += 1,
                _ if line.starts_with(b"-BUSY ") => outcome.refused += 1,
                _ => panic!("{}", line.escape_ascii()),
            }
            self.start += line.len();
        }
    }
}
