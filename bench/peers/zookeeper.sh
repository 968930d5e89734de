#!/bin/sh
# ZooKeeper as the benchmark runs it. flotilla-bench carries this file in itself and starts each member by
# `zookeeper.sh start …`, so these settings are the ones that were measured.
#
#   zookeeper.sh install                              Debian's jar and a headless Java, if there is no ZooKeeper yet
#   zookeeper.sh start ID DIR CLIENT_PORT SERVERS     one member, in the foreground; ID from 1
#
# SERVERS is HOST:PEER_PORT:ELECTION_PORT of every member, with commas, in the order of their IDs.
#
# The package is libzookeeper-java: the server itself, without the user, the folders and the desktop's Java that the package
# `zookeeper` brings, and without zookeeperd's daemon.
#
# The settings that matter:
#   forceSync                yes: a transaction is synced to the log before it is acknowledged. That is ZooKeeper's default
#   snapCount, preAllocSize  its defaults: a snapshot every 50 000 to 100 000 transactions, logs prepared 64 MiB at a time
#   heap                     1000 MB, as its own zkServer.sh has it
#   globalOutstandingLimit   100 000 instead of 1000: beyond it a member stops reading from clients that have a request on
#                            its way, which many clients with a pipeline would be slowed by
#   maxClientCnxns           no limit: all clients come from one address
#   UsePerfData              off: it is a file in /tmp that outlives a killed member, and its page faults are pauses
set -eu

jar=/usr/share/java/zookeeper.jar

case "${1:-}" in
install)
    if [ -e "$jar" ] && command -v java >/dev/null; then
        echo "ZooKeeper is installed: $jar"
        exit 0
    fi
    apt-get install -y --no-install-recommends libzookeeper-java default-jre-headless
    ;;
start)
    [ $# -eq 5 ] || { echo "usage: zookeeper.sh start ID DIR CLIENT_PORT SERVERS" >&2; exit 2; }
    id=$2 folder=$3 port=$4 servers=$5
    mkdir -p "$folder"
    echo "$id" >"$folder/myid"
    {
        cat <<CONFIG
dataDir=$folder
clientPort=$port
clientPortAddress=127.0.0.1
tickTime=2000
initLimit=10
syncLimit=5
forceSync=yes
snapCount=100000
preAllocSize=65536
globalOutstandingLimit=100000
maxClientCnxns=0
admin.enableServer=false
4lw.commands.whitelist=srvr
CONFIG
        number=1
        for server in $(echo "$servers" | tr ',' ' '); do
            echo "server.$number=$server"
            number=$((number + 1))
        done
    } >"$folder/zoo.cfg"
    # Logs errors only, as the others do: it otherwise tells of every connection, at its own cost.
    exec java -Xmx1000m -XX:-UsePerfData -Djava.io.tmpdir="$folder" \
        -Dzookeeper.jmx.log4j.disable=true -Dorg.slf4j.simpleLogger.defaultLogLevel=error \
        -cp "$jar:/usr/share/java/slf4j-simple.jar" \
        org.apache.zookeeper.server.quorum.QuorumPeerMain "$folder/zoo.cfg"
    ;;
*)
    echo "usage: zookeeper.sh install | start ID DIR CLIENT_PORT SERVERS" >&2
    exit 2
    ;;
esac
