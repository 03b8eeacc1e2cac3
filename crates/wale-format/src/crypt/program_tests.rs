//! Against other implementations: Debian's `age`, OpenSSH's keys, and libsodium itself through Python's `nacl`.

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::libsodium::KeyTransform;
use super::*;

const SKIPPED: &str = "encryption against real programs";

/// What a program makes of `input`; none where it is not installed.
fn pipe(program: &str, arguments: &[&str], input: &[u8]) -> Option<Vec<u8>> {
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => {
            wale_testkit::skip(SKIPPED, &format!("{program} cannot be run: {error}"));
            return None;
        }
    };
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let feeder = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    let _ = feeder.join().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {told}");
    Some(output.stdout)
}

fn sample(bytes: usize) -> Vec<u8> {
    (0..bytes)
        .map(|at| u8::try_from(at * 7 % 251).unwrap())
        .collect()
}

fn encrypt(key: &WriteKey, plain: &[u8]) -> Vec<u8> {
    let mut writer = key.writer(Vec::new()).unwrap();
    writer.write_all(plain).unwrap();
    writer.finish().unwrap()
}

fn decrypt(ring: &KeyRing, stored: &[u8]) -> Vec<u8> {
    let head = &stored[..stored.len().min(ring.head_bytes())];
    let recognised = ring.recognise(head);
    assert_ne!(recognised.method(), Encryption::None);
    let mut plain = Vec::new();
    let mut reader = ring
        .open(&recognised, Cursor::new(stored.to_vec()))
        .unwrap();
    reader.read_to_end(&mut plain).unwrap();
    plain
}

/// Secret keys in files, each with its public key: of age, and of OpenSSH in both kinds.
fn key_files(folder: &Path) -> Option<Vec<(PathBuf, String)>> {
    let age = folder.join("age");
    pipe("age-keygen", &["-o", age.to_str().unwrap()], b"")?;
    let public = pipe("age-keygen", &["-y", age.to_str().unwrap()], b"")?;
    let mut keys = vec![(age, String::from_utf8(public).unwrap().trim().to_owned())];
    for kind in ["ed25519", "rsa"] {
        let file = folder.join(kind);
        let path = file.to_str().unwrap();
        let arguments = ["-q", "-t", kind, "-N", "", "-C", "a comment", "-f", path];
        pipe("ssh-keygen", &arguments, b"")?;
        let public = std::fs::read_to_string(file.with_extension("pub")).unwrap();
        keys.push((file, public.trim().to_owned()));
    }
    Some(keys)
}

#[test]
fn ages_own_program_and_ours_read_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let Some(keys) = key_files(folder.path()) else {
        return;
    };
    let all: Vec<&str> = keys.iter().map(|(_, public)| public.as_str()).collect();
    let recipients = age::Recipients::parse(&all.join("\n")).unwrap();
    assert_eq!(recipients.fingerprints().len(), 3);
    // With a stanza of ours, which other programs leave alone.
    let key = WriteKey::Age(recipients).with_content(ContentDigest::new([3; 32]));
    for bytes in [0, 1, 65_535, 65_536, 65_537, 1 << 20] {
        let plain = sample(bytes);
        let ours = encrypt(&key, &plain);
        for (file, public) in &keys {
            let file = file.to_str().unwrap();
            // Each of the owners alone.
            let theirs = pipe("age", &["-d", "-i", file], &ours).unwrap();
            assert!(theirs == plain, "{file} {bytes}");
            let stored = pipe("age", &["-r", public], &plain).unwrap();
            let mut ring = KeyRing::default();
            let identities = std::fs::read_to_string(file).unwrap();
            ring.add_age(age::Identities::parse(&identities).unwrap());
            assert!(decrypt(&ring, &stored) == plain, "{file} {bytes}");
            assert!(decrypt(&ring, &ours) == plain, "{file} {bytes}");
        }
    }
    // What ssh-keygen says of a key is what the archive records of it.
    let said = pipe(
        "ssh-keygen",
        &["-l", "-f", keys[1].0.to_str().unwrap()],
        b"",
    )
    .unwrap();
    let said = String::from_utf8(said).unwrap();
    let recorded = age::Recipients::parse(&keys[1].1).unwrap().fingerprints();
    assert!(said.contains(&recorded[0]), "{said} {recorded:?}");
}

#[test]
fn a_key_of_openssh_behind_a_passphrase_is_refused_with_that_reason() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    let path = file.to_str().unwrap();
    let arguments = ["-q", "-t", "ed25519", "-N", "a pass phrase", "-f", path];
    if pipe("ssh-keygen", &arguments, b"").is_none() {
        return;
    }
    let text = std::fs::read_to_string(&file).unwrap();
    let error = age::Identities::parse(&text).unwrap_err();
    assert!(error.to_string().contains("passphrase"), "{error}");
}

/// Reads a stream, or makes one, with libsodium itself: key, then `open` or `seal`.
const PYNACL: &str = r"
import sys
from nacl import bindings as b
key, verb = bytes.fromhex(sys.argv[1]), sys.argv[2]
data = sys.stdin.buffer.read()
state = b.crypto_secretstream_xchacha20poly1305_state()
out = sys.stdout.buffer
if verb == 'open':
    b.crypto_secretstream_xchacha20poly1305_init_pull(state, data[:24], key)
    chunks = [data[at:at + 8209] for at in range(24, len(data), 8209)]
    for place, chunk in enumerate(chunks):
        plain, tag = b.crypto_secretstream_xchacha20poly1305_pull(state, chunk)
        last = place + 1 == len(chunks)
        assert tag == (3 if last else 0), tag
        assert (len(plain) < 8192) == last, len(plain)
        out.write(plain)
else:
    out.write(b.crypto_secretstream_xchacha20poly1305_init_push(state, key))
    for at in range(0, len(data) + 1, 8192):
        chunk = data[at:at + 8192]
        tag = 0 if len(chunk) == 8192 else 3
        out.write(b.crypto_secretstream_xchacha20poly1305_push(state, chunk, tag=tag))
";

#[test]
fn libsodium_and_we_read_each_other() {
    let tools = std::env::var("WALE_TEST_TOOLS").unwrap_or_else(|_| "/var/tmp/wale-tools".into());
    let python = format!("{tools}/pynacl/bin/python");
    let hex = "07".repeat(32);
    let key = libsodium::Key::parse(&hex, KeyTransform::Hex).unwrap();
    let mut ring = KeyRing::default();
    ring.add_libsodium(key.clone());
    let key = WriteKey::Libsodium(key);
    for bytes in [0, 1, 8191, 8192, 8193, 16_384, 1 << 20] {
        let plain = sample(bytes);
        let Some(stored) = pipe(&python, &["-c", PYNACL, &hex, "seal"], &plain) else {
            return;
        };
        assert!(decrypt(&ring, &stored) == plain, "{bytes}");
        let ours = encrypt(&key, &plain);
        let theirs = pipe(&python, &["-c", PYNACL, &hex, "open"], &ours).unwrap();
        assert!(theirs == plain, "{bytes}");
    }
}
