//! The cluster as clients see it: members, and who serves which slots.
//!
//! Every core of every node is a member of its own, with its own port, so that a client that knows clusters goes
//! straight to the core that owns its key.

/// One core of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// 40 hex digits, the same for ever.
    pub id: String,
    /// Its node's number.
    pub node: u32,
    /// Its place on the node.
    pub core: u16,
    /// Where clients find it.
    pub host: String,
    /// Where clients find it.
    pub port: u16,
    /// Where peers find it.
    pub peer_port: u16,
}

/// Slots that one group serves. The numbers of members are places in [`Topology::members`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first slot.
    pub first_slot: u16,
    /// The last.
    pub last_slot: u16,
    /// Who leads the group, if anybody is known to.
    pub leader: Option<usize>,
    /// Who else has a replica.
    pub replicas: Vec<usize>,
}

/// The whole picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// Every core of every node.
    pub members: Vec<Member>,
    /// All slots, ascending.
    pub ranges: Vec<Range>,
    /// The member that is asked.
    pub me: usize,
    /// Grows with every change of a leader.
    pub epoch: u64,
}

impl Topology {
    /// The members that clients may take for replicas of a range. One that leads another range isn't among them: in Redis Cluster a
    /// node is a master or a replica, and clients that ask "all masters" would pass over it.
    pub fn pure_replicas(&self, range: &Range) -> Vec<usize> {
        let leads = |place: &usize| self.ranges.iter().any(|range| range.leader == Some(*place));
        range.replicas.iter().copied().filter(|place| !leads(place)).collect()
    }
}

/// A member's id: made from what never changes.
pub fn member_id(cluster: &str, node: u32, core: u16) -> String {
    let mut id = String::with_capacity(40);
    for part in 0..5_u32 {
        id.push_str(&format!(
            "{:08x}",
            crc32fast::hash(format!("{cluster}/{node}/{core}/{part}").as_bytes())
        ));
    }
    id
}
