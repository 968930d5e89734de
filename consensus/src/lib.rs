//! Agreement: one Raft group, then the many of a core.
