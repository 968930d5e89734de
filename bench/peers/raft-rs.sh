#!/usr/bin/env bash
# Builds raft-rs' side of `flotilla-bench raft`, from the crate registry, into target/peers.
set -euo pipefail
cd "$(dirname "$0")/raft-rs"
cargo build --release --quiet --target-dir ../../../target/peers
