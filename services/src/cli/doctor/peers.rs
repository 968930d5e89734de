//! How far the other nodes are.

use super::check::Check;
use crate::config::Config;
use crate::hands::Stopwatch;
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// How long a node may take to take a connection.
const PATIENCE: Duration = Duration::from_secs(2);
/// Connections to each: the quickest counts.
const TRIES: usize = 5;

/// A line for each other node of the file.
pub(super) fn checks(config: &Config) -> Vec<Check> {
    let election_timeout = Duration::from_millis(config.raft.election_timeout_ms);
    let others = config.nodes.iter().filter(|node| node.id != config.node);
    others
        .map(|node| {
            let address = format!("{}:{}", node.host, node.peer_port);
            judge(&format!("node {} at {address}", node.id), round_trip(&address), election_timeout)
        })
        .collect()
}

/// What it takes to connect: one round trip.
fn round_trip(address: &str) -> Result<Duration, String> {
    let resolved = address.to_socket_addrs().map_err(|error| error.to_string())?.next();
    let resolved = resolved.ok_or("the name has no address")?;
    let tries = (0..TRIES).map(|_| {
        let clock = Stopwatch::start();
        TcpStream::connect_timeout(&resolved, PATIENCE).map(|_| clock.elapsed())
    });
    let times: Vec<Duration> = tries.collect::<Result<_, _>>().map_err(|error| error.to_string())?;
    times.into_iter().min().ok_or_else(|| "nothing was tried".to_owned())
}

fn judge(who: &str, round_trip: Result<Duration, String>, election_timeout: Duration) -> Check {
    const NAME: &str = "peer";
    match round_trip {
        Err(error) => {
            Check::warn(NAME, format!("{who}: {error}"), "two of three nodes must reach each other")
                .cure("start it, and open its peer ports (peer_port, one a core) in the firewall")
        }
        Ok(time) if time * 10 > election_timeout => {
            let found = format!("{who}: {time:.0?} away");
            Check::warn(NAME, found, "a leader that is heard of late is taken for dead").cure(format!(
                "raft.election_timeout_ms = {} and raft.heartbeat_ms a tenth of it, on every node",
                (time * 20).as_millis()
            ))
        }
        Ok(time) => Check::ok(NAME, format!("{who}: {time:.0?} away")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::Verdict;
    use super::*;

    #[test]
    fn distance_is_measured_against_the_election_timeout() {
        let timeout = Duration::from_millis(400);
        let verdict = |time| judge("node 2", time, timeout).verdict;
        assert_eq!(verdict(Ok(Duration::from_micros(80))), Verdict::Ok);
        assert_eq!(verdict(Ok(Duration::from_millis(60))), Verdict::Warn);
        assert_eq!(verdict(Err("connection refused".to_owned())), Verdict::Warn);
    }

    #[test]
    fn a_listener_is_reached_and_a_closed_port_isn_t() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        assert!(round_trip(&address).is_ok());
        drop(listener);
        assert!(round_trip(&address).is_err());
        assert!(round_trip("no such name:1").is_err());
    }
}
