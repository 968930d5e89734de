//! In memory: three replicas in one thread, whose messages are handed on as they are; or, as between processes, encoded and
//! decoded, with the entries encoded for a log that nobody writes.

use crate::replica::{self, NODES};
use crate::{Measured, Plan};
use protobuf::Message as _;
use raft::eraftpb::Message;
use std::collections::VecDeque;
use std::time::Instant;

/// Commits between two looks at the clock.
const CLOCK_EVERY: u64 = 1000;

pub fn run(plan: Plan, as_bytes: bool) {
    let mut nodes: Vec<_> = (1..=NODES).map(replica::new).collect();
    let mut wire: VecDeque<Sent> = VecDeque::new();
    let mut log = Vec::new();
    nodes[0].campaign().expect("nobody leads");
    let mut in_flight = 0;
    let mut unseen = 0;
    let mut measured = Measured::begin(plan);
    let data = vec![0x5a; plan.bytes];
    loop {
        if nodes[0].raft.state == raft::StateRole::Leader {
            while in_flight < plan.in_flight {
                nodes[0].propose(vec![], data.clone()).expect("it leads");
                in_flight += 1;
            }
        }
        // Every node has its turn once it has everything that was sent to it meanwhile.
        for place in 0..nodes.len() {
            let send = |message: Message| wire.push_back(Sent::new(message, as_bytes));
            let commits = replica::turn(&mut nodes[place], send, |ready| {
                if as_bytes {
                    log.clear();
                    for entry in ready.entries() {
                        entry.write_to_vec(&mut log).expect("memory is enough");
                    }
                }
            });
            if place == 0 {
                in_flight -= commits as usize;
                unseen += commits;
            }
            for _ in 0..wire.len() {
                let message = wire.pop_front().expect("counted").received();
                nodes[message.to as usize - 1].step(message).expect("from a member");
            }
        }
        if unseen >= CLOCK_EVERY {
            if measured.committed(Instant::now(), unseen) {
                return measured.print();
            }
            unseen = 0;
        }
    }
}

enum Sent {
    Whole(Message),
    Bytes(Vec<u8>),
}

impl Sent {
    fn new(message: Message, as_bytes: bool) -> Self {
        match as_bytes {
            true => Self::Bytes(message.write_to_bytes().expect("memory is enough")),
            false => Self::Whole(message),
        }
    }

    fn received(self) -> Message {
        match self {
            Self::Whole(message) => message,
            Self::Bytes(bytes) => Message::parse_from_bytes(&bytes).expect("encoded above"),
        }
    }
}
