//! What the paths answer, and to whom.

use super::common::{PATIENCE, lone, program, run, start, text};
use super::http::{connect, get, read, say, status, until};
use std::io::Write;
use std::net::TcpListener;
use std::process::Command;

#[test]
fn a_node_says_how_it_is() {
    let cluster = start(|options| (options.cores, options.groups, options.spare_groups) = (2, 4, 1));
    cluster.set("greeting", "ahoy");
    let admin = cluster.nodes.admin(1);
    assert_eq!((get(admin, "/healthz").status, get(admin, "/healthz").text.as_str()), (200, "ok\n"));
    let ready = until(|| get(admin, "/readyz"), |it| it.status == 200);
    assert_eq!(ready.text, "ready\n");

    let whole = until(|| status(&cluster, 1), |it| it.nodes.iter().all(|node| node.links_up == node.links));
    assert_eq!((whole.node, whole.cluster.as_str(), whole.draining), (1, "local", false));
    assert_eq!(
        whole.cores.iter().map(|core| (core.core, core.up)).collect::<Vec<_>>(),
        [(0, true), (1, true)]
    );
    let names: Vec<&str> = whole.groups.iter().map(|group| group.group.as_str()).collect();
    assert_eq!(names, ["0", "1", "2", "3", "4", "controller"]);
    assert!(whole.groups.iter().all(|group| group.leader.is_some() && group.others.len() == 2));
    assert!(whole.nodes.iter().all(|node| node.me == (node.node == 1) && (node.me || node.links == 4)));
    assert_eq!((whole.shards.len(), whole.migrations.len(), whole.jobs.len()), (64, 0, 0));
    assert!(
        whole.shards.iter().all(|shard| shard.leader.is_some() && shard.state.as_deref() == Some("serving"))
    );
    // What has been written is on every node that isn't behind.
    until(|| status(&cluster, 1), |it| it.groups.iter().map(|group| group.keys).sum::<u64>() == 1);
    // Every group has one leader.
    let all: Vec<_> = (1..=3).map(|node| status(&cluster, node)).collect();
    for group in names {
        let of = all.iter().flat_map(|it| &it.groups).filter(|it| it.group == group);
        assert_eq!(of.filter(|it| it.role == "leader").count(), 1, "{group}");
    }
    // Nothing of the data itself is told.
    for path in ["/status", "/metrics"] {
        assert!(!get(admin, path).text.contains("greeting") && !get(admin, path).text.contains("ahoy"));
    }
}

#[test]
fn requests_that_make_no_sense_are_told_so() {
    let cluster = lone();
    let admin = cluster.nodes.admin(1);
    assert_eq!(get(admin, "/nowhere").status, 404);
    assert_eq!(get(admin, "/metrics?name=x").status, 200);
    let refused = say(admin, b"POST /metrics HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi");
    assert!(refused.status == 405 && refused.head.contains("\r\nAllow: GET, HEAD\r\n"), "{refused:?}");
    let head = say(admin, b"HEAD /status HTTP/1.1\r\n\r\n");
    assert!(head.status == 200 && head.text.is_empty(), "{head:?}");
    for junk in [&b"*1\r\n$4\r\nPING\r\n"[..], b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", &[0xff; 100]] {
        assert_eq!(say(admin, junk).status, 400);
    }
    let huge = [b"GET / HTTP/1.1\r\nX: ".as_slice(), &[b'x'; 20_000]].concat();
    // It may be cut off before it has said all.
    let mut stream = connect(admin);
    let _ = stream.write_all(&huge);
    if let Some(answer) = read(stream) {
        assert_eq!(answer.status, 431);
    }
}

/// Whoever says nothing is cut off, whoever is one too many is told so, and the store doesn't mind.
#[test]
fn slow_and_many_askers_disturb_nobody() {
    let cluster = lone();
    let admin = cluster.nodes.admin(1);
    let mut client = cluster.connect(1);
    let mut slow: Vec<_> = (0..40).map(|_| connect(admin)).collect();
    for stream in &mut slow {
        // Those that are too many have been closed, perhaps.
        let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nX-Slow: ");
        assert_eq!(client.execute(&[b"PING"]).unwrap().to_string(), "PONG");
    }
    let answers: Vec<u16> = slow.into_iter().filter_map(read).map(|answer| answer.status).collect();
    assert!(answers.iter().all(|status| [408, 503].contains(status)), "{answers:?}");
    assert!(answers.contains(&408), "{answers:?}");
    until(|| get(admin, "/healthz").status, |status| *status == 200);
    assert_eq!(client.execute(&[b"PING"]).unwrap().to_string(), "PONG");
}

#[test]
fn a_node_without_a_quorum_is_alive_and_not_ready() {
    let mut cluster = start(|_| {});
    until(|| get(cluster.nodes.admin(1), "/readyz").status, |status| *status == 200);
    [2, 3].into_iter().for_each(|node| cluster.nodes.kill(node));
    let admin = cluster.nodes.admin(1);
    let answer = until(|| get(admin, "/readyz"), |it| it.status == 503);
    assert!(answer.text.contains("group 0 has no leader"), "{answer:?}");
    assert_eq!(get(admin, "/healthz").status, 200);
    let left = status(&cluster, 1);
    assert!(!left.ready && !left.reasons.is_empty());
    let said = |node: u32| cluster.words(1).contains(&format!("no link between nodes with=node {node} at "));
    until(|| said(2) || said(3), |it| *it);
    assert!(cluster.words(1).contains("can't be reached: Connection refused"), "{}", cluster.words(1));
    until(|| status(&cluster, 1), |it| it.nodes.iter().all(|node| node.links_up == 0));
}

#[test]
fn a_port_in_use_is_one_line() {
    let mut cluster = lone();
    assert!(cluster.nodes.stop(1, PATIENCE));
    let _taken = TcpListener::bind(cluster.nodes.admin(1)).unwrap();
    let told = run(Command::new(program()).args(["serve", "--config"]).arg(cluster.nodes.config(1)));
    let said = text(&told.stderr);
    let last = said.lines().last().unwrap();
    assert_eq!(told.status.code(), Some(1), "{said}");
    let words = format!("can't listen on {} (admin)", cluster.nodes.admin(1));
    assert!(last.starts_with("flotilla: ") && last.contains(&words), "{said}");
}

#[test]
fn shards_on_their_way_are_told() {
    // So slowly that they are seen.
    let cluster = start(|options| {
        (options.spare_groups, options.shards) = (1, 4);
        options.log.migration_bytes_per_second = 64 << 10;
        options.log.migration_bytes_per_second_under_load = 64 << 10;
    });
    let (mut client, value) = (cluster.nodes.client(), vec![b'x'; 64 << 10]);
    for number in 0..64 {
        let key = format!("key-{number}");
        client.execute(key.as_bytes(), &[b"SET", key.as_bytes(), &value], PATIENCE).unwrap();
    }
    let joined = until(
        || cluster.connect(1).execute(&[b"FLOTILLA.CLUSTER", b"JOIN", b"1"]).unwrap().to_string(),
        |it| it.starts_with("(integer)"),
    );
    assert_eq!(joined, "(integer) 2");
    let moves = |it: &flotilla_services::admin::status::Status| {
        let on_their_way = it.migrations.iter().filter(|it| it.state == "copying" || it.state == "arriving");
        it.configuration == 2
            && on_their_way.filter(|it| (it.from, it.to) == (0, 1) && it.bytes > 0).count() > 0
    };
    // Those who lead the two groups see it.
    until(|| (1..=3).map(|node| status(&cluster, node)).any(|it| moves(&it)), |seen| *seen);
    // The others hear of the configuration a little later.
    let misplaced = || {
        let text = get(cluster.nodes.admin(1), "/metrics").text;
        let line = text.lines().find_map(|line| line.strip_prefix("flotilla_shards_misplaced "));
        line.and_then(|count| count.parse::<u32>().ok()).unwrap()
    };
    until(misplaced, |count| (1..=2).contains(count));
}
