#!/bin/bash
# demo.sh WALE - the main job from nothing, told as a story: a real PostgreSQL server with the sidecar
# beside it, archiving, a base backup, a disaster, a restore to a point in time, the rows compared.
# KEEP=1 leaves everything running. WALE_DEMO_DIR is where (default: a new folder below /var/tmp).
set -euo pipefail

wale=${1:?usage: demo.sh PATH-OF-WALE}
pgbin=$(dirname "$(ls -d /usr/lib/postgresql/*/bin/postgres | sort -V | tail -1)")
home=${WALE_DEMO_DIR:-$(mktemp -d /var/tmp/wale-demo-XXXXXX)}
began=$SECONDS

bold=; dim=; green=; off=
if [ -t 1 ]; then bold=$'\e[1m'; dim=$'\e[2m'; green=$'\e[32m'; off=$'\e[0m'; fi
chapter() { printf '\n%s%s%s\n' "$bold" "$*" "$off"; }
say() { printf '  %s\n' "$*"; }
shown() { printf '  %s$ %s%s\n' "$dim" "$*" "$off"; }
now() { date +%s%N; }
took() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.1f s", (b - a) / 1e9 }'; }
size() { du -sh "$1" | cut -f1; }
port() { python3 - 2>/dev/null <<'P' || shuf -i 20000-60000 -n 1
import socket
s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])
P
}
# PostgreSQL refuses to run as root.
as_pg() { if [ "$(id -u)" = 0 ]; then (cd / && runuser -u postgres -- "$@"); else "$@"; fi; }
wait_for() { # SECONDS WHAT COMMAND...
  local limit=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    if [ $SECONDS -ge $limit ]; then
      printf '\nThe demo gave up waiting for %s. Logs: %s/*.log\n' "$what" "$home" >&2
      tail -n 20 "$home"/sidecar.log "$home"/postgres.log >&2 || true
      exit 1
    fi
    sleep 0.1
  done
}

mkdir -p "$home"/{bin,archive,run}
mkdir -p -m 0700 "$home/data"
cp "$wale" "$home/bin/wale"
ln -sf wale "$home/bin/wal-e"
chmod 755 "$home" "$home/bin"
if [ "$(id -u)" = 0 ]; then chown -R postgres:postgres "$home"; fi
pgport=$(port)
walport=$(port)
export PGDATA=$home/data WALE_FILE_PREFIX=file://$home/archive WALE_LISTEN_PORT=$walport
export WALE_SHUTDOWN_GRACE=3s WALE_LISTEN_ADDRESS=127.0.0.1 PGHOST=$home/run PGPORT=$pgport PGUSER=postgres CRON_TIMING=off WALE_LOG=info
lock=$PGDATA/wale_init_lockfile
sidecar_pid=

start_sidecar() { # VARIABLE=VALUE...
  if [ "$(id -u)" = 0 ]; then
    env "$@" setpriv --reuid=postgres --regid=postgres --init-groups "$home/bin/wale" serve >>"$home/sidecar.log" 2>&1 &
  else
    env "$@" "$home/bin/wale" serve >>"$home/sidecar.log" 2>&1 &
  fi
  sidecar_pid=$!
}
stop_sidecar() { [ -z "$sidecar_pid" ] || { kill "$sidecar_pid" 2>/dev/null; wait "$sidecar_pid" 2>/dev/null || true; sidecar_pid=; }; }
# What the database container's entry point does: lock, wait for the sidecar, initdb if there is nothing.
start_database() {
  wait_for 60 "the sidecar to remove the lock file" test ! -e "$lock"
  if [ ! -s "$PGDATA/PG_VERSION" ]; then
    as_pg "$pgbin/initdb" -D "$PGDATA" -U postgres -A trust --data-checksums >/dev/null
    as_pg tee -a "$PGDATA/postgresql.conf" >/dev/null <<CONF
listen_addresses = ''
port = $pgport
unix_socket_directories = '$home/run'
wal_level = replica
archive_mode = on
archive_command = 'wget -q --tries=1 --timeout=120 -O - http://localhost:$walport/wal-push/%f'
CONF
  fi
  as_pg "$pgbin/pg_ctl" -D "$PGDATA" -l "$home/postgres.log" -W start >/dev/null
  wait_for 60 "PostgreSQL to answer" psql -XAtc 'select 1'
}
sql() { psql -XqAt -v ON_ERROR_STOP=1 -c "$1"; }
archived() { [ -z "$(find "$PGDATA/pg_wal/archive_status" -name '*.ready' -print -quit)" ]; }
fingerprint() { sql "select count(*) || ' rows, checksum ' || sum(hashtextextended(m::text, 0)) from measurements m"; }
kill_database() {
  local pid children
  pid=$(head -1 "$PGDATA/postmaster.pid" 2>/dev/null) || return 0
  children=$(cat /proc/"$pid"/task/"$pid"/children 2>/dev/null || true)
  kill -9 "$pid" $children 2>/dev/null || true
  while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
}
cleanup() {
  if [ "${KEEP:-}" = 1 ] && [ -n "${told:-}" ]; then disown -a; return; fi
  kill_database
  stop_sidecar
  [ -n "${told:-}" ] && [ -z "${WALE_DEMO_DIR:-}" ] && rm -rf "$home"
  return 0
}
trap cleanup EXIT

chapter "1. A database and its sidecar"
say "PostgreSQL $("$pgbin/postgres" --version | grep -o '[0-9.]*' | head -1) and $("$home/bin/wale" version | head -1) share $PGDATA."
say "The database creates a lock file and waits; the sidecar listens first and only then removes it."
as_pg touch "$lock"
t=$(now)
start_sidecar START_MODE=CONTINOUS_BACKUP
start_database
say "Sidecar listening, lock gone, cluster made and started: $(took "$t")."

chapter "2. Time series, archived as they come"
t=$(now)
sql "create table measurements (time timestamptz not null, device int not null, value double precision) partition by range (time)" >/dev/null
for m in 1 2 3 4 5 6; do
  sql "create table measurements_2026_0$m partition of measurements for values from ('2026-0$m-01') to ('2026-0$((m + 1))-01')" >/dev/null
done
load() { sql "insert into measurements select '2026-01-01'::timestamptz + (g % 180) * interval '1 day' + g * interval '1 ms', g % 1000, sin(g) from generate_series($1, $2) g" >/dev/null; }
load 1 600000
say "600,000 measurements in 6 partitions: $(took "$t"). Every full WAL segment went to the archive by"
shown "wget http://localhost:$walport/wal-push/%f -O -"

chapter "3. A base backup"
t=$(now)
shown "wal-e backup-push \$PGDATA"
as_pg "$home/bin/wal-e" --terse backup-push "$PGDATA" 2>>"$home/backup.log"
say "$(size "$PGDATA") of data directory, $(size "$home/archive") of archive: $(took "$t")."
shown "wal-e backup-list"
"$home/bin/wal-e" backup-list 2>/dev/null | tr -d '\r' | cut -f1-2 | sed 's/^/  /'

chapter "4. Life goes on"
load 600001 900000
noted_rows=$(fingerprint)
noted_time=$(sql "select clock_timestamp()")
say "300,000 more rows. It is $noted_time, and the table holds"
say "${bold}$noted_rows$off"

chapter "5. The disaster"
sleep 1
shown "drop table measurements"
sql "drop table measurements" >/dev/null
sql "select pg_switch_wal()" >/dev/null
wait_for 60 "the last segments to be archived" archived
kill_database
stop_sidecar
rm -rf "$PGDATA"
say "Somebody dropped the table. Then the server was killed with -9 and the data directory deleted."
say "What is left: the archive, $(size "$home/archive") in $(find "$home/archive" -type f | wc -l) objects."

chapter "6. Restore to $noted_time"
as_pg mkdir -m 0700 "$PGDATA"
as_pg touch "$lock"
t=$(now)
addition="recovery_target_time = '$noted_time'
recovery_target_action = 'promote'"
shown "START_MODE=RESTORE RECOVERY_ADDITION=\"recovery_target_time = '$noted_time'\" wale serve"
start_sidecar START_MODE=RESTORE RECOVERY_ADDITION="$addition"
wait_for 60 "the sidecar to restore the base backup" test ! -e "$lock"
say "Base backup restored, every file checked against the manifest: $(took "$t")."
t=$(now)
start_database
wait_for 60 "the end of recovery" sh -c 'test "$(psql -XAtc "select pg_is_in_recovery()")" = f'
say "PostgreSQL replayed the WAL from the archive and promoted itself: $(took "$t")."

chapter "7. The rows compared"
found_rows=$(fingerprint)
say "noted before the disaster   $noted_rows"
say "found after the restore     $found_rows"
if [ "$noted_rows" != "$found_rows" ]; then
  say "THEY DIFFER. This must never happen: please report it, with $home."
  told=
  exit 1
fi
say "${green}Identical.$off The whole story took $((SECONDS - began)) s."
told=1

chapter "Look around"
if [ "${KEEP:-}" = 1 ]; then
  say "Everything is still running. As ${USER:-root}:"
  shown "psql -h $home/run -p $pgport -U postgres"
  shown "curl localhost:$walport/status"
  shown "curl localhost:$walport/metrics"
  shown "WALE_FILE_PREFIX=$WALE_FILE_PREFIX $home/bin/wal-e backup-list --detail"
  shown "ls -R $home/archive"
  shown "less $home/sidecar.log $home/postgres.log"
  say "To end it: kill $(head -1 "$PGDATA/postmaster.pid") $sidecar_pid; rm -rf $home"
else
  say "make demo KEEP=1 leaves the server, the sidecar and the archive for you to look at:"
  shown "psql …; curl localhost:PORT/status; wal-e backup-list --detail; ls -R archive"
  say "README.md shows the same set-up as a Compose file; docs/guide/ tells each step."
fi
