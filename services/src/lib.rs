//! What users call: sharded key/value, and the flotilla binary.
