#!/usr/bin/env bash
# Installs a package into a fresh Debian root and looks whether a node of it serves: deploy/test-package.sh target/package/flotilla_*.deb
# Needs root. The root is made by debootstrap, which is fetched if it isn't there, and removed at the end.
set -euo pipefail
package=$(realpath "$1")
suite=${SUITE:-bookworm}
root=$(mktemp -d)
chmod 755 "$root"
node=
finish() {
  [ -z "$node" ] || kill "$node" 2>/dev/null || true
  for folder in dev proc sys; do umount -l "$root/$folder" 2>/dev/null || true; done
  rm -rf --one-file-system "$root"
}
trap finish EXIT
in_root() { chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C "$@"; }

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
in_root man -P cat flotilla-serve | grep -q -- --config
in_root bash -c '. /usr/share/bash-completion/completions/flotilla && complete -p flotilla' >/dev/null

echo "== the host, as doctor sees it"
in_root setpriv --reuid flotilla --regid flotilla --clear-groups flotilla doctor --config /etc/flotilla/node.toml --seconds 0.2 || true

echo "== a node, as the unit would start it"
in_root setpriv --reuid flotilla --regid flotilla --clear-groups \
  flotilla serve --config /etc/flotilla/node.toml >"$root/tmp/node.log" 2>&1 &
node=$!
for _ in $(seq 100); do
  if in_root flotilla exec SET greeting ahoy 2>/dev/null | grep -q OK; then break; fi
  kill -0 "$node" || { cat "$root/tmp/node.log" >&2; exit 1; }
  sleep 0.2
done
in_root flotilla exec GET greeting | grep -q ahoy

echo "== remove"
# What was started is setpriv's own process: it became the node.
pkill -TERM -f "flotilla serve --config /etc/flotilla/node.toml" || true
wait "$node" || { cat "$root/tmp/node.log" >&2; exit 1; }
node=
in_root dpkg -r flotilla
test ! -e "$root/usr/bin/flotilla"
test -d "$root/var/lib/flotilla/data"
in_root dpkg -P flotilla
test ! -e "$root/etc/flotilla/node.toml"
echo "== it works"
