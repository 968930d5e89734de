//! Rows S1-01 to S1-15: the sharded store of the labs of 2025 and 2026, with the controllers that come and go.

use super::clerks::{Clerks, share};
use super::{a_key_of_each, among, ask_for, check, cluster, fill, get, readable, same, shard_of};
use crate::clerk::linearizable;
use flotilla_consensus::Role;
use flotilla_services::client::Reply;
use flotilla_sim::script::{Answer, Script, Setup, Weather, nodes_of};

/// The node that leads the controller.
fn controller(script: &mut Script) -> usize {
    let leads = |script: &Script, node: &usize| script.role(*node) == Some(Role::Leader);
    let found = |script: &Script| {
        script
            .connected()
            .into_iter()
            .filter(|node| leads(script, node))
            .max_by_key(|node| script.term(*node))
    };
    script.wait(5_000, "a leader of the controller", |script| found(script).is_some()).unwrap();
    found(script).unwrap()
}

/// S1-01: the first configuration is there, and can be asked for.
#[test]
fn there_is_a_first_configuration_s1_01() {
    let mut script = cluster(Setup::sharded(2, 1));
    let Reply::Array(lines) = script.clerk(&["FLOTILLA.CLUSTER", "QUERY", "1"], 2_000).unwrap() else {
        panic!("no array");
    };
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert_eq!(lines[0], Reply::Bulk(b"configuration 1".to_vec()));
    assert_eq!(lines[1], Reply::Bulk(b"group 0 weight 1 nodes 1,2,3 shards 0-5".to_vec()));
}

/// S1-02: one group that loses its leader: values and versions are kept.
#[test]
fn versions_outlive_a_leader_s1_02() {
    let mut script = cluster(Setup::sharded(1, 1));
    let version = |script: &mut Script| script.clerk(&["FLOTILLA.GETV", "key"], 5_000).unwrap();
    for value in ["one", "two", "three"] {
        super::set(&mut script, "key", value);
    }
    let before = version(&mut script);
    let leader = nodes_of(0).find(|node| script.leads(*node, 0)).unwrap();
    script.crash(leader);
    assert_eq!(version(&mut script), before);
    super::set(&mut script, "key", "four");
    assert_ne!(version(&mut script), before);
}

/// S1-03: a second group joins; while either is down some keys are there and some aren't, and then all.
#[test]
fn a_second_group_takes_its_part_s1_03() {
    let mut script = cluster(Setup::sharded(1, 2));
    fill(&mut script, same);
    let before = script.newest_configuration().0;
    script.change("JOIN 1").unwrap();
    script.at_home(2_000).unwrap();
    assert_eq!(script.newest_configuration().0, before + 1);
    let keys = a_key_of_each();
    for group in 0..2 {
        let left = script.served_by(1 - group);
        script.crash_group(group);
        assert_eq!(readable(&mut script, &keys, 2_000), among(&keys, &left));
        script.restart_group(group);
        check(&mut script, same);
    }
}

/// S1-05: join, leave, the group that has left is shut down, and joins again.
#[test]
fn a_group_comes_back_s1_05() {
    let mut script = cluster(Setup::sharded(1, 2));
    fill(&mut script, same);
    for change in ["JOIN 1", "LEAVE 0"] {
        script.change(change).unwrap();
        script.at_home(2_000).unwrap();
        check(&mut script, same);
    }
    script.crash_group(0);
    fill(&mut script, |key| key.repeat(2));
    script.restart_group(0);
    script.change("JOIN 0").unwrap();
    script.at_home(5_000).unwrap();
    assert_eq!(script.served_by(0).len(), 6);
    check(&mut script, |key| key.repeat(2));
}

/// S1-06: eight groups join and leave in quick succession, on a good network and on a bad one.
#[test]
fn many_groups_join_and_leave_s1_06() {
    for weather in [Weather::Fair, Weather::Unreliable] {
        let mut script = cluster(Setup::sharded(1, 8));
        fill(&mut script, same);
        script.weather(weather);
        for change in
            (1..9).map(|group| format!("JOIN {group}")).chain((1..9).map(|group| format!("LEAVE {group}")))
        {
            script.change(&change).unwrap();
            script.run_for(200).unwrap();
        }
        script.at_home(20_000).unwrap();
        assert_eq!(script.served_by(0).len(), 12);
        check(&mut script, same);
    }
}

/// S1-07: all groups are shut down and restarted.
#[test]
fn everything_outlives_a_restart_of_everything_s1_07() {
    let mut script = cluster(Setup::sharded(1, 2));
    fill(&mut script, same);
    script.change("JOIN 1 2").unwrap();
    script.at_home(2_000).unwrap();
    (0..3).for_each(|group| script.crash_group(group));
    (0..3).for_each(|group| script.restart_group(group));
    check(&mut script, same);
    assert!(script.is_at_home());
}

/// S1-08: with two of five groups down, the keys of the other three are there within two seconds.
#[test]
fn groups_that_live_serve_s1_08() {
    let mut script = cluster(Setup::sharded(4, 1));
    fill(&mut script, same);
    script.change("JOIN 4").unwrap();
    script.at_home(2_000).unwrap();
    let left: Vec<u16> = [0, 2, 4].into_iter().flat_map(|group| script.served_by(group)).collect();
    script.crash_group(1);
    script.crash_group(3);
    let keys = a_key_of_each();
    assert_eq!(readable(&mut script, &keys, 2_000), among(&keys, &left));
}

/// S1-09: while a group joins and leaves all the time, reads of shards that stay keep flowing: a hundred in four seconds are
/// asked for, ours are counted in thousands.
#[test]
fn reads_of_what_stays_keep_flowing_s1_09() {
    let mut script = cluster(Setup::sharded(1, 1));
    fill(&mut script, same);
    script.change("JOIN 1").unwrap();
    script.at_home(2_000).unwrap();
    let stays = script.served_by(0)[0];
    let key = a_key_of_each().into_iter().find(|key| shard_of(key) == stays).unwrap();
    let (start, mut reads, mut is_in) = (script.now_ms(), 0, true);
    let mut longest = 0;
    while script.now_ms() < start + 4_000 {
        if reads % 100 == 0 {
            ask_for(&mut script, if is_in { "LEAVE 1" } else { "JOIN 1" });
            is_in = !is_in;
        }
        let asked = script.now_ms();
        assert_eq!(get(&mut script, &key), Some(same(&key)));
        longest = longest.max(script.now_ms() - asked);
        reads += 1;
    }
    assert!(reads > 2_000 && longest < 50, "{reads} reads, one took {longest} ms");
}

/// S1-10: one client, and ten, while eight groups join and leave; on a good network and on a bad one; linearizable.
#[test]
fn clerks_see_one_history_while_groups_come_and_go_s1_10() {
    for (users, weather) in
        [(1, Weather::Fair), (1, Weather::Unreliable), (10, Weather::Fair), (10, Weather::Unreliable)]
    {
        let mut script = cluster(Setup::sharded(1, 8));
        script.weather(weather);
        let (done, clerks) = share(&mut script, users, 5_000, |script, at| {
            if at % 200 == 0 {
                let step = at / 200 % 16;
                let change =
                    if step < 8 { format!("JOIN {}", step + 1) } else { format!("LEAVE {}", step - 7) };
                ask_for(script, &change);
            }
        });
        assert!(done.len() > 5 * users, "{} by {users}", done.len());
        linearizable(&done, &clerks, 0);
    }
}

/// S1-11: with the source down a join can't complete, and completes when it is back; so does a leave with its destination down.
#[test]
fn a_change_waits_for_those_it_needs_s1_11() {
    let mut script = cluster(Setup::sharded(1, 2));
    fill(&mut script, same);
    script.crash_group(0);
    script.change("JOIN 1").unwrap();
    script.run_for(2_000).unwrap();
    assert!(!script.is_at_home() && script.shards_of(1).is_empty());
    script.restart_group(0);
    script.at_home(2_000).unwrap();
    check(&mut script, same);
    script.crash_group(0);
    script.change("LEAVE 1").unwrap();
    script.run_for(2_000).unwrap();
    assert_eq!(script.served_by(1).len(), 6, "nobody is there to take them: they are served where they are");
    script.restart_group(0);
    script.at_home(2_000).unwrap();
    check(&mut script, same);
}

/// S1-12: the controller's leader is cut off in the middle of a change, five times: another finishes it.
#[test]
fn another_controller_finishes_what_one_began_s1_12() {
    let mut script = cluster(Setup::sharded(1, 2));
    fill(&mut script, same);
    for round in 0..5 {
        let before = script.newest_configuration().0;
        let leads = controller(&mut script);
        let change = if round % 2 == 0 { ["JOIN", "1"] } else { ["LEAVE", "1"] };
        script.ask(leads, &["FLOTILLA.CLUSTER", change[0], change[1]]);
        let pause = script.draw(0, 3);
        script.run_for(pause).unwrap();
        script.disconnect(leads);
        script.run_for(2_000).unwrap();
        script.connect(leads);
        // Who began it may have been cut off before anybody heard of it.
        if script.newest_configuration().0 == before {
            script.change(&change.join(" ")).unwrap();
        }
        script.at_home(5_000).unwrap();
        assert!(script.newest_configuration().0 > before);
        check(&mut script, same);
    }
}

/// S1-13: four operators change the same things at once, on a good network and on a bad one.
#[test]
fn operators_may_race_s1_13() {
    for weather in [Weather::Fair, Weather::Unreliable] {
        let mut script = cluster(Setup::sharded(1, 4));
        fill(&mut script, same);
        script.weather(weather);
        let start = script.now_ms();
        while script.now_ms() < start + 2_000 {
            for operator in 1..5 {
                let word = if script.chance(50) { "JOIN" } else { "LEAVE" };
                ask_for(&mut script, &format!("{word} {operator}"));
            }
            let pause = script.draw(1, 60);
            script.run_for(pause).unwrap();
        }
        script.weather(Weather::Fair);
        script.at_home(20_000).unwrap();
        check(&mut script, same);
    }
}

/// S1-14: a leader of the controller that was cut off and replaced brings nothing old back.
#[test]
fn a_stale_controller_is_fenced_s1_14() {
    let mut script = cluster(Setup::sharded(1, 2));
    fill(&mut script, same);
    let stale = controller(&mut script);
    script.disconnect(stale);
    let lost = script.ask(stale, &["FLOTILLA.CLUSTER", "JOIN", "1"]);
    script.change("JOIN 2").unwrap();
    script.at_home(5_000).unwrap();
    let (number, wanted) = script.newest_configuration();
    script.connect(stale);
    script.run_for(3_000).unwrap();
    assert!(!script.answer(lost).is_some_and(Answer::is_done));
    assert_eq!(script.newest_configuration(), (number, wanted));
    assert!(script.is_at_home() && script.shards_of(1).is_empty());
    check(&mut script, same);
}

/// S1-15: leaders of the controller are cut off again and again, with and without clerks, on a good network and on a
/// bad one: each time the next one goes on.
#[test]
fn controllers_recover_under_load_s1_15() {
    for (weather, count) in
        [(Weather::Fair, 0), (Weather::Fair, 5), (Weather::Unreliable, 0), (Weather::Unreliable, 5)]
    {
        let mut script = cluster(Setup::sharded(1, 2).snapshot_after(4096));
        fill(&mut script, same);
        let mut clerks = Clerks::new(&script, count);
        script.weather(weather);
        for round in 0..5 {
            ask_for(&mut script, ["JOIN 1 2", "LEAVE 0", "JOIN 0", "LEAVE 1", "LEAVE 2"][round]);
            clerks.work_for(&mut script, 20);
            let leads = controller(&mut script);
            script.disconnect(leads);
            clerks.work_for(&mut script, 1_500);
            script.connect(leads);
            clerks.work_for(&mut script, 200);
        }
        script.weather(Weather::Fair);
        script.at_home(20_000).unwrap();
        check(&mut script, same);
        clerks.finish(&mut script, 20_000);
    }
}
