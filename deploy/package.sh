#!/usr/bin/env bash
# Makes target/package/flotilla_VERSION_ARCH.deb and flotilla-VERSION-ARCH.tar.gz (one static program, man pages, completions, unit, examples).
# Needs a Rust toolchain, gcc and libc6-dev; cargo-deb is fetched if it isn't there.
set -euo pipefail
cd "$(dirname "$0")/.."
package=target/package
rm -rf "$package"
mkdir -p "$package/man" "$package/completions"

cargo build --release --bin flotilla
flotilla=target/release/flotilla
"$flotilla" generate man "$package/man"
"$flotilla" generate completions bash >"$package/completions/flotilla.bash"
"$flotilla" generate completions zsh >"$package/completions/_flotilla"
"$flotilla" generate completions fish >"$package/completions/flotilla.fish"

command -v cargo-deb >/dev/null || cargo install cargo-deb --locked
cargo deb -p flotilla-services --no-build --no-strip --output "$package/"

version=$("$flotilla" --version | cut -d' ' -f2)
target=$(rustc -vV | sed -n 's/^host: //p')
name=flotilla-$version-${target%%-*}
RUSTFLAGS="-C target-feature=+crt-static" \
  cargo build --release --bin flotilla --target "$target" --target-dir target/static
mkdir -p "$package/$name/bin"
cp "target/static/$target/release/flotilla" "$package/$name/bin/"
cp -r deploy/systemd deploy/sysusers.d deploy/examples "$package/$name/"
cp -r "$package/man" "$package/completions" docs README.md CHANGELOG.md LICENSE "$package/$name/"
tar -C "$package" -czf "$package/$name.tar.gz" "$name"
rm -r "${package:?}/$name"
ls -l "$package"/*.deb "$package"/*.tar.gz
