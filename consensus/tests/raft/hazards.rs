//! Hazards of real implementations that one message at the wrong moment shows. Numbers are those of the hazards.

use crate::cluster::{Cluster, GROUP};
use flotilla_consensus::message::{Header, Outbox, decode};
use flotilla_consensus::{Kind, Refused, Role};
use flotilla_runtime::{CoreId, NodeId, PeerId};

/// A message from one replica to another that neither of them made up.
fn forge(cluster: &mut Cluster, from: usize, to: usize, header: &Header) {
    let mut outbox = Outbox::new(&cluster.beginnings[&from]);
    outbox.send(PeerId { node: NodeId(9), core: CoreId(0) }, header);
    let frame = outbox.drain().next().unwrap().1;
    cluster.wire.push((from, to, frame));
    cluster.deliver();
}

/// Three replicas: the first, which led, is cut off, the second begins to campaign, and no question for its vote reaches the third.
fn campaigning() -> Cluster {
    let mut cluster = Cluster::new(3);
    cluster.elect(0);
    cluster.cut_off = [0].into();
    cluster.withheld = Some((2, Kind::Vote));
    cluster.pass(1000);
    cluster.fire(1);
    cluster
}

/// H-14: an append that attaches at the very beginning, and a heartbeat, commit only what they have shown to agree.
#[test]
fn an_unverified_tail_is_not_committed_h14() {
    for kind in [Kind::Append, Kind::Heartbeat] {
        let mut cluster = Cluster::new(3);
        cluster.elect(0);
        let committed = cluster.raft(0).commit();
        cluster.cut_off = [0].into();
        for _ in 0..3 {
            cluster.propose(0, b"only here");
        }
        cluster.deliver();
        cluster.cut_off.clear();
        cluster.cut_off.extend([2]);
        let term = cluster.raft(0).term() + 1;
        let message = Header { commit: committed + 3, ..Header::new(kind, GROUP, term) };
        forge(&mut cluster, 1, 0, &message);
        let raft = cluster.raft(0);
        assert_eq!((raft.term(), raft.role(), raft.commit()), (term, Role::Follower, committed));
        assert_eq!(raft.log().last_index(), committed + 3);
    }
}

/// H-15: only the votes of a candidacy elect its candidate: not those of an earlier one, not once it follows somebody.
#[test]
fn votes_of_another_candidacy_do_not_count_h15() {
    let mut cluster = campaigning();
    cluster.wire.clear();
    let term = cluster.raft(1).term();
    let granted = |kind, term| Header { flag: true, ..Header::new(kind, GROUP, term) };
    forge(&mut cluster, 2, 1, &granted(Kind::VoteReply, term));
    assert_eq!(cluster.raft(1).role(), Role::PreCandidate, "a vote is no pre-vote");
    forge(&mut cluster, 2, 1, &granted(Kind::PreVoteReply, term));
    assert_eq!(cluster.raft(1).role(), Role::PreCandidate, "a pre-vote for an earlier term");
    forge(&mut cluster, 2, 1, &granted(Kind::PreVoteReply, term + 1));
    assert_eq!((cluster.raft(1).role(), cluster.raft(1).term()), (Role::Candidate, term + 1));
    forge(&mut cluster, 2, 1, &granted(Kind::VoteReply, term));
    assert_eq!(cluster.raft(1).role(), Role::Candidate, "a vote of an earlier term");
    // Somebody else leads the next term; then the votes that were on their way arrive.
    cluster.cut_off.clear();
    forge(&mut cluster, 0, 1, &Header::new(Kind::Heartbeat, GROUP, term + 2));
    for term in [term + 1, term + 2] {
        forge(&mut cluster, 2, 1, &granted(Kind::VoteReply, term));
    }
    assert_eq!((cluster.raft(1).role(), cluster.raft(1).term()), (Role::Follower, term + 2));
}

/// H-15: nor those that a former life got, in the same term, for a log that was longer: its end was lost with the term.
#[test]
fn votes_for_a_longer_log_of_a_former_life_do_not_count_h15() {
    let mut cluster = campaigning();
    cluster.deliver();
    let raft = cluster.raft(1);
    assert_eq!(raft.role(), Role::Candidate);
    let (term, index, log_term) = (raft.term(), raft.log().last_index(), raft.log().last_term());
    let granted = Header { flag: true, index, log_term, ..Header::new(Kind::VoteReply, GROUP, term) };
    for longer in
        [Header { index: index + 1, ..granted }, Header { log_term: log_term + 1, index: 1, ..granted }]
    {
        forge(&mut cluster, 2, 1, &longer);
        assert_eq!(cluster.raft(1).role(), Role::Candidate, "{longer:?}");
    }
    forge(&mut cluster, 2, 1, &granted);
    assert_eq!(cluster.raft(1).role(), Role::Leader);
}

/// What a vote is for stands in it.
#[test]
fn a_vote_names_the_log_that_it_is_for() {
    let mut cluster = Cluster::new(3);
    cluster.elect(0);
    cluster.cut_off = [0].into();
    cluster.pass(1000);
    cluster.fire(1);
    // The question before the question, its answer, and the question.
    for _ in 0..3 {
        cluster.hop();
    }
    let (last, last_term) = (cluster.raft(1).log().last_index(), cluster.raft(1).log().last_term());
    let (_, _, frame) = cluster.wire.iter().find(|(from, to, _)| (*from, *to) == (2, 1)).unwrap();
    let (message, _) = decode(frame, cluster.beginnings[&2].len()).unwrap();
    let Header { kind, flag, index, log_term, .. } = message.header;
    assert_eq!((kind, flag, index, log_term), (Kind::VoteReply, true, last, last_term));
}

/// A follower says what it has only when its disk knows the term: in an older one it might take something else in its place.
#[test]
fn no_acknowledgement_leaves_before_its_term_is_durable() {
    let mut cluster = Cluster::new(5);
    cluster.elect(0);
    cluster.propose(0, b"x");
    cluster.deliver();
    cluster.slow_disks = [2].into();
    cluster.elect(1);
    let last = cluster.raft(1).log().last_index();
    assert_eq!(cluster.raft(2).log().last_index(), last, "it has everything, most of it on its disk");
    let of_2 = |cluster: &Cluster| cluster.raft(1).matched(NodeId(3)).unwrap().0;
    assert_eq!(of_2(&cluster), 0);
    // The term goes to the disk, and then the entry that begins it.
    for index in [last - 1, last] {
        cluster.sync(2);
        cluster.deliver();
        assert_eq!(of_2(&cluster), index);
    }
}

/// H-15: a vote is granted, and an append taken, in the term of the moment: what is of an earlier one is refused.
#[test]
fn what_is_of_an_earlier_term_is_refused_h15() {
    let mut cluster = Cluster::new(3);
    cluster.elect(0);
    cluster.elect(1);
    let term = cluster.raft(1).term();
    let (last, commit) = (cluster.raft(2).log().last_index(), cluster.raft(2).commit());
    let old = Header { index: 99, log_term: 99, commit: 99, ..Header::new(Kind::Vote, GROUP, term - 1) };
    for kind in [Kind::Vote, Kind::Append, Kind::Heartbeat] {
        forge(&mut cluster, 0, 2, &Header { kind, ..old });
        let raft = cluster.raft(2);
        assert_eq!((raft.term(), raft.leader().unwrap().0), (term, 2), "{kind:?}");
        assert_eq!((raft.log().last_index(), raft.commit()), (last, commit), "{kind:?}");
    }
}

/// H-26: what a leader can't get rid of is bounded: it refuses, and takes more when there is room again.
#[test]
fn a_leader_refuses_what_is_too_much_h26() {
    let mut cluster = Cluster::new(3);
    cluster.elect(0);
    cluster.cut_off = [1, 2].into();
    let mut taken: u64 = 0;
    let refused = loop {
        match cluster.try_to_propose(0, b"x") {
            Ok(_) => taken += 1,
            Err(refused) => break refused,
        }
        cluster.wire.clear();
        assert!(taken <= 64 * 1024, "there is no bound");
    };
    assert!(matches!(refused, Refused::Busy) && taken > 1000, "{refused} after {taken}");
    cluster.cut_off.clear();
    for _ in 0..20 {
        cluster.fire(0);
        cluster.deliver();
    }
    assert!(cluster.raft(0).commit() >= taken);
    assert!(cluster.try_to_propose(0, b"x").is_ok());
}
