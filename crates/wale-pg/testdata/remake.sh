#!/bin/bash
# Remakes the golden files of this folder from real servers.
#
#   remake.sh SERVERS OUT
#
# SERVERS holds <major>/bin/{initdb,pg_ctl,postgres} for 10 to 18; psql must be on the PATH. Run it as an ordinary user
# that may write OUT. The tests name the values set here and the numbers printed at the end; change both together.
set -euo pipefail
servers=$1
out=$2
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$out/control_file" "$out/wal_header" "$out/page"

for major in 10 11 12 13 14 15 16 17 18; do
    bin=$servers/$major/bin
    data=$scratch/$major
    segment_size=()
    case $major in # not 16 MiB, where initdb can choose
    11) segment_size=(--wal-segsize=1) ;;
    13) segment_size=(--wal-segsize=64) ;;
    esac
    "$bin/initdb" -D "$data" -k -U postgres -A trust --no-locale -E UTF8 ${segment_size[@]+"${segment_size[@]}"} >/dev/null
    cat >>"$data/postgresql.conf" <<CONF
listen_addresses = ''
unix_socket_directories = '$scratch'
max_connections = 123
max_worker_processes = 17
max_wal_senders = 13
max_prepared_transactions = 29
max_locks_per_transaction = 71
wal_level = logical
CONF
    "$bin/pg_ctl" -D "$data" -w -l "$data.log" start >/dev/null
    query() { psql -X -h "$scratch" -U postgres -qAt -c "$1"; }
    query "create table t as select i, md5(i::text) as m from generate_series(1, 20000) i"
    query "create index t_i on t (i)"
    query "vacuum t"
    query "checkpoint"
    head -c 512 "$data/global/pg_control" >"$out/control_file/$major"
    segment=$(basename "$(ls "$data"/pg_wal/0000000100000000000000?? | head -1)")
    rm -f "$out/wal_header/$major-"*
    head -c 40 "$data/pg_wal/$segment" >"$out/wal_header/$major-$segment"
    echo "$major: system identifier $(query "select system_identifier from pg_control_system()")," \
        "checkpoint and redo $(query "select checkpoint_lsn, redo_lsn from pg_control_checkpoint()")," \
        "written $(query "select extract(epoch from pg_control_last_modified)::bigint from pg_control_system()")"
    if [ "$major" = 15 ]; then
        query "create extension pageinspect"
        relation=$data/$(query "select pg_relation_filepath('t')")
        index=$data/$(query "select pg_relation_filepath('t_i')")
        dd if="$relation" bs=8192 skip=3 count=1 of="$out/page/heap-3" status=none
        dd if="$index" bs=8192 skip=1 count=1 of="$out/page/index-1" status=none
        dd if="${relation}_fsm" bs=8192 skip=2 count=1 of="$out/page/fsm-2" status=none
        for block in 3 131075; do
            echo "  heap-3 as block $block: $(query "select page_checksum(get_raw_page('t', 3), $block) & 65535")"
        done
        echo "  heap-3 position: $(query "select lsn from page_header(get_raw_page('t', 3))")"
        # The same cluster as a standby that was never told more WAL: its control file has a minimum recovery point.
        "$bin/pg_ctl" -D "$data" -w -m fast stop >/dev/null
        touch "$data/standby.signal"
        echo "restore_command = 'false'" >>"$data/postgresql.conf"
        "$bin/pg_ctl" -D "$data" -w -l "$data.log" start >/dev/null
        head -c 512 "$data/global/pg_control" >"$out/control_file/$major-standby"
        echo "$major-standby: minimum recovery point" \
            "$(query "select min_recovery_end_lsn, min_recovery_end_timeline from pg_control_recovery()")"
    fi
    "$bin/pg_ctl" -D "$data" -w -m fast stop >/dev/null
done
