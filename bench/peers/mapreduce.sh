#!/usr/bin/env bash
# Installs the peers of `flotilla-bench mapreduce`: DuckDB and PySpark from PyPI (PySpark needs a Java), into target/peers.
# GNU tools and ripgrep are used as the system has them.
set -euo pipefail
cd "$(dirname "$0")/../.."
python3 -m venv target/peers/mapreduce
target/peers/mapreduce/bin/pip install --quiet duckdb pyspark
