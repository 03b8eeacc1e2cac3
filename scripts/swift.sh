#!/bin/bash
# swift.sh - OpenStack Swift on loopback for the tests: a proxy with tempauth, one account, container and object server
# with one copy of everything, and the memcached that tempauth keeps its tokens in.
#
#   swift.sh DIR VENV PROXY_PORT ACCOUNT_PORT CONTAINER_PORT OBJECT_PORT MEMCACHED_PORT
#
# Runs in the foreground: says "ready" once the container bkt is there, and ends everything it started when its standard
# input ends. VENV is a Python environment with PyPI's swift; Debian: memcached. DIR must be on a file system with extended
# attributes. Login: version 1 at http://127.0.0.1:PROXY_PORT/auth/v1.0, user test:tester, key testing, who may do
# everything; test:writer, writing, may read and write in the container, and test:reader, reading, only read.
set -eu
[ $# = 7 ] || { echo "usage: swift.sh DIR VENV PROXY_PORT ACCOUNT_PORT CONTAINER_PORT OBJECT_PORT MEMCACHED_PORT" >&2; exit 64; }
mkdir -p "$1"
dir=$(cd "$1" && pwd) venv=$2 port=$3 memcached=$7
declare -A ports=([account]=$4 [container]=$5 [object]=$6)
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
rings=()
mkdir -p etc srv/disk log
user=$(id -un)
export SWIFT_CONF_DIR=$dir/etc
cat >etc/swift.conf <<CONF
[swift-hash]
swift_hash_path_suffix = wale
swift_hash_path_prefix = tests
[storage-policy:0]
name = one
default = yes
CONF
# A busy machine is not a broken one: Swift's own limits are half a second here and a second there, after which it answers
# 503, or that a write is done which no listing has yet.
patience='conn_timeout = 60
node_timeout = 60'
for kind in account container object; do
  cat >etc/$kind.conf <<CONF
[DEFAULT]
devices = $dir/srv
mount_check = false
bind_ip = 127.0.0.1
bind_port = ${ports[$kind]}
workers = 0
user = $user
swift_dir = $dir/etc
$patience
container_update_timeout = 60
[pipeline:main]
pipeline = $kind-server
[app:$kind-server]
use = egg:swift#$kind
CONF
  {
    "$venv/bin/swift-ring-builder" etc/$kind.builder create 4 1 1
    "$venv/bin/swift-ring-builder" etc/$kind.builder add "r1z1-127.0.0.1:${ports[$kind]}/disk" 1
    "$venv/bin/swift-ring-builder" etc/$kind.builder rebalance
  } >log/ring-$kind.out 2>&1 3<&- &
  rings+=($!)
done
wait "${rings[@]}"
# The order of filters is the one of Swift's sample.
cat >etc/proxy.conf <<CONF
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = $port
workers = 0
user = $user
swift_dir = $dir/etc
[pipeline:main]
pipeline = catch_errors gatekeeper proxy-logging cache listing_formats bulk tempauth copy slo dlo proxy-logging proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
$patience
recoverable_node_timeout = 60
error_suppression_limit = 1000000
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:proxy-logging]
use = egg:swift#proxy_logging
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:$memcached
connect_timeout = 60
pool_timeout = 60
io_timeout = 60
error_suppression_limit = 1000000
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:bulk]
use = egg:swift#bulk
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing .admin
user_test_writer = writing
user_test_reader = reading
[filter:copy]
use = egg:swift#copy
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
CONF
run() { # NAME COMMAND...
  local name=$1
  shift
  "$@" >"log/$name.out" 2>&1 </dev/null 3<&- &
  pids+=($!)
}
fail() {
  echo "swift: $1 did not come up; its log is in $dir/log" >&2
  tail -n 5 log/*.out >&2 || true
  exit 1
}
alive() { kill -0 "${pids[-1]}" 2>/dev/null || fail "$1"; }

as_nobody=()
[ "$(id -u)" != 0 ] || as_nobody=(-u nobody)
run memcached memcached "${as_nobody[@]}" -l 127.0.0.1 -p "$memcached"
for kind in account container object; do run $kind "$venv/bin/swift-$kind-server" etc/$kind.conf; done
run proxy "$venv/bin/swift-proxy-server" etc/proxy.conf
url=http://127.0.0.1:$port
until login=$(curl -sfi -H 'X-Auth-User: test:tester' -H 'X-Auth-Key: testing' "$url/auth/v1.0" 3<&-); do
  alive "the proxy"
  sleep 0.1
done
token=$(tr -d '\r' <<<"$login" | sed -n 's/^x-auth-token: //Ip')
until curl -sf -X PUT -H "X-Auth-Token: $token" -H 'X-Container-Read: test:writer,test:reader' \
  -H 'X-Container-Write: test:writer' "$url/v1/AUTH_test/bkt" 3<&-; do
  alive "the container"
  sleep 0.1
done
echo ready
# The watcher ends with standard input, and says so by a signal.
wait "$watcher" || true
