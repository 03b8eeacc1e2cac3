#!/bin/bash
# run.sh WALE - first figures: base backup and restore of a 2 GB cluster, and 64 WAL segments through the
# archiver, against pg_basebackup and pgBackRest from Debian, same codec, in one run on one machine.
#
#   BENCH_ROUNDS (3)   rounds; the table holds the medians
#   BENCH_MIB (2048)   size of the cluster
#   BENCH_DIR          where (default a new folder below /var/tmp), removed at the end
#
# wall: seconds. cpu: busy seconds of the whole machine meanwhile (server, peer and children alike).
# peak: largest resident set of one process of the peer, MiB. stored: MiB in the archive.
set -euo pipefail
wale=${1:?usage: run.sh PATH-OF-WALE}
rounds=${BENCH_ROUNDS:-3}
mib=${BENCH_MIB:-2048}
home=${BENCH_DIR:-$(mktemp -d /var/tmp/wale-bench-XXXXXX)}
bin=$(dirname "$(ls -d /usr/lib/postgresql/*/bin/pg_basebackup | sort -V | tail -1)")
export PGHOST=$home/run PGPORT=54329 PGUSER=postgres
data=$home/data results=$home/results
export PATH=$bin:$PATH

[ "$(id -u)" = 0 ] || { echo "run.sh: run as root (it switches to postgres)" >&2; exit 1; }
mkdir -p "$home"/{run,bin,archive,basebackup,pgbackrest,log,spool}
cp "$wale" "$home/bin/wale"; ln -sf wale "$home/bin/wal-e"
chmod 755 "$home"; chown -R postgres: "$home"
as() { (cd / && runuser -u postgres -- "$@"); }
sql() { psql -XqAt -v ON_ERROR_STOP=1 -d "${2:-postgres}" -c "$1"; }
busy() { awk '/^cpu /{print ($2+$3+$4+$7+$8)/100}' /proc/stat; }
sidecar_pid=
cleanup() {
  [ -z "$sidecar_pid" ] || kill -9 "$sidecar_pid" 2>/dev/null || true
  as pg_ctl -D "$data" -m immediate stop >/dev/null 2>&1 || true
  [ -n "${BENCH_DIR:-}" ] || rm -rf "$home"
}
trap cleanup EXIT

# measure WORK PEER STORED-FOLDER COMMAND...
measure() {
  local work=$1 peer=$2 folder=$3 c0 c1 t0 t1 rss
  shift 3
  sync; c0=$(busy); t0=$(date +%s%N)
  command time -f '%M' -o "$home/rss" "$@" >"$home/log/$work-$peer.log" 2>&1 || {
    tail -5 "$home/log/$work-$peer.log"; echo "run.sh: $work with $peer failed" >&2; exit 1; }
  t1=$(date +%s%N); c1=$(busy)
  rss=$(tail -1 "$home/rss")
  printf '%s %s %s %s %s %s\n' "$work" "$peer" \
    "$(awk -v a="$t0" -v b="$t1" 'BEGIN{print (b-a)/1e9}')" \
    "$(awk -v a="$c0" -v b="$c1" 'BEGIN{print b-a}')" \
    "$((rss / 1024))" "$(du -sm "$folder" | cut -f1)" | tee -a "$results"
}

echo "== a cluster of $mib MiB (PostgreSQL $(postgres --version | grep -o '[0-9.]*' | head -1)), $rounds rounds, $(nproc) cores"
as initdb -D "$data" -U postgres -A trust --data-checksums -N >/dev/null
cat >>"$data/postgresql.conf" <<CONF
listen_addresses = ''
port = $PGPORT
unix_socket_directories = '$home/run'
wal_level = replica
archive_mode = on
archive_command = '/bin/false'
max_wal_size = 8GB
min_wal_size = 4GB
checkpoint_timeout = 1h
shared_buffers = 512MB
autovacuum = off
fsync = off
CONF
as pg_ctl -D "$data" -l "$home/log/postgres.log" -w start >/dev/null
# Half like business rows, half like measurements in chunks: 40 tables of about 1/80 of the size each.
as pgbench -i -q -s $((mib / 2 / 15)) postgres >/dev/null 2>&1
sql "create unlogged table seed as select g, now() + g * interval '1 s' as time, g % 1000 as device, random() as a, random() as b from generate_series(1, $((mib * 1024 / 80 * 15))) g" >/dev/null
for n in $(seq 40); do sql "create table chunk_$n as select * from seed" >/dev/null; done
sql "drop table seed; " >/dev/null
sql "vacuum freeze" >/dev/null; sql checkpoint >/dev/null
echo "== $(du -sm "$data/base" | cut -f1) MiB in $(find "$data" -type f | wc -l) files"

cat >"$home/pgbackrest.conf" <<CONF
[global]
repo1-path=$home/pgbackrest
log-path=$home/log
lock-path=$home/run
spool-path=$home/spool
log-level-console=error
log-level-file=off
compress-type=zst
compress-level=1
process-max=2
start-fast=y
archive-check=n
archive-copy=n
[main]
pg1-path=$data
pg1-socket-path=$home/run
pg1-port=$PGPORT
pg1-user=postgres
CONF
br() { as pgbackrest --config="$home/pgbackrest.conf" --stanza=main "$@"; }
br stanza-create >/dev/null
export WALE_FILE_PREFIX=file://$home/archive PGDATA=$data WALE_LISTEN_PORT=54328 WALE_LISTEN_ADDRESS=127.0.0.1 CRON_TIMING=off WALE_LOG=warn
start_sidecar() {
  setpriv --reuid=postgres --regid=postgres --init-groups "$home/bin/wale" serve >>"$home/log/sidecar.log" 2>&1 &
  sidecar_pid=$!
  until wget -q -O /dev/null "http://127.0.0.1:$WALE_LISTEN_PORT/ping"; do sleep 0.05; done
}
stop_sidecar() { kill -9 "$sidecar_pid"; wait "$sidecar_pid" 2>/dev/null || true; sidecar_pid=; }

archive_with() { # COMMAND: the archiver runs it from now on
  sql "alter system set archive_command = '$1'" >/dev/null
  sql "select pg_reload_conf()" >/dev/null
}
none_waits() { [ -z "$(find "$data/pg_wal/archive_status" -name '*.ready' -print -quit)" ]; }
wal_round() { # PEER COMMAND FOLDER: 64 segments through PostgreSQL's own archiver
  local peer=$1 command=$2 folder=$3 n c0 c1 t0 t1 before after rss=0
  archive_with '/bin/false'
  sql "drop table if exists filler" >/dev/null 2>&1
  sql "create table filler (v text)" >/dev/null
  for n in $(seq 64); do
    sql "insert into filler select md5(g::text || random()) from generate_series(1, 90000) g; truncate filler" >/dev/null
    sql "select pg_switch_wal()" >/dev/null
  done
  before=$(du -sm "$folder" | cut -f1)
  n=$(find "$data/pg_wal/archive_status" -name '*.ready' | wc -l)
  echo "   $n segments wait"
  sync; c0=$(busy); t0=$(date +%s%N)
  archive_with "$command"
  sql "create table wake (); drop table wake; select pg_switch_wal()" >/dev/null
  until none_waits; do sleep 0.02; done
  t1=$(date +%s%N); c1=$(busy); after=$(du -sm "$folder" | cut -f1)
  [ "$peer" != wale ] || rss=$(awk '/VmHWM/{print int($2/1024)}' "/proc/$sidecar_pid/status")
  printf 'push_per_segment %s %s %s %s %s\n' "$peer" \
    "$(awk -v a="$t0" -v b="$t1" -v n="$n" 'BEGIN{print (b-a)/1e9/n}')" \
    "$(awk -v a="$c0" -v b="$c1" -v n="$n" 'BEGIN{print (b-a)/n}')" "$rss" "$((after - before))" | tee -a "$results"
}

empty() { rm -rf "$1"; as mkdir -m 0700 "$1"; }
for round in $(seq "$rounds"); do
  echo "== round $round: work, peer, wall s, cpu s, peak MiB, stored MiB"
  start_sidecar
  archive_with "wget -q http://127.0.0.1:$WALE_LISTEN_PORT/wal-push/%f -O -"
  until none_waits; do sleep 0.1; done
  rm -rf "$home/archive/basebackups_005"
  measure backup wale "$home/archive/basebackups_005" runuser -u postgres -- "$home/bin/wale" backup-push "$data"
  empty "$home/restore"
  measure restore wale "$home/restore" runuser -u postgres -- "$home/bin/wale" backup-fetch "$home/restore" LATEST
  rm -rf "$home/restore"
  stop_sidecar

  # pg_basebackup waits for the archiver at its end, and nobody is there now.
  archive_with '/bin/true'
  rm -rf "$home/basebackup"
  measure backup pg_basebackup "$home/basebackup" runuser -u postgres -- "$bin/pg_basebackup" -D "$home/basebackup" -Ft --compress=client-zstd:level=1 -X none -c fast --no-sync
  empty "$home/restore"
  measure restore pg_basebackup "$home/restore" runuser -u postgres -- sh -c "zstd -dcq '$home/basebackup/base.tar.zst' | tar -x -C '$home/restore'; sync -f '$home/restore'"
  rm -rf "$home/restore"

  archive_with "pgbackrest --config=$home/pgbackrest.conf --stanza=main archive-push %p"
  sql "select pg_switch_wal()" >/dev/null
  until none_waits; do sleep 0.1; done
  rm -rf "$home"/pgbackrest/backup/main/2*
  measure backup pgbackrest "$home/pgbackrest/backup" runuser -u postgres -- pgbackrest --config="$home/pgbackrest.conf" --stanza=main --type=full backup
  empty "$home/restore"
  measure restore pgbackrest "$home/restore" runuser -u postgres -- pgbackrest --config="$home/pgbackrest.conf" --stanza=main --pg1-path="$home/restore" restore
  rm -rf "$home/restore"

  start_sidecar
  wal_round wale "wget -q http://127.0.0.1:$WALE_LISTEN_PORT/wal-push/%f -O -" "$home/archive"
  stop_sidecar
  wal_round pgbackrest "pgbackrest --config=$home/pgbackrest.conf --stanza=main archive-push %p" "$home/pgbackrest/archive"
done

echo
echo "== medians of $rounds rounds"
python3 - "$results" <<'P'
import statistics, sys
rows = {}
for line in open(sys.argv[1]):
    work, peer, *values = line.split()
    rows.setdefault((work, peer), []).append([float(v) for v in values])
medians = {key: [statistics.median(column) for column in zip(*runs)] for key, runs in rows.items()}
print("| work | peer | wall s | cpu s | peak MiB | stored MiB | wall, wale = 1 |")
print("|---|---|---|---|---|---|---|")
for (work, peer), (wall, cpu, peak, stored) in medians.items():
    ratio = wall / medians[(work, "wale")][0]
    peak = f"{peak:.0f}" if peak else "not taken"
    print(f"| {work} | {peer} | {wall:.3f} | {cpu:.3f} | {peak} | {stored:.0f} | {ratio:.2f} |")
P
