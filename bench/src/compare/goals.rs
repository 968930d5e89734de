//! What the figures of Flotilla as a key/value store should be, and what they are.

use super::result::{Cell, Compared};
use crate::figures::Figures;
use crate::floor::RoundFloors;
use crate::kv::goals::{GET_OVER_ETCD, SET_OVER_ETCD, SET_P50_OVER_SYNC, SET_PIPELINED_OVER_ETCD};
use crate::kv::outcome::Round;
use crate::report::Goal::{self, AtLeast, AtMost};
use crate::turn::SUBJECT;

/// Bytes of a value, each with the same goals.
const SIZES: [(&str, &str); 2] = [("64b", ""), ("1024b", ", 1 KiB,")];
/// Throughput at a load over that of a peer at a load, at least.
const THROUGHPUT: [(&str, &str, &str, f64); 13] = [
    ("set_c1_p1", "etcd", "set_c1_p1", 2.2),
    ("set_c16_p1", "etcd", "set_c16_p1", 4.5),
    ("set_c64_p1", "etcd", "set_c64_p1", SET_OVER_ETCD),
    ("set_c256_p1", "etcd", "set_c256_p1", 5.0),
    ("set_c64_p16", "etcd", "set_c64_p1", SET_PIPELINED_OVER_ETCD),
    ("set_c64_p1", "redis", "set_c64_p1", 0.7),
    ("set_c256_p1", "redis", "set_c256_p1", 0.7),
    ("get_c1_p1", "etcd", "get_c1_p1", 5.0),
    ("get_c16_p1", "etcd", "get_c16_p1", 5.0),
    ("get_c64_p1", "etcd", "get_c64_p1", GET_OVER_ETCD),
    ("get_c256_p1", "etcd", "get_c256_p1", 5.0),
    ("get_c64_p1", "redis-none", "get_c64_p1", 0.9),
    ("get_c256_p1", "redis-none", "get_c256_p1", 0.9),
];
/// Seconds of all nodes' CPUs for 100 000 operations at a load, at most.
const CPU: [(&str, f64); 3] = [("set_c256_p1", 2.0), ("get_c64_p1", 1.3), ("get_c256_p1", 1.3)];
/// Pipelined alike.
const PIPELINED: &str = "set_c64_p16";
/// About half the peak rate.
const HALF: &str = "set_at_55";

/// Those whose cells are there; `floors` are those of each round.
pub(super) fn of(cells: &[Cell], floors: &[RoundFloors]) -> Vec<Compared> {
    let rounds = |target: &str, name: &str| -> &[Round] {
        let is_it = |cell: &&Cell| cell.target == target && cell.name == name;
        cells.iter().find(is_it).map_or(&[], |cell| &cell.rounds)
    };
    let (mut figures, mut alike) = (Figures::default(), Figures::default());
    let mut tell = |name: &str, values: &mut dyn Iterator<Item = f64>, goal: Goal| {
        values.for_each(|value| figures.ratio(name, value, goal));
    };
    for (size, bytes) in SIZES {
        let at = |target: &str, load: &str| rounds(target, &format!("{load}_{size}"));
        for (own, peer, theirs, least) in THROUGHPUT {
            let each = at(SUBJECT, own).iter().zip(at(peer, theirs));
            let plain = if own == theirs { "" } else { " unpipelined" };
            let name = format!("{}{bytes} throughput over {peer}{plain}", said(own));
            tell(
                &name,
                &mut each.map(|(own, peer)| own.operations_per_second / peer.operations_per_second),
                AtLeast(least),
            );
        }
        // The goal is over plain requests, fewer of them at a time.
        let each = at(SUBJECT, PIPELINED).iter().zip(at("etcd", PIPELINED));
        let name = format!("{}{bytes} throughput over etcd, as many under way", said(PIPELINED));
        each.for_each(|(own, peer)| {
            alike.observe(&name, own.operations_per_second / peer.operations_per_second)
        });
        for (own, most) in CPU {
            let each = at(SUBJECT, own).iter().filter_map(|round| round.server_cpu_s_per_100k);
            let name = format!("{}{bytes} CPU seconds for 100 000", said(own));
            tell(&name, &mut each.into_iter(), AtMost(most));
        }
    }
    let each = rounds(SUBJECT, HALF).iter().zip(floors);
    let name = "SET p99 at 55 % of its peak over the disk's sync p99";
    tell(name, &mut each.map(|(own, floor)| own.latency(|it| it.p99) / floor.sync.p99_us), AtMost(3.0));
    let each = rounds(SUBJECT, "set_c1_p1_64b").iter().zip(floors);
    let name = "SET p50 of 1 client over the disk's sync p50";
    tell(
        name,
        &mut each.map(|(own, floor)| own.latency(|it| it.p50) / floor.sync.p50_us),
        AtMost(SET_P50_OVER_SYNC),
    );
    let mut all = figures.compared().0;
    all.extend(alike.compared().0);
    all
}

/// `set_c64_p16` for people.
fn said(load: &str) -> String {
    let mut parts = load.split('_');
    let mut part = |letter: char| parts.next().unwrap_or_default().trim_start_matches(letter).to_owned();
    let (verb, clients, pipeline) = (part(' ').to_uppercase(), part('c'), part('p'));
    let plural = if clients == "1" { "" } else { "s" };
    let pipelined = if pipeline == "1" { String::new() } else { format!(" × {pipeline} pipelined") };
    format!("{verb} {clients} client{plural}{pipelined}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::result::tests::cell;

    #[test]
    fn goals_are_told_of_the_cells_that_are_there() {
        let cells = vec![
            cell("set_c64_p1_64b", SUBJECT, &[50.0, 60.0, 70.0]),
            cell("set_c64_p1_64b", "etcd", &[10.0, 10.0, 10.0]),
            cell("set_c64_p16_64b", SUBJECT, &[90.0, 80.0, 90.0]),
            cell("get_c16_p1_1024b", SUBJECT, &[60.0]),
            cell("get_c16_p1_1024b", "etcd", &[10.0]),
        ];
        let told = of(&cells, &[]);
        let told: Vec<_> = told.iter().map(|it| (it.figure.as_str(), it.value, it.holds)).collect();
        assert_eq!(told[0], ("SET 64 clients throughput over etcd", 6.0, Some(true)));
        assert_eq!(
            told[1],
            ("SET 64 clients × 16 pipelined throughput over etcd unpipelined", 9.0, Some(false))
        );
        assert_eq!(told[2], ("GET 16 clients, 1 KiB, throughput over etcd", 6.0, Some(true)));
    }
}
