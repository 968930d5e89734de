//! The hands of MapReduce: the threads, processes and files that do what [`super::coordinator`] decides, with what is pure
//! in the modules beside. Workers compute in bulk and decide nothing; no machine of a core waits for anything in here.
//!
//! | module | what |
//! |---|---|
//! | [`files`] | finding inputs, private files, making output visible |
//! | [`execute`] | one attempt at one task |
//! | `reading` | what a map attempt reads: files, or keys of the store |
//! | [`shuffle`] | files between map and reduce, from one machine to another |
//! | [`talk`] | connections between workers, plain or under mutual TLS |
//! | [`gather`] | a commit whose files are with several workers |
//! | [`site`] | what a worker has around it |
//! | [`store`] | keys of the store as input and output |
//! | [`streaming`] | commands in place of functions |
//! | [`worker`] | asks for tasks, does them, says so |
//! | [`local`] | a coordinator and its worker processes on this machine |
//! | [`cluster`] | a coordinator whose facts are in the replicated store |
//! | `pace` | how tasks give way to whoever else wants the CPU |
//! | [`plan`] | from what people ask for to a [`super::spec::JobSpec`] |
//! | [`program`] | a program that is one job |
//! | [`labs`] | the labs' applications that crash, wait and count processes: for tests |

pub mod cluster;
pub mod execute;
pub mod files;
pub mod gather;
pub mod labs;
pub mod local;
mod pace;
pub mod plan;
pub mod program;
mod reading;
pub mod shuffle;
pub mod site;
pub mod store;
pub mod streaming;
pub mod talk;
pub mod worker;
