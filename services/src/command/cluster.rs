//! `CLUSTER`: what clients that know clusters ask for.

use super::{NodeView, unknown_subcommand, upper};
use crate::resp::ReplyWriter;
use crate::slot::Slot;
use crate::topology::{Member, Topology};

pub(super) fn run(args: &[&[u8]], view: &dyn NodeView, reply: &mut ReplyWriter<'_>) {
    let topology = view.topology();
    match (&upper(args, 1)[..], args.len()) {
        (b"SLOTS", 2) => slots(&topology, reply),
        (b"SHARDS", 2) => shards(&topology, reply),
        (b"NODES", 2) => reply.verbatim(&nodes(&topology)),
        (b"INFO", 2) => {
            let shards = view.settings().into_iter().find(|(name, _)| *name == "flotilla-shards");
            let shards = shards.map(|(_, shards)| format!("flotilla_shards:{shards}\r\n"));
            reply.verbatim(&(info(&topology) + &shards.unwrap_or_default()));
        }
        (b"MYID", 2) => reply.bulk(topology.members[topology.me].id.as_bytes()),
        (b"KEYSLOT", 3) => reply.integer(i64::from(Slot::of_key(args[2]).0)),
        (b"COUNTKEYSINSLOT", 3) => match slot_of(args[2]) {
            Some(slot) => {
                reply.integer(i64::try_from(view.keys_in_slot(slot, usize::MAX).len()).unwrap_or(i64::MAX))
            }
            None => reply.error("ERR Invalid slot"),
        },
        (b"GETKEYSINSLOT", 4) => {
            match (slot_of(args[2]), std::str::from_utf8(args[3]).ok().and_then(|n| n.parse().ok())) {
                (Some(slot), Some(most)) => {
                    let keys = view.keys_in_slot(slot, most);
                    reply.array(keys.len());
                    keys.iter().for_each(|key| reply.bulk(key));
                }
                _ => reply.error("ERR Invalid slot or number of keys"),
            }
        }
        (
            b"SLOTS" | b"SHARDS" | b"NODES" | b"INFO" | b"MYID" | b"KEYSLOT" | b"COUNTKEYSINSLOT"
            | b"GETKEYSINSLOT",
            _,
        ) => {
            super::wrong_arity(&format!("cluster|{}", String::from_utf8_lossy(args[1]).to_lowercase()), reply)
        }
        _ => unknown_subcommand(args, reply),
    }
}

fn slot_of(arg: &[u8]) -> Option<u16> {
    std::str::from_utf8(arg).ok()?.parse().ok().filter(|slot| *slot < 16384)
}

/// Ranges without a leader are left out: there is nobody to go to.
fn slots(topology: &Topology, reply: &mut ReplyWriter<'_>) {
    let served: Vec<_> = topology.ranges.iter().filter(|range| range.leader.is_some()).collect();
    reply.array(served.len());
    for range in served {
        let replicas = topology.pure_replicas(range);
        let members = range.leader.iter().chain(&replicas);
        reply.array(3 + replicas.len());
        reply.integer(i64::from(range.first_slot));
        reply.integer(i64::from(range.last_slot));
        for member in members.map(|place| &topology.members[*place]) {
            reply.array(4);
            reply.bulk(member.host.as_bytes());
            reply.integer(i64::from(member.port));
            reply.bulk(member.id.as_bytes());
            reply.array(0);
        }
    }
}

fn shards(topology: &Topology, reply: &mut ReplyWriter<'_>) {
    reply.array(topology.ranges.len());
    for range in &topology.ranges {
        reply.map(2);
        reply.bulk(b"slots");
        reply.array(2);
        reply.integer(i64::from(range.first_slot));
        reply.integer(i64::from(range.last_slot));
        reply.bulk(b"nodes");
        let leader = range.leader.map(|place| (place, "master"));
        let replicas = topology.pure_replicas(range).into_iter().map(|place| (place, "replica"));
        let members: Vec<_> = leader.into_iter().chain(replicas).collect();
        reply.array(members.len());
        for (place, role) in members {
            shard_member(&topology.members[place], role, reply);
        }
    }
}

fn shard_member(member: &Member, role: &str, reply: &mut ReplyWriter<'_>) {
    reply.map(7);
    for (key, value) in [("id", &member.id), ("ip", &member.host), ("endpoint", &member.host)] {
        reply.bulk(key.as_bytes());
        reply.bulk(value.as_bytes());
    }
    reply.bulk(b"port");
    reply.integer(i64::from(member.port));
    reply.bulk(b"role");
    reply.bulk(role.as_bytes());
    reply.bulk(b"replication-offset");
    reply.integer(0);
    reply.bulk(b"health");
    reply.bulk(b"online");
}

/// A line a member, as `CLUSTER NODES` has them. A member that leads several ranges lists them all; one that leads
/// none is shown as a replica of the first leader whose group it has a replica of.
fn nodes(topology: &Topology) -> String {
    let mut text = String::new();
    for (place, member) in topology.members.iter().enumerate() {
        let led = topology.ranges.iter().filter(|range| range.leader == Some(place));
        let slots: Vec<String> =
            led.map(|range| format!("{}-{}", range.first_slot, range.last_slot)).collect();
        let follows = topology
            .ranges
            .iter()
            .find(|range| range.replicas.contains(&place))
            .and_then(|range| range.leader);
        let me = if place == topology.me { "myself," } else { "" };
        let (role, of) = match follows {
            Some(leader) if slots.is_empty() => ("slave", topology.members[leader].id.clone()),
            _ => ("master", "-".to_owned()),
        };
        let Member { id, host, port, peer_port, .. } = member;
        let epoch = topology.epoch;
        let slots = slots.iter().map(|range| format!(" {range}")).collect::<String>();
        text.push_str(&format!(
            "{id} {host}:{port}@{peer_port} {me}{role} {of} 0 0 {epoch} connected{slots}\n"
        ));
    }
    text
}

fn info(topology: &Topology) -> String {
    let slots = |ranges: &mut dyn Iterator<Item = &crate::topology::Range>| -> u32 {
        ranges.map(|range| u32::from(range.last_slot - range.first_slot) + 1).sum()
    };
    let assigned = slots(&mut topology.ranges.iter());
    let served = slots(&mut topology.ranges.iter().filter(|range| range.leader.is_some()));
    let state = if served == 16384 { "ok" } else { "fail" };
    let leaders: std::collections::BTreeSet<_> =
        topology.ranges.iter().filter_map(|range| range.leader).collect();
    format!(
        "cluster_enabled:1\r\ncluster_state:{state}\r\ncluster_slots_assigned:{assigned}\r\ncluster_slots_ok:{served}\r\n\
         cluster_slots_pfail:0\r\ncluster_slots_fail:{}\r\ncluster_known_nodes:{}\r\ncluster_size:{}\r\n\
         cluster_current_epoch:{}\r\ncluster_my_epoch:{}\r\n",
        assigned - served,
        topology.members.len(),
        leaders.len(),
        topology.epoch,
        topology.epoch,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Range;

    /// Three members: the first leads two ranges, the second one, the third none.
    fn topology() -> Topology {
        let member = |core: u16| Member {
            id: format!("member {core}"),
            node: 1,
            core,
            host: "here".to_owned(),
            port: 7000 + core,
            peer_port: 17_000 + core,
        };
        let range = |first_slot, leader: usize| {
            let replicas = (0..3).filter(|place| *place != leader).collect();
            Range { first_slot, last_slot: first_slot + 99, leader: Some(leader), replicas }
        };
        let ranges = vec![range(0, 0), range(100, 1), range(200, 0)];
        Topology { members: (0..3).map(member).collect(), ranges, me: 0, epoch: 1 }
    }

    #[test]
    fn who_leads_anything_is_shown_as_nobody_s_replica() {
        let (topology, mut out) = (topology(), Vec::new());
        slots(&topology, &mut ReplyWriter::new(&mut out, crate::resp::Protocol::Resp2));
        let text = String::from_utf8(out).unwrap();
        let ports: Vec<&str> = text.lines().filter(|line| line.starts_with(":70")).collect();
        assert_eq!(ports, [":7000", ":7002", ":7001", ":7002", ":7000", ":7002"]);
        assert_eq!(nodes(&topology).matches("master").count(), 2);
        let mut out = Vec::new();
        shards(&topology, &mut ReplyWriter::new(&mut out, crate::resp::Protocol::Resp2));
        let text = String::from_utf8(out).unwrap();
        assert_eq!((text.matches("master").count(), text.matches("replica\r").count()), (3, 3));
    }
}
