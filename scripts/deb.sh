#!/bin/bash
# deb.sh WALE [FOLDER] - build the Debian package from the static binary, with dpkg-deb, into FOLDER (target). Prints its path.
set -euo pipefail
cd "$(dirname "$0")/.."
wale=$(realpath "${1:?usage: deb.sh PATH-OF-WALE [FOLDER]}")
folder=${2:-target}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
architecture=$(dpkg --print-architecture)
context=$(mktemp -d "${TMPDIR:-/tmp}/wale-deb-XXXXXX")
trap 'rm -rf "$context"' EXIT
root=$context/root
umask 022

install -D -m 755 "$wale" "$root/usr/bin/wale"
# Debian's own wal-e, where it is still installed, stays /usr/bin/wal-e.
install -d "$root/usr/lib/wale" && ln -s ../../bin/wale "$root/usr/lib/wale/wal-e"
install -D -m 644 ops/systemd/wale@.service "$root/lib/systemd/system/wale@.service"
install -d -m 755 "$root/etc/wale"
install -D -m 644 ops/debian/example.conf "$root/usr/share/doc/wale/examples/example.conf"
install -D -m 644 ops/prometheus/alerts.yaml "$root/usr/share/doc/wale/examples/alerts.yaml"
install -D -m 644 ops/grafana/dashboard.json "$root/usr/share/doc/wale/examples/dashboard.json"
install -D -m 644 LICENSE "$root/usr/share/doc/wale/copyright"
gzip -9n <CHANGELOG.md >"$root/usr/share/doc/wale/changelog.gz"
cp -r docs/guide docs/runbook.md docs/reference "$root/usr/share/doc/wale/"
find "$root/usr/share/doc/wale" -type f -exec chmod 644 {} +

manual=$root/usr/share/man/man1
install -d "$manual"
"$wale" reference manual | awk -v folder="$manual" '
  /^\.\\" wale[a-z-]*\.1$/ { if (page) close(page); page = folder "/" $2 }
  { print >page }'
ls "$manual"/wale.1 "$manual"/wale-serve.1 >/dev/null
gzip -9n "$manual"/*.1

install -d "$root/usr/share/bash-completion/completions" "$root/usr/share/zsh/vendor-completions" "$root/usr/share/fish/vendor_completions.d"
"$wale" completions bash >"$root/usr/share/bash-completion/completions/wale"
"$wale" completions zsh >"$root/usr/share/zsh/vendor-completions/_wale"
"$wale" completions fish >"$root/usr/share/fish/vendor_completions.d/wale.fish"

install -d "$root/DEBIAN"
cat >"$root/DEBIAN/control" <<CONTROL
Package: wale
Version: $version
Architecture: $architecture
Maintainer: The wale developers <wale@localhost>
Installed-Size: $(du -k -s "$root" | cut -f1)
Section: database
Priority: optional
Recommends: postgresql-common
Suggests: wget
Description: WAL archive and base backups for PostgreSQL and TimescaleDB
 A sidecar that archives every WAL segment as PostgreSQL hands it over, takes
 base backups on a schedule, and restores a cluster to the end of the archive
 or to a point in time. Reads the archives of WAL-E and WAL-G.
CONTROL
for script in postinst postrm; do
  cat >"$root/DEBIAN/$script" <<'SCRIPT'
#!/bin/sh
set -e
# A running sidecar is not restarted: it may be in the middle of a restore, or hold a server that stops.
if [ -d /run/systemd/system ]; then systemctl daemon-reload || true; fi
SCRIPT
  chmod 755 "$root/DEBIAN/$script"
done
(cd "$root" && find . -type f ! -path './DEBIAN/*' -printf '%P\0' | sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
mkdir -p "$folder"
package=$folder/wale_${version}_$architecture.deb
dpkg-deb --root-owner-group --build "$root" "$package" >/dev/null
echo "$package"
