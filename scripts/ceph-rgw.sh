#!/bin/bash
# ceph-rgw.sh - a Ceph RADOS Gateway (S3) on loopback for the tests: one monitor, one OSD on a sparse file, one gateway.
#
#   ceph-rgw.sh DIR RGW_PORT MON_PORT MON_PORT_V1 KEY SECRET
#
# Runs in the foreground: says "ready" once the gateway answers and knows the key, and ends everything it started when
# its standard input ends. A store for tests only: no authentication between its parts, nothing is synced.
# Debian: apt-get install --no-install-recommends radosgw ceph-mon ceph-osd ceph-common (69 MB). It takes some 600 MB of
# memory and 200 MB of disk.
set -eu
[ $# = 6 ] || { echo "usage: ceph-rgw.sh DIR RGW_PORT MON_PORT MON_PORT_V1 KEY SECRET" >&2; exit 64; }
mkdir -p "$1"
dir=$(cd "$1" && pwd) port=$2 mon=$3 mon_v1=$4 key=$5 secret=$6
pids=()
finish() {
  [ ${#pids[@]} = 0 ] || kill -9 "${pids[@]}" 2>/dev/null || true
}
trap finish EXIT
# Whoever started this may be gone before anything is ready.
exec 3<&0
(cat <&3 >/dev/null; kill -TERM $$ 2>/dev/null) &
watcher=$!
pids+=("$watcher")
trap 'exit 0' TERM

cd "$dir"
mkdir -p mon osd0 log run rgw
fsid=$(cat /proc/sys/kernel/random/uuid)
osd=$(cat /proc/sys/kernel/random/uuid)
cat >ceph.conf <<CONF
[global]
fsid = $fsid
mon_host = [v2:127.0.0.1:$mon,v1:127.0.0.1:$mon_v1]
mon_initial_members = a
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 1
osd_pool_default_pgp_num = 1
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 1000
mon_data_avail_crit = 2
paxos_propose_interval = 0.05
paxos_min_wait = 0.01
run_dir = $dir/run
admin_socket = $dir/run/\$name.asok
log_file = $dir/log/\$name.log
pid_file =
ms_bind_ipv6 = false
ms_mon_client_mode = crc
ms_mon_cluster_mode = crc
ms_mon_service_mode = crc
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
[mon.a]
mon_data = $dir/mon
[osd.0]
osd_data = $dir/osd0
osd_objectstore = bluestore
bluestore_block_size = 8589934592
bluestore_fsck_on_mount = false
osd_memory_target = 939524096
[client.rgw]
rgw_frontends = beast endpoint=127.0.0.1:$port
keyring = $dir/keyring
rgw_data = $dir/rgw
rgw_enable_usage_log = false
CONF
run() { # NAME COMMAND...
  local name=$1
  shift
  "$@" >"log/$name.out" 2>&1 </dev/null 3<&- &
  pids+=($!)
}
ceph() { command ceph -c ceph.conf --connect-timeout 10 "$@" 3<&-; }
fail() {
  echo "ceph-rgw: $1 did not come up; its log is in $dir/log" >&2
  tail -n 5 log/*.out >&2 || true
  exit 1
}
alive() { kill -0 "${pids[-1]}" 2>/dev/null || fail "$1"; }

monmaptool --create --clobber --addv a "[v2:127.0.0.1:$mon,v1:127.0.0.1:$mon_v1]" --fsid "$fsid" monmap >log/monmap.out
ceph-mon --mkfs -i a --monmap monmap -c ceph.conf >log/mon-mkfs.out 2>&1
ceph-authtool --create-keyring keyring --gen-key -n client.rgw >log/keyring.out
run mon ceph-mon -i a -c ceph.conf -f
until ceph osd new "$osd" >log/osd-new.out 2>&1; do
  alive "the monitor"
  sleep 0.1
done
ceph-osd -i 0 -c ceph.conf --mkfs --osd-uuid "$osd" >log/osd-mkfs.out 2>&1
ceph osd crush add osd.0 1.0 root=default >log/crush.out 2>&1
run osd ceph-osd -i 0 -c ceph.conf -f
until ceph osd stat 2>/dev/null | grep -q '1 up'; do
  alive "the OSD"
  sleep 0.1
done
run rgw radosgw -c ceph.conf -n client.rgw -f
until curl -s -o /dev/null "http://127.0.0.1:$port/" 3<&-; do
  alive "the gateway"
  sleep 0.1
done
radosgw-admin -c ceph.conf -n client.rgw user create --uid t --display-name t --access-key "$key" --secret-key "$secret" \
  >log/user.out 2>&1 3<&-
echo ready
# The watcher ends with standard input, and says so by a signal.
wait "$watcher" || true
