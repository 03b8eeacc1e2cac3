//! Where values come from: flags, environment, configuration file, default, in this order.
//!
//! The only code of the program that reads the environment. Knows names and texts, not what they
//! mean. A value is the first that is set; an empty value is not set, except for the schedule, where
//! the original took an empty value for "no schedule", and for WAL-E's key on WAL-E's command line.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use wale_cluster::read_bounded_text;

use super::declared::{SETTINGS, WALE_CONFIG_FILE, WALE_GPG_KEY_ID};
use super::group::Group;
use super::mistake::Mistake;
use super::numbered;
use super::raw::{Origin, Raw};
use super::setting::{Declared, Values};
use super::value::without_line_end;
use super::wal_g;

/// Largest configuration file: a hundred settings of 10 kB each.
const CONFIG_MAX: u64 = 1 << 20;

/// What it means when several prefixes are set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Several {
    /// A mistake: two archives cannot both be meant.
    #[default]
    Refused,
    /// The first in WAL-E's order, as WAL-E takes it.
    FirstOfWalE,
}

/// The three sources above the defaults.
#[derive(Default)]
pub(crate) struct Sources {
    flags: BTreeMap<String, String>,
    environment: BTreeMap<String, String>,
    file: BTreeMap<String, (String, usize)>,
    file_path: PathBuf,
    /// What was wrong with the sources themselves.
    pub(crate) mistakes: Vec<Mistake>,
    /// What several prefixes mean.
    pub(crate) several: Several,
    /// The further archive whose settings these are.
    archive: Option<u8>,
}

impl Sources {
    /// The process's environment, these flags (by the settings' names), and the configuration file
    /// that either of them names.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the environment"
    )]
    pub(crate) fn of_process(flags: BTreeMap<String, String>) -> Self {
        let mut sources = Self::new(flags, std::env::vars_os());
        if let Some(path) = sources.value(&WALE_CONFIG_FILE).text {
            sources.read_file(Path::new(&path), WALE_CONFIG_FILE.name());
        }
        sources
    }

    /// This file alone: the credentials of one archive are no other's. The home directory and the proxies are the
    /// machine's, whichever archive it speaks to.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the environment"
    )]
    pub(crate) fn of_file(path: &Path) -> Self {
        let is_of_the_machine = |name: &OsString| {
            let name = name.to_str();
            let of_proxies = |setting: &&&dyn Declared| setting.facts().group == Group::Proxies;
            name == Some("HOME")
                || SETTINGS
                    .iter()
                    .filter(of_proxies)
                    .any(|setting| name.is_some_and(|name| setting.facts().goes_by(name)))
        };
        let variables = std::env::vars_os().filter(|(name, _)| is_of_the_machine(name));
        let mut sources = Self::new(BTreeMap::new(), variables);
        sources.read_file(path, "--to");
        // What the file says of them counts.
        let of_file = std::mem::take(&mut sources.environment).into_iter();
        let of_file = of_file.filter(|(name, _)| !sources.file.contains_key(name));
        sources.environment = of_file.collect();
        sources
    }

    /// The same for the further archive of that number: the settings that belong to one archive are those with the number,
    /// and all others are the same.
    pub(super) fn of_archive(&self, number: u8) -> Self {
        let name_there = |name: &str| {
            let own = numbered::split(name).filter(|(base, _)| numbered::names_one_archive(base));
            match own {
                Some((base, its)) => (its == number).then(|| base.to_owned()),
                None if numbered::names_one_archive(name) => None,
                None => Some(name.to_owned()),
            }
        };
        let environment = self.environment.iter();
        let file = self.file.iter();
        let flags = self.flags.iter();
        Self {
            flags: flags
                .filter(|(name, _)| !numbered::names_one_archive(name))
                .map(|(name, text)| (name.clone(), text.clone()))
                .collect(),
            environment: environment
                .filter_map(|(name, text)| Some((name_there(name)?, text.clone())))
                .collect(),
            file: file
                .filter_map(|(name, place)| Some((name_there(name)?, place.clone())))
                .collect(),
            file_path: self.file_path.clone(),
            mistakes: Vec::new(),
            several: self.several,
            archive: Some(number),
        }
    }

    /// The names of the settings that flags set.
    pub(super) fn flag_names(&self) -> impl Iterator<Item = &str> {
        self.flags.keys().map(String::as_str)
    }

    /// These flags and this environment, no file.
    pub(crate) fn new(
        flags: BTreeMap<String, String>,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Self {
        let mut sources = Self {
            flags,
            ..Self::default()
        };
        for (name, value) in variables {
            let Ok(name) = name.into_string() else {
                continue;
            };
            match value.into_string() {
                Ok(value) => drop(sources.environment.insert(name, value)),
                Err(_) if is_declared(&name) => sources.mistakes.push(Mistake::of_program(
                    format!("{name}: the value is not UTF-8"),
                )),
                Err(_) => {}
            }
        }
        sources
    }

    /// `named` is what names the file, for messages.
    fn read_file(&mut self, path: &Path, named: &str) {
        self.file_path = path.to_path_buf();
        match read_bounded_text(path, CONFIG_MAX) {
            Ok(text) => self.take_file(&text),
            Err(error) => self.mistakes.push(
                Mistake::of_program(format!(
                    "{named}: could not read \"{}\": {error}",
                    path.display()
                ))
                .hint("name a readable text file of lines NAME=value"),
            ),
        }
    }

    /// Takes the lines of a configuration file: `NAME=value`, `#` starts a comment line, one pair
    /// of quotes around the value is removed.
    fn take_file(&mut self, text: &str) {
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let line = line.strip_prefix("export ").unwrap_or(line);
            if let Some((name, value)) = line.split_once('=') {
                let value = unquote(value.trim()).to_owned();
                self.file.insert(name.trim().to_owned(), (value, index + 1));
            } else {
                let place = format!("{}:{}", self.file_path.display(), index + 1);
                self.mistakes.push(
                    Mistake::of_program(format!("{place}: the line has no \"=\""))
                        .hint("write NAME=value, and # before a comment"),
                );
            }
        }
    }

    /// What every setting is set to.
    pub(crate) fn values(&self) -> Values {
        let found = |setting: &&dyn Declared| (setting.facts().name, self.value(*setting));
        Values::new(SETTINGS.iter().map(found).collect(), self.home())
    }

    /// The value of a setting, not parsed.
    pub(super) fn value(&self, setting: &dyn Declared) -> Raw {
        let facts = setting.facts();
        let direct = self.look_up(setting);
        let Some(variable) = facts.file_variable() else {
            return direct;
        };
        let named = self.under(&[variable.as_str()], false);
        let Some(path) = named.text else {
            return direct;
        };
        if direct.text.is_some() {
            let text = format!("{} and {variable} are both set", facts.name);
            let mistake = Mistake::new(facts.group, text).hint("keep one of them");
            return Raw {
                mistake: Some(mistake),
                ..direct
            };
        }
        let problem = match read_secret(&path) {
            Ok(text) => return Raw::set(text, Origin::SecretFile(path.into())),
            Err(problem) => problem,
        };
        // The commonest slip is the secret itself in place of the file's path: only what is certainly a path
        // is repeated.
        let is_path = Path::new(&path).is_absolute();
        let (text, hint, origin) = if is_path {
            (
                format!("{variable}: \"{path}\": {problem}"),
                format!("mount the file with the secret in it, or unset {variable}"),
                Origin::SecretFile(path.into()),
            )
        } else {
            (
                format!(
                    "{variable}: its value, which is not shown, is not the path of a file that can be read"
                ),
                format!(
                    "give it the path of the file with the secret, from / on; the secret itself belongs into {}",
                    facts.name
                ),
                named.origin,
            )
        };
        Raw {
            text: None,
            origin,
            mistake: Some(Mistake::new(facts.group, text).hint(hint)),
        }
    }

    /// The first source that sets the setting, by its name or one of its aliases.
    fn look_up(&self, setting: &dyn Declared) -> Raw {
        let facts = setting.facts();
        // An empty key turned encryption on in WAL-E. A user who calls this WAL-E must not store in clear because of
        // it.
        let is_wal_es_key =
            facts.name == WALE_GPG_KEY_ID.name() && self.several == Several::FirstOfWalE;
        let empty_counts = is_wal_es_key || setting.empty_counts();
        let text = self.flags.get(facts.name);
        if let Some(text) = text.filter(|text| empty_counts || !text.trim().is_empty()) {
            return Raw::set(text, Origin::Flag);
        }
        let names: Vec<&str> = std::iter::once(facts.name)
            .chain(facts.aliases.iter().copied())
            .collect();
        self.under(&names, empty_counts)
    }

    /// The first of these names that is set in the environment, otherwise in the file.
    fn under(&self, names: &[&str], empty_counts: bool) -> Raw {
        let counts = |text: &str| empty_counts || !text.trim().is_empty();
        for name in names {
            if let Some(text) = self.environment.get(*name)
                && counts(text)
            {
                let text = wal_g::in_our_words(name, text);
                let name = match self.archive {
                    Some(number) => numbered::with_numbers(name, number),
                    None => (*name).to_owned(),
                };
                return Raw::set(text, Origin::Environment(name));
            }
        }
        for name in names {
            if let Some((text, line)) = self.file.get(*name)
                && counts(text)
            {
                let text = wal_g::in_our_words(name, text);
                return Raw::set(text, Origin::File(self.file_path.clone(), *line));
            }
        }
        Raw::unset()
    }

    /// The names in the environment and the file with their values, for the search for misspellings.
    pub(crate) fn set_names(&self) -> impl Iterator<Item = (&str, &str)> {
        let of_file = self.file.iter().map(|(name, (text, _))| (name, text));
        let all = self.environment.iter().chain(of_file);
        all.map(|(name, text)| (name.as_str(), text.as_str()))
    }

    /// Is the name in the configuration file?
    pub(crate) fn is_in_file(&self, name: &str) -> bool {
        self.file.contains_key(name)
    }

    /// The home directory of the user, for libpq's password file.
    fn home(&self) -> Option<PathBuf> {
        self.environment
            .get("HOME")
            .filter(|home| home.starts_with('/'))
            .map(PathBuf::from)
    }

    /// These texts, with the file as if it were `/etc/wale.conf`.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn for_test(
        flags: &[(&str, &str)],
        environment: &[(&str, &str)],
        file: &str,
    ) -> Self {
        let flags = flags
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
            .collect();
        let variables = environment
            .iter()
            .map(|(n, v)| (OsString::from(n), OsString::from(v)));
        let mut sources = Self::new(flags, variables);
        sources.file_path = "/etc/wale.conf".into();
        sources.take_file(file);
        sources
    }
}

/// No secret is larger than 64 KiB; a device that never ends must not fill the memory.
const SECRET_MAX: u64 = 64 << 10;

/// The secret in a file, or why there is none. A user who names a file asked for a secret: an empty one is a file
/// that nobody has filled yet. Without the secret the sidecar would be open, or an object stored in clear.
fn read_secret(path: &str) -> Result<String, String> {
    let text = read_bounded_text(Path::new(path), SECRET_MAX)
        .map_err(|error| format!("could not read it: {error}"))?;
    let text = without_line_end(&text);
    if text.trim().is_empty() {
        return Err("the file is empty, and a file that is named must hold the secret".to_owned());
    }
    Ok(text.to_owned())
}

/// Whether some setting is read under this name.
pub(crate) fn is_declared(name: &str) -> bool {
    SETTINGS.iter().any(|setting| setting.facts().goes_by(name))
}

fn unquote(value: &str) -> &str {
    for quote in ['"', '\''] {
        if let Some(inner) = value
            .strip_prefix(quote)
            .and_then(|v| v.strip_suffix(quote))
        {
            return inner;
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::super::declared::{AWS_SECRET_ACCESS_KEY, PGPASSWORD};
    use super::*;

    fn value(sources: &Sources, name: &str) -> (Option<String>, String) {
        let mut settings = SETTINGS.iter();
        let setting = settings.find(|setting| setting.facts().name == name);
        let raw = sources.value(*setting.expect("a setting"));
        (raw.text, raw.origin.to_string())
    }

    #[test]
    fn precedence() {
        type Set<'a> = &'a [(&'a str, &'a str)];
        let cases: &[(Set, Set, &str, Option<&str>, &str)] = &[
            (
                &[("WALE_LOG", "a")],
                &[("WALE_LOG", "b")],
                "WALE_LOG=c",
                Some("a"),
                "flag",
            ),
            (
                &[],
                &[("WALE_LOG", "b")],
                "WALE_LOG=c",
                Some("b"),
                "environment WALE_LOG",
            ),
            (
                &[],
                &[],
                "# comment\nWALE_LOG=c",
                Some("c"),
                "/etc/wale.conf:2",
            ),
            (
                &[],
                &[("WALE_LOG", "")],
                "WALE_LOG = 'c d'",
                Some("c d"),
                "/etc/wale.conf:1",
            ),
            (
                &[("WALE_LOG", "")],
                &[("WALE_LOG", "  ")],
                "WALE_LOG=",
                None,
                "unset",
            ),
        ];
        for (flags, environment, file, text, origin) in cases {
            let sources = Sources::for_test(flags, environment, file);
            let expected = (text.map(str::to_owned), (*origin).to_owned());
            assert_eq!(value(&sources, "WALE_LOG"), expected);
            assert_eq!(sources.mistakes, []);
        }
    }

    #[test]
    fn aliases_are_read_after_the_name() {
        let both = [("WALG_FILE_PREFIX", "/g"), ("WALE_FILE_PREFIX", "/e")];
        let sources = Sources::for_test(&[], &both, "");
        assert_eq!(value(&sources, "WALE_FILE_PREFIX").0.as_deref(), Some("/e"));
        let sources = Sources::for_test(&[], &both[..1], "");
        let expected = (
            Some("/g".to_owned()),
            "environment WALG_FILE_PREFIX".to_owned(),
        );
        assert_eq!(value(&sources, "WALE_FILE_PREFIX"), expected);
    }

    #[test]
    fn an_empty_schedule_is_a_value() {
        let sources = Sources::for_test(&[], &[("CRON_TIMING", "")], "");
        assert_eq!(value(&sources, "CRON_TIMING").0.as_deref(), Some(""));
    }

    #[test]
    fn an_empty_key_is_one_where_wal_e_is_called() {
        for (several, expected) in [(Several::Refused, None), (Several::FirstOfWalE, Some(""))] {
            let mut sources = Sources::for_test(&[], &[("WALE_GPG_KEY_ID", "")], "");
            sources.several = several;
            assert_eq!(value(&sources, "WALE_GPG_KEY_ID").0.as_deref(), expected);
        }
    }

    #[test]
    fn secrets_from_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "s3cret\n").unwrap();
        let path = path.to_str().unwrap();
        let sources = Sources::for_test(&[], &[("WALE_HTTP_TOKEN_FILE", path)], "");
        assert_eq!(
            value(&sources, "WALE_HTTP_TOKEN").0.as_deref(),
            Some("s3cret")
        );

        let both = [("PGPASSWORD", "canary"), ("PGPASSWORD_FILE", path)];
        let sources = Sources::for_test(&[], &both, "");
        let mistake = sources.value(&PGPASSWORD).mistake.expect("one");
        assert!(!format!("{mistake:?}").contains("canary"));

        let missing = [("PGPASSWORD_FILE", "/nonexistent/password")];
        let sources = Sources::for_test(&[], &missing, "");
        assert_eq!(value(&sources, "PGPASSWORD").0, None);
        let mistake = sources.value(&PGPASSWORD).mistake.expect("one");
        assert!(mistake.text.contains("/nonexistent/password"));
    }

    #[test]
    fn an_empty_file_is_a_mistake_for_every_secret_and_never_an_unset_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("empty");
        for content in ["", "\n", "\r\n", " \n\n"] {
            std::fs::write(&path, content).unwrap();
            for setting in SETTINGS {
                // The agent's token has a file of its own, of the same name, which is read for each renewal.
                let facts = setting.facts();
                let Some(variable) = facts
                    .file_variable()
                    .filter(|v| SETTINGS.iter().all(|other| other.facts().name != v))
                else {
                    continue;
                };
                let set = [(variable.as_str(), path.to_str().unwrap())];
                let sources = Sources::for_test(&[], &set, "");
                let raw = sources.value(*setting);
                assert!(raw.text.is_none() && raw.origin != Origin::Unset);
                let only = raw.mistake.expect("one");
                assert_eq!(only.group, facts.group);
                assert!(only.text.contains("is empty"), "{}", only.text);
            }
        }
    }

    #[test]
    fn a_secret_in_place_of_its_files_path_is_not_repeated() {
        for canary in ["canary", "can/ary", "canary+/=="] {
            let set = [("AWS_SECRET_ACCESS_KEY_FILE", canary)];
            let sources = Sources::for_test(&[], &set, "");
            let (text, origin) = value(&sources, "AWS_SECRET_ACCESS_KEY");
            assert_eq!(text, None);
            assert_eq!(origin, "environment AWS_SECRET_ACCESS_KEY_FILE");
            let mistake = sources.value(&AWS_SECRET_ACCESS_KEY).mistake;
            assert!(!format!("{:?}", mistake.expect("one")).contains(canary));
        }
    }

    #[test]
    fn what_is_no_regular_file_or_never_ends_is_refused_at_once() {
        for path in ["/dev/zero", "/"] {
            let set = [("PGPASSWORD_FILE", path)];
            let sources = Sources::for_test(&[], &set, "");
            let raw = sources.value(&PGPASSWORD);
            assert!(raw.text.is_none());
            assert!(raw.mistake.expect("one").text.contains("no regular file"));
            let mut sources = Sources::default();
            sources.read_file(Path::new(path), "--to");
            assert!(sources.mistakes[0].text.contains("no regular file"));
        }
        let large = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(large.path(), "x".repeat(65_537)).unwrap();
        assert!(read_secret(large.path().to_str().unwrap()).is_err());
    }

    #[test]
    fn lines_that_are_no_settings() {
        let sources = Sources::for_test(&[], &[], "\n# x\nexport A=1\nnonsense\n");
        assert_eq!(sources.mistakes.len(), 1);
        assert!(sources.mistakes[0].text.starts_with("/etc/wale.conf:4"));
        assert!(sources.is_in_file("A"));
    }
}
