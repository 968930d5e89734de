//! RAFT-A1 to A3: who leads.

use flotilla_sim::script::{Script, Setup};

/// RAFT-A1: one leader, a term that all agree on, and both stay while nothing fails.
#[test]
fn a_leader_is_elected_within_two_timeouts_and_stays_raft_a1() {
    let mut quick = 0;
    for seed in 0..20 {
        let setup = Setup::new(3).seed(seed);
        let mut script = Script::new(setup);
        let leader = script.elected(setup.elected_within_ms()).unwrap();
        quick += u64::from(script.now_ms() <= 2 * setup.election_ms);
        script.run_for(2 * setup.heartbeat_ms).unwrap();
        let term = script.term(leader);
        assert!(term >= 1 && (0..3).all(|node| script.term(node) == term));
        script.run_for(2_000).unwrap();
        assert_eq!((script.leader(), script.term(leader)), (Some(leader), term), "seed {seed}");
    }
    assert!(quick >= 18, "only {quick} of 20 elections took less than two timeouts");
}

/// RAFT-A2: a leader that was cut off disturbs nobody when it returns; without a quorum nobody leads.
#[test]
fn leaders_follow_the_quorum_raft_a2() {
    for seed in 0..10 {
        let setup = Setup::new(3).seed(seed);
        let within = setup.elected_within_ms();
        let mut script = Script::new(setup);
        let first = script.elected(within).unwrap();
        script.disconnect(first);
        let second = script.elected(within).unwrap();
        assert_ne!(first, second);
        let term = script.term(second);
        script.connect(first);
        script.run_for(1_000).unwrap();
        assert_eq!((script.leader(), script.term(second)), (Some(second), term));
        assert_eq!((script.term(first), script.group(first).unwrap().leader), {
            let group = script.group(second).unwrap();
            (term, group.leader)
        });
        // Two of three are away: the one that led gives up, the one that is left never begins.
        script.disconnect(second);
        script.disconnect((second + 1) % 3);
        script.run_for(2 * setup.election_ms).unwrap();
        for _ in 0..40 {
            script.run_for(50).unwrap();
            let leads = |node: usize| script.role(node) == Some(flotilla_consensus::Role::Leader);
            assert!(!(0..3).any(leads), "somebody leads without a quorum");
        }
        assert!((0..3).all(|node| script.term(node) == term), "pre-votes change no terms");
        script.connect((second + 1) % 3);
        let third = script.elected(within).unwrap();
        let term = script.term(third);
        script.connect(second);
        script.run_for(1_000).unwrap();
        assert_eq!((script.leader(), script.term(third)), (Some(third), term));
    }
}

/// RAFT-A3: seven nodes, three of them away in each of nine rounds.
#[test]
fn a_majority_of_seven_always_has_a_leader_raft_a3() {
    for seed in 0..5 {
        let setup = Setup::new(7).seed(seed);
        let mut script = Script::new(setup);
        for _ in 0..9 {
            script.elected(setup.elected_within_ms()).unwrap();
            let first = usize::try_from(script.draw(0, 6)).unwrap();
            let step = usize::try_from(script.draw(1, 3)).unwrap();
            let away = [first, (first + step) % 7, (first + 2 * step) % 7];
            away.iter().for_each(|node| script.disconnect(*node));
            // Twice the time: four of seven must all agree, and all of them may campaign.
            let leader = script.elected(2 * setup.elected_within_ms()).unwrap();
            assert!(!away.contains(&leader));
            away.iter().for_each(|node| script.connect(*node));
        }
        script.elected(setup.elected_within_ms()).unwrap();
    }
}
