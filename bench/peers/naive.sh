#!/usr/bin/env bash
# Builds the labs' design (bench/naive), from the crate registry, into target/peers.
set -euo pipefail
cd "$(dirname "$0")/../naive"
cargo build --release --quiet --target-dir ../../target/peers
