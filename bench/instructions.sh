#!/usr/bin/env bash
# Counts the instructions of the hot paths under callgrind, and compares with bench/instructions.txt.
#
#   bench/instructions.sh check [PROGRAM]    fails if a path takes more than 5 % more than its line says
#   bench/instructions.sh write [PROGRAM]    writes the file anew; say why in CHANGELOG.md if a count grew
#
# PROGRAM is a flotilla-bench [default: target/sim/flotilla-bench, which the tests build]. The counts are those of one
# profile, one compiler and one kind of CPU, which the file names: with others they are told and not judged.
set -euo pipefail
cd "$(dirname "$0")/.."
what=${1:-check}
program=$(realpath "${2:-${CARGO_TARGET_DIR:-target}/sim/flotilla-bench}")
file=bench/instructions.txt
tolerance=5

command -v valgrind >/dev/null || {
    echo "instructions.sh: no valgrind in PATH (apt-get install valgrind)" >&2
    exit 3
}
[ -x "$program" ] || {
    echo "instructions.sh: no $program; cargo build --profile sim --bin flotilla-bench" >&2
    exit 3
}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# Nothing is counted but what runs inside that function: a call for each path, whose count includes all that it calls.
valgrind --tool=callgrind --collect-atstart=no --toggle-collect='*measured_hot_path*' --compress-strings=no \
    --compress-pos=no --callgrind-out-file="$folder/out" --log-file="$folder/log" \
    "$program" instructions >"$folder/names" || { tail -20 "$folder/log" >&2; exit 1; }

compiler=$(rustc --version | cut -d' ' -f1-2)
profile=$(basename "$(dirname "$program")")
{
    echo "# Instructions of each hot path for a unit of its work, by bench/instructions.sh write."
    echo "# $compiler, profile $profile, $(uname -m)"
    awk '
        NR == FNR { units[$1] = $2; order[++paths] = $1; next }
        /^fn=/ { inside = /measured_hot_path/; next }
        inside && /^cfn=.*::hot::/ { sub(/^.*::hot::/, ""); sub(/::.*$/, ""); path = $0; next }
        inside && /^calls=/ { getline; counted[path] = $2 }
        END {
            for (place = 1; place <= paths; place++) {
                path = order[place]
                if (!(path in counted)) { print "instructions.sh: no count of " path >"/dev/stderr"; exit 1 }
                printf "%-12s %12.3f\n", path, counted[path] / units[path]
            }
        }' "$folder/names" "$folder/out"
} >"$folder/counts"

if [ "$what" = write ]; then
    cp "$folder/counts" "$file"
    cat "$file"
    exit 0
fi
if [ "$(sed -n 2p "$file")" != "$(sed -n 2p "$folder/counts")" ]; then
    echo "instructions.sh: counted with $(sed -n 2p "$folder/counts" | cut -c3-), kept with $(sed -n 2p "$file" | cut -c3-): told, not judged"
    tolerance=1000000
fi
awk -v tolerance="$tolerance" '
    /^#/ { next }
    NR == FNR { kept[$1] = $2; next }
    {
        if (!($1 in kept)) { printf "%-12s %12.3f   new: bench/instructions.sh write\n", $1, $2; wrong = 1; next }
        change = 100 * ($2 / kept[$1] - 1)
        printf "%-12s %12.3f   kept %12.3f   %+6.1f %%%s\n", $1, $2, kept[$1], change, (change > tolerance ? "   TOO MANY" : "")
        if (change > tolerance) wrong = 1
    }
    END { exit wrong }' "$file" "$folder/counts" || {
    echo "instructions.sh: more than $tolerance % above the count that is kept. If that is meant, say why in CHANGELOG.md and run" \
        "bench/instructions.sh write" >&2
    exit 1
}
