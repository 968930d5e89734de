#!/bin/sh
# Redis as the benchmark runs it. flotilla-bench carries this file in itself and starts the server by
# `redis.sh start …`, so these flags are the ones that were measured.
#
#   redis.sh install                       Debian's package, if there is no redis-server yet
#   redis.sh start DIR PORT always|none    one server without replicas, in the foreground
#
# The flags that matter:
#   always      appendonly yes, appendfsync always: a write is on disk before its reply, as in etcd and Flotilla.
#               It is on one disk only: Redis here replicates nothing
#   none        no persistence at all: what the wire and the event loop can do
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
    [ $# -eq 4 ] || { echo "usage: redis.sh start DIR PORT always|none" >&2; exit 2; }
    case "$4" in
    always) set -- "$2" "$3" --appendonly yes --appendfsync always --auto-aof-rewrite-percentage 0 ;;
    none) set -- "$2" "$3" --appendonly no ;;
    *) echo "redis.sh: durability is always or none, not $4" >&2; exit 2 ;;
    esac
    folder=$1 port=$2
    shift 2
    exec redis-server --bind 127.0.0.1 --port "$port" --dir "$folder" --save "" --daemonize no \
        --loglevel warning "$@"
    ;;
*)
    echo "usage: redis.sh install | start DIR PORT always|none" >&2
    exit 2
    ;;
esac
