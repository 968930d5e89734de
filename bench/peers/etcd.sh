#!/bin/sh
# etcd as the benchmark runs it. flotilla-bench carries this file in itself and starts each member by
# `etcd.sh start …`, so these flags are the ones that were measured.
#
#   etcd.sh install                                        Debian's package, if there is no etcd yet
#   etcd.sh start NAME DIR CLIENT_PORT PEER_PORT CLUSTER   one member, in the foreground
#
# CLUSTER is NAME=http://HOST:PEER_PORT of every member, with commas.
#
# The flags that matter:
#   fsync                is on: that is etcd's default, and there is no --unsafe-no-fsync here
#   heartbeat, election  500 ms and 5 s instead of 100 ms and 1 s: on two CPUs shared by three members and the load,
#                        the defaults elect a new leader in the middle of a measurement
#   quota                8 GiB instead of 2: a long run must not end in "database space exceeded"
#   log-level            errors only: etcd otherwise logs every request slower than 100 ms, at its own cost
set -eu

case "${1:-}" in
install)
    if command -v etcd >/dev/null; then
        echo "etcd is installed: $(etcd --version | head -n 1)"
        exit 0
    fi
    # Debian 12 and later call it etcd-server, earlier ones etcd.
    apt-get install -y etcd-server || apt-get install -y etcd
    ;;
start)
    [ $# -eq 6 ] || { echo "usage: etcd.sh start NAME DIR CLIENT_PORT PEER_PORT CLUSTER" >&2; exit 2; }
    exec etcd \
        --name "$2" \
        --data-dir "$3" \
        --listen-client-urls "http://127.0.0.1:$4" \
        --advertise-client-urls "http://127.0.0.1:$4" \
        --listen-peer-urls "http://127.0.0.1:$5" \
        --initial-advertise-peer-urls "http://127.0.0.1:$5" \
        --initial-cluster "$6" \
        --initial-cluster-state new \
        --heartbeat-interval 500 \
        --election-timeout 5000 \
        --quota-backend-bytes 8589934592 \
        --logger zap --log-outputs stderr --log-level error
    ;;
*)
    echo "usage: etcd.sh install | start NAME DIR CLIENT_PORT PEER_PORT CLUSTER" >&2
    exit 2
    ;;
esac
