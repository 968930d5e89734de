#!/usr/bin/env bash
# redis-py's own tests, unmodified, against clusters of this program: plain (a node that forwards, seen as one server) and
# cluster (six nodes, three of which lead, followed by its cluster client).
#
#   services/tests/suites/redis-py.sh [plain|cluster] [PYTEST ARGUMENT...]
#
# The tests come from PyPI's source package (or from the folder in REDIS_PY_SOURCE). Those of TLS have a node of their own, and
# certificates that openssl makes. What is left out, and why, is in redis-py.skip; tests that need a command which this server
# doesn't have are left out by what it answers. Ends with status 0 if every other test passed. FLOTILLA is the program, by default
# the release build.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
program=${FLOTILLA:-$root/target/release/flotilla}
version=6.4.0
modes=(plain cluster)
case ${1:-} in plain | cluster) modes=("$1"); shift ;; esac

environment=$root/target/redis-py-venv
if [ ! -x "$environment/bin/pytest" ]; then
  python3 -m venv "$environment"
  "$environment/bin/pip" install --quiet --disable-pip-version-check pytest==9.2.0 pytest-asyncio==1.5.0 \
    pytest-timeout==2.4.0 mock packaging numpy PyJWT hatchling
fi
suite=${REDIS_PY_SOURCE:-$root/target/redis-py-source}
if [ ! -d "$suite" ]; then
  work=$(mktemp -d)
  "$environment/bin/pip" download --quiet --disable-pip-version-check --no-deps --no-binary :all: --no-build-isolation \
    --dest "$work" "redis==$version"
  mkdir -p "$work/source" && tar -xf "$work"/redis-*.tar.gz -C "$work/source" --strip-components=1
  mv "$work/source" "$suite" && rm -rf "$work"
fi
# The client tells servers its version, which it knows from being installed; what is tested is the source.
"$environment/bin/pip" show --quiet redis 2>/dev/null ||
  "$environment/bin/pip" install --quiet --disable-pip-version-check --no-deps --no-build-isolation "$suite"
# Certificates where the tests look for them: of an authority, the server and a client.
tls=$suite/dockers/standalone/tls
if [ ! -e "$suite/dockers/cluster/tls" ]; then
  mkdir -p "$tls" "$suite/dockers/cluster"
  openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj /CN=authority -keyout "$tls/ca.key" -out "$tls/ca.crt" \
    -addext keyUsage=critical,keyCertSign 2>/dev/null
  for name in redis client; do
    openssl req -newkey rsa:2048 -nodes -subj "/CN=$name" -keyout "$tls/$name.key" -out "$tls/$name.csr" 2>/dev/null
    openssl x509 -req -in "$tls/$name.csr" -CA "$tls/ca.crt" -CAkey "$tls/ca.key" -CAcreateserial -days 3650 -extfile \
      <(printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n') -out "$tls/$name.crt" 2>/dev/null
  done
  cp -r "$tls" "$suite/dockers/cluster/tls"
fi

free_ports() {
  python3 - "$1" "$2" <<'PY'
import socket, sys
# Those that redis-py's tests expect, some of which know no others; or else a row of free ports, below those that the system
# hands out by itself.
first, count = map(int, sys.argv[1:])
for port in (first, *range(21000, 29000, 50)):
    try:
        for at in range(port, port + count):
            with socket.socket() as s:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                s.bind(("127.0.0.1", at))
        print(port); break
    except OSError: pass
PY
}

servers=() folder=''
finish() {
  for server in "${servers[@]}"; do kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; done
  [ -z "$folder" ] || rm -rf "$folder"
  servers=() folder=''
}

# Starts a cluster: its first port, how many nodes it has, and what else it is told.
serve() {
  local log=$folder/dev-$1.log
  "$program" dev --port "$1" --nodes "$2" --dir "$folder/$1" "${@:3}" >"$log" 2>&1 &
  servers+=($!)
  for _ in $(seq 300); do
    grep -q 'Ctrl-C' "$log" && return
    kill -0 "${servers[-1]}" || break
    sleep 0.1
  done
  cat "$log" >&2
  exit 1
}

# Starts a node that speaks TLS only, at a port and the one behind it.
serve_tls() {
  cat >"$folder/tls.toml" <<TOML
cluster = "tls"
node = 1
data = "$folder/tls"
redirect = "forward"
[tls]
cert = "$tls/redis.crt"
key = "$tls/redis.key"
ca = "$tls/ca.crt"
clients = "required"
[[nodes]]
id = 1
host = "127.0.0.1"
port = $1
peer_port = $(($1 + 1))
TOML
  "$program" serve --config "$folder/tls.toml" >"$folder/tls.log" 2>&1 &
  servers+=($!)
  for _ in $(seq 300); do
    (: <>"/dev/tcp/127.0.0.1/$1") 2>/dev/null && return
    kill -0 "${servers[-1]}" || break
    sleep 0.1
  done
  cat "$folder/tls.log" >&2
  exit 1
}
trap finish EXIT

status=0
for mode in "${modes[@]}"; do
  folder=$(mktemp -d)
  plain=$(free_ports 6379 1)
  serve "$plain" 1 --groups 1 --forward
  if [ "$mode" = plain ]; then
    port=$plain nodes=1 markers='not onlycluster'
  else
    # Some of its tests want a plain server, too.
    port=$(free_ports 16379 6) nodes=6 markers='not onlynoncluster'
    serve "$port" 6 --groups 3
  fi
  tls_port=$(free_ports 16666 2)
  serve_tls "$tls_port"
  echo "== redis-py $version, $mode"
  (cd "$suite" && FLOTILLA_MODE=$mode FLOTILLA_SKIP=$here/redis-py.skip PYTHONPATH=$here PYTHONDONTWRITEBYTECODE=1 \
    "$environment/bin/python" -m pytest -p redis_py_suite -p no:cacheprovider --ignore=tests/test_credentials.py \
    --ignore=tests/test_asyncio/test_credentials.py -q --tb=native -W ignore --timeout 60 \
    -m "$markers and not redismod and not cp_integration" --redis-url "redis://127.0.0.1:$port/0" \
    --redis-ssl-url "rediss://localhost:$tls_port" --redis-cluster-nodes $nodes "$@") || status=1
  finish
done
exit $status
