//! Which node has which groups' replicas: every core is asked, and the groups' leaders are believed (`FLOTILLA.MEMBER STATUS`).

use super::super::progress::lines;
use crate::client::{ClientError, Connection, Reply, Security};
use crate::group_name::{self, CONTROLLER, word_of};
use crate::hands::{Stopwatch, pause, spawn};
use crate::placement::{Group, Nodes};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long one core may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longer than an election takes.
pub(super) const ELECTION: Duration = Duration::from_secs(15);
/// When whoever may lead soon is asked again.
pub(super) const AGAIN: Duration = Duration::from_millis(50);

/// A node as the files list it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) host: String,
    /// The client port of its first core.
    pub(super) port: u16,
    pub(super) cores: u16,
}

impl Listed {
    pub(super) fn address(&self, core: u16) -> String {
        format!("{}:{}", self.host, self.port.saturating_add(core))
    }
}

/// What a group's leader says of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Led {
    pub(super) group: Group,
    /// The leader's term.
    pub(super) term: u64,
    /// Where it is led.
    pub(super) at: String,
    /// Learners, and how many entries they lack.
    pub(super) behind: BTreeMap<u32, u64>,
}

/// Everything there is to know.
#[derive(Clone, Debug, Default)]
pub(super) struct Picture {
    /// The nodes in the file of the one that was asked first.
    pub(super) listed: BTreeMap<u32, Listed>,
    /// Nodes whose cores all answered, and whom their files list.
    pub(super) up: BTreeMap<u32, Nodes>,
    /// Groups that have a leader.
    pub(super) groups: BTreeMap<u32, Led>,
    /// Groups that have none.
    pub(super) leaderless: Vec<u32>,
}

/// What one core says.
#[derive(Debug, Default)]
struct Status {
    node: u32,
    groups: u32,
    has_controller: bool,
    listed: BTreeMap<u32, Listed>,
    led: Vec<Led>,
}

pub(super) fn list(nodes: &Nodes) -> String {
    nodes.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

fn numbers(text: &str) -> Nodes {
    text.split(',').filter_map(|number| number.parse().ok()).collect()
}

fn status_of(at: &str, lines: &[String]) -> Option<Status> {
    let mut status = Status::default();
    let mut is_complete = false;
    for line in lines {
        let words: Vec<&str> = line.split(' ').collect();
        let fields: BTreeMap<&str, &str> = words.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
        match words[0] {
            "node" => {
                status.node = fields.get("node")?.parse().ok()?;
                status.groups = fields.get("groups")?.parse().ok()?;
                status.has_controller = *fields.get("controller")? == "1";
                is_complete = true;
            }
            "listed" => {
                let (host, port) = fields.get("at")?.rsplit_once(':')?;
                let cores = fields.get("cores")?.parse().ok()?;
                let node = Listed { host: host.to_owned(), port: port.parse().ok()?, cores };
                status.listed.insert(fields.get("listed")?.parse().ok()?, node);
            }
            "group" => status.led.push(led(at, &fields)?),
            _ => {}
        }
    }
    status.led.iter_mut().for_each(|led| led.group.leader = status.node);
    is_complete.then_some(status)
}

fn led(at: &str, fields: &BTreeMap<&str, &str>) -> Option<Led> {
    let nodes = |name: &str| Some(numbers(fields.get(name)?));
    let behind = fields.get("behind")?.split(',').filter_map(|pair| {
        let (node, entries) = pair.split_once(':')?;
        Some((node.parse().ok()?, entries.parse().ok()?))
    });
    let group = Group {
        number: group_name::parse(fields.get("group")?.as_bytes())?,
        serves: *fields.get("serves")? == "1",
        leader: 0,
        voters: nodes("voters")?,
        learners: nodes("learners")?,
        ready: nodes("ready")?,
        unwell: nodes("unwell")?,
        is_changing: *fields.get("changing")? == "1",
        order: fields.get("order")?.split(',').filter_map(|node| node.parse().ok()).collect(),
        bytes: fields.get("bytes")?.parse().ok()?,
    };
    let term = fields.get("term")?.parse().ok()?;
    Some(Led { group, term, at: at.to_owned(), behind: behind.collect() })
}

/// `FLOTILLA.MEMBER` with these words, at one core; what it answers, line by line.
///
/// # Errors
/// It doesn't answer, or refuses.
pub(super) fn order(at: &str, security: &Security, words: &[&str]) -> Result<Vec<String>, ClientError> {
    let command: Vec<&[u8]> =
        std::iter::once("FLOTILLA.MEMBER").chain(words.iter().copied()).map(str::as_bytes).collect();
    match Connection::open_secured(at, PATIENCE, security)?.execute(&command)? {
        Reply::Error(error) => Err(ClientError::Refused(format!("{at}: {error}"))),
        reply => Ok(lines(&reply)),
    }
}

fn ask(at: &str, security: &Security) -> Result<Status, ClientError> {
    let answer = order(at, security, &["STATUS"])?;
    let what = || "FLOTILLA.MEMBER STATUS isn't what this version knows".to_owned();
    status_of(at, &answer).ok_or_else(|| ClientError::Protocol { address: at.to_owned(), what: what() })
}

/// One group, from where it was led; `None` if it isn't any more.
pub(super) fn look_at(led: &Led, security: &Security) -> Option<Led> {
    let words = ["GROUP", &word_of(led.group.number), "STATUS"];
    let answer = order(&led.at, security, &words).ok()?;
    status_of(&led.at, &answer)?.led.pop()
}

/// Asks every core of every node, all at once: one that is gone answers late or never.
fn look_once(first: &Status, security: &Security) -> Picture {
    let cores = first
        .listed
        .iter()
        .flat_map(|(node, listed)| (0..listed.cores).map(move |core| (*node, listed.address(core))));
    let asked: Vec<_> = cores
        .map(|(node, at)| {
            let security = security.clone();
            (node, spawn(move || ask(&at, &security)))
        })
        .collect();
    let mut picture = Picture { listed: first.listed.clone(), ..Picture::default() };
    let mut down = BTreeSet::new();
    for (node, answer) in asked {
        match answer.join().ok().and_then(Result::ok).filter(|status| status.node == node) {
            None => drop(down.insert(node)),
            Some(status) => {
                picture.up.insert(node, status.listed.keys().copied().collect());
                for led in status.led {
                    let known = picture.groups.entry(led.group.number).or_insert_with(|| led.clone());
                    if known.term < led.term {
                        *known = led;
                    }
                }
            }
        }
    }
    picture.up.retain(|node, _| !down.contains(node));
    let controller = first.has_controller.then_some(CONTROLLER);
    let all = (0..first.groups).chain(controller);
    picture.leaderless = all.filter(|group| !picture.groups.contains_key(group)).collect();
    picture
}

/// Asks everybody, until every group has a leader or that can't be expected any more.
///
/// # Errors
/// The first address doesn't answer.
pub(super) fn look(address: &str, security: &Security) -> Result<Picture, ClientError> {
    let first = ask(address, security)?;
    let clock = Stopwatch::start();
    loop {
        let picture = look_once(&first, security);
        if picture.leaderless.is_empty() || clock.elapsed() > ELECTION {
            return Ok(picture);
        }
        pause(AGAIN);
    }
}

/// Whether all cores of a node answer, and why not.
pub(super) fn reach(listed: &Listed, security: &Security) -> Result<(), ClientError> {
    (0..listed.cores).try_for_each(|core| ask(&listed.address(core), security).map(drop))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_core_says_is_understood() {
        let lines = [
            "node 2 core 1 groups 3 controller 1",
            "listed 1 at ::1:7000 cores 2",
            "group 0 term 4 serves 1 changing 0 bytes 70 voters 1,2,3 learners 4 ready  unwell 3 order 2,3,1,4 behind 4:12",
            "group controller term 1 serves 0 changing 1 bytes 0 voters 1 learners  ready  unwell  order 1 behind ",
        ];
        let lines = lines.map(str::to_owned);
        let status = status_of("here", &lines).unwrap();
        assert_eq!((status.node, status.groups, status.has_controller), (2, 3, true));
        assert_eq!(status.listed[&1], Listed { host: "::1".to_owned(), port: 7000, cores: 2 });
        let [zero, controller] = &status.led[..] else { panic!("two groups") };
        assert_eq!((zero.group.leader, &zero.at[..], zero.behind[&4]), (2, "here", 12));
        assert_eq!((zero.group.voters.len(), zero.group.unwell.len(), zero.group.order[0]), (3, 1, 2));
        assert!(controller.group.is_changing && controller.group.number == CONTROLLER);
        assert!(status_of("here", &lines[1..]).is_none(), "whoever doesn't say who it is");
    }
}
