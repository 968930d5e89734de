#!/usr/bin/env bash
# Installs the client programs that services/tests/nodes/clients.rs drives: redis-cli and redis-benchmark from Debian,
# redis-py from PyPI into target/test-clients.
set -euo pipefail
cd "$(dirname "$0")/../../.."
if ! command -v redis-cli >/dev/null || ! command -v redis-benchmark >/dev/null; then
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq redis-tools >/dev/null
fi
if ! target/test-clients/bin/python -c 'import redis' 2>/dev/null; then
  python3 -m venv target/test-clients || {
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv >/dev/null
    python3 -m venv target/test-clients
  }
  target/test-clients/bin/pip install --quiet --disable-pip-version-check 'redis==6.4.0'
fi
