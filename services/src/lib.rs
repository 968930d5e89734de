//! What users call: the sharded key/value store, and the `flotilla` program.
//!
//! | module | what |
//! |---|---|
//! | [`core`] | the shard machine of one core: from a client's bytes to its reply |
//! | [`resp`] | the Redis protocol |
//! | [`command`] | commands: the table, checks, those that touch no key |
//! | [`acl`] | users, their passwords and their rights |
//! | [`kv`] | the data of one shard, and what commands do to it |
//! | [`entry`], [`migration`] | what a group's log holds: commands, and shards on their way |
//! | [`controller`] | which group serves which shard: the numbered history of configurations |
//! | [`admin`] | what operators are told over HTTP |
//! | [`backup`] | what a backup of a cluster consists of |
//! | [`mapreduce`] | jobs over many files: engine, coordinator, workers |
//! | [`placement`] | which nodes are to have which groups, and the steps there |
//! | [`slot`], [`topology`] | where a key is, and who serves it |
//! | [`config`], [`node`] | one node as a process |
//! | [`client`], [`local`], [`cli`] | clients, local clusters and the command line: hands, not machines |

#![forbid(unsafe_code)]

pub mod acl;
pub mod admin;
pub mod backup;
pub mod cli;
pub mod client;
pub mod command;
pub mod config;
pub mod controller;
pub mod core;
pub mod entry;
mod group_name;
pub mod hands;
pub mod kv;
pub mod local;
pub mod mapreduce;
pub mod migration;
pub mod node;
pub mod placement;
pub mod resp;
pub mod slot;
pub mod topology;
