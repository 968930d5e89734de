#!/usr/bin/env bash
# Builds the other side of `flotilla-bench mesh`, from the crate registry, into target/peers.
set -euo pipefail
cd "$(dirname "$0")/mesh"
cargo build --release --quiet --target-dir ../../../target/peers
