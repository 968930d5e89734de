#!/usr/bin/env bash
# Builds openraft's side of `flotilla-bench raft`, from the crate registry, into target/peers.
set -euo pipefail
cd "$(dirname "$0")/openraft"
cargo build --release --quiet --target-dir ../../../target/peers
