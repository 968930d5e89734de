//! Rows SKV-01 to SKV-11 and the challenges: the sharded store of the labs from 2020 to 2024.

use super::clerks::{Clerks, share};
use super::{a_key_of_each, among, ask_for, check, cluster, fill, readable, same, shard_of};
use crate::clerk::linearizable;
use flotilla_services::client::Reply;
use flotilla_services::core::ShardStanding;
use flotilla_sim::script::{Answer, Script, Setup, Weather, is_for_another, nodes_of};

/// SKV-01: data really is sharded: with one group down, exactly the other's keys are there.
#[test]
fn only_the_keys_of_a_group_that_is_down_are_away_skv_01() {
    let mut script = cluster(Setup::sharded(2, 1));
    fill(&mut script, same);
    let (keys, left) = (a_key_of_each(), script.served_by(0));
    assert_eq!(left.len(), 6);
    script.crash_group(1);
    assert_eq!(readable(&mut script, &keys, 2_000), among(&keys, &left));
    script.restart_group(1);
    check(&mut script, same);
}

/// SKV-02: a group rejects what it doesn't serve, whatever the one who asks believes.
#[test]
fn a_group_answers_for_no_shard_but_its_own_skv_02() {
    let mut script = cluster(Setup { forward: false, ..Setup::sharded(2, 1) });
    for key in a_key_of_each() {
        let owner = usize::from(!script.served_by(0).contains(&shard_of(&key)));
        for node in 0..script.setup().nodes {
            let call = script.ask(node, &["GET", &key]);
            match script.answered(call, 2_000).unwrap() {
                Answer::Reply(Reply::Null) => {
                    assert!(nodes_of(owner).contains(&node), "{key} at node {node}")
                }
                Answer::Reply(Reply::Error(error)) => assert!(is_for_another(&error), "{error}"),
                answer => panic!("{answer:?}"),
            }
        }
    }
}

/// SKV-03: shards move with their values, and who gave them away isn't needed any more.
#[test]
fn a_group_that_has_left_is_not_needed_skv_03() {
    let mut script = cluster(Setup::sharded(1, 2));
    fill(&mut script, same);
    script.change("JOIN 1").unwrap();
    script.at_home(1_000).unwrap();
    check(&mut script, same);
    script.change("LEAVE 0").unwrap();
    script.at_home(1_000).unwrap();
    script.crash_group(0);
    check(&mut script, same);
    fill(&mut script, |key| format!("another of {key}"));
    check(&mut script, |key| format!("another of {key}"));
}

/// SKV-04: the same over snapshots, and with all groups restarted from them.
#[test]
fn shards_come_back_from_snapshots_skv_04() {
    let mut script = cluster(Setup::sharded(1, 2).snapshot_after(4096));
    let value = |key: &str| key.repeat(300);
    fill(&mut script, value);
    for change in ["JOIN 1", "JOIN 2", "LEAVE 0"] {
        script.change(change).unwrap();
        script.at_home(5_000).unwrap();
        fill(&mut script, value);
        check(&mut script, value);
    }
    (0..3).for_each(|group| script.crash_group(group));
    (0..3).for_each(|group| script.restart_group(group));
    check(&mut script, value);
    // The reads need no controller: until that leads again, its replicas know only what is committed as far as they know.
    script.at_home(5_000).unwrap();
}

/// SKV-05: servers that slept through several configurations go through them when they are back.
#[test]
fn servers_that_missed_changes_follow_skv_05() {
    let mut script = cluster(Setup::sharded(1, 2).snapshot_after(4096));
    fill(&mut script, same);
    script.change("JOIN 1").unwrap();
    script.at_home(2_000).unwrap();
    (0..3).for_each(|group| script.crash(nodes_of(group).start));
    for change in ["JOIN 2", "LEAVE 1", "LEAVE 0", "JOIN 1"] {
        script.change(change).unwrap();
        script.at_home(5_000).unwrap();
        check(&mut script, same);
    }
    (0..3).for_each(|group| script.restart(nodes_of(group).start));
    (0..3).for_each(|group| script.crash(nodes_of(group).start + 1));
    for change in ["JOIN 0", "LEAVE 2"] {
        script.change(change).unwrap();
        script.at_home(5_000).unwrap();
        check(&mut script, same);
    }
    (0..3).for_each(|group| script.restart(nodes_of(group).start + 1));
    script.at_home(5_000).unwrap();
    check(&mut script, same);
}

/// SKV-06: appends go on while groups come and go, and everything is shut down and restarted in the middle of changes.
#[test]
fn nothing_is_lost_or_doubled_while_all_groups_restart_skv_06() {
    for seed in 0..3 {
        let mut script = cluster(Setup::sharded(1, 2).snapshot_after(4096).seed(seed));
        let mut clerks = Clerks::new(&script, 10);
        for change in ["JOIN 1", "JOIN 2", "LEAVE 0"] {
            script.change(change).unwrap();
            let meanwhile = script.draw(0, 150);
            clerks.work_for(&mut script, meanwhile);
            (0..3).for_each(|group| script.crash_group(group));
            (0..3).for_each(|group| script.restart_group(group));
            clerks.work_for(&mut script, 1_500);
        }
        script.change("JOIN 0").unwrap();
        clerks.work_for(&mut script, 300);
        assert!(clerks.done() > 300, "{}", clerks.done());
        clerks.finish(&mut script, 20_000);
        script.at_home(5_000).unwrap();
    }
}

/// SKV-07: shards that went through several hands, without snapshots: a group that restarts fetches from whom it should.
#[test]
fn a_restarted_group_fetches_from_the_right_owner_skv_07() {
    let mut script = cluster(Setup::sharded(1, 2));
    let mut clerks = Clerks::new(&script, 10);
    for change in ["JOIN 1", "LEAVE 0", "JOIN 2", "LEAVE 1", "JOIN 0", "JOIN 1"] {
        script.change(change).unwrap();
        clerks.work_for(&mut script, 60);
    }
    script.crash_group(1);
    script.crash_group(2);
    clerks.work_for(&mut script, 1_000);
    script.restart_group(1);
    script.restart_group(2);
    clerks.work_for(&mut script, 2_000);
    clerks.finish(&mut script, 20_000);
    script.at_home(5_000).unwrap();
}

/// SKV-08, SKV-C2, CH-1: for twelve seconds groups join, everything is shut down and restarted, groups leave; what moved is deleted.
#[test]
fn changes_that_restarts_interrupt_complete_skv_08_skv_c2_ch_1() {
    let mut script = cluster(Setup::sharded(1, 2).snapshot_after(4096));
    let mut clerks = Clerks::new(&script, 10);
    let start = script.now_ms();
    while script.now_ms() < start + 12_000 {
        script.change("JOIN 1 2").unwrap();
        let pause = script.draw(0, 900);
        clerks.work_for(&mut script, pause);
        (0..3).for_each(|group| script.crash_group(group));
        (0..3).for_each(|group| script.restart_group(group));
        script.change("LEAVE 1 2").unwrap();
        let pause = script.draw(0, 900);
        clerks.work_for(&mut script, pause);
    }
    clerks.finish(&mut script, 20_000);
    script.at_home(5_000).unwrap();
    // Of what was only on its way, too, once these groups have leaders.
    let is_freed = |script: &Script| (script.data_bytes_of(1), script.data_bytes_of(2)) == (0, 0);
    script.wait(5_000, "what moved is deleted", is_freed).unwrap();
}

/// SKV-09: five changes over a network that loses and delays.
#[test]
fn values_are_right_on_a_bad_network_skv_09() {
    let mut script = cluster(Setup::sharded(1, 2).snapshot_after(4096));
    script.weather(Weather::Unreliable);
    fill(&mut script, same);
    for change in ["JOIN 1", "JOIN 2", "LEAVE 0", "LEAVE 1", "JOIN 0"] {
        script.change(change).unwrap();
        check(&mut script, same);
    }
    script.at_home(20_000).unwrap();
    check(&mut script, same);
}

/// SKV-10: sessions travel with their shards: appends that are sent again and again count once.
#[test]
fn appends_count_once_over_a_bad_network_and_moving_shards_skv_10() {
    let mut script = cluster(Setup::sharded(1, 2).snapshot_after(4096));
    let mut clerks = Clerks::new(&script, 10);
    script.weather(Weather::Unreliable);
    for change in ["JOIN 1", "JOIN 2", "LEAVE 0", "LEAVE 1", "JOIN 0 1"] {
        script.change(change).unwrap();
        clerks.work_for(&mut script, 1_000);
    }
    script.weather(Weather::Fair);
    assert!(clerks.done() > 100, "{}", clerks.done());
    clerks.finish(&mut script, 20_000);
}

/// SKV-11: reads and writes of shared keys are linearizable while their shards move over a bad network.
#[test]
fn histories_are_linearizable_while_shards_move_skv_11() {
    for seed in 0..3 {
        let mut script = cluster(Setup::sharded(1, 2).seed(seed));
        script.weather(Weather::Unreliable);
        let changes = ["JOIN 1", "JOIN 2", "LEAVE 0", "LEAVE 1", "JOIN 0"];
        let before = script.newest_configuration().0;
        let (done, clerks) = share(&mut script, 10, 10_000, |script, at| {
            // Some of them are lost.
            if at % 300 == 0 {
                ask_for(script, changes[usize::try_from(at / 1_800).unwrap() % changes.len()]);
            }
        });
        assert!(script.newest_configuration().0 > before + 3);
        linearizable(&done, &clerks, 20);
    }
}

/// SKV-C1, S1-04, H-22: whatever moved is deleted where it was: three replicas of everything, and not more.
#[test]
fn what_has_moved_is_deleted_skv_c1_s1_04_h22() {
    let mut script = cluster(Setup::sharded(1, 2).snapshot_after(4096));
    let value = |key: &str| format!("{key:.<1000}");
    fill(&mut script, value);
    let whole = 3 * a_key_of_each().iter().map(|key| key.len() as u64 + 1000).sum::<u64>();
    for _ in 0..2 {
        for change in ["JOIN 1", "JOIN 2", "LEAVE 0", "LEAVE 1", "JOIN 0", "LEAVE 2"] {
            script.change(change).unwrap();
            script.at_home(5_000).unwrap();
            script
                .wait(5_000, "all replicas are of one mind", |script| {
                    (0..3).map(|group| script.data_bytes_of(group)).sum::<u64>() == whole
                })
                .unwrap();
        }
        check(&mut script, value);
    }
}

/// SKV-C3, CH-2a, H-21: a group that waits for shards of a dead one goes on serving its own.
#[test]
fn a_dead_group_blocks_only_its_own_shards_skv_c3_ch_2a_h21() {
    let mut script = cluster(Setup::sharded(2, 1));
    script.weather(Weather::Unreliable);
    fill(&mut script, same);
    let (keys, own) = (a_key_of_each(), script.served_by(1));
    script.crash_group(0);
    script.change("LEAVE 0").unwrap();
    assert_eq!(readable(&mut script, &keys, 5_000), among(&keys, &own));
    for key in among(&keys, &own) {
        super::set(&mut script, &key, &same(&key));
    }
    script.weather(Weather::Fair);
    script.restart_group(0);
    script.at_home(5_000).unwrap();
    check(&mut script, same);
}

/// SKV-C4, CH-2b: of the shards that a change brings, those that have arrived are served while others can't.
#[test]
fn each_shard_is_served_as_soon_as_it_is_there_skv_c4_ch_2b() {
    let mut script = cluster(Setup::sharded(3, 1));
    fill(&mut script, same);
    let keys = a_key_of_each();
    let lost = script.served_by(0);
    script.crash_group(0);
    script.change("LEAVE 0 2").unwrap();
    script.wait(1_000, "the shards of 2 have come to 1", |script| script.served_by(1).len() == 8).unwrap();
    assert!(script.shards_of(1).iter().all(|(_, standing)| *standing == ShardStanding::Serving));
    let left: Vec<u16> = (0..12).filter(|shard| !lost.contains(shard)).collect();
    assert_eq!(readable(&mut script, &keys, 2_000), among(&keys, &left));
    script.restart_group(0);
    script.at_home(5_000).unwrap();
    check(&mut script, same);
}

/// H-23: what was on its way when everything restarted goes on.
#[test]
fn a_migration_goes_on_where_a_restart_interrupted_it_h23() {
    for seed in 0..5 {
        let mut script = cluster(Setup::sharded(1, 1).snapshot_after(4096).seed(seed));
        let value = |key: &str| format!("{key:.<30000}");
        fill(&mut script, value);
        script.change("JOIN 1").unwrap();
        let under_way = |script: &Script| {
            let arriving =
                |(_, standing): &(u16, ShardStanding)| matches!(standing, ShardStanding::Arriving(_));
            script.shards_of(1).iter().any(arriving)
        };
        script.wait(2_000, "some of a shard has come", under_way).unwrap();
        (0..2).for_each(|group| script.crash_group(group));
        (0..2).for_each(|group| script.restart_group(group));
        script.at_home(10_000).unwrap();
        check(&mut script, value);
    }
}
