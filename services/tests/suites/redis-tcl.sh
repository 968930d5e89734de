#!/usr/bin/env bash
# Redis 7.0's own tests, unmodified, against a cluster of this program whose nodes forward commands.
#
#   services/tests/suites/redis-tcl.sh [--nodes N] [--groups N] [UNIT...]
#
# The tests come from Debian's source package of redis (or from the folder in REDIS_SOURCE). Tests of commands that this
# server doesn't have are left out by name (redis-tcl.skip): every line there has its reason in docs/redis.md. Ends with
# status 0 if every other test passed. FLOTILLA is the program, by default the release build.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
program=${FLOTILLA:-$root/target/release/flotilla}
nodes=1 groups=4 units=()
while [ $# -gt 0 ]; do
  case $1 in
    --nodes) nodes=$2; shift 2 ;;
    --groups) groups=$2; shift 2 ;;
    *) units+=("$1"); shift ;;
  esac
done
[ ${#units[@]} -gt 0 ] || units=(unit/type/string unit/type/incr unit/bitops unit/bitfield unit/expire unit/scan unit/keyspace
  unit/multi unit/protocol unit/quit unit/auth unit/acl unit/acl-v2)
command -v tclsh >/dev/null || { echo "tclsh is required: apt-get install tcl" >&2; exit 2; }

source_of_redis() {
  local cache=$root/target/redis-source
  if [ ! -d "$cache" ]; then
    local work; work=$(mktemp -d)
    mkdir -p "$work/lists/partial" "$work/parts"
    # The same places as for packages, for sources.
    for file in /etc/apt/sources.list.d/*.sources; do
      [ -e "$file" ] && sed 's/^Types:.*/Types: deb-src/' "$file" >"$work/parts/$(basename "$file")"
    done
    [ -e /etc/apt/sources.list ] && sed -n 's/^deb /deb-src /p' /etc/apt/sources.list >"$work/parts/classic.list"
    local options=(-qq -o "Dir::State::lists=$work/lists" -o "Dir::Etc::sourceparts=$work/parts"
      -o Dir::Etc::sourcelist=/dev/null -o APT::Sandbox::User=root)
    (cd "$work" && apt-get "${options[@]}" update && apt-get "${options[@]}" source --download-only redis) >&2
    mkdir -p "$work/redis" && tar -xf "$work"/redis_*.orig.tar.gz -C "$work/redis" --strip-components=1
    mkdir -p "$(dirname "$cache")" && mv "$work/redis" "$cache" && rm -rf "$work"
  fi
  echo "$cache"
}
suite=${REDIS_SOURCE:-$(source_of_redis)}

free_port() {
  python3 - <<'PY'
import socket
# The first of a row of free ports, below those that the system hands out by itself.
for port in range(21000, 29000, 50):
    try:
        for at in range(port, port + 12):
            with socket.socket() as s: s.bind(("127.0.0.1", at))
        print(port); break
    except OSError: pass
PY
}
# The tests of these units start servers of their own, with users and passwords: nodes take their place.
own=() shared=()
for unit in "${units[@]}"; do
  case $unit in unit/auth | unit/acl | unit/acl-v2) own+=("$unit") ;; *) shared+=("$unit") ;; esac
done
folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || { kill $server 2>/dev/null; wait $server 2>/dev/null; }; rm -rf "$folder"' EXIT
tags="-needs:debug -needs:repl -needs:reset -needs:save -needs:latency -needs:pfdebug -needs:config-maxmemory"

# Runs the suite with these arguments; the verdicts gather in one file.
run_suite() {
  (cd "$suite" && mkdir -p tests/tmp && FLOTILLA=$program ./runtest "$@" --singledb --cluster-mode --durable --timeout 300 \
    --tags "$tags") | tee -a "$folder/result.log" | sed -u 's/\x1b\[[0-9;]*m//g'
}
status=0
if [ ${#shared[@]} -gt 0 ]; then
  port=$(free_port)
  "$program" dev --forward --nodes "$nodes" --groups "$groups" --port "$port" --dir "$folder" >"$folder/dev.log" 2>&1 &
  server=$!
  for _ in $(seq 300); do
    grep -q 'Ctrl-C' "$folder/dev.log" && break
    kill -0 $server || { cat "$folder/dev.log" >&2; exit 1; }
    sleep 0.1
  done
  arguments=()
  for unit in "${shared[@]}"; do arguments+=(--single "$unit"); done
  run_suite --host 127.0.0.1 --port "$port" --skipfile "$here/redis-tcl.skip" "${arguments[@]}" || status=1
fi
if [ ${#own[@]} -gt 0 ]; then
  install -m 755 "$here/redis-server.py" "$suite/src/redis-server"
  arguments=()
  for unit in "${own[@]}"; do arguments+=(--single "$unit"); done
  run_suite --clients 1 --skipfile "$here/redis-acl.skip" "${arguments[@]}" || status=1
fi
sed -i 's/\x1b\[[0-9;]*m//g' "$folder/result.log"
echo "passed $(grep -c '^\[ok\]' "$folder/result.log"), failed $(grep -cE '^\[(err|exception)\]' "$folder/result.log"), left out $(grep -cE '^\[(ignore|skip)' "$folder/result.log")"
! grep -qE '^\[(err|exception)\]' "$folder/result.log" && exit $status
