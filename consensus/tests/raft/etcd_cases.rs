//! etcd's plain-data cases for quorums and configuration changes. They are read from where they are kept, see
//! `datadriven/mod.rs`.

use crate::datadriven::Case;
use flotilla_consensus::confchange::{Changer, Configuration, Step};
use flotilla_consensus::quorum::{JointConfig, MajorityConfig, VoteResult};
use std::collections::BTreeMap;
use std::fmt::Write;

fn run(of: &str, mut begin: impl FnMut() -> Box<dyn FnMut(&Case) -> String>) {
    let Some(folder) = crate::datadriven::folder(of) else { return };
    let (mut count, mut failed) = (0, String::new());
    for (_, cases) in crate::datadriven::read(&folder) {
        let mut answer = begin();
        for case in &cases {
            count += 1;
            let found = answer(case);
            if found.trim_end() != case.expected.trim_end() {
                write!(failed, "{}: expected\n{}found\n{found}\n", case.at, case.expected).unwrap();
            }
        }
    }
    assert!(failed.is_empty(), "{failed}");
    assert!(count > 0, "no cases in {}", folder.display());
    eprintln!("{of}: {count} cases of etcd's pass");
}

/// Voters in the order given, and what the cases say of each.
struct Quorum {
    config: JointConfig,
    /// The second set was named, even if it is empty.
    is_joint: bool,
    said: BTreeMap<u64, u64>,
}

fn quorum(case: &Case) -> Quorum {
    let mut order: Vec<u64> = Vec::new();
    let mut values = Vec::new();
    let mut config = JointConfig::default();
    let mut is_joint = false;
    for (key, list) in &case.args {
        let ids = || list.iter().filter(|id| *id != "zero").map(|id| id.parse::<u64>().unwrap());
        match key.as_str() {
            "cfg" => config.incoming = ids().collect(),
            "cfgj" => {
                is_joint = true;
                config.outgoing = ids().collect();
            }
            "idx" | "votes" => {
                values.extend(list.iter().map(|value| match value.as_str() {
                    "_" => 0,
                    "n" => 1,
                    "y" => 2,
                    number => number.parse::<u64>().unwrap(),
                }));
                continue;
            }
            _ => panic!("{}: unknown argument {key}", case.at),
        }
        order.extend(ids().filter(|id| !order.contains(id)).collect::<Vec<u64>>());
    }
    let said = order.into_iter().zip(values).filter(|(_, value)| *value != 0).collect();
    Quorum { config, is_joint, said }
}

fn index(index: u64) -> String {
    if index == u64::MAX { "∞".to_owned() } else { index.to_string() }
}

fn committed(quorum: &Quorum) -> String {
    let Quorum { config, is_joint, said } = quorum;
    let acknowledged = |id: u64| said.get(&id).copied();
    let (incoming, both) =
        (config.incoming.committed_index(acknowledged), config.committed_index(acknowledged));
    if *is_joint {
        let swapped = JointConfig { incoming: config.outgoing.clone(), outgoing: config.incoming.clone() };
        assert_eq!(swapped.committed_index(acknowledged), both, "either may come first");
        return config.describe(acknowledged) + &index(both);
    }
    assert_eq!(both, incoming, "joint with nobody is the same");
    let with_itself = JointConfig { incoming: config.incoming.clone(), outgoing: config.incoming.clone() };
    assert_eq!(with_itself.committed_index(acknowledged), incoming, "and so is joint with itself");
    config.incoming.describe(acknowledged) + &index(incoming)
}

fn vote(quorum: &Quorum) -> String {
    let Quorum { config, said, .. } = quorum;
    let vote = |id: u64| said.get(&id).map(|said| *said == 2);
    let swapped = JointConfig { incoming: config.outgoing.clone(), outgoing: config.incoming.clone() };
    assert_eq!(swapped.vote_result(vote), config.vote_result(vote), "either may come first");
    match config.vote_result(vote) {
        VoteResult::Pending => "VotePending",
        VoteResult::Lost => "VoteLost",
        VoteResult::Won => "VoteWon",
    }
    .to_owned()
}

#[test]
fn quorums() {
    run("quorum", || {
        Box::new(|case| match case.command.as_str() {
            "committed" => committed(&quorum(case)),
            "vote" => vote(&quorum(case)),
            other => panic!("{}: unknown command {other}", case.at),
        })
    });
}

fn steps(input: &str) -> Vec<Step> {
    let steps = input.split_whitespace().filter_map(|word| {
        let (what, id) = word.split_at(1);
        let id = id.parse().unwrap();
        match what {
            "v" => Some(Step::AddVoter(id)),
            "l" => Some(Step::AddLearner(id)),
            "r" => Some(Step::Remove(id)),
            // An update, which says nothing about votes.
            "u" => None,
            _ => panic!("unknown step {word}"),
        }
    });
    steps.collect()
}

/// What a leader that makes these changes keeps of everybody: since when it sends entries.
#[derive(Default)]
struct Followed {
    config: Configuration,
    next: BTreeMap<u64, u64>,
    /// Commands so far, which stand for the end of the log.
    last_index: u64,
}

impl Followed {
    fn run(&mut self, case: &Case) -> String {
        let auto_leave = case.args.iter().any(|(key, value)| key == "autoleave" && *value == ["true"]);
        let (changer, steps) = (Changer(&self.config), steps(&case.input));
        let changed = match case.command.as_str() {
            "simple" => changer.simple(&steps),
            "enter-joint" => changer.enter_joint(auto_leave, &steps),
            "leave-joint" => changer.leave_joint(),
            other => panic!("{}: unknown command {other}", case.at),
        };
        let text = match changed {
            Ok(config) => {
                self.config = config;
                self.show()
            }
            Err(error) => error.to_string(),
        };
        self.last_index += 1;
        text
    }

    fn show(&mut self) -> String {
        let ids: MajorityConfig = self.config.ids();
        self.next.retain(|id, _| ids.contains(*id));
        let first = self.last_index.max(1);
        let mut text = format!("{}\n", self.config);
        for id in ids.ids() {
            let next = self.next.entry(*id).or_insert(first);
            let learner = if self.config.learners.contains(*id) { " learner" } else { "" };
            writeln!(text, "{id}: StateProbe match=0 next={next}{learner}").unwrap();
        }
        text
    }
}

#[test]
fn configuration_changes() {
    run("confchange", || {
        let mut followed = Followed::default();
        Box::new(move |case| followed.run(case))
    });
}
