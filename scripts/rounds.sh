#!/bin/bash
# rounds.sh - every integration test many times beside busy loops: what depends on luck fails here.
#
#   rounds.sh [ROUNDS] [WORDS...]     10 rounds; only tests whose names hold one of the WORDS
#   rounds.sh [ROUNDS] timed          only those that depend on an order in time (scripts/timed.txt)
#
# A test that runs on several majors runs on one of 10, 15 and 18 in each round, in turn (WALE_TEST_MAJORS: on these in each).
# Each test runs alone, in a network and mounts of its own (as root, with unshare), WALE_ROUND_SLOTS (3) side by side, in
# another order each round. One loop that does nothing runs on each core. A test that fails leaves its output in
# WALE_ROUND_LOGS (default target/rounds); `rounds` there has a line for each round. Ends with one line in cargo's form.
set -uo pipefail
cd "$(dirname "$0")/.."
rounds=${1:-10}
[ $# = 0 ] || shift
slots=${WALE_ROUND_SLOTS:-3}
given_majors=${WALE_TEST_MAJORS:-}
logs=${WALE_ROUND_LOGS:-$PWD/target/rounds}
export WALE_TEST_PG=${WALE_TEST_PG:-/var/tmp/wale-pg} INSTA_UPDATE=no
mkdir -p "$logs"

# The program is copied: a build that goes on beside the rounds must not change it.
program=$(cargo test --workspace --test it --locked --no-run --message-format=json 2>/dev/null |
  sed -n 's/.*"executable":"\([^"]*\/it-[^"]*\)".*/\1/p' | tail -1)
[ -x "$program" ] || { echo "rounds: the test program was not built"; exit 1; }
make --no-print-directory build >/dev/null 2>&1 || { echo "rounds: the static binary was not built"; exit 1; }
cp target/x86_64-unknown-linux-gnu/release/wale "$logs/wale"
cp "$program" "$logs/it"
export WALE_STATIC=$logs/wale
"$logs/it" --list --format terse | sed -n 's/: test$//p' | grep -v matrix_ >"$logs/all"
if [ "${1:-}" = timed ]; then
  grep -v '^#' scripts/timed.txt | grep -F -f - "$logs/all" >"$logs/names"
  # A line that names no test any more is a mistake, not a test that is left out.
  grep -v '^#' scripts/timed.txt | while read -r word; do
    grep -qF "$word" "$logs/all" || echo "$word"
  done >"$logs/unknown"
  if [ -s "$logs/unknown" ]; then echo "rounds: scripts/timed.txt names what is no test:"; cat "$logs/unknown"; exit 1; fi
elif [ $# -gt 0 ]; then
  printf '%s\n' "$@" | grep -F -f - "$logs/all" >"$logs/names"
else
  cp "$logs/all" "$logs/names"
fi

slot() { # ROUND SLOT: runs the tests of its list
  local round=$1 slot=$2 name begun
  export WALE_TEST_DIR=/var/tmp/wale-rounds-$slot WALE_TEST_SKIPS=$logs/skips
  mkdir -p "$WALE_TEST_DIR"
  chmod 755 "$WALE_TEST_DIR"
  while read -r name; do
    begun=$SECONDS
    if (cd crates/wale && unshare -mn --propagation slave sh -c 'ip link set lo up; exec "$@"' sh \
      timeout -k 5 900 "$logs/it" --exact "$name" --test-threads=1) >"$logs/$round.$slot.out" 2>&1 &&
      grep -q '^test result: ok. 1 passed' "$logs/$round.$slot.out"; then
      echo "ok $name $((SECONDS - begun))s"
    else
      cp "$logs/$round.$slot.out" "$logs/$round.$name.failed"
      echo "FAILED $name $((SECONDS - begun))s"
    fi
  done
}

loops=()
for core in $(seq 0 $(($(nproc) - 1))); do
  nice taskset -c "$core" sh -c 'while :; do :; done' &
  loops+=($!)
done
trap 'kill "${loops[@]}" 2>/dev/null' EXIT
passed=0 failed=0
majors=(10 15 18)
for round in $(seq "$rounds"); do
  begun=$SECONDS pids=()
  [ -n "$given_majors" ] || export WALE_TEST_MAJORS=${majors[$(((round - 1) % 3))]}
  rm -f "$logs/$round".*
  shuf "$logs/names" >"$logs/$round.order"
  for slot in $(seq "$slots"); do
    awk -v slot="$slot" -v slots="$slots" 'NR % slots == slot - 1' "$logs/$round.order" |
      slot "$round" "$slot" >"$logs/$round.$slot.results" &
    pids+=($!)
  done
  wait "${pids[@]}"
  good=$(cat "$logs/$round".*.results | grep -c '^ok')
  bad=$(cat "$logs/$round".*.results | grep -c '^FAILED')
  passed=$((passed + good)) failed=$((failed + bad))
  echo "round $round: $good passed, $bad failed, $((SECONDS - begun))s, load $(cut -d' ' -f1 /proc/loadavg)" | tee -a "$logs/rounds"
  cat "$logs/$round".*.results | grep '^FAILED'
done
printf '\n%s passed, %s failed\n' "$passed" "$failed"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
