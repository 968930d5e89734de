//! Workers that speak TLS with each other and with who submits jobs, and those who can't.

use crate::authorities::Authority;
use crate::cluster::slow_count;
use crate::common::{program, run, text};
use crate::fleet::Fleet;
use crate::jobs::count;
use crate::rig::{Rig, Running, wait_until};
use flotilla_services::client::ClientTls;
use flotilla_services::config::{Demand, MapReduceSettings};
use flotilla_services::mapreduce::hands::cluster::log::Announcement;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

const HERE: &[&str] = &["127.0.0.1", "localhost"];

/// The flags of whoever has a certificate.
fn flags(ca: &Path, (cert, key): &(PathBuf, PathBuf)) -> Vec<String> {
    let mut flags = vec!["--tls-ca".to_owned(), ca.display().to_string()];
    for (name, path) in [("--tls-cert", cert), ("--tls-key", key)] {
        flags.extend([name.to_owned(), path.display().to_string()]);
    }
    flags
}

/// One node that speaks TLS with whoever wants to.
fn fleet(authority: &Authority, clients: Demand) -> Fleet {
    Fleet::start_with(0, |options| {
        options.nodes = 1;
        options.tls = Some(authority.settings(clients, false));
        options.security.tls =
            (clients == Demand::Required).then(|| ClientTls::read(&authority.cert, None).unwrap());
    })
}

fn start_slow_count(fleet: &Fleet, rig: &Rig, flags: &[String]) -> (Running, Vec<String>) {
    let (arguments, expected) = slow_count(rig);
    (start(fleet, rig, arguments, flags), expected)
}

fn start(fleet: &Fleet, rig: &Rig, mut arguments: Vec<String>, flags: &[String]) -> Running {
    arguments.extend(["--addr".to_owned(), fleet.address(1)]);
    arguments.extend_from_slice(flags);
    rig.start(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

/// A count whose map tasks end when there is a file `maps`, and its reduce tasks when there is one `reduces`.
fn gated_count(rig: &Rig) -> (Vec<String>, Vec<String>) {
    let text = String::from_utf8(rig.words(8, 300_000)).unwrap();
    let wait = |gate: &str| format!("while ! test -e {}; do sleep 0.02; done", rig.path(gate).display());
    let mapper = format!("{}; tr -cs A-Za-z '\\n' | sed 's/$/\\t1/'", wait("maps"));
    let sum = "awk -F '\t' '{ n[$1] += $2 } END { for (w in n) print w \"\\t\" n[w] }'";
    let reducer = format!("{}; {sum}", wait("reduces"));
    let arguments =
        ["--mapper", &mapper, "--reducer", &reducer, "--reducers", "3", "--workers", "3", "--no-backups"];
    (arguments.map(str::to_owned).to_vec(), count([text]))
}

fn open(rig: &Rig, gate: &str) {
    std::fs::write(rig.path(gate), "").unwrap();
}

/// Waits until two workers are at the only job's map tasks.
fn wait_for_both(fleet: &Fleet, flags: &[String]) {
    wait_until("a map task of each worker", || {
        let (_, said) = mr(fleet, &["status", "1"], flags);
        let running = said.lines().filter(|line| line.contains(" map-"));
        running
            .filter_map(|line| line.split(" on pid ").nth(1)?.split(' ').next())
            .collect::<BTreeSet<_>>()
            .len()
            == 2
    });
}

/// `flotilla mr …`: its exit status, and what it said.
fn mr(fleet: &Fleet, words: &[&str], flags: &[String]) -> (Option<i32>, String) {
    let mut command = Command::new(program());
    let ended = run(command.arg("mr").args(words).args(["--addr", &fleet.address(1)]).args(flags));
    (ended.status.code(), text(&[ended.stdout, ended.stderr].concat()))
}

/// Waits until a file has a line with these words.
fn wait_for_line(log: &Path, words: &[&str]) -> String {
    let mut found = None;
    wait_until(&format!("{words:?} in {}", log.display()), || {
        let said = std::fs::read_to_string(log).unwrap_or_default();
        found = said.lines().find(|line| words.iter().all(|it| line.contains(it))).map(str::to_owned);
        found.is_some()
    });
    found.unwrap()
}

/// Waits until somebody coordinates whom the test takes for the right one.
fn wait_for_coordinator(fleet: &Fleet, is_right: impl Fn(&Announcement) -> bool) -> Announcement {
    let mut found = None;
    wait_until("the right coordinator", || {
        found = fleet.log().announced().unwrap().filter(&is_right);
        found.is_some()
    });
    found.unwrap()
}

/// What a port answers to who doesn't speak TLS.
fn plainly(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    said
}

/// The addresses at which finished map tasks have left their files.
fn left_at(fleet: &Fleet) -> BTreeSet<String> {
    let mut log = fleet.log();
    log.catch_up().unwrap();
    let maps = log.ledger.jobs().flat_map(|(_, record)| record.maps.iter().flatten());
    maps.filter_map(|manifest| manifest.file.at.clone()).collect()
}

#[test]
fn a_job_goes_under_tls_from_worker_to_worker() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "harbour");
    let mut fleet = fleet(&authority, Demand::Required);
    for worker in ["one", "other"] {
        fleet.start_worker_with(worker, &flags(&authority.cert, &authority.certify(worker, HERE)));
    }
    let own = flags(&authority.cert, &authority.certify("client", &["client"]));
    let rig = fleet.rig();
    let (arguments, expected) = gated_count(&rig);
    let job = start(&fleet, &rig, arguments, &own);
    let coordinator = wait_for_coordinator(&fleet, |it| it.tls);
    wait_for_both(&fleet, &own);
    open(&rig, "maps");
    let mut at = BTreeSet::new();
    wait_until("what each has left", || {
        at = left_at(&fleet);
        at.len() == 2
    });
    // Whoever comes without TLS is told so, and nothing else.
    let (code, said) = mr(&fleet, &["list"], &own);
    assert!(code == Some(0) && said.starts_with("job-1    running"), "{said}");
    let refused = plainly(&coordinator.address, "{\"status\":{\"job\":null}}\n");
    assert!(refused.starts_with("{\"refused\":\"it speaks TLS only"), "{refused}");
    for address in &at {
        let refused = plainly(address, "READ job map-00000 0 1\n");
        assert!(refused.starts_with("TLS it speaks TLS only"), "{refused}");
    }
    open(&rig, "reduces");
    let ended = job.end();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(rig.sorted(), expected);
    let status: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(status["failures"].as_array().map(Vec::len), Some(0), "{status}");
    let only_ca = &own[..2];
    let (code, said) = mr(&fleet, &["status", "1"], only_ca);
    // Another may coordinate by now.
    let (whole, wanted) =
        (said.starts_with("flotilla: 127.0.0.1:") && said.lines().count() == 1, "give --tls-cert and");
    assert!(
        code == Some(1) && whole && said.contains(&format!("wants to see a certificate: {wanted}")),
        "{said}"
    );
}

#[test]
fn whoever_does_not_fit_says_so_on_both_sides_and_disturbs_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let abroad = folder.path().join("abroad");
    std::fs::create_dir(&abroad).unwrap();
    let (authority, stranger) =
        (Authority::new(folder.path(), "harbour"), Authority::new(&abroad, "stranger"));
    let mut fleet = fleet(&authority, Demand::Optional);
    let own = flags(&authority.cert, &authority.certify("worker", HERE));
    let good: Vec<PathBuf> = ["one", "other"].iter().map(|it| fleet.start_worker_with(it, &own)).collect();
    wait_for_coordinator(&fleet, |it| it.tls);
    // Either of the two, and not always the same on a busy machine.
    let address = "127.0.0.1:";
    // One without TLS, and one of another authority that knows ours.
    let plain = fleet.start_worker_with("plain", &[]);
    let both = folder.path().join("both.crt");
    let pems = [&authority.cert, &stranger.cert].map(|path| std::fs::read_to_string(path).unwrap());
    std::fs::write(&both, pems.concat()).unwrap();
    let strange = flags(&both, &stranger.certify("strange", HERE));
    let strange_log = fleet.start_worker_with("strange", &strange);
    let rig = fleet.rig();
    let (job, expected) = start_slow_count(&fleet, &rig, &own);
    wait_for_line(&plain, &["gets no task", address, "give --tls-ca, --tls-cert and --tls-key"]);
    wait_for_line(&strange_log, &["gets no task", address, "strange.crt: it doesn't know its authority"]);
    for line in ["its certificate isn't signed by an authority in", "it speaks no TLS: give it --tls-ca"] {
        wait_until("the coordinator to say so, too", || {
            good.iter().any(|log| std::fs::read_to_string(log).unwrap().contains(line))
        });
    }
    // Those who only ask are told at once.
    let expired = authority.certify_with("expired", &["client"], |it| {
        it.not_after = rcgen::date_time_ymd(2020, 1, 1);
    });
    for (flags, words) in [
        (Vec::new(), "it speaks TLS only: give --tls-ca"),
        (strange, "it doesn't know its authority"),
        (flags(&authority.cert, &expired), "expired.crt: it has expired: renew it"),
    ] {
        let (code, said) = mr(&fleet, &["list"], &flags);
        let is_one_line = said.starts_with("flotilla: ") && said.lines().count() == 1;
        assert!(code == Some(1) && is_one_line && said.contains(words) && said.contains(address), "{said}");
    }
    let ended = job.end();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(rig.sorted(), expected);
    assert!(!fleet.has_file("plain", "") && !fleet.has_file("strange", ""), "they were given tasks");
    let pids: Vec<u32> = fleet.workers[..2].iter().map(std::process::Child::id).collect();
    let coordinator = wait_for_coordinator(&fleet, |_| true);
    assert!(pids.contains(&coordinator.pid), "{coordinator:?} isn't among {pids:?}");
}

#[test]
fn a_worker_that_others_would_refuse_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "harbour");
    let expired = authority.certify_with("expired", HERE, |it| {
        it.not_after = rcgen::date_time_ymd(2020, 1, 1);
    });
    let elsewhere = authority.certify("elsewhere", &["elsewhere.example"]);
    let worker = |flags: &[String]| {
        let mut command = Command::new(program());
        let ended = run(command.args(["mr", "worker", "--addr", "127.0.0.1:1"]).args(flags));
        (ended.status.code(), text(&ended.stderr))
    };
    for (flags, words) in [
        (flags(&authority.cert, &expired), "expired.crt of a worker at 127.0.0.1: it has expired: renew it"),
        (
            flags(&authority.cert, &elsewhere),
            "elsewhere.crt of a worker at 127.0.0.1: it isn't for that host",
        ),
        (flags(&authority.cert, &elsewhere)[..2].to_vec(), "give --tls-cert and --tls-key"),
    ] {
        let (code, said) = worker(&flags);
        assert!(code == Some(2) && said.lines().count() == 1 && said.contains(words), "{said}");
    }
}

#[test]
fn who_speaks_tls_coordinates_in_place_of_who_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "harbour");
    let mut fleet = fleet(&authority, Demand::Optional);
    let plain = fleet.start_worker_with("plain", &["--listen", "0.0.0.0:0"].map(str::to_owned));
    wait_for_coordinator(&fleet, |it| !it.tls);
    wait_for_line(&plain, &["whoever reaches this port can submit jobs"]);
    let own = flags(&authority.cert, &authority.certify("worker", HERE));
    let (code, said) = mr(&fleet, &["list"], &own);
    let log = || std::fs::read_to_string(&plain).unwrap();
    assert!(code == Some(1) && said.contains("speaks no TLS: start that worker with"), "{said}{}", log());
    wait_for_line(&plain, &["it speaks TLS, and this worker doesn't: start this one with"]);
    fleet.start_worker_with("covered", &own);
    let now = wait_for_coordinator(&fleet, |it| it.tls);
    wait_for_line(&plain, &["gets no task", &now.address]);
    assert_eq!(mr(&fleet, &["list"], &own), (Some(0), String::new()));
}

/// A worker whose certificate isn't for the host of its files was let in by others, who don't look at that; what it has can't be fetched.
#[test]
fn files_that_certificates_keep_from_a_reducer_are_a_failure_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "harbour");
    let mut fleet = fleet(&authority, Demand::Optional);
    let own = flags(&authority.cert, &authority.certify("worker", HERE));
    let log = fleet.start_worker_with("careful", &own);
    wait_for_coordinator(&fleet, |it| it.tls);
    let mut odd = flags(&authority.cert, &authority.certify("elsewhere", &["localhost"]));
    let hosts = ["--listen", "localhost:0", "--serve", "127.0.0.1:0", "--tls-peer-hosts", "false"];
    odd.extend(hosts.map(str::to_owned));
    odd.push("--plain-store".to_owned());
    fleet.start_worker_with("odd", &odd);
    let rig = fleet.rig();
    let (arguments, expected) = gated_count(&rig);
    let job = start(&fleet, &rig, arguments, &own);
    wait_for_both(&fleet, &own);
    open(&rig, "maps");
    // The other is at one reduce task and doesn't end it, so others are left.
    wait_for_line(&log, &["what another worker has can't be read", "isn't for that host"]);
    open(&rig, "reduces");
    let ended = job.end();
    let status: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    let failures = status["failures"].to_string();
    assert!(
        failures.contains("no TLS with 127.0.0.1:") && failures.contains("isn't for that host"),
        "{status}"
    );
    if ended.status.success() {
        // The other one did what this one couldn't.
        assert_eq!(rig.sorted(), expected);
    } else {
        assert!(status["why"].as_str().unwrap().contains("isn't for that host"), "{status}");
    }
}

/// The nodes' certificates are all it takes, whether clients speak TLS or not.
#[test]
fn workers_of_nodes_have_the_certificates_of_their_nodes() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "harbour");
    let fleet = Fleet::start_with(0, |options| {
        options.nodes = 2;
        options.tls = Some(authority.settings(Demand::Off, true));
        options.mapreduce = MapReduceSettings { workers: 2, ..MapReduceSettings::default() };
    });
    let mut own = flags(&authority.cert, &authority.certify("client", &["client"]));
    own.push("--plain-store".to_owned());
    let rig = fleet.rig();
    let (arguments, expected) = slow_count(&rig);
    // No worker sees the output: who submits the job fetches it from them.
    let job = run(Command::new(program())
        .current_dir(rig.folder.path())
        .args(["mr", "run", "--addr", &fleet.address(1), "--output", "/proc/self/cwd/out", "--input", "in"])
        .args(arguments)
        .args(&own));
    assert!(job.status.success(), "{job:?}");
    assert_eq!(rig.sorted(), expected);
    assert!(fleet.coordinator().tls);
    let (code, said) = mr(&fleet, &["list"], &[]);
    assert!(code == Some(1) && said.contains("it speaks TLS only"), "{said}");
}
