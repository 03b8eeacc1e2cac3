#!/usr/bin/env bash
# make-pgp.sh - remakes testdata/gnupg-*: keys, key rings and messages of the gpg that is installed.
#
# New keys are made each time, so that every file changes. The keys are throwaway ones, and their passphrase is in the tests.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
version=$(gpg --version | awk 'NR == 1 { print $3 }')
out=$here/gnupg-$version
work=$(mktemp -d)
export GNUPGHOME=$work/home
mkdir -p "$out" "$work/messages"
mkdir -m 700 "$GNUPGHOME"
printf 'trust-model always\nbatch\nyes\nno-tty\nquiet\n' >"$GNUPGHOME/gpg.conf"
trap 'gpgconf --kill all; rm -rf "$work"' EXIT
say() { gpg --pinentry-mode loopback --passphrase "$passphrase" "$@"; }

passphrase=
say --quick-gen-key 'RSA key <rsa@example.invalid>' rsa2048 cert never
rsa=$(gpg --list-keys --with-colons rsa@ | awk -F: '$1 == "fpr" { print $10; exit }')
say --quick-add-key "$rsa" rsa2048 encr never
say --quick-gen-key 'Other key (of a test) <other@example.invalid>' rsa2048 encrypt never

passphrase='correct horse'
say --quick-gen-key 'Curve key <curve@example.invalid>' ed25519 cert never
curve=$(gpg --list-keys --with-colons curve@ | awk -F: '$1 == "fpr" { print $10; exit }')
say --quick-add-key "$curve" cv25519 encr never
say --quick-add-key "$curve" ed25519 sign never
passphrase=
say --faked-system-time 20200101T000000 --quick-gen-key 'Expired key <expired@example.invalid>' rsa2048 default 2d
say --faked-system-time 20200101T000000 --quick-gen-key 'Two subkeys <two@example.invalid>' rsa2048 cert never
two=$(gpg --list-keys --with-colons two@ | awk -F: '$1 == "fpr" { print $10; exit }')
say --faked-system-time 20200102T000000 --quick-add-key "$two" rsa2048 encr 2d
say --faked-system-time 20200103T000000 --quick-add-key "$two" cv25519 encr never
say --faked-system-time 20200104T000000 --quick-add-key "$two" rsa2048 encr never
say --faked-system-time 20200105T000000 --command-fd 0 --edit-key "$two" >/dev/null 2>&1 <<'EDIT'
key 3
revkey
y
0

y
save
EDIT
say --quick-gen-key 'Revoked key <revoked@example.invalid>' rsa2048 default never
revoked=$(gpg --list-keys --with-colons revoked@ | awk -F: '$1 == "fpr" { print $10; exit }')
sed 's/^:---/---/' "$GNUPGHOME/openpgp-revocs.d/$revoked.rev" | gpg --import
say --quick-gen-key 'Signer <sign@example.invalid>' ed25519 sign never
# A second key of the first one's mail address, which has expired, and one that has not, of another's.
say --faked-system-time 20200101T000000 --quick-gen-key 'RSA key, before <rsa@example.invalid>' rsa2048 default 2d
say --quick-gen-key 'Twice <other@example.invalid>' rsa2048 encrypt never

export_secret() { say --armor --export-secret-keys "$1" >"$out/$2"; }
export_secret "$rsa" rsa-secret.asc
passphrase='correct horse'
export_secret "$curve" curve-secret.asc
say --armor --export-secret-subkeys "$curve" >"$out/curve-stub-secret.asc"
passphrase=
gpg --armor --export "$rsa" "$curve" >"$out/two-public.asc"
cp "$GNUPGHOME/pubring.kbx" "$out/pubring.kbx"
gpg --export | gpg --no-default-keyring --keyring "$work/pubring.gpg" --import
# The form before 2.1, with notes of trust.
: >"$work/old.gpg"
gpg --export | gpg --no-default-keyring --keyring "gnupg-ring:$work/old.gpg" --import
cp "$work/old.gpg" "$out/pubring.gpg"

# 9,000 bytes: more than one piece of gpg's 8 KiB, with every kind of line end, and some of it compresses.
python3 - >"$work/plain" <<'PYTHON'
import sys
out = bytearray()
state = 1
while len(out) < 9000:
    state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
    out += state.to_bytes(8, "little") + b"\r\n line \n\r" + bytes(20)
sys.stdout.buffer.write(out[:9000])
PYTHON
to() { name=$1; shift; gpg "$@" <"$work/plain" >"$work/messages/$name.gpg"; }
to rsa -e -z 0 -r "$rsa"
to curve -e -z 0 -r "$curve"
to both -e -z 0 -r "$rsa" -r "$curve"
to hidden -e -z 0 -R other@example.invalid -R "$rsa"
to default -e -r "$rsa"
to zip -e --compress-algo zip -r "$rsa"
to zlib -e --compress-algo zlib -r "$rsa"
to bzip2 -e --compress-algo bzip2 -r "$rsa"
to text -e -z 0 -t -r "$rsa"
to padded -e -z 0 --set-filename a-name -r "$rsa"
to signed -e -z 0 -s -u sign@example.invalid -r "$rsa"
to unprotected -e -z 0 --rfc2440 --cipher-algo CAST5 --disable-mdc -r "$rsa" || rm -f "$work/messages/unprotected.gpg"
say -c -z 0 --passphrase 'correct horse' <"$work/plain" >"$work/messages/passphrase.gpg"
for cipher in AES AES192 AES256 3DES CAST5 BLOWFISH TWOFISH CAMELLIA128 CAMELLIA192 CAMELLIA256 IDEA; do
  to "cipher-$cipher" -e -z 0 --cipher-algo "$cipher" -r "$rsa"
done
# Of a file the length is known, so that nothing comes in pieces.
gpg -e -z 0 -r "$rsa" -o "$work/messages/file.gpg" "$work/plain"
gpg -e -z 0 -r "$rsa" -o "$work/messages/empty.gpg" /dev/null
cp "$work/plain" "$work/messages/plain"
(cd "$work/messages" && tar -cf - --sort=name --owner=0 --group=0 -- *) | zstd -19 -q -f -o "$out/messages.tar.zst"
ls -l "$out"
