#!/bin/sh
# etcd as the benchmark runs it. flotilla-bench carries this file in itself and starts each member by
# `etcd.sh start …`, so these flags are the ones that were measured.
#
#   etcd.sh install                                        Debian's package, if there is no etcd yet, or an old one
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
    # An etcd before 3.5 copies a buffer of recent writes for every read (its pull request 12933): its reads say nothing of today's.
    is_new() { command -v etcd >/dev/null && ! etcd --version | grep -q '^etcd Version: 3\.[0-4]\.'; }
    # Debian 12 and later call it etcd-server, earlier ones etcd.
    is_new || apt-get install -y etcd-server || apt-get install -y etcd
    if ! is_new && [ "$(dpkg --print-architecture)" = amd64 ]; then
        # Debian 13's, which needs nothing that Debian 12 hasn't.
        package=$(mktemp -d)/etcd-server_3.5.16-4_amd64.deb
        /usr/lib/apt/apt-helper download-file "http://deb.debian.org/debian/pool/main/e/etcd/${package##*/}" "$package" \
            SHA256:0875921bb0d023f2af9b8e15cdfbe417a03e65731345fb832c40f9c2dd72967b
        dpkg -i "$package"
        rm -r "${package%/*}"
    fi
    echo "etcd is installed: $(etcd --version | head -n 1)"
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
