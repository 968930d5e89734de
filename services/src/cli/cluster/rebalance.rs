//! `flotilla cluster rebalance`, `replace` and `remove`: replicas go to other nodes while the cluster serves.
//!
//! The plan and every step are [`crate::placement`]'s; here they are carried out, one group after the other, by what each group's
//! leader says. Nothing is remembered: cut off at any moment, the same command goes on from what is there.

use super::super::Failure;
use super::Asking;
use super::members::{self, AGAIN, ELECTION, Led, Picture, list};
use crate::client::{ClientError, Connection, Reply, Security};
use crate::group_name::{in_words, word_of};
use crate::hands::{Stopwatch, pause};
use crate::placement::{self, Group, Nodes, Plan, Step};
use clap::Args;
use std::time::Duration;

/// How often progress is shown.
const INTERVAL: Duration = Duration::from_millis(500);
/// A transfer takes milliseconds, or an election timeout if nothing comes of it.
const PATIENCE: Duration = Duration::from_secs(30);
/// What an otherwise empty replica counts for when the time that is left is reckoned.
const REPLICA_BYTES: u64 = 1 << 20;

/// Options of them all.
#[derive(Debug, Args)]
pub(in crate::cli) struct Common {
    #[command(flatten)]
    asking: Asking,
    /// Print which replicas would move, and do nothing.
    #[arg(long)]
    plan: bool,
    /// Return only when it is done. It always does: nothing moves by itself when this command has ended.
    #[arg(long)]
    wait: bool,
    /// Give up when one step takes more than so many seconds. The same command goes on from there.
    #[arg(long, default_value_t = 600)]
    timeout: u64,
}

/// Options of `flotilla cluster rebalance`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Rebalance {
    /// The nodes that are to have replicas, as `1,2,3` [default: all that the files list].
    #[arg(long, value_delimiter = ',')]
    nodes: Option<Vec<u32>>,
    /// Replicas of each group [default: as many as it has].
    #[arg(long)]
    replicas: Option<usize>,
    #[command(flatten)]
    common: Common,
}

/// Options of `flotilla cluster replace`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Replace {
    /// The node whose replicas go; it may be dead.
    old: u32,
    /// The node that gets them.
    new: u32,
    #[command(flatten)]
    common: Common,
}

/// Options of `flotilla cluster remove`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Remove {
    /// The node whose replicas go to the others that have some; it may be dead.
    node: u32,
    #[command(flatten)]
    common: Common,
}

pub(super) fn rebalance(options: &Rebalance) -> Result<(), Failure> {
    let operator = Operator::new(&options.common)?;
    let picture = operator.look()?;
    let nodes: Nodes = match &options.nodes {
        Some(nodes) => nodes.iter().copied().collect(),
        None => picture.listed.keys().copied().collect(),
    };
    nodes.iter().try_for_each(|node| known(&picture, *node))?;
    if options.replicas == Some(0) {
        return Err(Failure::Usage("--replicas 0: a group needs at least one".to_owned()));
    }
    let plan = placement::spread(&groups(&picture), &nodes, options.replicas).map_err(Failure::failed)?;
    operator.carry_out(picture, &plan, &format!("the replicas are spread over nodes {}", list(&nodes)))
}

pub(super) fn replace(options: &Replace) -> Result<(), Failure> {
    let Replace { old, new, common } = options;
    if old == new {
        return Err(Failure::Usage(format!("node {old} can't take its own place")));
    }
    let operator = Operator::new(common)?;
    let picture = operator.look()?;
    for node in [*old, *new] {
        known(&picture, node)?;
    }
    let mut plan = placement::replace(&groups(&picture), *old, *new).map_err(Failure::failed)?;
    // Learners elsewhere are none of its business.
    plan.retain(|number, nodes| {
        let group = &picture.groups[number].group;
        group.voters != *nodes || [old, new].iter().any(|node| group.learners.contains(node))
    });
    operator.carry_out(picture, &plan, &format!("node {new} has what node {old} had"))
}

pub(super) fn remove(options: &Remove) -> Result<(), Failure> {
    let operator = Operator::new(&options.common)?;
    let picture = operator.look()?;
    let node = options.node;
    known(&picture, node)?;
    let groups = groups(&picture);
    let mut nodes: Nodes = groups.iter().flat_map(|group| group.voters.iter().copied()).collect();
    nodes.remove(&node);
    let plan = placement::spread(&groups, &nodes, None).map_err(Failure::failed)?;
    operator.carry_out(picture, &plan, &format!("node {node} has no replica and can be stopped"))
}

fn groups(picture: &Picture) -> Vec<Group> {
    picture.groups.values().map(|led| led.group.clone()).collect()
}

/// A node that was named.
fn known(picture: &Picture, node: u32) -> Result<(), Failure> {
    let has_replica = |led: &Led| led.group.voters.contains(&node) || led.group.learners.contains(&node);
    if picture.listed.contains_key(&node) || picture.groups.values().any(has_replica) {
        return Ok(());
    }
    let nodes = list(&picture.listed.keys().copied().collect());
    Err(Failure::Failed(format!(
        "there is no node {node}: the files list {nodes}; list it in every node's file, with joins = true, and restart them one by one"
    )))
}

/// How far it is.
#[derive(Clone, Copy, Debug)]
struct Account {
    clock: Stopwatch,
    replicas: usize,
    bytes: u64,
    replicas_done: usize,
    bytes_done: u64,
}

impl Account {
    /// With so many more replicas of a group in their places.
    fn with(mut self, replicas: usize, of: &Group) -> Self {
        self.replicas_done += replicas;
        self.bytes_done += replicas as u64 * of.bytes;
        self
    }

    fn line(&self, group: u32, doing: &str) -> String {
        let Self { clock, replicas, bytes, replicas_done, bytes_done } = self;
        let weight = |replicas: usize, bytes: u64| replicas as f64 * REPLICA_BYTES as f64 + bytes as f64;
        let (done, all) = (weight(*replicas_done, *bytes_done), weight(*replicas, *bytes));
        let left = match *replicas_done {
            0 => "?".to_owned(),
            _ => format!("{:.0} s", clock.elapsed().as_secs_f64() * (all - done).max(0.0) / done),
        };
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        format!(
            "{replicas_done} of {replicas} replicas moved, {:.1} of {:.1} MiB, about {left} left; {}: {doing}",
            mib(*bytes_done),
            mib(*bytes),
            in_words(group)
        )
    }
}

/// Who tells the groups' leaders what to do.
struct Operator<'a> {
    options: &'a Common,
    security: Security,
}

impl<'a> Operator<'a> {
    fn new(options: &'a Common) -> Result<Self, Failure> {
        Ok(Self { options, security: options.asking.login.security()? })
    }

    /// The whole picture, with a leader of every group.
    fn look(&self) -> Result<Picture, Failure> {
        let picture =
            members::look(&self.options.asking.addr, &self.security).map_err(|error| match error {
                ClientError::Io { .. } => {
                    Failure::Failed(format!("{error}: name a node that is up with --addr"))
                }
                error => Failure::failed(error),
            })?;
        let Some(group) = picture.leaderless.first() else { return Ok(picture) };
        let down: Nodes =
            picture.listed.keys().copied().filter(|node| !picture.up.contains_key(node)).collect();
        let why = match down.is_empty() {
            true => "all nodes answer; look into their logs".to_owned(),
            false => format!("nodes that don't answer: {}; start them", list(&down)),
        };
        let group = in_words(*group);
        Err(Failure::Failed(format!("{group} has no leader, and can't be changed without: {why}")))
    }

    /// Moves replicas until the groups are as planned.
    fn carry_out(&self, mut picture: Picture, plan: &Plan, done: &str) -> Result<(), Failure> {
        let clock = Stopwatch::start();
        let mut account = Account { clock, replicas: 0, bytes: 0, replicas_done: 0, bytes_done: 0 };
        for (number, target) in plan {
            let group = &picture.groups[number].group;
            let moves = placement::moves(group, target);
            account.replicas += moves;
            account.bytes += moves as u64 * group.bytes;
        }
        if self.options.plan {
            self.show(&picture, plan, &account);
            return Ok(());
        }
        self.check(&picture, plan)?;
        for (number, target) in plan {
            self.change(&mut picture, *number, target, &mut account)?;
        }
        let Account { replicas, bytes, .. } = account;
        let seconds = clock.elapsed().as_secs_f64();
        if self.options.asking.json {
            println!("{}", serde_json::json!({ "replicas": replicas, "bytes": bytes, "seconds": seconds }));
        } else {
            println!("{replicas} replicas moved in {seconds:.1} s: {done}");
        }
        Ok(())
    }

    fn show(&self, picture: &Picture, plan: &Plan, account: &Account) {
        let changed = plan.iter().filter(|(number, target)| picture.groups[number].group.voters != **target);
        if self.options.asking.json {
            let groups: Vec<_> = changed
                .map(|(number, target)| {
                    let from = &picture.groups[number].group.voters;
                    serde_json::json!({ "group": word_of(*number), "from": from, "to": target })
                })
                .collect();
            let (replicas, bytes) = (account.replicas, account.bytes);
            println!("{}", serde_json::json!({ "replicas": replicas, "bytes": bytes, "groups": groups }));
            return;
        }
        for (number, target) in changed {
            let from = list(&picture.groups[number].group.voters);
            println!("{}: nodes {from} -> {}", in_words(*number), list(target));
        }
        println!("{} replicas would move, {} bytes", account.replicas, account.bytes);
    }

    /// What would be in vain: nodes that are to get replicas must be there, and the groups' leaders must know them.
    fn check(&self, picture: &Picture, plan: &Plan) -> Result<(), Failure> {
        for (number, target) in plan {
            let group = &picture.groups[number].group;
            for node in target.difference(&group.voters) {
                let group_name = in_words(*number);
                let Some(listed) = picture.listed.get(node) else {
                    return known(picture, *node);
                };
                if !picture.up.contains_key(node) {
                    let why = members::reach(listed, &self.security)
                        .map_or_else(|error| error.to_string(), |()| "it has answered only now".to_owned());
                    return Err(Failure::Failed(format!(
                        "node {node} is to get a replica of {group_name} and doesn't answer ({why}): start it, or leave it out"
                    )));
                }
                let whoever_leads =
                    target.iter().chain(&group.voters).filter_map(|it| Some((it, picture.up.get(it)?)));
                for (leader, lists) in whoever_leads {
                    if !lists.contains(node) {
                        return Err(Failure::Failed(format!(
                            "the file of node {leader} doesn't list node {node}: add it there, with joins = true, and restart node {leader}"
                        )));
                    }
                }
            }
        }
        Ok(())
    }

    /// Changes one group until it is as planned.
    fn change(
        &self,
        picture: &mut Picture,
        number: u32,
        target: &Nodes,
        account: &mut Account,
    ) -> Result<(), Failure> {
        let before = picture.groups[&number].group.clone();
        let (mut step_before, mut since, mut shown) = (None, Stopwatch::start(), None::<Stopwatch>);
        let (mut heard, mut refusal) = (Stopwatch::start(), String::new());
        loop {
            let known = &picture.groups[&number];
            let Some(led) = members::look_at(known, &self.security) else {
                let seconds = self.options.timeout;
                if since.elapsed() > Duration::from_secs(seconds) {
                    let name = in_words(number);
                    return Err(Failure::Failed(format!(
                        "no step in {seconds} s: {name} keeps no leader for long"
                    )));
                }
                pause(AGAIN);
                *picture = self.look()?;
                continue;
            };
            let step = placement::next(&led.group, target);
            let doing = told(&step, &led);
            if step_before.as_ref() != Some(&step) {
                (step_before, since, shown) = (Some(step.clone()), Stopwatch::start(), None);
                refusal.clear();
            }
            let moved = account.with(
                placement::moves(&before, target).saturating_sub(placement::moves(&led.group, target)),
                &before,
            );
            if step == Step::Done {
                *account = moved;
                if !self.options.asking.json && before.voters != *target {
                    eprintln!("  {}", account.line(number, &format!("on nodes {}", list(target))));
                }
                return Ok(());
            }
            let line = moved.line(number, &doing);
            if !self.options.asking.json && shown.is_none_or(|shown| shown.elapsed() >= INTERVAL) {
                eprintln!("  {line}");
                shown = Some(Stopwatch::start());
            }
            if let Step::CatchUp(nodes) = &step {
                match nodes.iter().find_map(|node| self.unreachable(picture, *node)) {
                    None => heard = Stopwatch::start(),
                    Some(why) if heard.elapsed() > ELECTION => return Err(Failure::Failed(why)),
                    Some(_) => {}
                }
            } else {
                heard = Stopwatch::start();
            }
            if let Some(why) = self.take(&step, &led)? {
                refusal = format!("; the last word was: {why}");
            }
            if since.elapsed() > Duration::from_secs(self.options.timeout) {
                let seconds = self.options.timeout;
                return Err(Failure::Failed(format!("no step in {seconds} s: {line}{refusal}")));
            }
            pause(AGAIN);
        }
    }

    fn unreachable(&self, picture: &Picture, node: u32) -> Option<String> {
        let error = members::reach(picture.listed.get(&node)?, &self.security).err()?;
        Some(format!("node {node} doesn't answer any more ({error}): start it, and say the same again"))
    }

    /// Takes a step; why it isn't taken yet, if so.
    fn take(&self, step: &Step, led: &Led) -> Result<Option<String>, Failure> {
        let group = word_of(led.group.number);
        let (what, nodes) = match step {
            Step::Done | Step::Wait | Step::CatchUp(_) => return Ok(None),
            Step::Transfer(heirs) => return Ok(self.transfer(led, heirs)),
            Step::Learn(nodes) => ("ADD", nodes),
            Step::Vote(nodes) => ("SET", nodes),
            Step::Forget(nodes) => ("REMOVE", nodes),
        };
        let nodes: Vec<String> = nodes.iter().map(u32::to_string).collect();
        let mut words = vec!["GROUP", &group, what];
        words.extend(nodes.iter().map(String::as_str));
        match members::order(&led.at, &self.security, &words) {
            Ok(answer) => {
                let refused = answer.iter().find(|line| line.contains(": refused: "));
                match refused {
                    // Saying it again won't change that.
                    Some(why) if why.contains("[[nodes]]") => {
                        let leader = led.group.leader;
                        Err(Failure::Failed(format!("node {leader}, which leads {why}")))
                    }
                    why => Ok(why.cloned()),
                }
            }
            Err(error @ ClientError::Refused(_)) => Err(Failure::failed(error)),
            Err(error) => Ok(Some(error.to_string())),
        }
    }

    /// Gives the leadership to the first that takes it.
    fn transfer(&self, led: &Led, heirs: &[u32]) -> Option<String> {
        let mut why = None;
        for node in heirs {
            let (group, node) = (word_of(led.group.number), node.to_string());
            let command: [&[u8]; 3] = [b"FLOTILLA.TRANSFER", group.as_bytes(), node.as_bytes()];
            let connection = Connection::open_secured(&led.at, PATIENCE, &self.security);
            match connection.and_then(|mut connection| connection.execute(&command)) {
                Ok(Reply::Error(error)) => why = Some(error),
                Ok(_) => return None,
                Err(error) => why = Some(error.to_string()),
            }
        }
        why
    }
}

fn told(step: &Step, led: &Led) -> String {
    match step {
        Step::Done => "done".to_owned(),
        Step::Wait => "a change is under way".to_owned(),
        Step::Learn(nodes) => format!("nodes {} begin to learn", list(nodes)),
        Step::CatchUp(nodes) => {
            let lacks = |node: &u32| {
                let entries = led.behind.get(node).copied().unwrap_or(0);
                format!("node {node} lacks {entries} entries")
            };
            nodes.iter().map(lacks).collect::<Vec<_>>().join(", ")
        }
        Step::Transfer(heirs) => {
            format!("node {} hands the leadership to one of {heirs:?}", led.group.leader)
        }
        Step::Vote(nodes) => format!("nodes {} are to vote", list(nodes)),
        Step::Forget(nodes) => format!("nodes {} needn't learn any more", list(nodes)),
    }
}
