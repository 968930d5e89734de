//! MapReduce: jobs over many files, on many cores, whose output is that of a sequential run, whatever fails on the way.
//!
//! | module | what |
//! |---|---|
//! | [`job`] | what a job is: the trait, and the registry of jobs by name |
//! | [`typed`] | jobs over types instead of bytes |
//! | [`spec`] | a job as data: what is submitted, logged, and sent to workers |
//! | [`split`] | how the input is cut, at record boundaries |
//! | [`map`], [`reduce`] | the two halves of the work, over any bytes: pure |
//! | [`collect`] | what map functions emit: a combining table, or pairs that are sorted |
//! | [`run`] | the sorted, checksummed files between the halves, and the merge of many |
//! | [`partition`], [`words`], [`varint`] | what they are made of |
//! | [`coordinator`] | who does what: the facts of a job, and the leases that may be forgotten |
//! | [`hands`] | threads, processes and files: workers, and jobs on one machine |
//!
//! `docs/mapreduce.md` has the contract, the formats and what happens when something fails.

pub mod collect;
pub mod coordinator;
mod error;
pub mod hands;
pub mod job;
mod jobs;
pub mod map;
pub mod partition;
pub mod reduce;
pub mod run;
pub mod spec;
pub mod split;
pub mod typed;
pub mod varint;
pub mod words;

pub use error::{MrError, RecordAt};
pub use job::{Combiner, Done, Emit, InputFormat, Job, JobArgs, Record, Registry, Values};
pub use partition::Partitioner;
