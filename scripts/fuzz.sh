#!/bin/bash
# fuzz.sh - run every fuzz target on seeds made of the golden files. Ends with one line in the form of cargo's.
#
#   fuzz.sh [SECONDS] [TARGET...]     60 seconds each, all targets
#
# What is found on the way stays in WALE_FUZZ_DIR (default fuzz/target/corpus), crashes in fuzz/artifacts.
# The stable compiler is told that it may use the sanitizer (RUSTC_BOOTSTRAP).
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
cd "$here/fuzz"
seconds=${1:-60}
[ $# = 0 ] || shift
tools=${WALE_TEST_TOOLS:-/var/tmp/wale-tools}
build=${CARGO_TARGET_DIR:-$here/fuzz/target}
work=${WALE_FUZZ_DIR:-$here/fuzz/target/corpus}
host=$(rustc -vV | sed -n 's/^host: //p')
# Beyond these a decoder has lost its bounds: a segment of 16 MiB is the largest thing that is held.
limits="-rss_limit_mb=1024 -malloc_limit_mb=256 -timeout=10"

export CARGO_TARGET_DIR=$build RUSTC_BOOTSTRAP=1
mkdir -p "$build"
"$tools/bin/cargo-fuzz" build >"$build/fuzz.log" 2>&1 || { tail -40 "$build/fuzz.log"; exit 1; }
[ $# -gt 0 ] || set -- $(basename -s .rs fuzz_targets/*.rs)

golden=$here/crates/wale-format/testdata
seeds=$(mktemp -d)
trap 'rm -rf "$seeds"' EXIT
seed() { # TARGET NAME: standard input is a seed
  mkdir -p "$seeds/$1"
  cat >"$seeds/$1/$2"
}
# The codec's target takes the codec from the first byte: none, zstd, lz4, lzo, brotli, lzma.
printf '\000%s' plain | seed codec plain
{ printf '\001'; zstd -qc "$golden/README.md"; } | seed codec zstd
{ printf '\002'; lz4 -qc "$golden/README.md"; } | seed codec lz4
{ printf '\004'; cat "$golden/brotli-1.0.9/sample.br"; } | seed codec brotli
{ printf '\005'; cat "$golden/xz-5.4.1/sample.lzma"; } | seed codec lzma
mkdir "$seeds/lzop"
zstd -dqc "$golden/lzop-1.04/samples.tar.zst" | tar -x -C "$seeds/lzop"
find "$seeds/lzop" -name '*.lzo' -size -64k | while read -r sample; do
  { printf '\003'; cat "$sample"; } | seed codec "lzop-$(basename "$sample")"
done
for file in "$golden"/*/*.tar; do seed tar "$(basename "$(dirname "$file")")-$(basename "$file")" <"$file"; done
# WAL-G's increments: none of two pages, and the first and the third of three.
printf 'wi1U\000\100\000\000\000\000\000\000\000\000\000\000' | seed increment empty
{
  printf 'wi1U\000\140\000\000\000\000\000\000\002\000\000\000\000\000\000\000\002\000\000\000'
  head -c 16384 /dev/zero
} | seed increment pages
for file in "$golden"/wal-e-*/*.json; do seed sentinel "$(basename "$file")" <"$file"; done
for file in "$golden"/postgresql-*/backup_manifest*; do
  seed manifest "$(basename "$file")" <"$file"
  # Without the checksum over itself, which the target adds.
  sed '$d' "$file" | seed manifest "$(basename "$file")-body"
done
for file in "$here"/crates/wale-pg/testdata/wal_header/*; do seed wal_header "$(basename "$file")" <"$file"; done
for file in "$here"/crates/wale-pg/testdata/control_file/*; do seed control_file "$(basename "$file")" <"$file"; done
# Every setting with its default.
awk -F '`' '/^### `/ {name = $2} /^\* Default: `/ {print name "=" $2}' "$here/docs/reference/settings.md" | seed settings defaults
awk -F '`' '/^### `/ {print $2 "=1"}' "$here/docs/reference/settings.md" | seed settings ones

passed=0 failed=0
for target in "$@"; do
  mkdir -p "$work/$target" "$seeds/$target" "corpus/$target" "artifacts/$target"
  # shellcheck disable=SC2086 # the limits are words
  if "$build/$host/release/$target" "$work/$target" "corpus/$target" "$seeds/$target" $limits \
    -max_len=65536 -max_total_time="$seconds" -artifact_prefix="artifacts/$target/" >"$seeds/log" 2>&1; then
    printf 'test fuzz %s ... ok, %s\n' "$target" "$(grep -o 'Done .*' "$seeds/log" | tail -1)"
    passed=$((passed + 1))
  else
    printf 'test fuzz %s ... FAILED\n' "$target"
    grep -v '^#' "$seeds/log" | tail -60
    failed=$((failed + 1))
  fi
done
printf 'test result: %s. %s passed; %s failed; 0 ignored; 0 measured; 0 filtered out\n' \
  "$([ "$failed" = 0 ] && echo ok || echo FAILED)" "$passed" "$failed"
[ "$failed" = 0 ]
