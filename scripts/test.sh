#!/bin/bash
# test.sh - everything a change must pass: format, lints, tidy, generated documents, all tests.
# Ends with one line: N passed, N failed, N skipped. Every skip is listed with its reason.
#
#   test.sh            what `make test` runs (PostgreSQL 10, 15 and 18, and a newer one where it is installed)
#   test.sh quick      without the integration tests on real servers
#   test.sh soak       random faults only, many of them; SEED says which
#   test.sh matrix     the tests that depend on PostgreSQL's major, on each of WALE_TEST_MAJORS (all), those on stores
#                      that make test leaves out (rclone, s3rver), and nothing else
set -uo pipefail
cd "$(dirname "$0")/.."
mode=${1:-all}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
export WALE_TEST_SKIPS=$out/skips WALE_TEST_PG=${WALE_TEST_PG:-/var/tmp/wale-pg}
# Three at a time for each core: of a second, an integration test computes a quarter and waits for servers and time-outs the rest.
export WALE_TEST_THREADS=${WALE_TEST_THREADS:-$((3 * $(nproc)))}
: >"$WALE_TEST_SKIPS"
: >"$out/failed"
failed_steps=0
step() { # NAME COMMAND...
  local name=$1 start=$SECONDS
  shift
  printf '== %s\n' "$name"
  if "$@" >"$out/step" 2>&1; then
    printf '   ok, %ss\n' "$((SECONDS - start))"
  else
    cat "$out/step"
    printf '   FAILED: %s\n' "$name"
    printf 'step: %s\n' "$name" >>"$out/failed"
    failed_steps=$((failed_steps + 1))
  fi
}

# What uses one core for minutes is begun early, beside tests that wait for servers: begun NAME COMMAND..., and joined NAME later.
begun() {
  local name=$1
  shift
  "$@" >"$out/$name.log" 2>&1 &
  printf '%s' "$!" >"$out/$name.pid"
}
joined() {
  local name=$1
  if wait "$(cat "$out/$name.pid")"; then return 0; fi
  cat "$out/$name.log"
  return 1
}

# One run for each major, so that each has a line of its own. Tests that run on several majors end with on_every_major.
matrix() {
  local major passed failed total_passed=0 total_failed=0 start ended skipped
  cargo test --workspace --test it --locked --no-run || exit 1
  for major in ${WALE_TEST_MAJORS:-$(bash scripts/pg-matrix.sh majors)}; do
    start=$SECONDS
    WALE_TEST_MAJORS=$major cargo test -q --workspace --test it --locked --no-fail-fast -- on_every_major \
      --test-threads="$WALE_TEST_THREADS" >"$out/major" 2>&1
    ended=$?
    passed=$(sed -n 's/^test result:.* \([0-9]*\) passed.*/\1/p' "$out/major")
    failed=$(sed -n 's/^test result:.* \([0-9]*\) failed.*/\1/p' "$out/major")
    # A test program that died has no line of its own.
    if [ "$ended" != 0 ] && [ "${failed:-0}" = 0 ]; then failed=1; fi
    [ "$ended" = 0 ] || sed -n '/^failures:/,$p' "$out/major"
    printf 'PostgreSQL %s: %s passed, %s failed, %ss\n' "$major" "${passed:-0}" "${failed:-0}" "$((SECONDS - start))"
    total_passed=$((total_passed + ${passed:-0}))
    total_failed=$((total_failed + ${failed:-0}))
  done
  start=$SECONDS
  cargo test -q --workspace --test it --locked --no-fail-fast -- matrix_ >"$out/major" 2>&1
  ended=$?
  passed=$(sed -n 's/^test result:.* \([0-9]*\) passed.*/\1/p' "$out/major")
  failed=$(sed -n 's/^test result:.* \([0-9]*\) failed.*/\1/p' "$out/major")
  if [ "$ended" != 0 ] && [ "${failed:-0}" = 0 ]; then failed=1; fi
  [ "$ended" = 0 ] || sed -n '/^failures:/,$p' "$out/major"
  printf 'other stores: %s passed, %s failed, %ss\n' "${passed:-0}" "${failed:-0}" "$((SECONDS - start))"
  total_passed=$((total_passed + ${passed:-0}))
  total_failed=$((total_failed + ${failed:-0}))
  skipped=$(wc -l <"$WALE_TEST_SKIPS")
  sort "$WALE_TEST_SKIPS"
  printf '\n%s passed, %s failed, %s skipped\n' "$total_passed" "$total_failed" "$skipped"
  [ "$total_failed" = 0 ] && [ "$total_passed" -gt 0 ]
}

# The random tests, many times over. One number decides what is simulated, killed and cut off.
soak() {
  local seed=${SEED:-$RANDOM$RANDOM} sim it passed failed skipped
  export WALE_SIM_FIRST=$seed WALE_CAMPAIGN_SEED=$seed WALE_TEST_SEED=$seed
  export WALE_SIM_RUNS=${WALE_SIM_RUNS:-2000} WALE_CAMPAIGN_KILLS=${WALE_CAMPAIGN_KILLS:-500}
  export WALE_TEST_POWER_LOSSES=${WALE_TEST_POWER_LOSSES:-60} WALE_TEST_KILLS=${WALE_TEST_KILLS:-100}
  export WALE_TEST_HISTORIES=${WALE_TEST_HISTORIES:-10}
  printf '== simulations, kills and losses of power, SEED=%s\n' "$seed"
  cargo test --workspace --test sim --locked --no-fail-fast -- --nocapture 2>&1 | tee "$out/soak"
  sim=${PIPESTATUS[0]}
  cargo test --workspace --test it --locked --no-fail-fast -- campaign fault_11 fault_02 --nocapture --test-threads=2 \
    2>&1 | tee -a "$out/soak"
  it=${PIPESTATUS[0]}
  passed=$(sed -n 's/^test result:.* \([0-9]*\) passed.*/\1/p' "$out/soak" | awk '{n += $1} END {print n + 0}')
  failed=$(sed -n 's/^test result:.* \([0-9]*\) failed.*/\1/p' "$out/soak" | awk '{n += $1} END {print n + 0}')
  if [ "$failed" = 0 ] && [ "$sim$it" != 00 ]; then failed=1; fi
  skipped=$(wc -l <"$WALE_TEST_SKIPS")
  sort "$WALE_TEST_SKIPS"
  printf '\nSEED=%s: %s passed, %s failed, %s skipped\n' "$seed" "$passed" "$failed" "$skipped"
  [ "$failed" = 0 ] && [ "$passed" -gt 0 ]
}

if [ "$mode" = soak ]; then
  soak
  exit
fi
if [ "$mode" = matrix ]; then
  matrix
  exit
fi

step "format" cargo fmt --all --check
step "lints" cargo clippy --workspace --all-targets --locked -- -D warnings
step "the bench's table and picture" python3 -B -m unittest discover -q -s bench
step "tidy" cargo run -q --locked -p xtask -- tidy
# The fuzz targets include modules of the rooms by path, and nothing else tells when one has moved. They are compiled here, on
# what the lints have compiled already, so that it is seen early; the path spares libFuzzer's own C++.
step "fuzz targets compile" env CUSTOM_LIBFUZZER_PATH=not/linked.a \
  cargo check -q --manifest-path fuzz/Cargo.toml --bins --locked --target-dir "${CARGO_TARGET_DIR:-target}"

deny=${WALE_TEST_TOOLS:-/var/tmp/wale-tools}/bin/cargo-deny
if [ -x "$deny" ]; then
  step "licences, sources and bans" "$deny" --locked --offline check licenses sources bans
  # The database of advisories is a repository of its own.
  if "$deny" fetch db >/dev/null 2>&1; then
    step "advisories" "$deny" --locked check --disable-fetch advisories
  else
    echo "advisories: the database cannot be reached from here" >>"$WALE_TEST_SKIPS"
  fi
else
  echo "licences, sources and bans: no cargo-deny (scripts/setup.sh test installs it)" >>"$WALE_TEST_SKIPS"
fi

# The test programs, not the compiler, are told that they may say how long each test took.
host=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
export "CARGO_TARGET_${host}_RUNNER=env RUSTC_BOOTSTRAP=1"
times=(-Z unstable-options --report-time)

# Everything is built in one way: with other packages chosen, Cargo gives the dependencies other features, and builds them all
# once more.
own=(--workspace --locked --no-fail-fast)
kinds=(--lib --bins --examples --test sim --test counts --test instructions --test words)
if [ "$mode" = all ]; then built=(); else built=("${kinds[@]}"); fi
step "the tests compile" cargo test "${own[@]}" "${built[@]}" --no-run
step "generated documents are current" cargo run -q --locked -p xtask -- docs --check "${CARGO_TARGET_DIR:-target}/debug/wale"

# What ships, and the fuzz targets, one after the other: minutes, of which the last steps are the linker's, on one core. The integration
# tests wait for servers most of their time, so it is built beside them, and what needs it comes last.
background() {
  local status=0
  nice -n 19 make --no-print-directory build || status=$?
  [ "${WALE_TEST_FUZZ_SECONDS:-3}" = 0 ] || nice -n 19 bash scripts/fuzz.sh build || true
  return "$status"
}
[ "$mode" != all ] || begun static background
printf '== unit tests\n'
INSTA_UPDATE=no cargo test "${own[@]}" "${kinds[@]}" -- "${times[@]}" 2>&1 | tee "$out/unit" | grep -E '^(test result|test .* FAILED|error|warning: unused)|panicked'
unit=${PIPESTATUS[0]}
# The examples in the documentation run inside rustdoc, which has no such option.
cargo test "${own[@]}" --doc 2>&1 | tee "$out/doc" | grep -E '^(test result|test .* FAILED|error)|panicked'
doc=${PIPESTATUS[0]}
it=0
: >"$out/it"
if [ "$mode" = all ]; then
  printf '== integration tests on real servers\n'
  cargo test "${own[@]}" --test it -- --skip matrix_ --skip image:: --skip memory_bound:: \
    --test-threads="$WALE_TEST_THREADS" "${times[@]}" 2>&1 | tee "$out/it"
  it=${PIPESTATUS[0]}
  step "the static binary for the image" joined static
fi
fuzz=0
: >"$out/fuzz"
if [ "$mode" = all ] && [ "${WALE_TEST_FUZZ_SECONDS:-3}" = 0 ]; then
  echo "fuzz targets: WALE_TEST_FUZZ_SECONDS=0" >>"$WALE_TEST_SKIPS"
elif [ "$mode" = all ]; then
  # What failed to build is told by the run, which builds what is missing.
  begun fuzz bash scripts/fuzz.sh "${WALE_TEST_FUZZ_SECONDS:-3}"
fi
if [ "$mode" = all ]; then
  export WALE_STATIC=$PWD/target/x86_64-unknown-linux-gnu/release/wale
  printf '== integration tests of the static binary\n'
  cargo test "${own[@]}" --test it -- image:: memory_bound:: --test-threads="$WALE_TEST_THREADS" "${times[@]}" 2>&1 | tee -a "$out/it"
  it=$((it + PIPESTATUS[0]))
fi
if [ -e "$out/fuzz.pid" ]; then
  printf '== fuzz targets, %s seconds each\n' "${WALE_TEST_FUZZ_SECONDS:-3}"
  joined fuzz || fuzz=1
  cat "$out/fuzz.log" >"$out/fuzz"
  [ "$fuzz" != 0 ] || cat "$out/fuzz"
fi
for part in unit doc; do
  [ "${!part}" = 0 ] || sed -n '/^failures:/,$p' "$out/$part"
done

sum() { cat "$out/unit" "$out/doc" "$out/it" "$out/fuzz" | sed -n "s/^test result:.* \([0-9]*\) $1.*/\1/p" | awk '{n += $1} END {print n + 0}'; }
passed=$(sum passed)
failed=$(($(sum failed) + failed_steps))
# A test program that did not compile or died has no line of its own.
if [ "$failed" = 0 ] && [ "$unit$doc$it$fuzz" != 0000 ]; then failed=1; fi
skipped=$(($(sum ignored) + $(wc -l <"$WALE_TEST_SKIPS")))
# Where only the end of the output is kept, it still says what failed.
for part in unit doc it fuzz; do
  if [ "${!part}" != 0 ]; then
    printf '%s tests: %s\n' "$part" "$(sed -nE 's/^test (.*) \.\.\. FAILED.*/\1/p' "$out/$part" | paste -sd ' ')" >>"$out/failed"
    grep -E '^error' "$out/$part" | head -5 >>"$out/failed"
    grep -A6 -E "^thread '.*panicked" "$out/$part" | cut -c1-400 | head -40 >>"$out/failed"
  fi
done
if [ -s "$WALE_TEST_SKIPS" ]; then
  printf '== skipped\n'
  sort "$WALE_TEST_SKIPS"
fi
printf '== the five slowest tests\n'
cat "$out/unit" "$out/it" | sed -nE 's/^test (.*) \.\.\. .*<([0-9.]+)s>$/\2 s  \1/p' | sort -rn | head -5
printf '== it took %s minutes\n' "$(((SECONDS + 59) / 60))"
if [ "$failed" != 0 ]; then
  printf '== failed\n'
  cat "$out/failed"
fi
printf '\n%s passed, %s failed, %s skipped\n' "$passed" "$failed" "$skipped"
[ "$failed" = 0 ]
