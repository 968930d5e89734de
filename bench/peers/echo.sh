#!/usr/bin/env bash
# Builds the other servers of `flotilla-bench runtime`, from the crate registry, into target/peers.
set -euo pipefail
cd "$(dirname "$0")/echo"
cargo build --release --quiet --target-dir ../../../target/peers
