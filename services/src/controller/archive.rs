//! Frozen bytes of the controller: an entry of its log ([`SCHEMA_CHANGE_V1`]), one configuration, the state in a snapshot. All are
//! rkyv archives (`docs/format.md`). A new shape gets a new type and number; these stay readable for ever.
//!
//! Another kind of fact that belongs into the controller's log (a job, a worker) gets a schema of its own beside
//! [`SCHEMA_CHANGE_V1`], and its state an archive of its own behind this one in the snapshot.

use super::history::Step;
use super::{Change, Configuration, Controller, GroupEntry, History};
use rkyv::{Archive, Deserialize, Serialize};
use std::collections::BTreeMap;

/// The schema of an entry that holds a [`ChangeV1`].
pub const SCHEMA_CHANGE_V1: u16 = 48;

/// No group.
const NOBODY: u32 = u32::MAX;
const FOUND: u16 = 1;
const JOIN: u16 = 2;
const LEAVE: u16 = 3;
const MOVE: u16 = 4;

/// A group of a configuration.
#[derive(Archive, Serialize, Deserialize)]
pub struct GroupV1 {
    /// Its number.
    pub group: u32,
    /// See [`GroupEntry`].
    pub weight: u32,
    /// See [`GroupEntry`].
    pub nodes: Vec<u32>,
}

/// A change, as it is replicated: `kind` says which of the other fields mean something.
#[derive(Archive, Serialize, Deserialize)]
pub struct ChangeV1 {
    /// 1 found, 2 join, 3 leave, 4 move.
    pub kind: u16,
    /// What is moved.
    pub shard: u16,
    /// Where to.
    pub to: u32,
    /// Who joins, or is there at the founding.
    pub groups: Vec<GroupV1>,
    /// Who leaves; at the founding, the group of each shard.
    pub numbers: Vec<u32>,
}

/// One configuration.
#[derive(Archive, Serialize, Deserialize)]
pub struct ConfigurationV1 {
    /// Its number.
    pub number: u64,
    /// The group of each shard, `u32::MAX` for none.
    pub shards: Vec<u32>,
    /// The groups.
    pub groups: Vec<GroupV1>,
}

/// What a configuration changed.
#[derive(Archive, Serialize, Deserialize)]
pub struct StepV1 {
    /// Shards that got another group.
    pub shards: Vec<ShardV1>,
    /// Groups that are new or different.
    pub joined: Vec<GroupV1>,
    /// Groups that are gone.
    pub left: Vec<u32>,
}

/// A shard and its group.
#[derive(Archive, Serialize, Deserialize)]
pub struct ShardV1 {
    /// The shard.
    pub shard: u16,
    /// Its group, `u32::MAX` for none.
    pub group: u32,
}

/// The controller's state.
#[derive(Archive, Serialize, Deserialize)]
pub struct ControllerV1 {
    /// The first configuration that is kept.
    pub first: ConfigurationV1,
    /// Those behind it.
    pub steps: Vec<StepV1>,
}

const _: () = assert!(size_of::<ArchivedChangeV1>() == 24, "frozen: see docs/format.md");
const _: () = assert!(size_of::<ArchivedGroupV1>() == 16, "frozen: see docs/format.md");
const _: () = assert!(size_of::<ArchivedConfigurationV1>() == 24, "frozen: see docs/format.md");
const _: () = assert!(size_of::<ArchivedStepV1>() == 24, "frozen: see docs/format.md");
const _: () = assert!(size_of::<ArchivedShardV1>() == 8, "frozen: see docs/format.md");
const _: () = assert!(size_of::<ArchivedControllerV1>() == 32, "frozen: see docs/format.md");

fn group_out((group, entry): (&u32, &GroupEntry)) -> GroupV1 {
    GroupV1 { group: *group, weight: entry.weight, nodes: entry.nodes.clone() }
}

fn group_in(it: GroupV1) -> (u32, GroupEntry) {
    (it.group, GroupEntry { nodes: it.nodes, weight: it.weight })
}

fn number_out(group: &Option<u32>) -> u32 {
    group.unwrap_or(NOBODY)
}

fn number_in(group: u32) -> Option<u32> {
    (group != NOBODY).then_some(group)
}

fn configuration_out(it: &Configuration) -> ConfigurationV1 {
    ConfigurationV1 {
        number: it.number,
        shards: it.shards.iter().map(number_out).collect(),
        groups: it.groups.iter().map(group_out).collect(),
    }
}

fn configuration_in(it: ConfigurationV1) -> Configuration {
    Configuration {
        number: it.number,
        shards: it.shards.into_iter().map(number_in).collect(),
        groups: it.groups.into_iter().map(group_in).collect(),
    }
}

fn bytes_of(
    value: &impl for<'a> Serialize<
        rkyv::api::high::HighSerializer<
            rkyv::util::AlignedVec,
            rkyv::ser::allocator::ArenaHandle<'a>,
            rkyv::rancor::Error,
        >,
    >,
) -> Vec<u8> {
    let bytes = rkyv::to_bytes::<rkyv::rancor::Error>(value).expect("memory is the only thing it needs");
    bytes.into_vec()
}

/// A copy at an address that an archive can be read at.
fn aligned(bytes: &[u8]) -> rkyv::util::AlignedVec {
    let mut copy = rkyv::util::AlignedVec::with_capacity(bytes.len());
    copy.extend_from_slice(bytes);
    copy
}

impl Change {
    /// The bytes of an entry.
    pub fn encode(&self) -> Vec<u8> {
        let mut change = ChangeV1 { kind: FOUND, shard: 0, to: 0, groups: Vec::new(), numbers: Vec::new() };
        match self {
            Self::Found(first) => {
                change.groups = first.groups.iter().map(group_out).collect();
                change.numbers = first.shards.iter().map(number_out).collect();
            }
            Self::Join(groups) => {
                (change.kind, change.groups) = (JOIN, groups.iter().map(group_out).collect());
            }
            Self::Leave(groups) => {
                (change.kind, change.numbers) = (LEAVE, groups.iter().copied().collect());
            }
            Self::Move { shard, to } => (change.kind, change.shard, change.to) = (MOVE, *shard, *to),
        }
        bytes_of(&change)
    }

    /// Reads it back; `None` if the bytes are none.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let it = rkyv::from_bytes::<ChangeV1, rkyv::rancor::Error>(&aligned(bytes)).ok()?;
        let groups: BTreeMap<u32, GroupEntry> = it.groups.into_iter().map(group_in).collect();
        Some(match it.kind {
            FOUND => {
                let shards = it.numbers.into_iter().map(number_in).collect();
                Self::Found(Configuration { number: 0, shards, groups })
            }
            JOIN => Self::Join(groups),
            LEAVE => Self::Leave(it.numbers.into_iter().collect()),
            MOVE => Self::Move { shard: it.shard, to: it.to },
            _ => return None,
        })
    }
}

impl Configuration {
    /// The bytes.
    pub fn encode(&self) -> Vec<u8> {
        bytes_of(&configuration_out(self))
    }

    /// Reads it back; `None` if the bytes are none.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        rkyv::from_bytes::<ConfigurationV1, rkyv::rancor::Error>(&aligned(bytes)).ok().map(configuration_in)
    }
}

impl Controller {
    /// The whole state as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let step = |it: &Step| StepV1 {
            shards: it
                .shards
                .iter()
                .map(|(shard, group)| ShardV1 { shard: *shard, group: number_out(group) })
                .collect(),
            joined: it.joined.iter().map(group_out).collect(),
            left: it.left.clone(),
        };
        let History { first, steps, .. } = &self.history;
        bytes_of(&ControllerV1 { first: configuration_out(first), steps: steps.iter().map(step).collect() })
    }

    /// Reads it back; `None` if the bytes are none, or contradict themselves.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let it = rkyv::from_bytes::<ControllerV1, rkyv::rancor::Error>(&aligned(bytes)).ok()?;
        let step = |it: StepV1| Step {
            shards: it.shards.into_iter().map(|it| (it.shard, number_in(it.group))).collect(),
            joined: it.joined.into_iter().map(group_in).collect(),
            left: it.left,
        };
        let steps = it.steps.into_iter().map(step).collect();
        Some(Self { history: History::of(configuration_in(it.first), steps)? })
    }
}
