#!/usr/bin/env bash
# Builds raft-engine's side of `flotilla-bench wal`, from the crate registry, into target/peers.
set -euo pipefail
cd "$(dirname "$0")/raft-engine"
cargo build --release --quiet --target-dir ../../../target/peers
