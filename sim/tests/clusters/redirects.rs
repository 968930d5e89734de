//! Clients that know clusters: how often they are sent on while shards move.

use flotilla_services::client::Reply;
use flotilla_services::slot::Slot;
use flotilla_sim::script::{Answer, SHARDS, Script, Setup, nodes_of};

/// The node that a redirection names: the first one's port is 7001.
fn named(moved: &str) -> usize {
    let port: usize = moved.rsplit(':').next().unwrap().parse().unwrap();
    port - 7001
}

/// Asks until somebody serves the key; how often it was sent on by then.
fn follow(script: &mut Script, mut node: usize, key: &str) -> (usize, usize) {
    let mut times = 0;
    loop {
        let call = script.ask(node, &["SET", key, "v"]);
        match script.answered(call, 3_000).unwrap() {
            Answer::Reply(Reply::Error(error)) if error.starts_with("MOVED ") => {
                times += 1;
                assert!(times < 50, "{key} goes to and fro: {error}");
                node = named(&error);
                // The way there takes a client as long as it takes the nodes.
                script.run_for(1).unwrap();
            }
            Answer::Reply(Reply::Status(_)) => return (node, times),
            other => panic!("{other:?}"),
        }
    }
}

/// The group that a shard leaves and the one that it comes to agree where it is by the time that a client can go from one to the
/// other: cluster clients give up after five to sixteen redirections.
#[test]
fn clients_are_not_sent_to_and_fro() {
    for seed in 0..10 {
        // Slow disks: between what is said and what is committed there is time for many redirections.
        let setup = Setup { forward: false, disk_us: 15_000, ..Setup::sharded(1, 1).seed(seed) };
        let mut script = Script::new(setup);
        let key = |shard| {
            (0..).map(|n| format!("k{n}")).find(|key| Slot::of_key(key.as_bytes()).shard(SHARDS) == shard)
        };
        let keys: Vec<String> = (0..SHARDS).filter_map(key).collect();
        script.at_home(10_000).unwrap();
        let mut at = vec![nodes_of(0).start; keys.len()];
        let mut most = 0;
        for words in ["JOIN 1", "LEAVE 0", "JOIN 0", "LEAVE 1"] {
            // Everybody knows who leads what, and nothing moves.
            script.run_for(500).unwrap();
            for (at, key) in at.iter_mut().zip(&keys) {
                (*at, _) = follow(&mut script, *at, key);
            }
            script.change(words).unwrap();
            let end = script.now_ms() + 10_000;
            while !script.is_at_home() {
                assert!(script.now_ms() < end, "it doesn't end");
                for (at, key) in at.iter_mut().zip(&keys) {
                    let times;
                    (*at, times) = follow(&mut script, *at, key);
                    most = most.max(times);
                }
            }
        }
        assert!((1..=3).contains(&most), "seed {seed}: a client was sent on {most} times");
    }
}
