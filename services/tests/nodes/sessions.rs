//! The native client against real nodes that die, and whose connections break: every write takes effect once.

use crate::common::cutter::Cutter;
use crate::common::{PATIENCE, lone, start, wide};
use flotilla_services::client::{Client, ClientError, ClientOptions, Connection, Reply};
use flotilla_services::hands::spawn;
use futures_lite::future::block_on;
use std::collections::BTreeSet;
use std::sync::Arc;

const OPTIONS: ClientOptions =
    ClientOptions { timeout: PATIENCE, patience: std::time::Duration::from_millis(500) };

fn connect(addresses: &[String]) -> Client {
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    block_on(Client::connect(&addresses, OPTIONS)).unwrap()
}

/// So many threads increment one counter, appending what they saw; returns all sums that they were told.
fn count(client: &Arc<Client>, threads: usize, each: usize) -> Vec<i64> {
    let work = (0..threads).map(|_| {
        let client = Arc::clone(client);
        spawn(move || {
            block_on(async {
                let mut sums = Vec::new();
                for _ in 0..each {
                    sums.push(client.increment(b"counter", 1).await.unwrap());
                }
                sums
            })
        })
    });
    let work: Vec<_> = work.collect();
    work.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
}

fn assert_each_once(client: &Client, sums: &[i64]) {
    let expected: BTreeSet<i64> = (1..=i64::try_from(sums.len()).unwrap()).collect();
    assert_eq!(sums.iter().copied().collect::<BTreeSet<_>>(), expected, "every sum was told to one caller");
    let found = block_on(client.get(b"counter")).unwrap().unwrap();
    assert_eq!(String::from_utf8(found).unwrap(), sums.len().to_string());
}

#[test]
fn srv_03_writes_take_effect_once_though_connections_break() {
    let cluster = wide();
    let client = Arc::new(connect(&cluster.nodes.addresses()));
    let cutter = Cutter::start(&cluster);
    let sums = count(&client, 4, 300);
    assert!(cutter.end() > 0, "connections were cut");
    assert_each_once(&client, &sums);
}

#[test]
fn writes_take_effect_once_though_leaders_are_killed() {
    let mut cluster = start(|options| options.groups = 2);
    let client = Arc::new(connect(&cluster.nodes.addresses()));
    let working = Arc::clone(&client);
    let work = spawn(move || count(&working, 4, 600));
    let mut deaths = 0;
    while !work.is_finished() && deaths < 6 {
        let node = deaths % 3 + 1_u32;
        cluster.nodes.kill(node);
        cluster.nodes.restart(node).unwrap();
        cluster.nodes.wait_for_leaders(PATIENCE).unwrap();
        deaths += 1;
    }
    assert_each_once(&client, &work.join().unwrap());
    assert!(deaths > 0);
}

#[test]
fn any_executor_will_do() {
    let cluster = lone();
    let addresses = cluster.nodes.addresses();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let client = Arc::new(Client::connect(&[&addresses[0]], OPTIONS).await.unwrap());
        let tasks: Vec<_> = (0..8)
            .map(|task| {
                let client = Arc::clone(&client);
                tokio::spawn(async move {
                    let key = format!("key:{task}");
                    client.set(key.as_bytes(), b"value").await.unwrap();
                    assert_eq!(client.get(key.as_bytes()).await.unwrap(), Some(b"value".to_vec()));
                    assert!(client.delete(key.as_bytes()).await.unwrap());
                    assert_eq!(client.get(key.as_bytes()).await.unwrap(), None);
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let error = client.increment(b"text", 1).await;
        assert_eq!(error.unwrap(), 1);
        client.set(b"text", b"text").await.unwrap();
        let error = client.increment(b"text", 1).await.unwrap_err();
        assert!(matches!(&error, ClientError::Refused(words) if words.contains("not an integer")), "{error}");
        // One that isn't executed at all uses no number: those behind it must not miss it.
        let error = client.write(b"text", &[b"APPEND", b"text"]).await.unwrap_err();
        assert!(matches!(&error, ClientError::Refused(words) if words.contains("wrong number")), "{error}");
        client.set(b"text", b"again").await.unwrap();
        assert_eq!(client.get(b"text").await.unwrap(), Some(b"again".to_vec()));
    });
    let error = block_on(Client::connect(
        &["127.0.0.1:1"],
        ClientOptions { timeout: std::time::Duration::from_millis(50), ..OPTIONS },
    ));
    assert!(matches!(error.unwrap_err(), ClientError::TimedOut { .. }));
}

#[test]
fn sessions_survive_a_restart_and_are_for_any_language() {
    let mut cluster = lone();
    let ask = |connection: &mut Connection, words: &str| {
        let args: Vec<&[u8]> = words.split(' ').map(str::as_bytes).collect();
        connection.execute(&args).unwrap()
    };
    let mut connection = cluster.connect(1);
    let Reply::Integer(session) = ask(&mut connection, "FLOTILLA.SESSION k") else { panic!() };
    let write = format!("FLOTILLA.ONCE {session} 1 0 INCR k");
    assert_eq!(ask(&mut connection, &write), Reply::Integer(1));
    cluster.nodes.kill(1);
    cluster.nodes.restart(1).unwrap();
    cluster.nodes.wait_for_leaders(PATIENCE).unwrap();
    let mut connection = cluster.connect(1);
    assert_eq!(ask(&mut connection, &write), Reply::Integer(1));
    assert_eq!(ask(&mut connection, "GET k"), Reply::Bulk(b"1".to_vec()));
    let Reply::Error(words) = ask(&mut connection, "FLOTILLA.ONCE 5 1 0 INCR k") else { panic!() };
    assert!(words.starts_with("SESSIONLOST"), "{words}");
    ask(&mut connection, "MULTI");
    let Reply::Error(words) = ask(&mut connection, &write) else { panic!() };
    assert!(words.contains("not allowed inside a transaction"), "{words}");
}
