//! Nodes of two cores beside nodes of one: what the second core brings; what a request costs on each; and what goes from core to
//! core for clients that know the cluster, which ask the core that leads their key.
//!
//! Throughput is measured only where every core and the clients have CPUs of their own, and instructions only where the machine
//! lets one count them. What isn't measured is told, with the reason. The messages between cores are counted everywhere, by
//! the nodes themselves: what they count under load, without what they count in the same time when nobody asks anything.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use flotilla_services::client::{Connection, Reply};

use super::cluster::{Even, Nodes, fill, load};
use super::perf::{self, Count};
use super::pin::{self, Moved, Places};
use super::{Bench, PATIENCE, failed};
use crate::error::{BenchError, Result};
use crate::interrupt::Interrupt;
use crate::report::{Goal, note};
use crate::target::{Driver, Target};

const PART: &str = "cores";
const NODES: u32 = 3;
const CORES: u16 = 2;
/// Each core of the larger nodes leads one, each of the smaller ones two.
const GROUPS: u32 = 6;
const CLIENTS: usize = 128;
const KEYS: u64 = 10_000;
const VALUE_BYTES: usize = 64;
/// Requests to the wrong core.
const WRONG: u32 = 10_000;
/// At most this much more, or less, on two cores.
const APART: f64 = 1.05;
const SPEEDUP: Goal = Goal::AtLeast(1.7);
const VERBS: [(&str, u8); 2] = [("set", 0), ("get", 100)];

/// A cluster under load.
struct Shape {
    nodes: Nodes,
    target: Target,
    cores: u16,
    /// Instructions are counted.
    counts: bool,
}

/// What a load came to.
struct Seen {
    per_second: f64,
    requests: u64,
    instructions: Option<u64>,
}

pub(super) fn measure(bench: &mut Bench<'_>) -> Result<()> {
    let cpus = pin::allowed().map_err(BenchError::io("asking which CPUs there are"))?;
    let places = Places::new(&cpus, NODES as usize, usize::from(CORES));
    let no_counter = perf::missing();
    let two = Shape::start(bench, CORES, false)?;
    messages(bench, &two)?;
    match &places {
        Some(places) => throughput(bench, &two, places)?,
        None => {
            let needed = Places::needed(NODES as usize, usize::from(CORES));
            let why = format!("{needed} CPUs are needed for that, and there are {}", cpus.len());
            for (verb, _) in VERBS {
                bench.figures.unmeasured(&format!("{verb}_2_cores_vs_1"), SPEEDUP, &why);
            }
        }
    }
    drop(two);
    match no_counter {
        None => instructions(bench)?,
        Some(why) => {
            for (verb, _) in VERBS {
                bench.figures.unmeasured(&apart(verb), Goal::AtMost(APART), &why);
            }
        }
    }
    Ok(())
}

fn apart(verb: &str) -> String {
    format!("{verb}_instructions_2_cores_vs_1")
}

/// How many messages cross between cores for a request.
fn messages(bench: &mut Bench<'_>, shape: &Shape) -> Result<()> {
    for _ in 0..bench.rounds() {
        // A core that begins to lead, or ends, tells the others.
        let (crossed, requests) = shape.nodes.undisturbed(shape.even(), bench.interrupt, || {
            let (before, clock) = (shape.crossed()?, Instant::now());
            let mut requests = 0;
            for (verb, reads_percent) in VERBS {
                requests += shape.run(verb, reads_percent, bench.seconds(3.0), bench.interrupt)?.requests;
            }
            let (between, time) = (shape.crossed()?, clock.elapsed());
            bench.interrupt.sleep_until(Instant::now() + time)?;
            Ok(((between - before) - (shape.crossed()? - between), requests))
        })?;
        note(&format!("{crossed:.0} messages between cores for {requests} requests"));
        let name = "messages_between_cores_for_1000_requests";
        bench.figures.ratio(name, (1e3 * crossed / requests as f64).max(0.0), Goal::AtMost(0.0));
    }
    // What is 0 may be one that nobody counts.
    let wrong =
        shape.nodes.undisturbed(shape.even(), bench.interrupt, || shape.crossed_for_the_wrong_core())?;
    bench.figures.observe("messages_between_cores_for_1000_requests_to_another_core", wrong);
    if wrong < 1.0 {
        return Err(failed(PART, "the nodes don't count the messages between their cores"));
    }
    Ok(())
}

/// What two cores do over what one does.
fn throughput(bench: &mut Bench<'_>, two: &Shape, places: &Places) -> Result<()> {
    let one = Shape::start(bench, 1, false)?;
    let doing = || BenchError::io("giving nodes and clients CPUs of their own");
    for shape in [&one, two] {
        for (pid, cpus) in shape.target.pids.iter().zip(&places.nodes) {
            // One core has one of the two CPUs, as each of two has.
            pin::process(*pid, &cpus[..usize::from(shape.cores)]).map_err(doing())?;
        }
    }
    let _moved = Moved::to(&places.clients).map_err(doing())?;
    for round in 0..bench.rounds() {
        for (verb, reads_percent) in VERBS {
            let mut order = [&one, two];
            if round % 2 == 1 {
                order.reverse();
            }
            let mut seen = Vec::new();
            for shape in order {
                let time = bench.seconds(3.0);
                shape.run(verb, reads_percent, time / 3, bench.interrupt)?;
                seen.push((shape.cores, shape.run(verb, reads_percent, time, bench.interrupt)?.per_second));
            }
            seen.sort_by_key(|(cores, _)| *cores);
            note(&format!("{verb}: {:.0}/s on one core, {:.0}/s on two", seen[0].1, seen[1].1));
            bench.figures.ratio(&format!("{verb}_2_cores_vs_1"), seen[1].1 / seen[0].1, SPEEDUP);
        }
    }
    Ok(())
}

/// What a request costs on two cores over what it costs on one, or the other way round, whichever is more.
fn instructions(bench: &mut Bench<'_>) -> Result<()> {
    let mut shapes = Vec::new();
    for cores in [1, CORES] {
        shapes.push(Shape::start(bench, cores, true)?);
    }
    for _ in 0..bench.rounds() {
        for (verb, reads_percent) in VERBS {
            let mut each = Vec::new();
            for shape in &shapes {
                shape.run(verb, reads_percent, bench.seconds(1.0), bench.interrupt)?;
                let seen = shape.run(verb, reads_percent, bench.seconds(3.0), bench.interrupt)?;
                let counted =
                    seen.instructions.ok_or_else(|| failed(PART, "perf counted no instructions"))?;
                each.push(counted as f64 / seen.requests as f64);
            }
            note(&format!("{verb}: {:.0} instructions on one core, {:.0} on two", each[0], each[1]));
            let over = each[1] / each[0];
            bench.figures.ratio(&apart(verb), over.max(1.0 / over), Goal::AtMost(APART));
        }
    }
    Ok(())
}

impl Shape {
    /// Three nodes of so many cores, filled, whose cores lead as many groups as each other. `counts`: instructions are counted.
    fn start(bench: &Bench<'_>, cores: u16, counts: bool) -> Result<Self> {
        let nodes = Nodes::start(bench, PART, |options| {
            (options.nodes, options.cores, options.groups) = (NODES, cores, GROUPS);
            if counts {
                // A core that looks for work before it sleeps executes instructions that no request has asked for.
                options.flags = vec!["--set".to_owned(), "busy_poll_us=0".to_owned()];
            }
        })?;
        nodes.wait_for_even_leaders(Even { nodes: NODES, cores, groups: GROUPS }, bench.interrupt)?;
        let target = nodes.target(NODES)?;
        fill(&target, KEYS, VALUE_BYTES, bench.interrupt)?;
        Ok(Self { nodes, target, cores, counts })
    }

    fn even(&self) -> Even {
        Even { nodes: NODES, cores: self.cores, groups: GROUPS }
    }

    /// Messages between the cores of all nodes so far.
    fn crossed(&self) -> Result<f64> {
        (1..=NODES).map(|node| self.nodes.metric(node, "flotilla_mesh_sent_messages_total", "")).sum()
    }

    /// Messages for each thousand requests of a client that knows no cluster: to the other core of the node that leads the key.
    fn crossed_for_the_wrong_core(&self) -> Result<f64> {
        let Driver::Resp(map) = &self.target.driver else { return Err(failed(PART, "no cluster")) };
        map.refresh();
        let route = map.route();
        let (key, address) = (b"key:000000000000", |core: SocketAddr| core.to_string());
        let right = address(route.nodes[route.node_of(key)]);
        let node = self.nodes.cluster.node_at(&right);
        let cores = self.nodes.cluster.addresses().into_iter();
        let mut others = cores.filter(|core| *core != right && self.nodes.cluster.node_at(core) == node);
        let other = others.next().ok_or_else(|| failed(PART, "the node has one core"))?;
        let mut connection = Connection::open(&other, PATIENCE).map_err(|error| failed(PART, error))?;
        let before = self.crossed()?;
        for _ in 0..WRONG {
            if let Reply::Error(error) =
                connection.execute(&[b"GET", key]).map_err(|error| failed(PART, error))?
            {
                note(&format!("the node's other core says: {error}"));
                break;
            }
        }
        Ok(1e3 * (self.crossed()? - before) / f64::from(WRONG))
    }

    fn run(&self, verb: &str, reads_percent: u8, time: Duration, interrupt: &Interrupt) -> Result<Seen> {
        let mut load = load(KEYS, VALUE_BYTES, CLIENTS);
        (load.operations.reads_percent, load.seconds) = (reads_percent, time);
        let doing = || BenchError::io("counting instructions");
        let count = self.counts.then(|| Count::start(&self.target.pids).map_err(doing())).transpose()?;
        let (recorder, _) = self.target.run(&load, interrupt)?;
        let instructions = count.map(|count| count.end().map_err(doing())).transpose()?.flatten();
        let requests = recorder.operations();
        if requests == 0 || !recorder.errors.is_empty() {
            let reason = format!("{verb}: {requests} requests; errors: {:?}", recorder.errors);
            return Err(failed(PART, reason));
        }
        let per_second = requests as f64 / time.as_secs_f64();
        Ok(Seen { per_second, requests, instructions })
    }
}
