#!/bin/bash
# binaries.sh NAME=BINARY... - builds of wale against each other: a base backup of a stopped server, its restore, and 16
# segments of WAL, each pushed by a process of its own. For decisions about the compiler, and before and after a change.
#
#   BENCH_ROUNDS (7)   rounds; the builds take turns in each, and the table holds the medians
#   BENCH_MIB (1024)   size of the cluster
#
# cpu: seconds of processor time of wale itself. wall: seconds.
set -euo pipefail
[ $# -ge 1 ] || { echo "usage: binaries.sh NAME=BINARY..." >&2; exit 1; }
[ "$(id -u)" = 0 ] || { echo "binaries.sh: run as root (it switches to postgres)" >&2; exit 1; }
rounds=${BENCH_ROUNDS:-7} mib=${BENCH_MIB:-1024}
bin=$(dirname "$(ls -d /usr/lib/postgresql/*/bin/pg_ctl | sort -V | tail -1)")
home=$(mktemp -d /var/tmp/wale-binaries-XXXXXX)
data=$home/data
trap 'rm -rf "$home"' EXIT
mkdir -p "$home"/{bin,run,archive}
for build in "$@"; do cp "${build#*=}" "$home/bin/${build%%=*}"; done
chmod 755 "$home"
chown -R postgres: "$home"
as() { (cd / && runuser -u postgres -- "$@"); }

as "$bin/initdb" -D "$data" -U postgres -A trust --data-checksums -N >/dev/null
as tee -a "$data/postgresql.conf" >/dev/null <<CONF
listen_addresses = ''
unix_socket_directories = '$home/run'
archive_mode = on
archive_command = '/bin/false'
fsync = off
max_wal_size = 8GB
CONF
as "$bin/pg_ctl" -D "$data" -l "$home/log" -w start >/dev/null
# Rows that pack about as well as real ones: numbers, and text of which half is random.
as psql -XqAt -h "$home/run" -U postgres -v ON_ERROR_STOP=1 -c "create table t as select n, now() - n * interval '1 s' as at,
  md5(n::text) || repeat('wale', 8) as words from generate_series(1, $mib * 7800) n" -c checkpoint
as "$bin/pg_ctl" -D "$data" -m fast -w stop >/dev/null
mapfile -t segments < <(find "$data/pg_wal" -maxdepth 1 -name '0000*' | sort | head -16)
printf '== %s MiB, %s segments, %s rounds, %s cores\n' "$(du -sm "$data/base" | cut -f1)" "${#segments[@]}" "$rounds" "$(nproc)"

# measure NAME WORK COMMAND...
measure() {
  local name=$1 work=$2
  shift 2
  command time -a -o "$home/times" -f "$work $name %U %S %e" "$@" >"$home/out" 2>&1 || { tail -5 "$home/out" >&2; exit 1; }
}
push_all() { local segment; for segment in "${segments[@]}"; do "$1" wal-push "$segment" || return 1; done; }
export -f push_all
export PGDATA=$data WALE_FILE_PREFIX=$home/archive/x
declare -p segments >"$home/segments"
for _ in $(seq "$rounds"); do
  for build in "$@"; do
    name=${build%%=*} wale=$home/bin/${build%%=*}
    as rm -rf "$home/archive/x" "$home/restored"
    as mkdir "$home/archive/x"
    sync
    measure "$name" backup-push runuser -u postgres -- "$wale" backup-push --while-offline "$data"
    measure "$name" backup-fetch runuser -u postgres -- "$wale" backup-fetch "$home/restored" LATEST
    measure "$name" wal-push runuser -u postgres -- bash -c '. "$1"; push_all "$2"' - "$home/segments" "$wale"
  done
done

median() { sort -n | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}'; }
printf '%-14s %-16s %8s %8s\n' work build cpu wall
for work in backup-push backup-fetch wal-push; do
  for build in "$@"; do
    name=${build%%=*}
    mine=$(grep "^$work $name " "$home/times")
    printf '%-14s %-16s %8s %8s\n' "$work" "$name" "$(awk '{print $3 + $4}' <<<"$mine" | median)" "$(awk '{print $5}' <<<"$mine" | median)"
  done
done
