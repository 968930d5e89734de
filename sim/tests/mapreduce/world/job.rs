//! What is to be done: a word count over files.

use super::REDUCERS;
use crate::files::Files;
use flotilla_services::mapreduce::Partitioner;
use flotilla_services::mapreduce::spec::{InputFile, JobSpec, Split};
use flotilla_sim::rng::Rng;
use std::collections::BTreeMap;

/// A word count over the inputs, and what must come of it: counted in the plainest way.
pub(super) fn job(files: &Files, rng: &mut Rng) -> (JobSpec, BTreeMap<String, Vec<u8>>) {
    let (mut inputs, mut tasks, mut counts) = (Vec::new(), Vec::new(), BTreeMap::<String, u64>::new());
    for (file, (path, bytes)) in (0..).zip(&files.inputs) {
        let mut start = 0;
        while start < bytes.len() as u64 {
            let end = (start + rng.between(300, 1200)).min(bytes.len() as u64);
            tasks.push(vec![Split { file, start, end }]);
            start = end;
        }
        inputs.push(InputFile { path: path.clone(), bytes: bytes.len() as u64, modified_ns: 0 });
        for word in String::from_utf8(bytes.clone()).unwrap().split_whitespace() {
            *counts.entry(word.to_owned()).or_default() += 1;
        }
    }
    let mut expected: BTreeMap<String, Vec<u8>> =
        (0..REDUCERS).map(|part| (format!("part-{part:05}"), Vec::new())).collect();
    for (word, n) in counts {
        let part = format!("part-{:05}", Partitioner::Hash.of(word.as_bytes(), REDUCERS));
        expected.get_mut(&part).unwrap().extend_from_slice(format!("{word}\t{n}\n").as_bytes());
    }
    let spec = JobSpec {
        name: "wc".to_owned(),
        job: "wc".to_owned(),
        args: BTreeMap::new(),
        streaming: None,
        inputs,
        tasks,
        keys_in: None,
        output: "/out".to_owned(),
        keys_out: None,
        work: "/out/_work-0".to_owned(),
        overwrite: false,
        reducers: REDUCERS,
        partitioner: Partitioner::Hash,
        memory_bytes: 2000,
        attempts_max: 4,
        skip_bad_records: false,
        backups: true,
    };
    (spec, expected)
}
