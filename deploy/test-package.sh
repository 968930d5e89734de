#!/usr/bin/env bash
# Looks whether nodes of what deploy/package.sh has made serve: those of the tarball in a root in which there is nothing else, those of the
# package installed into a fresh Debian: deploy/test-package.sh target/package/flotilla_*.deb target/package/flotilla-*.tar.gz
# There the unit is lived with under a systemd that is PID 1 of namespaces of its own: sandbox, reload, watchdog, restarts, stop.
# Needs root. The roots are removed at the end; debootstrap, which makes the second, is fetched if it isn't there.
set -euo pipefail
package=$(realpath "$1")
tarball=${2:+$(realpath "$2")}
suite=${SUITE:-bookworm}
root=$(mktemp -d)
chmod 755 "$root"
node=
machine=
bare=
finish() {
  [ -z "$node" ] || kill "$node" 2>/dev/null || true
  [ -z "$machine" ] || kill -9 "$(pgrep -P "$machine")" 2>/dev/null || true
  for folder in dev proc sys; do umount -l "$root/$folder" 2>/dev/null || true; done
  rm -rf --one-file-system "$root" "$root.log" $bare
}
trap finish EXIT
clean=(env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C)
in_root() { chroot "$root" "${clean[@]}" "$@"; }

# Waits until a node takes a write, and reads it: try COMMAND… runs a command of `flotilla` beside the node.
serves() {
  local log=$1
  shift
  for _ in $(seq 100); do
    if "$@" exec SET greeting ahoy 2>/dev/null | grep -q OK; then break; fi
    kill -0 "$node" || { cat "$log" >&2; exit 1; }
    sleep 0.2
  done
  "$@" exec GET greeting | grep -q ahoy
}

if [ -n "$tarball" ]; then
  echo "== the tarball, in a root with nothing else"
  bare=$(mktemp -d)
  tar -C "$bare" --strip-components=1 -xzf "$tarball"
  test "$(find "$bare/bin" -type f | wc -l)" = 1
  ! readelf -d "$bare/bin/flotilla" 2>/dev/null | grep -q NEEDED
  mkdir -p "$bare/dev" "$bare/tmp" "$bare/etc" "$bare/var/lib/flotilla"
  mknod -m 444 "$bare/dev/urandom" c 1 9
  # The name is looked up by the program itself: there is no library that could.
  echo "127.0.0.1 anchor" >"$bare/etc/hosts"
  sed 's/127.0.0.1/anchor/; s/= 7000/= 7600/; s/= 17000/= 17600/' "$bare/examples/one-node.toml" >"$bare/etc/node.toml"
  in_bare() { chroot "$bare" /bin/flotilla "$@"; }
  at_7600() { local command=$1; shift; in_bare "$command" --addr 127.0.0.1:7600 "$@"; }
  in_bare --version
  chroot "$bare" /bin/flotilla serve --config /etc/node.toml >"$bare/tmp/node.log" 2>&1 &
  node=$!
  serves "$bare/tmp/node.log" at_7600
  kill -TERM "$node"
  wait "$node" || { cat "$bare/tmp/node.log" >&2; exit 1; }
  node=
fi

command -v debootstrap >/dev/null || DEBIAN_FRONTEND=noninteractive apt-get install -y -qq debootstrap >/dev/null
echo "== a fresh $suite"
debootstrap --variant=minbase --include=systemd,man-db,procps "$suite" "$root" ${MIRROR:-} >"$root.log" 2>&1 || { tail -5 "$root.log" >&2; exit 1; }
for folder in dev proc sys; do mount --rbind "/$folder" "$root/$folder" && mount --make-rslave "$root/$folder"; done

echo "== install"
cp "$package" "$root/tmp/"
in_root dpkg -i "/tmp/$(basename "$package")"
in_root getent passwd flotilla
test "$(in_root stat -c %U:%a /var/lib/flotilla)" = flotilla:750

echo "== the unit and the pages"
in_root systemd-analyze verify /usr/lib/systemd/system/flotilla.service
# 0.0 is safe, 10.0 isn't: the threshold is ten times as much.
in_root systemd-analyze security --offline=true --threshold=16 /usr/lib/systemd/system/flotilla.service | tail -1
in_root man -P cat flotilla-serve | grep -q -- --config
in_root bash -c '. /usr/share/bash-completion/completions/flotilla && complete -p flotilla' >/dev/null

echo "== the host, as doctor sees it"
in_root setpriv --reuid flotilla --regid flotilla --clear-groups flotilla doctor --config /etc/flotilla/node.toml --seconds 0.2 || true

echo "== the unit, under a systemd of its own"
unshare --mount --pid --fork --kill-child --uts --ipc --net --cgroup bash -euc '
  mount --bind "$0" "$0"
  mount -t proc proc "$0/proc"
  mount -t sysfs sysfs "$0/sys"
  mount -t tmpfs tmpfs "$0/run"
  mount --rbind /dev "$0/dev"
  if [ "$(stat -fc %T /sys/fs/cgroup)" = cgroup2fs ]; then
    mount -t cgroup2 cgroup2 "$0/sys/fs/cgroup"
  else
    mount -t tmpfs tmpfs "$0/sys/fs/cgroup"
    mkdir "$0/sys/fs/cgroup/systemd" "$0/sys/fs/cgroup/unified"
    mount -t cgroup -o none,name=systemd,xattr cgroup "$0/sys/fs/cgroup/systemd"
    mount -t cgroup2 cgroup2 "$0/sys/fs/cgroup/unified"
  fi
  ip link set lo up
  exec chroot "$0" env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system
' "$root" >"$root.log" 2>&1 &
machine=$!
within() { nsenter --target "$(pgrep -P "$machine")" --all --root --wd "${clean[@]}" "$@"; }
pid() { within systemctl show -p MainPID --value flotilla; }
# Waits until COMMAND… holds: at most a minute.
until_it() {
  for _ in $(seq 300); do
    if "$@" >/dev/null 2>&1; then return; fi
    sleep 0.2
  done
  echo "in vain for a minute: $*" >&2
  cat "$root.log" >&2
  within journalctl -u flotilla --no-pager -n 30 >&2 || true
  exit 1
}
is_up() { within systemctl list-units >/dev/null; }
is_set() { within flotilla exec SET greeting ahoy | grep OK; }
is_there() { within flotilla exec GET greeting | grep ahoy; }
is_another() { local now; now=$(pid) && [ "$now" != 0 ] && [ "$now" != "$old" ]; }
until_it is_up
within systemctl enable --now flotilla
until_it is_set
within grep -E '^(Seccomp:\s+2|NoNewPrivs:\s+1|CapEff:\s+0+)$' "/proc/$(pid)/status" | test "$(wc -l)" = 3
echo "-- workers of MapReduce: those of another file"
sed -i '0,/^\[\[nodes\]\]/s//[mapreduce]\nworkers = 1\n\n[[nodes]]/' "$root/etc/flotilla/node.toml"
within systemctl restart flotilla
gives_way() { within ps -eLo cls,args | grep 'IDL.*mr worker'; }
until_it gives_way
until_it is_there
! within journalctl -u flotilla --no-pager | grep "can't give way"
echo "-- reload: the same process"
old=$(pid)
within systemctl reload flotilla
until_it is_there
test "$(pid)" = "$old"
echo "-- killed: another, with what was written"
kill_it() { within kill "-$1" "$(pid)"; }
kill_it KILL
until_it is_another
until_it is_there
echo "-- standing still: the watchdog ends it"
old=$(pid)
kill_it STOP
until_it is_another
until_it is_there
echo "-- a configuration that can't be: one line, and not again and again"
sed -i.good '1i nonsense = 1' "$root/etc/flotilla/node.toml"
! within systemctl restart flotilla 2>/dev/null
has_failed() { within systemctl show -p ActiveState -p ExecMainStatus -p NRestarts --value flotilla | xargs | grep -x '0 2 failed'; }
is_told() { within journalctl -u flotilla --no-pager -n 20 | grep 'there is no key `nonsense`'; }
until_it has_failed
until_it is_told
mv "$root/etc/flotilla/node.toml.good" "$root/etc/flotilla/node.toml"
within systemctl start flotilla
until_it is_there
echo "-- stop: drained"
within systemctl stop flotilla
test "$(within systemctl show -p Result -p ExecMainStatus --value flotilla | sort | xargs)" = "0 success"
kill -9 "$(pgrep -P "$machine")"
wait "$machine" || true
machine=

echo "== remove"
in_root dpkg -r flotilla
test ! -e "$root/usr/bin/flotilla"
test -d "$root/var/lib/flotilla/data"
in_root dpkg -P flotilla
test ! -e "$root/etc/flotilla/node.toml"
echo "== it works"
