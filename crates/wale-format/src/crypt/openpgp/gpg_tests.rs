//! Real `gpg` beside ours, where it is installed: it decrypts what the writer wrote, and the reader what it writes.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::tests::{decrypt, encrypt, now, sample};
use super::*;

/// A `GnuPG` home of its own, which goes with the test.
struct Gpg(tempfile::TempDir);

impl Gpg {
    /// None where there is no `gpg`.
    fn new() -> Option<Self> {
        let found = Command::new("gpg")
            .arg("--version")
            .stdout(Stdio::null())
            .status();
        if let Err(error) = found {
            let why = format!("the program gpg cannot be run: {error}");
            wale_testkit::skip("OpenPGP against real gpg", &why);
            return None;
        }
        let only_ours = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        let mut builder = tempfile::Builder::new();
        let home = builder
            .prefix("wg")
            .permissions(only_ours)
            .tempdir_in("/tmp")
            .expect("a folder");
        std::fs::write(home.path().join("gpg.conf"), "trust-model always\n").expect("a file");
        Some(Self(home))
    }

    fn home(&self) -> &Path {
        self.0.path()
    }

    fn run(&self, arguments: &[&str], input: &[u8]) -> Vec<u8> {
        let mut child = Command::new("gpg")
            .args([
                "--batch",
                "--quiet",
                "--no-tty",
                "--pinentry-mode",
                "loopback",
            ])
            .args(["--passphrase", ""])
            .args(arguments)
            .env("GNUPGHOME", self.home())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("gpg starts");
        let mut stdin = child.stdin.take().expect("piped");
        let input = input.to_vec();
        let feeder = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let output = child.wait_with_output().expect("gpg ends");
        feeder.join().expect("fed");
        assert!(
            output.status.success(),
            "gpg {arguments:?}: {}",
            output.status
        );
        output.stdout
    }
}

impl Drop for Gpg {
    fn drop(&mut self) {
        let _ = Command::new("gpgconf")
            .args(["--kill", "all"])
            .env("GNUPGHOME", self.home())
            .status();
    }
}

#[test]
fn gpg_and_ours_read_each_other() {
    let Some(gpg) = Gpg::new() else { return };
    for (user, primary, subkey) in [
        ("Rsa", "rsa2048", "rsa2048"),
        ("Curve", "ed25519", "cv25519"),
    ] {
        gpg.run(&["--quick-gen-key", user, primary, "cert", "never"], b"");
        let listed = gpg.run(&["--list-keys", "--with-colons", user], b"");
        let listed = String::from_utf8(listed).expect("text");
        let mut lines = listed.lines();
        let line = lines
            .find(|line| line.starts_with("fpr:"))
            .expect("a fingerprint");
        let fingerprint = line.split(':').nth(9).expect("its field");
        gpg.run(
            &["--quick-add-key", fingerprint, subkey, "encr", "never"],
            b"",
        );
        // A keybox of the gpg that is installed, and a key file.
        let ring = std::fs::read(gpg.home().join("pubring.kbx")).expect("a keybox");
        let recipients = PgpRecipients::from_ring(&ring, user, now()).expect("a key");
        assert_eq!(recipients.fingerprints(), [fingerprint]);
        let secret = gpg.run(&["--export-secret-keys", fingerprint], b"");
        let keys = SecretKeys::from_keys(&secret, None).expect("a secret key");
        for length in [0, 1, 70_000, (1 << 20) + 1] {
            let plain = [sample(length), b"\r\n\r\n\n\r \r\n".to_vec()].concat();
            let message = encrypt(&recipients, &plain);
            assert!(gpg.run(&["-d"], &message) == plain, "{user} {length}");
            for options in [&["-z", "0"][..], &[]] {
                let arguments = [&["-e", "-r", fingerprint], options].concat();
                let message = gpg.run(&arguments, &plain);
                assert!(
                    decrypt(&keys, &message).expect("whole") == plain,
                    "{user} {length}"
                );
            }
        }
    }
}
