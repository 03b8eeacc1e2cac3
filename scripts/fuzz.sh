#!/bin/bash
# fuzz.sh - run every fuzz target on seeds made of the golden files. Ends with one line in the form of cargo's.
#
#   fuzz.sh [SECONDS] [TARGET...]     60 seconds each, all targets
#   fuzz.sh build                     the targets are built, not run
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
[ "$seconds" != build ] || exit 0
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
# OpenPGP's takes a whole message, packets that are not encrypted, or plain bytes.
mkdir "$seeds/gnupg"
zstd -dqc "$golden"/gnupg-*/messages.tar.zst | tar -x -C "$seeds/gnupg"
for name in curve rsa both hidden passphrase; do
  { printf '\000'; cat "$seeds/gnupg/$name.gpg"; } | seed openpgp "$name"
done
for name in zip zlib bzip2 none; do
  { printf '\001'; gpg --batch --store --compress-algo "${name/none/uncompressed}" <"$golden/README.md"; } | seed openpgp "store-$name"
done
printf '\002%s' plain | seed openpgp plain
for file in "$golden"/gnupg-*/{*.asc,pubring.*}; do seed openpgp_ring "$(basename "$file")" <"$file"; done
# An object of WAL-G's, whose key the target has not, a chain of chunks, and text of keys.
{ printf '\000'; cat "$golden/wal-g-3.0.9/libsodium/pg_control.tar.zst"; } | seed crypt wal-g
printf '\001%b' '\001\000\000\001\000\000\001\000\200' | seed crypt chunks
printf '\000age-encryption.org/v1\n-> X25519 x\nx\n--- x\n' | seed crypt age
printf '\002\020\000%s' plain | seed crypt libsodium-round
printf '\003\020\000%s' plain | seed crypt age-round
printf '\004ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHsKLqeplhpW+uObz5dvMgjz1OxfM/XXUB+VHtZ6isGN, age1x' | seed crypt keys
for file in "$golden"/*/*.tar; do seed tar "$(basename "$(dirname "$file")")-$(basename "$file")" <"$file"; done
# WAL-G's increments: none of two pages, and the first and the third of three.
printf 'wi1U\000\100\000\000\000\000\000\000\000\000\000\000' | seed increment empty
{
  printf 'wi1U\000\140\000\000\000\000\000\000\002\000\000\000\000\000\000\000\002\000\000\000'
  head -c 16384 /dev/zero
} | seed increment pages
# WAL-G's lists of files, of which a few names are enough: of a full backup and a delta, of a streamed one, of WAL-G 1.1 in the sentinel.
lists=$here/crates/wale/testdata/wal-g
mkdir "$seeds/wal-g"
for name in pg15-lz4-delta-chain pg15-streamed pg13-walg11-old-sentinel; do
  zstd -dqc --long=27 "$lists/$name.tar.zst" | tar -x -C "$seeds/wal-g" --wildcards '*/basebackups_005/*.json'
done
find "$seeds/wal-g" -name 'files_metadata.json' -o -name '*_sentinel.json' | while read -r list; do
  name=$(printf %s "${list#"$seeds/wal-g/"}" | tr / _)
  python3 -c 'import json, sys
def cut(value):
    if isinstance(value, dict):
        return {key: cut(one) for key, one in list(value.items())[:24]}
    return value[:8] if isinstance(value, list) else value
print(json.dumps(cut(json.load(open(sys.argv[1])))))' "$list" | seed member_list "$name"
done
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
