#!/usr/bin/env bash
# Installs the peers of `flotilla-bench mapreduce`: DuckDB and PySpark from PyPI, ripgrep from the crate registry, into target/peers.
# GNU tools are used as the system has them; a Java for PySpark is fetched from Debian if there is none.
set -euo pipefail
cd "$(dirname "$0")/../.."
missing=()
command -v java >/dev/null || missing+=(default-jre-headless)
if [ ${#missing[@]} -gt 0 ]; then
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
python3 -m venv target/peers/mapreduce
target/peers/mapreduce/bin/python -m pip install --quiet --disable-pip-version-check duckdb pyspark
# Debian's is of 2021.
cargo install ripgrep --version 14.1.1 --locked --quiet --root target/peers/mapreduce
# Whoever installs what is missing looks for this: all of it went well.
touch target/peers/mapreduce/installed
