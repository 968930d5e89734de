//! Bytes that survive: the write-ahead log of one core.
