#!/bin/sh
# Redis as the benchmark runs it. flotilla-bench carries this file in itself and starts the server by
# `redis.sh start …`, so these flags are the ones that were measured.
#
#   redis.sh install                       Debian's package, if there is no redis-server yet
#   redis.sh start DIR PORT always|everysec|none [PRIMARY_PORT]    one server, in the foreground; with PRIMARY_PORT a replica
#
# The flags that matter:
#   always      appendonly yes, appendfsync always: a write is on disk before its reply, as in etcd and Flotilla.
#               It is on one disk only, unless there are replicas
#   everysec    the same file, synced once a second: Redis' own default with appendonly
#   none        no persistence at all: what the wire and the event loop can do
#   replicas    sync as the primary does, before they say what they have: so WAIT counts disks, though Redis 7.0 doesn't promise
#               that. They synchronise at once (diskless, without the delay of 5 s)
#   rewrite     never: a fork in the middle of a measurement would not be fair to Redis
set -eu

case "${1:-}" in
install)
    if command -v redis-server >/dev/null; then
        echo "redis is installed: $(redis-server --version)"
        exit 0
    fi
    apt-get install -y redis-server
    ;;
start)
    [ $# -eq 4 ] || [ $# -eq 5 ] || {
        echo "usage: redis.sh start DIR PORT always|everysec|none [PRIMARY_PORT]" >&2
        exit 2
    }
    folder=$2 port=$3 durability=$4 primary=${5:-}
    case "$durability" in
    always | everysec) set -- --appendonly yes --appendfsync "$durability" --auto-aof-rewrite-percentage 0 ;;
    none) set -- --appendonly no ;;
    *) echo "redis.sh: durability is always, everysec or none, not $durability" >&2; exit 2 ;;
    esac
    [ -z "$primary" ] || set -- "$@" --replicaof 127.0.0.1 "$primary"
    exec redis-server --bind 127.0.0.1 --port "$port" --dir "$folder" --save "" --daemonize no \
        --repl-diskless-sync yes --repl-diskless-sync-delay 0 --repl-diskless-load swapdb --loglevel warning "$@"
    ;;
*)
    echo "usage: redis.sh install | start DIR PORT always|everysec|none [PRIMARY_PORT]" >&2
    exit 2
    ;;
esac
