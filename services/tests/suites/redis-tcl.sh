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
  unit/multi unit/protocol unit/auth unit/quit)
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

port=$(python3 - <<'PY'
import socket
# The first of a row of free ports, below those that the system hands out by itself.
for port in range(21000, 29000, 50):
    try:
        for at in range(port, port + 12):
            with socket.socket() as s: s.bind(("127.0.0.1", at))
        print(port); break
    except OSError: pass
PY
)
folder=$(mktemp -d)
"$program" dev --forward --nodes "$nodes" --groups "$groups" --port "$port" --dir "$folder" >"$folder/dev.log" 2>&1 &
server=$!
trap 'kill $server 2>/dev/null; wait $server 2>/dev/null; rm -rf "$folder"' EXIT
for _ in $(seq 300); do
  grep -q 'Ctrl-C' "$folder/dev.log" && break
  kill -0 $server || { cat "$folder/dev.log" >&2; exit 1; }
  sleep 0.1
done

arguments=(--host 127.0.0.1 --port "$port" --singledb --cluster-mode --durable --timeout 300 --skipfile "$here/redis-tcl.skip"
  --tags "-needs:debug -needs:repl -needs:reset -needs:save -needs:latency -needs:pfdebug -needs:config-maxmemory")
for unit in "${units[@]}"; do arguments+=(--single "$unit"); done
cd "$suite"
mkdir -p tests/tmp
./runtest "${arguments[@]}" | tee "$folder/result.log" | sed -u 's/\x1b\[[0-9;]*m//g'
sed -i 's/\x1b\[[0-9;]*m//g' "$folder/result.log"
echo "passed $(grep -c '^\[ok\]' "$folder/result.log"), failed $(grep -cE '^\[(err|exception)\]' "$folder/result.log"), left out $(grep -cE '^\[(ignore|skip)' "$folder/result.log")"
! grep -qE '^\[(err|exception)\]' "$folder/result.log"
