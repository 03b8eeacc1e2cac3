//! The keys of OpenPGP: from the settings of WAL-E and WAL-G, files and `GnuPG`, to what messages are written to and read with.
//!
//! | set | written to | read with |
//! |---|---|---|
//! | `WALE_GPG_KEY_ID` | that key in `pubring.kbx` or `pubring.gpg` of `GNUPGHOME`; what is in neither, `gpg --export` gives | `WALE_GPG_SECRET_KEY_FILE`, otherwise `gpg --export-secret-keys` |
//! | `WALG_PGP_KEY`, `WALG_PGP_KEY_PATH` | all keys in it | the secret ones in it, and `WALE_GPG_SECRET_KEY_FILE` |
//! | the file alone | nothing | that |
//!
//! A passphrase goes to `gpg` through a pipe. The functions read files and may run a program: they block.

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use chrono::{DateTime, Utc};
use wale_cluster::{Secret, read_bounded};
use wale_format::crypt::openpgp::{KeysError, PgpRecipients, SecretKeys};
use wale_ops::{Kind, OpError};
use zeroize::Zeroizing;

use super::declared::{
    GNUPGHOME, WALE_GPG_KEY_ID, WALE_GPG_SECRET_KEY_FILE, WALG_PGP_KEY, WALG_PGP_KEY_PASSPHRASE,
    WALG_PGP_KEY_PATH,
};
use super::group::Group;
use super::mistake::Mistake;
use super::reader::Reader;

/// The largest key ring or key file that is read: 10,000 keys of 3 kB, twice.
const RING_MAX: u64 = 64 << 20;

/// The home of `GnuPG` in the home directory.
const USUAL_HOME: &str = ".gnupg";
/// Its key rings, the newer form first.
const RINGS: [&str; 2] = ["pubring.kbx", "pubring.gpg"];

/// What the settings say about OpenPGP.
#[derive(Debug, Clone)]
pub(crate) struct PgpSettings {
    source: Source,
    /// An exported secret key.
    secret_key_file: Option<PathBuf>,
    passphrase: Option<Secret>,
}

/// Where the keys are.
#[derive(Debug, Clone)]
enum Source {
    /// In a home of `GnuPG`, under this name.
    Home { home: Option<PathBuf>, name: String },
    /// In a file.
    File(PathBuf),
    /// In the setting itself.
    Inline(Secret),
    /// Only the secret key file: the archive can be read.
    ReadOnly,
}

impl PgpSettings {
    /// Reads them; None where nothing of OpenPGP is set. Two keys at once are a mistake of the reader.
    pub(super) fn read(reader: &mut Reader) -> Option<Self> {
        let name = reader.get(&WALE_GPG_KEY_ID);
        let inline = reader.get(&WALG_PGP_KEY);
        let file = reader.get(&WALG_PGP_KEY_PATH);
        let home = reader.get(&GNUPGHOME);
        let home = home.or_else(|| reader.home().map(|home| home.join(USUAL_HOME)));
        let secret_key_file = reader.get(&WALE_GPG_SECRET_KEY_FILE);
        let passphrase = reader.get(&WALG_PGP_KEY_PASSPHRASE);
        let set = [
            (name.is_some(), WALE_GPG_KEY_ID.name()),
            (inline.is_some(), WALG_PGP_KEY.name()),
            (file.is_some(), WALG_PGP_KEY_PATH.name()),
        ];
        let set: Vec<&str> = set.iter().filter(|one| one.0).map(|one| one.1).collect();
        if let [one, other, ..] = set.as_slice() {
            let text = format!("{one} and {other} are both set");
            let mistake = Mistake::new(Group::Archive, text).hint("keep one of them");
            reader.mistakes.push(mistake);
        }
        let source = match (inline, file, name) {
            (Some(key), _, _) => Source::Inline(key),
            (None, Some(file), _) => Source::File(file),
            (None, None, Some(name)) => Source::Home { home, name },
            (None, None, None) if secret_key_file.is_some() => Source::ReadOnly,
            (None, None, None) => return None,
        };
        Some(Self {
            source,
            secret_key_file,
            passphrase,
        })
    }

    /// Whether new objects are written to a key of OpenPGP.
    pub(super) fn writes(&self) -> bool {
        !matches!(self.source, Source::ReadOnly)
    }

    /// The keys that new objects are written to; None where only reading is set up.
    ///
    /// # Errors
    /// When a key is not found, or cannot be read, or used `now`.
    pub(crate) fn recipients(&self, now: DateTime<Utc>) -> Result<Option<PgpRecipients>, OpError> {
        match &self.source {
            Source::Inline(key) => PgpRecipients::from_keys(key.expose().as_bytes(), now)
                .map_err(|error| refused(WALG_PGP_KEY.name(), &error)),
            Source::File(file) => {
                PgpRecipients::from_keys(&key_file(file, &WALG_PGP_KEY_PATH)?, now)
                    .map_err(|error| refused(WALG_PGP_KEY_PATH.name(), &error))
            }
            Source::Home { home, name } => of_home(home.as_deref(), name, now),
            Source::ReadOnly => return Ok(None),
        }
        .map(Some)
    }

    /// The keys that objects are read with; None where there are public ones only, as on a host that may write and not read.
    ///
    /// # Errors
    /// When a key cannot be read, or the passphrase is wrong or missing.
    pub(crate) fn secret_keys(&self) -> Result<Option<SecretKeys>, OpError> {
        let from_file = match &self.secret_key_file {
            None => None,
            Some(file) => {
                let setting = &WALE_GPG_SECRET_KEY_FILE;
                let keys = self.open(&key_file(file, setting)?);
                Some(keys.map_err(|error| refused(setting.name(), &error))?)
            }
        };
        let (bytes, setting) = match &self.source {
            Source::Inline(key) => {
                let bytes = Zeroizing::new(key.expose().as_bytes().to_vec());
                (bytes, WALG_PGP_KEY.name())
            }
            Source::File(file) => (
                key_file(file, &WALG_PGP_KEY_PATH)?,
                WALG_PGP_KEY_PATH.name(),
            ),
            Source::Home { home, name } if from_file.is_none() => {
                let passphrase = self.passphrase.as_ref();
                match export_secret(home.as_deref(), name, passphrase) {
                    Ok(bytes) if bytes.is_empty() => return Ok(None),
                    Ok(bytes) => (bytes, WALE_GPG_KEY_ID.name()),
                    // A host without gpg may be one that writes only.
                    Err(Export::NotInstalled) => return Ok(None),
                    Err(Export::Failed(error)) => return Err(error),
                }
            }
            Source::Home { .. } | Source::ReadOnly => return Ok(from_file),
        };
        match (self.open(&bytes), from_file) {
            (Ok(keys), Some(others)) => Ok(Some(others.and(keys))),
            (Ok(keys), None) => Ok(Some(keys)),
            // Public keys only.
            (Err(KeysError::None(_)), from_file) => Ok(from_file),
            (Err(error), _) => Err(refused(setting, &error)),
        }
    }

    fn open(&self, bytes: &[u8]) -> Result<SecretKeys, KeysError> {
        SecretKeys::from_keys(bytes, self.passphrase.as_ref().map(Secret::expose))
    }
}

/// The bytes of a key file.
fn key_file(
    file: &Path,
    setting: &super::setting::Setting<Option<PathBuf>>,
) -> Result<Zeroizing<Vec<u8>>, OpError> {
    read_bounded(file, RING_MAX)
        .map(Zeroizing::new)
        .map_err(|error| {
            let text = format!("{}: could not read \"{}\"", setting.name(), file.display());
            OpError::new(Kind::Configuration, text)
                .hint("name a readable file with an exported key, as gpg --export makes it")
                .source(error)
        })
}

/// The key of this name in a home of `GnuPG`.
fn of_home(home: Option<&Path>, name: &str, now: DateTime<Utc>) -> Result<PgpRecipients, OpError> {
    let setting = WALE_GPG_KEY_ID.name();
    let mut problem = None;
    for ring in RINGS {
        let Some(path) = home.map(|home| home.join(ring)) else {
            continue;
        };
        let bytes = match read_bounded(&path, RING_MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                let text = format!("{setting}: could not read \"{}\"", path.display());
                return Err(OpError::new(Kind::Configuration, text)
                    .hint(
                        "make the key ring readable for the user that runs wale, or set GNUPGHOME",
                    )
                    .source(error));
            }
        };
        match PgpRecipients::from_ring(&bytes, name, now) {
            Ok(recipients) => return Ok(recipients),
            Err(KeysError::NotFound { .. }) => {}
            Err(error) => problem = Some(error),
        }
    }
    if let Some(error) = problem {
        return Err(refused(setting, &error));
    }
    // Keys may be with a keybox daemon, or in another ring that gpg.conf names.
    let exported = match run_gpg(home, &["--export", "--", name], None) {
        Ok(bytes) => bytes,
        Err(Export::NotInstalled) => Zeroizing::default(),
        Err(Export::Failed(error)) => return Err(error),
    };
    let recipients = PgpRecipients::from_ring(&exported, name, now);
    recipients.map_err(|error| match error {
        KeysError::Damaged(_) | KeysError::NotFound { .. } => {
            let place = home.map_or_else(String::new, |home| format!(" in {}", home.display()));
            let text = format!("{setting}: no OpenPGP key \"{name}\"{place}");
            OpError::new(Kind::Configuration, text).hint(
                "set GNUPGHOME to the directory with the key ring, or export the key (gpg --export KEY) and name the file \
                 in WALG_PGP_KEY_PATH",
            )
        }
        error => refused(setting, &error),
    })
}

/// Why `gpg` gave no keys.
enum Export {
    NotInstalled,
    Failed(OpError),
}

/// The secret key of this name, from `gpg`; nothing where it has none.
fn export_secret(
    home: Option<&Path>,
    name: &str,
    passphrase: Option<&Secret>,
) -> Result<Zeroizing<Vec<u8>>, Export> {
    // Without a passphrase nobody must be asked for one.
    let mut arguments = match passphrase {
        Some(_) => vec!["--pinentry-mode", "loopback", "--passphrase-fd", "0"],
        None => vec!["--pinentry-mode", "error"],
    };
    arguments.extend(["--export-secret-keys", "--", name]);
    run_gpg(home, &arguments, passphrase)
}

/// Runs `gpg`, with the passphrase on its standard input, and gives what it wrote.
fn run_gpg(
    home: Option<&Path>,
    arguments: &[&str],
    passphrase: Option<&Secret>,
) -> Result<Zeroizing<Vec<u8>>, Export> {
    let failed = |error: io::Error| {
        let text = format!("{}: could not run gpg", WALE_GPG_KEY_ID.name());
        Export::Failed(OpError::new(Kind::Configuration, text).source(error))
    };
    let mut command = Command::new("gpg");
    command
        .args(["--batch", "--no-tty", "--quiet"])
        .args(arguments)
        // Its words are looked at.
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if let Some(home) = home {
        command.env("GNUPGHOME", home);
    }
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Export::NotInstalled),
        Err(error) => return Err(failed(error)),
    };
    if let (Some(mut stdin), Some(passphrase)) = (child.stdin.take(), passphrase) {
        let line = Zeroizing::new(format!("{}\n", passphrase.expose()));
        // A gpg that needs no passphrase may be gone already. A secret of 64 KiB at most fits into the pipe.
        let _ = stdin.write_all(line.as_bytes());
    }
    // Its words are few, and fit into the pipe while the keys are read.
    let mut exported = Zeroizing::new(Vec::new());
    if let Some(stdout) = child.stdout.take() {
        let read = stdout.take(RING_MAX).read_to_end(&mut exported);
        read.map_err(failed)?;
    }
    let ended = child.wait_with_output().map_err(failed)?;
    let words = String::from_utf8_lossy(&ended.stderr).trim().to_owned();
    // "nothing exported" follows a wrong passphrase, too.
    let is_locked = words.contains("error receiving key from agent");
    let has_none = words.contains("nothing exported") || words.contains("not found");
    if !is_locked && (ended.status.success() || (has_none && exported.is_empty())) {
        return Ok(exported);
    }
    let text = format!(
        "{}: gpg gave no key ({})",
        WALE_GPG_KEY_ID.name(),
        ended.status
    );
    Err(Export::Failed(
        OpError::new(Kind::Configuration, text)
            .detail(words.lines().last().unwrap_or_default())
            .hint(
                "set WALG_PGP_KEY_PASSPHRASE, or export the secret key and name the file in WALE_GPG_SECRET_KEY_FILE",
            ),
    ))
}

/// Keys that cannot be used, and what helps.
fn refused(setting: &str, error: &KeysError) -> OpError {
    let hint = match error {
        KeysError::NoPassphrase { .. } | KeysError::Passphrase { .. } => {
            "set WALG_PGP_KEY_PASSPHRASE, or the file with it in WALG_PGP_KEY_PASSPHRASE_FILE"
        }
        KeysError::Several { .. } => "write the fingerprint of the one that is meant",
        KeysError::Unusable { .. } => "name another key, or renew this one and export it again",
        _ => "export the key again, with gpg --export or gpg --export-secret-keys",
    };
    let text = format!("{setting}: {error}");
    OpError::new(Kind::Configuration, text).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::super::source::Sources;
    use super::*;

    const GOLDEN: &str = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../wale-format/testdata/gnupg-2.2.40"
    );

    fn golden(name: &str) -> String {
        format!("{GOLDEN}/{name}")
    }

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).expect("a time")
    }

    fn read(set: &[(&str, &str)]) -> (Option<PgpSettings>, Vec<Mistake>) {
        let mut reader = Reader::new(Sources::for_test(&[], set, ""));
        (PgpSettings::read(&mut reader), reader.mistakes)
    }

    fn settings(set: &[(&str, &str)]) -> PgpSettings {
        let (settings, mistakes) = read(set);
        assert!(mistakes.is_empty(), "{mistakes:?}");
        settings.expect("something is set")
    }

    #[test]
    fn keys_come_from_a_home_of_gnupg_and_from_files() {
        let name = "rsa@example.invalid";
        let (secret, passphrase) = (golden("rsa-secret.asc"), "correct horse");
        let at_home = settings(&[
            ("GNUPGHOME", GOLDEN),
            ("WALG_GPG_KEY_ID", name),
            ("WALE_GPG_SECRET_KEY_FILE", &secret),
        ]);
        let recipients = at_home.recipients(now()).expect("a key").expect("written");
        let keys = at_home.secret_keys().expect("a key").expect("a secret one");
        assert!(keys.key_ids().contains(&recipients.key_ids()[0]));

        let curve = golden("curve-secret.asc");
        let in_file = settings(&[
            ("WALG_PGP_KEY_PATH", &curve),
            ("WALG_PGP_KEY_PASSPHRASE", passphrase),
        ]);
        let recipients = in_file.recipients(now()).expect("a key").expect("written");
        let keys = in_file.secret_keys().expect("a key").expect("a secret one");
        assert_eq!(keys.key_ids(), recipients.key_ids());

        let text = std::fs::read_to_string(&curve).expect("a file");
        let inline = settings(&[
            ("WALG_PGP_KEY", &text.replace('\n', "\\n")),
            ("WALG_PGP_KEY_PASSPHRASE", passphrase),
        ]);
        let keys = inline.secret_keys().expect("a key").expect("a secret one");
        assert_eq!(keys.key_ids(), recipients.key_ids());

        let public = golden("two-public.asc");
        let writes_only = settings(&[("WALG_PGP_KEY_PATH", &public)]);
        assert!(writes_only.secret_keys().expect("none").is_none());
        let reads_only = settings(&[("WALE_GPG_SECRET_KEY_FILE", &secret)]);
        assert!(reads_only.recipients(now()).expect("none").is_none());
        assert!(reads_only.secret_keys().expect("a key").is_some());
        assert!(read(&[("GNUPGHOME", GOLDEN)]).0.is_none());
    }

    #[test]
    fn what_is_wrong_is_told_without_the_secret() {
        let curve = golden("curve-secret.asc");
        let locked = settings(&[("WALG_PGP_KEY_PATH", &curve)]);
        let error = locked.secret_keys().expect_err("locked");
        assert!(error.message.contains("needs its passphrase"), "{error:?}");
        let wrong = settings(&[
            ("WALG_PGP_KEY_PATH", &curve),
            ("WALG_PGP_KEY_PASSPHRASE", "canary"),
        ]);
        let error = wrong.secret_keys().expect_err("locked");
        assert!(
            error
                .hint
                .as_deref()
                .is_some_and(|hint| hint.contains("PASSPHRASE"))
        );
        assert!(
            !format!("{error:?} {wrong:?}").contains("canary"),
            "{error:?}"
        );
        let inline = settings(&[("WALG_PGP_KEY", "canary of a key")]);
        let error = inline.recipients(now()).expect_err("no key");
        assert!(
            !format!("{error:?} {inline:?}").contains("canary"),
            "{error:?}"
        );
        let missing = settings(&[("WALG_PGP_KEY_PATH", "/nowhere/key")]);
        missing.recipients(now()).expect_err("no file");
        let home = tempfile::tempdir().expect("a folder");
        let home = home.path().to_str().expect("a name");
        let unknown = settings(&[("GNUPGHOME", home), ("WALE_GPG_KEY_ID", "0123456789ABCDEF")]);
        let error = unknown.recipients(now()).expect_err("no such key");
        assert!(error.message.contains("0123456789ABCDEF"), "{error:?}");
        let (_, mistakes) = read(&[("WALE_GPG_KEY_ID", "x"), ("WALG_PGP_KEY_PATH", "/k")]);
        assert_eq!(mistakes.len(), 1, "{mistakes:?}");
    }

    /// `gpg` itself gives a secret key, whose passphrase stands on no command line.
    #[test]
    fn gpg_gives_the_secret_key() {
        let home = tempfile::tempdir().expect("a folder");
        let only_ours = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(home.path(), only_ours).expect("ours");
        let home = home.path().to_str().expect("a name");
        let import = Command::new("gpg")
            .args(["--batch", "--quiet", "--import"])
            .arg(golden("curve-secret.asc"))
            .env("GNUPGHOME", home)
            .status();
        if !import.is_ok_and(|status| status.success()) {
            wale_testkit::skip("keys from gpg", "the program gpg cannot be run");
            return;
        }
        let name = ("WALE_GPG_KEY_ID", "curve@example.invalid");
        let passphrase = ("WALG_PGP_KEY_PASSPHRASE", "correct horse");
        let at_home = settings(&[("GNUPGHOME", home), name, passphrase]);
        let recipients = at_home.recipients(now()).expect("a key").expect("written");
        let keys = at_home.secret_keys().expect("a key").expect("a secret one");
        assert_eq!(keys.key_ids(), recipients.key_ids());
        let wrong = ("WALG_PGP_KEY_PASSPHRASE", "canary");
        let _ = Command::new("gpgconf")
            .args(["--kill", "all"])
            .env("GNUPGHOME", home)
            .status();
        let error = settings(&[("GNUPGHOME", home), name, wrong]).secret_keys();
        let error = error.expect_err("another passphrase");
        assert!(!format!("{error:?}").contains("canary"), "{error:?}");
        let none = settings(&[("GNUPGHOME", home), name]).secret_keys();
        none.expect_err("nobody is asked");
        let _ = Command::new("gpgconf")
            .args(["--kill", "all"])
            .env("GNUPGHOME", home)
            .status();
    }
}
