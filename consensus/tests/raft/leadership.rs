//! Who leads, step by step: leadership handed over, and to whom it belongs.

use crate::cluster::Cluster;
use flotilla_consensus::{Kind, Refused, Role, TransferError};
use flotilla_runtime::NodeId;
use flotilla_runtime::machine::MILLISECOND;

fn node(place: usize) -> NodeId {
    NodeId(u32::try_from(place + 1).unwrap())
}

fn transfer(cluster: &mut Cluster, from: usize, to: usize) -> Result<(), TransferError> {
    cluster.act(from, |multi, now| multi.transfer_to(now, 0, node(to)))
}

/// Everybody speaks when it is time to, for so many milliseconds.
fn live(cluster: &mut Cluster, milliseconds: u64) {
    for _ in 0..milliseconds / 10 {
        cluster.pass(10);
        cluster.fire_due();
        cluster.deliver();
    }
}

#[test]
fn leadership_is_handed_over_within_two_round_trips_and_a_sync() {
    let mut cluster = Cluster::new(3);
    cluster.elect(0);
    cluster.propose(0, b"x");
    cluster.deliver();
    let term = cluster.raft(0).term();
    cluster.syncs = vec![0; 3];
    cluster.slow_disks = [0, 1, 2].into();
    assert_eq!(transfer(&mut cluster, 0, 1), Ok(()));
    let mut frames = cluster.hop();
    assert_eq!((frames, cluster.raft(1).role()), (1, Role::Candidate), "the leader told it, and nobody else");
    frames += cluster.hop();
    assert_eq!((frames, cluster.raft(0).role()), (3, Role::Follower), "the candidate asked both");
    // Every disk syncs once, at the same time.
    (0..3).for_each(|node| cluster.sync(node));
    frames += cluster.hop();
    assert_eq!((frames, cluster.raft(1).role(), cluster.raft(1).term()), (5, Role::Leader, term + 1));
    assert_eq!(cluster.syncs, [1, 1, 1], "three half round trips and one sync on the way");
    cluster.slow_disks.clear();
    (0..3).for_each(|node| cluster.sync(node));
    cluster.propose(1, b"y");
    cluster.deliver();
    assert_eq!(cluster.raft(1).commit(), cluster.raft(1).log().last_index());
}

#[test]
fn a_target_that_lags_is_brought_up_to_date_first_and_clients_are_refused_meanwhile() {
    let mut cluster = Cluster::new(3);
    cluster.elect(0);
    cluster.slow_disks = [1].into();
    let index = cluster.propose(0, &[7; 100_000]);
    cluster.deliver();
    assert_eq!(transfer(&mut cluster, 0, 1), Ok(()));
    cluster.deliver();
    assert_eq!((cluster.raft(1).role(), cluster.raft(0).transferring_to()), (Role::Follower, Some(node(1))));
    assert_eq!(cluster.try_to_propose(0, b"y"), Err(Refused::Transferring));
    assert_eq!(transfer(&mut cluster, 0, 2), Err(TransferError::UnderWay(node(1))));
    // Reads go on.
    let ticket = cluster.read(0);
    cluster.deliver();
    assert!(cluster.raft(0).confirmed_round() >= ticket.round);
    cluster.slow_disks.clear();
    cluster.sync(1);
    cluster.deliver();
    assert_eq!((cluster.raft(1).role(), cluster.raft(1).commit()), (Role::Leader, index + 1));
}

#[test]
fn a_transfer_that_comes_to_nothing_is_given_up_after_an_election_timeout() {
    let mut cluster = Cluster::new(3);
    cluster.elect(0);
    let term = cluster.raft(0).term();
    cluster.withheld = Some((1, Kind::TimeoutNow));
    assert_eq!(transfer(&mut cluster, 0, 1), Ok(()));
    live(&mut cluster, 300);
    assert_eq!(cluster.try_to_propose(0, b"y"), Err(Refused::Transferring));
    live(&mut cluster, 200);
    assert_eq!((cluster.raft(0).role(), cluster.raft(0).term()), (Role::Leader, term));
    assert_eq!(cluster.raft(0).transferring_to(), None);
    cluster.propose(0, b"y");
    // The message was lost once: it is sent again with the next heartbeat.
    assert_eq!(transfer(&mut cluster, 0, 1), Ok(()));
    cluster.deliver();
    cluster.withheld = None;
    live(&mut cluster, 100);
    assert_eq!(cluster.raft(1).role(), Role::Leader);
}

#[test]
fn only_a_member_that_can_lead_is_handed_the_leadership() {
    let mut cluster = Cluster::new(3);
    cluster.elect(0);
    assert_eq!(transfer(&mut cluster, 1, 2), Err(TransferError::NotLeader(Some(node(0)))));
    assert_eq!(transfer(&mut cluster, 0, 0), Err(TransferError::NoOtherVoter));
    assert_eq!(transfer(&mut cluster, 0, 7), Err(TransferError::NoOtherVoter));
    cluster.cut_off = [2].into();
    live(&mut cluster, 600);
    assert!(matches!(transfer(&mut cluster, 0, 2), Err(TransferError::Unfit(_))));
}

#[test]
fn an_old_invitation_to_campaign_disturbs_nobody() {
    let mut cluster = Cluster::new(3);
    cluster.elect(0);
    transfer(&mut cluster, 0, 1).unwrap();
    let invitation = cluster.wire.clone();
    cluster.deliver();
    assert_eq!(cluster.raft(1).role(), Role::Leader);
    transfer(&mut cluster, 1, 2).unwrap();
    cluster.deliver();
    let term = cluster.raft(2).term();
    cluster.wire = invitation;
    cluster.deliver();
    assert_eq!((cluster.raft(2).role(), cluster.raft(2).term()), (Role::Leader, term));
}

#[test]
fn a_node_that_stops_gives_its_leadership_away_and_takes_none() {
    let mut cluster = Cluster::new(3);
    cluster.elect(0);
    // Two of them are about to stop.
    cluster.act(1, |multi, now| multi.retire(now));
    cluster.deliver();
    cluster.act(0, |multi, now| multi.retire(now));
    cluster.deliver();
    assert_eq!((cluster.raft(2).role(), cluster.raft(0).role()), (Role::Leader, Role::Follower));
    // The new leader's first heartbeat tells it that the others are about to stop.
    live(&mut cluster, 100);
    assert!(matches!(transfer(&mut cluster, 2, 0), Err(TransferError::Unfit(_))));
    // Whatever they hear or don't hear, they don't campaign; but they vote.
    cluster.cut_off = [2].into();
    live(&mut cluster, 3000);
    assert_eq!((cluster.raft(0).role(), cluster.raft(1).role()), (Role::Follower, Role::Follower));
    cluster.cut_off.clear();
    live(&mut cluster, 3000);
    assert_eq!(cluster.raft(2).role(), Role::Leader);
}

#[test]
fn who_has_much_to_apply_yet_takes_no_leadership_until_it_has() {
    let mut cluster = Cluster::new(3);
    cluster.elect(0);
    for _ in 0..5000 {
        cluster.propose(0, b"x");
    }
    cluster.deliver();
    let commit = cluster.raft(0).commit();
    // Node 1 has come back, and goes through its log. It is the first to be considered otherwise.
    cluster.act(1, |multi, _| multi.note_applied(0, 10));
    cluster.act(2, |multi, _| multi.note_applied(0, commit));
    live(&mut cluster, 100);
    assert!(matches!(transfer(&mut cluster, 0, 1), Err(TransferError::Unfit(_))));
    cluster.act(0, |multi, now| multi.retire(now));
    cluster.deliver();
    assert_eq!(cluster.raft(2).role(), Role::Leader);
    // That one stops, too. Nobody else is fit, so it goes on to lead.
    live(&mut cluster, 100);
    cluster.act(2, |multi, now| multi.retire(now));
    live(&mut cluster, 500);
    assert_eq!(cluster.raft(2).role(), Role::Leader);
    cluster.act(1, |multi, _| multi.note_applied(0, commit));
    live(&mut cluster, 100);
    assert_eq!(cluster.raft(1).role(), Role::Leader);
}

#[test]
fn the_last_node_that_stops_has_nobody_to_hand_over_to() {
    let mut cluster = Cluster::new(3);
    cluster.elect(0);
    for stopping in [1, 2, 0] {
        cluster.act(stopping, |multi, now| multi.retire(now));
        cluster.deliver();
    }
    assert_eq!((cluster.raft(0).role(), cluster.raft(0).transferring_to()), (Role::Leader, None));
}

fn prefer(cluster: &mut Cluster, order: &[usize]) {
    for place in 0..3 {
        let order = order.iter().map(|place| node(*place)).collect();
        cluster.act(place, |multi, now| multi.prefer(now, 0, order));
    }
}

#[test]
fn whoever_should_lead_campaigns_first() {
    for first in 0..3 {
        let mut cluster = Cluster::new(3);
        let order = [first, (first + 1) % 3, (first + 2) % 3];
        prefer(&mut cluster, &order);
        live(&mut cluster, 900);
        assert_eq!(cluster.raft(first).role(), Role::Leader);
        // Without it, the next one does.
        cluster.cut_off = [first].into();
        live(&mut cluster, 1000);
        assert_eq!(cluster.raft(order[1]).role(), Role::Leader);
    }
}

#[test]
fn the_leadership_goes_back_to_whom_it_belongs_but_not_at_once() {
    let mut cluster = Cluster::new(3);
    prefer(&mut cluster, &[2, 0, 1]);
    cluster.cut_off = [2].into();
    live(&mut cluster, 1200);
    assert_eq!(cluster.raft(0).role(), Role::Leader);
    cluster.cut_off.clear();
    live(&mut cluster, 3000);
    // It hiccups, and has to wait again.
    cluster.cut_off = [2].into();
    live(&mut cluster, 300);
    cluster.cut_off.clear();
    live(&mut cluster, 3000);
    assert_eq!(cluster.raft(0).role(), Role::Leader, "it isn't trusted yet");
    live(&mut cluster, 1500);
    assert_eq!(cluster.raft(2).role(), Role::Leader);
    let term = cluster.raft(2).term();
    live(&mut cluster, 10_000);
    assert_eq!((cluster.raft(2).role(), cluster.raft(2).term()), (Role::Leader, term), "and there it stays");
}

/// A vote waits for its disk. If that takes longer than an election timeout, the next term would always come first.
#[test]
fn disks_slower_than_an_election_timeout_elect_somebody_too() {
    for takes in [500, 1000, 2000] {
        let mut cluster = Cluster::new(3);
        cluster.elect(0);
        cluster.slow_disks = [0, 1, 2].into();
        cluster.cut_off = [0].into();
        let died = cluster.now;
        while (1..3).all(|node| cluster.raft(node).role() != Role::Leader) {
            cluster.pass(10);
            let done = cluster.now.saturating_sub(takes * MILLISECOND);
            (1..3).for_each(|node| cluster.sync_before(node, done));
            cluster.fire_due();
            cluster.deliver();
            let waited = (cluster.now - died) / MILLISECOND;
            assert!(waited < 30_000, "no leader after {waited} ms, with disks that take {takes} ms");
        }
    }
}
