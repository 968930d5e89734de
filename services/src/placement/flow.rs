//! The cheapest even spread, as a flow of least cost.
//!
//! ```text
//!            replicas       1 each,              at most ⌈s/n⌉,       at most ⌈r/n⌉,
//!            of the group   0 or a move          at least ⌊s/n⌋       at least ⌊r/n⌋
//!  source ──────────────▶ group ──────▶ (node, with shards) ──────▶ node ──────▶ sink
//!                                ──────▶ (node, without)    ──────▶
//! ```
//!
//! `n` nodes, `r` replicas, `s` of them of groups with shards. One replica after the other takes the cheapest way through what the
//! ones before left, and may push them elsewhere: so the cost is the least at every moment (Ford and Fulkerson). A lower bound is an
//! edge that pays for being used.

use super::{Group, Nodes, Plan};

/// A new replica costs more than everything else together.
const MOVE: i64 = 1 << 32;
/// A learner is a replica that is half made.
const LEARNER: i64 = 1 << 16;
/// Whose turn it is to lead the group should be in it: so leaderships are spread.
const FIRST: i64 = 1 << 8;
/// And an even spread is worth more than every move.
const EVEN: i64 = 1 << 48;

pub(super) fn spread(groups: &[Group], nodes: &Nodes, wanted: &[usize]) -> Plan {
    let nodes: Vec<u32> = nodes.iter().copied().collect();
    let mut net = Net::new(2 + groups.len() + 3 * nodes.len());
    let (source, sink) = (0, 1);
    let of_group = |place: usize| 2 + place;
    let of_class = |place: usize, serves: bool| 2 + groups.len() + 2 * place + usize::from(serves);
    let of_node = |place: usize| 2 + groups.len() + 2 * nodes.len() + place;
    let mut choices = Vec::new();
    for (at, (group, replicas)) in groups.iter().zip(wanted).enumerate() {
        net.edge(source, of_group(at), *replicas, 0);
        for (place, node) in nodes.iter().enumerate() {
            let edge = net.edge(of_group(at), of_class(place, group.serves), 1, cost(group, *node));
            choices.push((group.number, *node, edge));
        }
    }
    let sum = |serves: bool| -> usize {
        groups.iter().zip(wanted).filter(|(group, _)| group.serves == serves).map(|(_, wanted)| wanted).sum()
    };
    let (with, without) = (sum(true), sum(false));
    for place in 0..nodes.len() {
        net.evenly(of_class(place, true), of_node(place), with, nodes.len());
        net.edge(of_class(place, false), of_node(place), without, 0);
        net.evenly(of_node(place), sink, with + without, nodes.len());
    }
    while net.push(source, sink) {}
    let mut plan: Plan = groups.iter().map(|group| (group.number, Nodes::new())).collect();
    for (number, node, edge) in choices {
        if net.is_full(edge) {
            plan.entry(number).or_default().insert(node);
        }
    }
    plan
}

fn cost(group: &Group, node: u32) -> i64 {
    let rank = group.order.iter().position(|other| *other == node).unwrap_or(group.order.len());
    let rank = if rank == 0 { 0 } else { FIRST + i64::try_from(rank).expect("nodes are few") };
    match () {
        () if group.voters.contains(&node) => rank,
        () if group.learners.contains(&node) => MOVE + rank,
        () => MOVE + LEARNER + rank,
    }
}

#[derive(Debug)]
struct Edge {
    to: usize,
    left: usize,
    cost: i64,
}

/// Edges with what may still flow; the way back of edge `2i` is edge `2i + 1`.
#[derive(Debug)]
struct Net {
    edges: Vec<Edge>,
    of: Vec<Vec<usize>>,
}

impl Net {
    fn new(places: usize) -> Self {
        Self { edges: Vec::new(), of: vec![Vec::new(); places] }
    }

    fn edge(&mut self, from: usize, to: usize, most: usize, cost: i64) -> usize {
        let number = self.edges.len();
        self.edges.push(Edge { to, left: most, cost });
        self.edges.push(Edge { to: from, left: 0, cost: -cost });
        self.of[from].push(number);
        self.of[to].push(number + 1);
        number
    }

    /// One of `of` equal parts of `sum`, rounded down or up.
    fn evenly(&mut self, from: usize, to: usize, sum: usize, of: usize) {
        self.edge(from, to, sum / of, -EVEN);
        self.edge(from, to, usize::from(!sum.is_multiple_of(of)), 0);
    }

    fn is_full(&self, edge: usize) -> bool {
        self.edges[edge].left == 0
    }

    /// One more unit takes the cheapest way; false if there is none.
    fn push(&mut self, source: usize, sink: usize) -> bool {
        let mut cheapest: Vec<Option<i64>> = vec![None; self.of.len()];
        let mut by = vec![usize::MAX; self.of.len()];
        cheapest[source] = Some(0);
        let (mut queue, mut waits) = (std::collections::VecDeque::from([source]), vec![false; self.of.len()]);
        while let Some(at) = queue.pop_front() {
            waits[at] = false;
            let so_far = cheapest[at].expect("whoever waits was reached");
            for number in &self.of[at] {
                let Edge { to, left, cost } = self.edges[*number];
                if left == 0 || cheapest[to].is_some_and(|known| known <= so_far + cost) {
                    continue;
                }
                (cheapest[to], by[to]) = (Some(so_far + cost), *number);
                if !std::mem::replace(&mut waits[to], true) {
                    queue.push_back(to);
                }
            }
        }
        if cheapest[sink].is_none() {
            return false;
        }
        let mut at = sink;
        while at != source {
            let number = by[at];
            self.edges[number].left -= 1;
            self.edges[number ^ 1].left += 1;
            at = self.edges[number ^ 1].to;
        }
        true
    }
}
