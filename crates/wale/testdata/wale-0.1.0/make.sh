#!/bin/bash
# make.sh WALE PGBIN OUT.tar.zst - makes a golden archive of this version of wale against a small cluster of PostgreSQL.
# As root (the server and wale run as postgres). What it prints goes into README.md and tests/it/wale_golden.rs.
set -euo pipefail
wale=$(realpath "$1") pgbin=$2 out=$(realpath "$3")
top=$(mktemp -d /var/tmp/wale-golden-XXXXXX)
trap 'as_pg "$pgbin/pg_ctl" -D "$top/data" -m immediate stop >/dev/null 2>&1 || true; rm -rf "$top"' EXIT
as_pg() { (cd / && runuser -u postgres -- env "${settings[@]}" "$@"); }
mkdir -p "$top"/{archive,run,ts1}
cp "$wale" "$top/wale"
chmod 755 "$top"
chown -R postgres:postgres "$top"
settings=(WALE_FILE_PREFIX="file://localhost$top/archive" PGDATA="$top/data" PGHOST="$top/run" PGPORT=5432 PGUSER=postgres)
sql() { as_pg psql -XqAt -v ON_ERROR_STOP=1 -c "$1"; }
rows() { sql "insert into t select g, md5(g::text) from generate_series($1, $2) g"; }
value() { sql "select count(*), sum(id), md5(string_agg(id||':'||v, ',' order by id)) from $1"; }
archived() { # switches and waits until the segment is there
  local name
  name=$(sql "select pg_walfile_name(pg_switch_wal())")
  until ls "$top/archive/wal_005/$name".* >/dev/null 2>&1; do sleep 0.1; done
  echo "$name"
}

as_pg "$pgbin/initdb" -D "$top/data" -U postgres -A trust -k --wal-segsize=1 -E UTF8 --no-locale >/dev/null
cat >>"$top/data/postgresql.conf" <<CONF
listen_addresses = ''
unix_socket_directories = '$top/run'
archive_mode = on
archive_command = '$top/wale wal-push %p'
restore_command = '$top/wale wal-fetch %f %p'
wal_keep_size = 0
CONF
as_pg "$pgbin/pg_ctl" -D "$top/data" -l "$top/log" -w start >/dev/null
sql "create tablespace ts1 location '$top/ts1'"
sql "create table t (id int primary key, v text); create table u (id int, v text) tablespace ts1"
rows 1 1000
sql "insert into u select g, md5(g::text) from generate_series(1, 500) g"
as_pg "$top/wale" backup-push "$top/data" 2>/dev/null
echo "first backup at 1000 rows, u: $(value u)"
rows 1001 2000
sql "select pg_create_restore_point('rp_two_thousand')" >/dev/null
echo "t at rp_two_thousand: $(value t)"
rows 2001 3000
archived
# Timeline 2: the server becomes a standby of its own archive and is promoted.
as_pg "$pgbin/pg_ctl" -D "$top/data" -m fast -w stop >/dev/null
as_pg touch "$top/data/standby.signal"
as_pg "$pgbin/pg_ctl" -D "$top/data" -l "$top/log" -w start >/dev/null
as_pg "$pgbin/pg_ctl" -D "$top/data" -w promote >/dev/null
until ls "$top/archive/wal_005/00000002.history".* >/dev/null 2>&1; do sleep 0.1; done
rows 3001 3100
sql "update u set v = 'changed' where id <= 100"
as_pg "$top/wale" backup-push "$top/data" 2>/dev/null
rows 3101 3500
echo "last segment: $(archived)"
echo "t at the end: $(value t)"
echo "u at the end: $(value u)"
as_pg "$top/wale" backup-list --json 2>/dev/null
as_pg "$pgbin/pg_ctl" -D "$top/data" -m immediate stop >/dev/null
tar -C "$top" -cf - archive | zstd -q -19 --long=27 -o "$out" -f
"$top/wale" version
sha256sum "$out"
