//! What a setting is, and the values of all settings.
//!
//! A setting is declared once, in [`declared`](super::declared): its type, its name, how it is written, its default, and
//! what it does, in words. [`Values`] gives the value of a setting in the setting's own type. It holds texts, and parses
//! again for everybody who asks; what is wrong with a text was noted when the settings were loaded, and its default
//! stands in its place.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::group::Group;
use super::mistake::Mistake;
use super::raw::{Origin, Raw};
use super::shape::Shape;
use super::value::{self, BadValue};

/// What holds when nothing is set.
#[derive(Clone, Copy)]
pub(crate) enum Default {
    /// Nothing.
    None,
    /// This text, parsed like any other.
    Fixed(&'static str),
    /// This time, which is the constant of a room.
    Time(Duration),
    /// Nothing that wale knows; what it comes to, in these words.
    Words(&'static str),
    /// A text that follows from something else, and how, in these words.
    Derived(&'static str, fn(&Values) -> Option<String>),
}

/// Everything about a setting but its type.
#[derive(Clone, Copy)]
pub(crate) struct Facts {
    /// The environment variable, and the key in a configuration file.
    pub(crate) name: &'static str,
    /// Its heading.
    pub(crate) group: Group,
    /// What holds when it is not set.
    pub(crate) default: Default,
    /// One paragraph for the operator.
    pub(crate) doc: &'static str,
    /// The first version that knows it.
    pub(crate) since: &'static str,
    /// Other names that are read when this one is not set.
    pub(crate) aliases: &'static [&'static str],
    /// The long flag of `wale`, without the dashes.
    pub(crate) flag: Option<&'static str>,
    /// Never shown; `<name>_FILE` names a file that holds it.
    pub(crate) secret: bool,
    /// For tests only: not in the help, in a section of its own on the reference page.
    pub(crate) hidden: bool,
}

impl Facts {
    /// The variable that names a file with the value, for secrets.
    pub(crate) fn file_variable(&self) -> Option<String> {
        self.secret.then(|| format!("{}_FILE", self.name))
    }

    /// Whether the file that it names holds a secret, which somebody may give in place of the path.
    pub(super) fn is_path_of_secret(&self) -> bool {
        let name = self.name;
        name.ends_with("TOKEN_FILE")
            || name.ends_with("KEY_FILE")
            || name.ends_with("KEY_PATH")
            || name.ends_with("IDENTITY_FILE")
            || ["PGPASSFILE", "GOOGLE_APPLICATION_CREDENTIALS"].contains(&name)
    }

    /// Whether the setting is read under this name.
    pub(crate) fn goes_by(&self, name: &str) -> bool {
        self.name == name
            || self.aliases.contains(&name)
            || self
                .file_variable()
                .is_some_and(|variable| variable == name)
    }
}

/// One setting, whose values are of the type `T`: an `Option` where nothing need be set.
pub(crate) struct Setting<T: 'static> {
    facts: Facts,
    shape: &'static dyn Shape<T>,
}

impl<T> Setting<T> {
    /// A setting that is written like this, with its paragraph. The list gives it its name.
    pub(super) const fn new(group: Group, shape: &'static dyn Shape<T>, doc: &'static str) -> Self {
        let facts = Facts {
            name: "",
            group,
            default: Default::None,
            doc,
            since: "0.1.0",
            aliases: &[],
            flag: None,
            secret: false,
            hidden: false,
        };
        Self { facts, shape }
    }

    pub(super) const fn named(mut self, name: &'static str) -> Self {
        self.facts.name = name;
        self
    }

    pub(super) const fn default(mut self, text: &'static str) -> Self {
        self.facts.default = Default::Fixed(text);
        self
    }

    pub(super) const fn otherwise(mut self, words: &'static str) -> Self {
        self.facts.default = Default::Words(words);
        self
    }

    pub(super) const fn derived(
        mut self,
        words: &'static str,
        by: fn(&Values) -> Option<String>,
    ) -> Self {
        self.facts.default = Default::Derived(words, by);
        self
    }

    pub(super) const fn flag(mut self, flag: &'static str) -> Self {
        self.facts.flag = Some(flag);
        self
    }

    pub(super) const fn aliases(mut self, aliases: &'static [&'static str]) -> Self {
        self.facts.aliases = aliases;
        self
    }

    pub(super) const fn secret(mut self) -> Self {
        self.facts.secret = true;
        self
    }

    pub(super) const fn hidden(mut self) -> Self {
        self.facts.hidden = true;
        self
    }

    /// Its name, in the environment and in the file.
    pub(crate) const fn name(&self) -> &'static str {
        self.facts.name
    }

    fn parse(&self, raw: &Raw) -> Option<Result<T, BadValue>> {
        let text = raw.text.as_deref()?;
        // The ends of a line are never meant; inside several lines they may be. A password may end with a space.
        let text = if self.facts.secret {
            value::without_line_end(text)
        } else {
            text.trim()
        };
        let is_free = self.facts.secret || self.shape.is_free();
        let parsed = self.shape.parse(text);
        Some(parsed.map_err(|bad| match value::quote_around(text) {
            Some(quote) if !is_free => {
                let problem = format!("the value stands in quotes ({quote}), which are part of it");
                BadValue::new(problem).hint(
                    "leave the quotes out: an env file and a Secret keep them, only a shell takes them off",
                )
            }
            _ if self.facts.is_path_of_secret() => {
                // Some write what belongs into the file: a token, or a key.
                let problem = "its value, which is not shown, is not an absolute path";
                BadValue::new(problem).hint(bad.hint.unwrap_or_default())
            }
            _ => bad,
        }))
    }
}

impl Setting<Duration> {
    pub(super) const fn default_time(mut self, time: Duration) -> Self {
        self.facts.default = Default::Time(time);
        self
    }
}

/// A setting as the list has it, whatever its type.
pub(crate) trait Declared: Sync {
    /// Everything but its type.
    fn facts(&self) -> &Facts;

    /// The type as the reference page names it.
    fn describe(&self) -> String;

    /// Whether an empty text is a value.
    fn empty_counts(&self) -> bool;

    /// The capability that is not built yet.
    fn not_built(&self) -> Option<&'static str>;

    /// What is wrong with its text.
    fn mistake(&self, values: &Values) -> Option<Mistake>;
}

impl<T> Declared for Setting<T> {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn describe(&self) -> String {
        self.shape.describe()
    }

    fn empty_counts(&self) -> bool {
        self.shape.empty_counts()
    }

    fn not_built(&self) -> Option<&'static str> {
        self.shape.not_built()
    }

    fn mistake(&self, values: &Values) -> Option<Mistake> {
        values.read(self).1
    }
}

/// Declares settings, `NAME: type of its values = what it is;`, and the list of them.
macro_rules! settings {
    ($($name:ident: $type:ty = $setting:expr;)*) => {
        $(pub(crate) static $name: Setting<$type> = $setting.named(stringify!($name));)*

        /// Every setting, in the order of the reference page.
        pub(crate) static SETTINGS: &[&dyn Declared] = &[$(&$name),*];
    };
}
pub(super) use settings;

/// What every setting is set to.
#[derive(Clone)]
pub(crate) struct Values {
    raw: BTreeMap<&'static str, Raw>,
    home: Option<PathBuf>,
}

/// The names alone: values may be secrets.
impl std::fmt::Debug for Values {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let set = self.raw.iter().filter(|(_, raw)| raw.text.is_some());
        f.debug_set().entries(set.map(|(name, _)| name)).finish()
    }
}

impl Values {
    /// What was found of every setting of the list, and the user's home directory.
    pub(super) fn new(raw: BTreeMap<&'static str, Raw>, home: Option<PathBuf>) -> Self {
        Self { raw, home }
    }

    /// The value: what is set, otherwise its default.
    pub(crate) fn get<T>(&self, setting: &Setting<T>) -> T {
        self.read(setting).0
    }

    /// The same, and what is wrong with the text that is set: then the value is the default.
    pub(super) fn read<T>(&self, setting: &Setting<T>) -> (T, Option<Mistake>) {
        let raw = self.raw(&setting.facts);
        let mistake = match setting.parse(raw) {
            Some(Ok(value)) => return (value, None),
            Some(Err(BadValue { problem, hint })) => {
                let text = format!("{}: {problem}", setting.facts.name);
                let mut mistake = Mistake::new(setting.facts.group, text);
                mistake.hint = hint.map(|hint| format!("{hint} ({})", raw.origin));
                Some(mistake)
            }
            None => None,
        };
        let value = self
            .default_text(&setting.facts)
            .and_then(|text| setting.shape.parse(&text).ok())
            .or_else(|| setting.shape.unset())
            .expect("a setting has a default that parses, or may be unset, as a test holds");
        (value, mistake)
    }

    /// The default's text.
    pub(super) fn default_text(&self, facts: &Facts) -> Option<String> {
        match facts.default {
            Default::None | Default::Words(_) => None,
            Default::Fixed(text) => Some(text.to_owned()),
            Default::Time(time) => Some(value::duration_text(time)),
            Default::Derived(_, by) => by(self),
        }
    }

    /// What was found.
    pub(super) fn raw(&self, facts: &Facts) -> &Raw {
        &self.raw[facts.name]
    }

    /// The text and origin of a setting that is set by somebody.
    pub(super) fn set<T>(&self, setting: &Setting<T>) -> Option<(&str, &Origin)> {
        let raw = self.raw(&setting.facts);
        Some((raw.text.as_deref()?, &raw.origin))
    }

    /// Whether somebody sets it, be it wrongly: what is missing because it could not be read is a mistake already.
    pub(super) fn is_set<T>(&self, setting: &Setting<T>) -> bool {
        self.raw(&setting.facts).origin != Origin::Unset
    }

    /// The file that holds a secret, when it is set by one.
    pub(crate) fn secret_file<T>(&self, setting: &Setting<T>) -> Option<&Path> {
        match &self.raw(&setting.facts).origin {
            Origin::SecretFile(path) => Some(path),
            _ => None,
        }
    }

    /// The home directory of the user.
    pub(super) fn home(&self) -> Option<&Path> {
        self.home.as_deref()
    }
}
