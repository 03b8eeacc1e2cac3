#!/bin/bash
# image.sh WALE [TAG [FILE]] - build the container image from the static binary, with podman (buildah) or docker, and write into
# FILE where it comes from (in-toto, SLSA), target/wale-image.intoto.json.
set -euo pipefail
cd "$(dirname "$0")/.."
wale=${1:?usage: image.sh PATH-OF-WALE [TAG [FILE]]}
tag=${2:-wale:latest}
provenance=${3:-target/wale-image.intoto.json}
context=$(mktemp -d "${TMPDIR:-/tmp}/wale-image-XXXXXX")
trap 'rm -rf "$context"' EXIT
roots=/etc/ssl/certs/ca-certificates.crt
[ -s "$roots" ] || { echo "image.sh: no CA roots in $roots (package ca-certificates)" >&2; exit 1; }
if ldd "$wale" >/dev/null 2>&1 && ! ldd "$wale" 2>&1 | grep -q 'statically linked'; then
  echo "image.sh: $wale is not a static binary: make build" >&2
  exit 1
fi
mkdir -p "$context"/rootfs/usr/local/bin "$context"/rootfs/etc/ssl/certs "$context"/rootfs/tmp
chmod 1777 "$context/rootfs/tmp"
install -m 755 "$wale" "$context/rootfs/usr/local/bin/wale"
ln -s wale "$context/rootfs/usr/local/bin/wal-e"
install -m 644 "$roots" "$context/rootfs/etc/ssl/certs/ca-certificates.crt"
install -m 644 -D LICENSE "$context/rootfs/usr/share/doc/wale/LICENSE"
cargo run -q --locked -p xtask -- parts "$context/rootfs/usr/share/doc/wale" >/dev/null
install -m 644 Dockerfile "$context/Dockerfile"
if command -v podman >/dev/null; then
  # Isolation and network are for RUN lines, and there are none.
  podman --runtime runc build --isolation chroot --format docker -q -t "$tag" "$context"
  id=$(podman image inspect --format '{{.Id}}' "$tag")
else
  docker build -q -t "$tag" "$context"
  id=$(docker image inspect --format '{{.Id}}' "$tag")
fi
mkdir -p "$(dirname "$provenance")"
rm -f "$provenance"
cargo run -q --locked -p xtask -- provenance "$wale" "$tag" "$id" "$provenance" >/dev/null ||
  echo "image.sh: the image $tag is made, and nothing says where it comes from: $provenance could not be written" >&2
