//! The native client: async, on any runtime, and every write takes effect once.
//!
//! ```no_run
//! # async fn example() -> Result<(), flotilla_services::client::ClientError> {
//! use flotilla_services::client::{Client, ClientOptions};
//! let client = Client::connect(&["127.0.0.1:7000"], ClientOptions::default()).await?;
//! client.set(b"greeting", b"hello").await?;
//! assert_eq!(client.get(b"greeting").await?, Some(b"hello".to_vec()));
//! let visits = client.increment(b"visits", 1).await?;
//! # Ok(()) }
//! ```
//!
//! A write is numbered in a session of its key's shard (`FLOTILLA.SESSION`, `FLOTILLA.ONCE`: `docs/protocol.md`) and sent
//! until it is answered, to whoever leads the shard by then. However often that is, it takes effect once; the reply is that
//! of the one time. A session has one write under way: as many writes as run at a time, as many sessions of a shard there
//! are, and they are used again. A call that is dropped halfway gives its session up, since nobody will know its last reply.
//!
//! Sockets and timers are those of `async-io`, which has a thread of its own and so runs under any executor.

mod link;
mod pool;

use super::{ClientError, Reply, Security};
use crate::hands::Stopwatch;
use crate::slot::Slot;
use pool::{Elsewhere, Pool, Session};
use std::future::Future;
use std::time::Duration;

/// A pause before somebody is asked again who couldn't serve: doubled each time, up to the second.
const PAUSES: [Duration; 2] = [Duration::from_millis(2), Duration::from_millis(100)];

/// So often a call goes where it was sent without a pause.
const REDIRECTIONS_MAX: usize = 4;

/// How a client behaves.
#[derive(Clone, Copy, Debug)]
pub struct ClientOptions {
    /// A call that isn't answered by then fails. A write says then whether it may have taken effect.
    pub timeout: Duration,
    /// A node that doesn't answer for so long is asked no longer.
    pub patience: Duration,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(30), patience: Duration::from_secs(2) }
    }
}

/// A client of a cluster. Share it: every call may run beside others.
#[derive(Debug)]
pub struct Client {
    pool: Pool,
    options: ClientOptions,
}

/// What one try came to.
enum Tried {
    /// An answer that stands.
    Answered(Reply),
    /// Nothing was done: in these words.
    Refused(String),
    /// Nobody knows what was done: in these words.
    Lost(String),
}

/// Goes on until a call is answered or has no time left.
struct Patience {
    clock: Stopwatch,
    timeout: Duration,
    pause: Duration,
    last: String,
}

impl Patience {
    fn new(options: &ClientOptions) -> Self {
        let last = "nothing was tried".to_owned();
        Self { clock: Stopwatch::start(), timeout: options.timeout, pause: PAUSES[0], last }
    }

    /// Waits before the next try. Fails if there is no time for one.
    async fn wait(&mut self, last: String) -> Result<(), ClientError> {
        self.last = last;
        let seconds = self.timeout.as_secs_f64();
        if self.clock.elapsed() + self.pause > self.timeout {
            return Err(ClientError::TimedOut { seconds, last: std::mem::take(&mut self.last) });
        }
        async_io::Timer::after(self.pause).await;
        self.pause = (2 * self.pause).min(PAUSES[1]);
        Ok(())
    }
}

impl Client {
    /// A client that knows these addresses to begin with, and learns the others from them.
    ///
    /// # Errors
    /// [`ClientError`], if none of them answers.
    pub async fn connect(addresses: &[&str], options: ClientOptions) -> Result<Self, ClientError> {
        Self::connect_secured(addresses, options, Security::default()).await
    }

    /// The same as a user, under cover, or both.
    ///
    /// # Errors
    /// [`ClientError`], if none of them answers; [`ClientError::Refused`] at once for a wrong password.
    pub async fn connect_secured(
        addresses: &[&str],
        options: ClientOptions,
        security: Security,
    ) -> Result<Self, ClientError> {
        let seeds = addresses.iter().map(|address| (*address).to_owned()).collect();
        let pool = Pool::new(seeds, options.patience, security);
        let mut patience = Patience::new(&options);
        while let Err(error) = pool.learn().await {
            if matches!(error, ClientError::Refused(_)) {
                return Err(error);
            }
            patience.wait(error.to_string()).await?;
        }
        Ok(Self { pool, options })
    }

    /// Executes a write of `key` (and other keys of its slot) exactly once; `command` is all of it, its name first.
    ///
    /// # Errors
    /// [`ClientError::Refused`] if it was answered with an error, and then that is what it did; [`ClientError::TimedOut`] if
    /// nobody took it; [`ClientError::Unknown`] if it may or may not have taken effect.
    pub async fn write(&self, key: &[u8], command: &[&[u8]]) -> Result<Reply, ClientError> {
        let slot = Slot::of_key(key);
        let mut patience = Patience::new(&self.options);
        let mut session = self.session(slot, key, &mut patience).await?;
        // Whether a try of this write was never answered.
        let mut is_uncertain = false;
        loop {
            let numbers = [session.number, session.last + 1, session.last].map(|number| number.to_string());
            let [number, write, acknowledged] = numbers.each_ref().map(String::as_bytes);
            let once = [&[b"FLOTILLA.ONCE", number, write, acknowledged], command].concat();
            let why = match self.attempt(slot, &once).await {
                Tried::Answered(Reply::Error(error)) if error.starts_with("SESSIONLOST") => {
                    if is_uncertain {
                        return Err(ClientError::Unknown { last: error });
                    }
                    session = self.open(slot, key, &mut patience).await?;
                    continue;
                }
                // An earlier try may have been taken by somebody who let this client in.
                Tried::Answered(Reply::Error(error)) if is_uncertain && is_of_access(&error) => {
                    return Err(ClientError::Unknown { last: error });
                }
                // It may have been refused for its form: then its number is free, and nobody can tell. The session goes.
                Tried::Answered(Reply::Error(error)) => return Err(ClientError::Refused(error)),
                Tried::Answered(reply) => {
                    session.last += 1;
                    self.pool.give_back(slot, session);
                    return Ok(reply);
                }
                Tried::Refused(why) => why,
                Tried::Lost(why) => {
                    is_uncertain = true;
                    why
                }
            };
            if let Err(error) = patience.wait(why).await {
                return Err(match error {
                    ClientError::TimedOut { last, .. } if is_uncertain => ClientError::Unknown { last },
                    error => error,
                });
            }
        }
    }

    /// Executes a read of `key` (and other keys of its slot), or anything else that may be done twice.
    ///
    /// # Errors
    /// [`ClientError::Refused`] if it was answered with an error, [`ClientError::TimedOut`].
    pub async fn read(&self, key: &[u8], command: &[&[u8]]) -> Result<Reply, ClientError> {
        let mut patience = Patience::new(&self.options);
        self.until_answered(Slot::of_key(key), command, &mut patience).await
    }

    /// A key's string value.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ClientError> {
        match self.read(key, &[b"GET", key]).await? {
            Reply::Bulk(bytes) => Ok(Some(bytes)),
            Reply::Null => Ok(None),
            other => Err(unexpected("GET", &other)),
        }
    }

    /// Sets a key's string value.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub async fn set(&self, key: &[u8], value: &[u8]) -> Result<(), ClientError> {
        match self.write(key, &[b"SET", key, value]).await? {
            Reply::Status(_) => Ok(()),
            other => Err(unexpected("SET", &other)),
        }
    }

    /// Removes a key; whether there was one.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub async fn delete(&self, key: &[u8]) -> Result<bool, ClientError> {
        match self.write(key, &[b"DEL", key]).await? {
            Reply::Integer(removed) => Ok(removed > 0),
            other => Err(unexpected("DEL", &other)),
        }
    }

    /// Adds to a key's integer value; the sum.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub async fn increment(&self, key: &[u8], by: i64) -> Result<i64, ClientError> {
        match self.write(key, &[b"INCRBY", key, by.to_string().as_bytes()]).await? {
            Reply::Integer(sum) => Ok(sum),
            other => Err(unexpected("INCRBY", &other)),
        }
    }

    async fn session(&self, slot: Slot, key: &[u8], patience: &mut Patience) -> Result<Session, ClientError> {
        match self.pool.session(slot) {
            Some(session) => Ok(session),
            None => self.open(slot, key, patience).await,
        }
    }

    /// Opens a session. If the reply is lost it is opened twice: the first is never used and goes in time.
    async fn open(&self, slot: Slot, key: &[u8], patience: &mut Patience) -> Result<Session, ClientError> {
        match self.until_answered(slot, &[b"FLOTILLA.SESSION", key], patience).await? {
            Reply::Integer(number) => Ok(Session { number: number.unsigned_abs(), last: 0 }),
            other => Err(unexpected("FLOTILLA.SESSION", &other)),
        }
    }

    async fn until_answered(
        &self,
        slot: Slot,
        command: &[&[u8]],
        patience: &mut Patience,
    ) -> Result<Reply, ClientError> {
        loop {
            match self.attempt(slot, command).await {
                Tried::Answered(reply) => return answer(reply),
                Tried::Refused(why) | Tried::Lost(why) => patience.wait(why).await?,
            }
        }
    }

    /// The address of the slot's leader, if anybody knows it.
    async fn leader_of(&self, slot: Slot) -> Result<String, String> {
        // One asks, the others go by what they know.
        let known = if self.pool.take_stale() { None } else { self.pool.leader_of(slot) };
        if let Some(address) = known {
            return Ok(address);
        }
        let learned = self.pool.learn().await;
        self.pool.leader_of(slot).ok_or_else(|| match learned {
            Ok(()) => "no leader is known".to_owned(),
            Err(error) => error.to_string(),
        })
    }

    async fn attempt(&self, slot: Slot, command: &[&[u8]]) -> Tried {
        let mut address = match self.leader_of(slot).await {
            Ok(address) => address,
            Err(why) => return Tried::Refused(why),
        };
        let mut redirections = 0;
        loop {
            let mut link = match self.pool.link(&address).await {
                Ok(link) => link,
                // It won't be another in a moment.
                Err(ClientError::Refused(error)) => return Tried::Answered(Reply::Error(error)),
                Err(error) => {
                    self.pool.distrust(&address);
                    return Tried::Refused(error.to_string());
                }
            };
            let reply = match within(self.options.patience, link.call(command)).await {
                Ok(reply) => reply,
                Err(error) => {
                    self.pool.distrust(&address);
                    self.pool.drop_links(&address);
                    return Tried::Lost(error.to_string());
                }
            };
            let Reply::Error(error) = reply else {
                self.pool.put_link(link);
                return Tried::Answered(reply);
            };
            if error.starts_with(TOO_MANY_CLIENTS) {
                // It closes the connection, and may have room in a moment.
                return Tried::Refused(error);
            }
            self.pool.put_link(link);
            match self.pool.elsewhere(slot, &error) {
                // There at once: what others say may be older.
                Some(Elsewhere::There(leader)) if redirections < REDIRECTIONS_MAX => address = leader,
                Some(_) => return Tried::Refused(error),
                None => return Tried::Answered(Reply::Error(error)),
            }
            redirections += 1;
        }
    }
}

/// What a node without room for another client says.
const TOO_MANY_CLIENTS: &str = "ERR max number of clients";

/// Whether an error says who may do something, and nothing of what became of it.
fn is_of_access(error: &str) -> bool {
    ["NOAUTH", "NOPERM", "DENIED", "WRONGPASS"].iter().any(|word| error.starts_with(word))
}

/// The outcome, unless it takes too long.
async fn within<T>(
    time: Duration,
    work: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, ClientError> {
    let late = async {
        async_io::Timer::after(time).await;
        Err(ClientError::TimedOut { seconds: time.as_secs_f64(), last: "nothing was said".to_owned() })
    };
    futures_lite::future::or(work, late).await
}

fn answer(reply: Reply) -> Result<Reply, ClientError> {
    match reply {
        Reply::Error(error) => Err(ClientError::Refused(error)),
        reply => Ok(reply),
    }
}

fn unexpected(command: &str, reply: &Reply) -> ClientError {
    ClientError::Protocol {
        address: "the cluster".to_owned(),
        what: format!("{command} was answered with {reply}"),
    }
}
