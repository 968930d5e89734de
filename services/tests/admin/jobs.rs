//! MapReduce jobs, as the nodes that have their log see them.

use super::common::{TestCluster, start};
use super::http::{status, until};
use flotilla_services::mapreduce::Partitioner;
use flotilla_services::mapreduce::coordinator::Fact;
use flotilla_services::mapreduce::hands::cluster::log::FactLog;
use flotilla_services::mapreduce::spec::{InputFile, JobId, JobSpec, Split};
use std::collections::BTreeMap;

fn spec(number: u32) -> JobSpec {
    let split = |task: u32| Split { file: 0, start: u64::from(task) * 1000, end: u64::from(task + 1) * 1000 };
    JobSpec {
        name: format!("count {number}"),
        job: "wc".to_owned(),
        args: BTreeMap::new(),
        streaming: None,
        inputs: vec![InputFile { path: "/in".to_owned(), bytes: 3000, modified_ns: 0 }],
        keys_in: None,
        tasks: (0..3).map(|task| vec![split(task)]).collect(),
        output: format!("/out-{number}"),
        keys_out: None,
        work: format!("/out-{number}/_work"),
        overwrite: false,
        reducers: 2,
        partitioner: Partitioner::Hash,
        memory_bytes: 1 << 20,
        attempts_max: 3,
        skip_bad_records: false,
        backups: true,
    }
}

/// A job in the cluster's log of jobs.
pub(crate) fn submit(cluster: &TestCluster, number: u32) {
    let mut log = FactLog::new(cluster.nodes.addresses(), "a test");
    let term = log.begin_term().unwrap().unwrap();
    assert!(log.append(term, &Fact::Submitted { spec: Box::new(spec(number)) }).unwrap());
}

#[test]
fn jobs_are_told_from_their_log_and_from_its_snapshot() {
    let cluster = start(|options| options.groups = 3);
    let mut log = FactLog::new(cluster.nodes.addresses(), "a test");
    let term = log.begin_term().unwrap().unwrap();
    let mut append = |fact: Fact| {
        assert!(log.append(term, &fact).unwrap());
        log.ledger.apply(&fact);
        // After two hundred facts there is a snapshot.
        log.tidy().unwrap();
    };
    append(Fact::Submitted { spec: Box::new(spec(1)) });
    append(Fact::Submitted { spec: Box::new(spec(2)) });
    append(Fact::Cancelled { job: JobId(1) });
    let as_it_is = |told: &flotilla_services::admin::status::Status| {
        let jobs: Vec<_> = told.jobs.iter().map(|job| (job.name.as_str(), job.state.as_str())).collect();
        jobs == [("count 2", "running"), ("count 1", "cancelled")]
    };
    for node in 1..=3 {
        let told = until(|| status(&cluster, node), as_it_is);
        assert_eq!((told.jobs[0].maps, told.jobs[0].reduces), ((0, 3), (0, 2)));
    }
    (0..250).for_each(|_| append(Fact::Cancelled { job: JobId(1) }));
    append(Fact::Failed { job: JobId(2), why: "of a test".to_owned() });
    for node in 1..=3 {
        until(
            || status(&cluster, node),
            |told| told.jobs.first().is_some_and(|job| job.state == "failed") && told.jobs.len() == 2,
        );
    }
}
