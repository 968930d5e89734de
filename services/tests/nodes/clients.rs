//! Clients that people use, unmodified, against real clusters.

use crate::common::{client, lone, output, wide};
use std::process::Command;

#[test]
fn redis_cli_talks_to_a_node() {
    let Some(redis_cli) = client("redis-cli") else { return };
    let cluster = lone();
    let cli = |args: &[&str]| output(Command::new(&redis_cli).args(["-p", &cluster.port(1)]).args(args));
    assert_eq!(cli(&["set", "greeting", "ahoy"]), "OK\n");
    assert_eq!(cli(&["get", "greeting"]), "ahoy\n");
    assert_eq!(cli(&["-3", "get", "nothing"]), "\n");
    assert_eq!(cli(&["incr", "greeting"]), "ERR value is not an integer or out of range\n\n");
    assert_eq!(cli(&["nonsense", "a"]), "ERR unknown command 'nonsense', with args beginning with: 'a' \n\n");
    assert!(cli(&["info"]).contains("redis_version:7."));
    assert!(cli(&["command", "count"]).trim().parse::<u32>().unwrap() > 40);
}

#[test]
fn redis_cli_follows_the_cluster() {
    let Some(redis_cli) = client("redis-cli") else { return };
    let cluster = wide();
    for number in 0..40 {
        let node = 1 + number % 3;
        let (key, value) = (format!("key:{number}"), format!("value:{number}"));
        let cli = |args: &[&str]| {
            output(Command::new(&redis_cli).args(["-c", "-p", &cluster.port(node)]).args(args))
        };
        assert_eq!(cli(&["set", &key, &value]), "OK\n");
        assert_eq!(cli(&["get", &key]), format!("{value}\n"));
    }
    let info = output(Command::new(&redis_cli).args(["-p", &cluster.port(1), "cluster", "info"]));
    assert!(info.contains("cluster_state:ok") && info.contains("cluster_slots_assigned:16384"), "{info}");
}

#[test]
fn redis_benchmark_runs() {
    let Some(benchmark) = client("redis-benchmark") else { return };
    let cluster = lone();
    for pipeline in ["1", "16"] {
        let mut command = Command::new(&benchmark);
        command.args([
            "-p",
            &cluster.port(1),
            "-t",
            "set,get,incr,mset",
            "-n",
            "4000",
            "-c",
            "20",
            "-P",
            pipeline,
            "--csv",
        ]);
        let report = output(&mut command);
        for test in ["\"SET\"", "\"GET\"", "\"INCR\"", "\"MSET (10 keys)\""] {
            assert!(report.contains(test) || test.starts_with("\"MSET"), "{report}");
        }
        assert!(!report.contains("rror"), "{report}");
    }
}

#[test]
fn redis_benchmark_runs_on_the_cluster() {
    let Some(benchmark) = client("redis-benchmark") else { return };
    let cluster = wide();
    let mut command = Command::new(&benchmark);
    command.args([
        "-p",
        &cluster.port(2),
        "--cluster",
        "-t",
        "set,get",
        "-n",
        "4000",
        "-c",
        "12",
        "-r",
        "1000",
        "-q",
    ]);
    let report = output(&mut command);
    assert!(report.contains("SET:") && report.contains("GET:"), "{report}");
}

#[test]
fn redis_py_and_its_cluster_client() {
    let Some(python) = client("python").filter(|path| path.ends_with("test-clients/bin/python")) else {
        return;
    };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/redis_py.py");
    let (one, many) = (lone(), wide());
    for (cluster, mode) in [(&one, "plain"), (&many, "cluster")] {
        for protocol in ["2", "3"] {
            let said =
                output(Command::new(&python).args([script, "127.0.0.1", &cluster.port(1), mode, protocol]));
            assert_eq!(said, format!("ok {mode} {protocol}\n"));
            for key in ["only", "text", "soon", "{n}"] {
                cluster
                    .nodes
                    .client()
                    .execute(key.as_bytes(), &[b"DEL", key.as_bytes()], crate::common::PATIENCE)
                    .unwrap();
            }
        }
    }
}

#[test]
fn the_rust_client_and_its_cluster_client() {
    use redis::Commands;
    let (one, many) = (lone(), wide());
    let mut plain =
        redis::Client::open(format!("redis://{}/", one.nodes.address(1))).unwrap().get_connection().unwrap();
    plain.set::<_, _, ()>("a", 1).unwrap();
    assert_eq!(plain.incr::<_, _, i64>("a", 41).unwrap(), 42);
    let (x, y): (i64, Option<String>) =
        redis::pipe().cmd("GET").arg("a").cmd("GET").arg("none").query(&mut plain).unwrap();
    assert_eq!((x, y), (42, None));
    assert!(plain.get::<_, String>("a").is_ok_and(|a| a == "42"));
    assert_eq!(redis::cmd("GET").query::<String>(&mut plain).unwrap_err().code(), Some("ERR"));

    let seeds = (1..=3).map(|node| format!("redis://{}/", many.nodes.address(node)));
    let client = redis::cluster::ClusterClient::new(seeds.collect::<Vec<_>>()).unwrap();
    let mut connection = client.get_connection().unwrap();
    for number in 0..200 {
        connection.set::<_, _, ()>(format!("key:{number}"), number).unwrap();
    }
    for number in 0..200 {
        assert_eq!(connection.get::<_, i64>(format!("key:{number}")).unwrap(), number);
    }
    let both: (i64, i64) = connection
        .mget(&["{key}", "{key}:2"])
        .map(|(a, b): (Option<i64>, Option<i64>)| (a.unwrap_or(0), b.unwrap_or(0)))
        .unwrap();
    assert_eq!(both, (0, 0));
}

#[test]
fn a_cluster_client_rides_over_the_death_of_a_leader() {
    let mut cluster = wide();
    let mut client = cluster.nodes.client();
    for round in 0..3_u32 {
        for number in 0..60 {
            let (key, value) = (format!("key:{number}"), format!("{round}:{number}"));
            if number == 20 {
                client.refresh().unwrap();
                let leader = client.address_of(flotilla_services::slot::Slot::of_key(key.as_bytes()));
                let leader = cluster.nodes.node_at(&leader.unwrap()).unwrap();
                cluster.nodes.kill(leader);
                cluster.set(&key, &value);
                cluster.nodes.restart(leader).unwrap();
            } else {
                cluster.set(&key, &value);
            }
            assert_eq!(cluster.get(&key), Some(value));
        }
    }
}
