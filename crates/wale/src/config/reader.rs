//! Reads declared settings one by one and keeps every mistake instead of stopping at the first.
//!
//! A value that cannot be parsed is replaced by its default, so that the rest can be read; whoever
//! needs the group must look at the mistakes before using it.

use std::path::PathBuf;
use std::time::Duration;

use wale_cluster::Secret;

use super::declared::{self, Default, SETTINGS, Setting, Shape, WITHOUT_EFFECT};
use super::mistake::{Mistake, nearest};
use super::redact::{self, redact};
use super::source::{Origin, Raw, Several, Sources};
use super::value::{self, BadValue, Unit};

/// Reads from the sources and gathers mistakes.
pub(crate) struct Reader {
    sources: Sources,
    /// Everything that was wrong so far.
    pub(crate) mistakes: Vec<Mistake>,
}

impl Reader {
    /// A reader of these sources.
    pub(crate) fn new(mut sources: Sources) -> Self {
        let mistakes = std::mem::take(&mut sources.mistakes);
        Self { sources, mistakes }
    }

    /// What several prefixes mean.
    pub(crate) fn several(&self) -> Several {
        self.sources.several
    }

    /// The home directory.
    pub(crate) fn home(&self) -> Option<PathBuf> {
        self.sources.home()
    }

    /// The text of a setting and its origin, defaults included, not parsed.
    pub(crate) fn raw(&mut self, setting: &Setting) -> Raw {
        let raw = self.sources.value(setting);
        self.mistakes.append(&mut self.sources.mistakes);
        match (&raw.text, setting.default) {
            (None, Default::Fixed(text)) => Raw {
                text: Some(text.to_owned()),
                origin: Origin::Default,
            },
            _ => raw,
        }
    }

    /// The text and origin of a setting that is set by somebody.
    pub(crate) fn set(&mut self, name: &str) -> Option<(String, Origin)> {
        let raw = self.sources.value(declared::setting(name));
        self.mistakes.append(&mut self.sources.mistakes);
        raw.text.map(|text| (text, raw.origin))
    }

    /// Whether somebody sets it, be it wrongly: what is missing because it could not be read is a mistake already.
    pub(crate) fn is_set(&mut self, name: &str) -> bool {
        let raw = self.sources.value(declared::setting(name));
        self.mistakes.append(&mut self.sources.mistakes);
        raw.origin != Origin::Unset
    }

    /// The parsed value; a mistake is kept and the parsed default returned.
    pub(crate) fn parse<T>(
        &mut self,
        name: &str,
        parse: impl Fn(&str) -> Result<T, BadValue>,
    ) -> Option<T> {
        let setting = declared::setting(name);
        let raw = self.raw(setting);
        // The ends of a line are never meant; inside several lines they may be.
        let text = raw.text.as_deref()?.trim();
        let parsed = parse(text).map_err(|bad| match quote_around(setting, text) {
            Some(quote) => BadValue::new(format!("the value stands in quotes ({quote}), which are part of it"))
                .hint("leave the quotes away: an env file and a Secret keep them, only a shell takes them off"),
            None => bad,
        });
        match parsed {
            Ok(value) => Some(value),
            Err(BadValue { problem, hint }) => {
                let hint = hint.map(|hint| format!("{hint} ({})", raw.origin));
                let text = format!("{name}: {problem}");
                self.mistakes.push(Mistake {
                    group: setting.group,
                    text,
                    hint,
                });
                match setting.default {
                    Default::Fixed(text) => parse(text).ok(),
                    Default::None | Default::Derived(_) => None,
                }
            }
        }
    }

    /// The parsed value of a setting that has a fixed default.
    fn defaulted<T>(&mut self, name: &str, parse: impl Fn(&str) -> Result<T, BadValue>) -> T {
        self.parse(name, parse)
            .expect("a setting with a default that parses, as a test holds")
    }

    /// Text, if set.
    pub(crate) fn optional_text(&mut self, name: &str) -> Option<String> {
        self.parse(name, |text| Ok(text.to_owned()))
    }

    /// Text with a default.
    pub(crate) fn text(&mut self, name: &str) -> String {
        self.defaulted(name, |text| Ok(text.to_owned()))
    }

    /// A secret, if set.
    pub(crate) fn secret(&mut self, name: &str) -> Option<Secret> {
        // A password may end with a space, and quotes are its own; the end of a line comes from `kubectl create secret`
        // and an editor.
        let raw = self.raw(declared::setting(name));
        raw.text
            .map(|text| Secret::new(value::without_line_end(&text)))
    }

    /// The file that holds a secret, when it is set by one.
    pub(crate) fn secret_file(&mut self, name: &str) -> Option<PathBuf> {
        match self.raw(declared::setting(name)).origin {
            Origin::SecretFile(path) => Some(path),
            _ => None,
        }
    }

    /// A path, if set.
    pub(crate) fn optional_path(&mut self, name: &str) -> Option<PathBuf> {
        // Some write what belongs into the file: a token, or a key.
        self.parse(name, |text| {
            value::absolute_path(text).map_err(|bad| {
                if !is_path_of_secret(name) {
                    return bad;
                }
                let problem = "its value, which is not shown, is not an absolute path";
                BadValue::new(problem).hint(bad.hint.unwrap_or_default())
            })
        })
    }

    /// A path with a default.
    pub(crate) fn path(&mut self, name: &str) -> PathBuf {
        self.defaulted(name, value::absolute_path)
    }

    /// The server's host.
    pub(crate) fn host(&mut self, name: &str) -> String {
        self.defaulted(name, value::host)
    }

    /// The name of a role or of a database, with a default.
    pub(crate) fn name(&mut self, name: &str) -> String {
        self.defaulted(name, value::name)
    }

    /// A port with a default.
    pub(crate) fn port(&mut self, name: &str) -> u16 {
        self.defaulted(name, value::port)
    }

    /// A length of time with a default.
    pub(crate) fn duration(&mut self, name: &str) -> Duration {
        let unit = match declared::setting(name).shape {
            Shape::Duration(unit) => unit,
            _ => Unit::Seconds,
        };
        self.defaulted(name, |text| value::duration(text, unit))
    }

    /// A number of bytes, if set.
    pub(crate) fn optional_size(&mut self, name: &str) -> Option<u64> {
        self.parse(name, value::size)
    }

    /// A whole number within the declared bounds, if set.
    pub(crate) fn optional_integer<T: TryFrom<i64>>(&mut self, name: &str) -> Option<T> {
        let (min, max) = match declared::setting(name).shape {
            Shape::Integer { min, max } => (min, max),
            _ => (i64::MIN, i64::MAX),
        };
        let number = self.parse(name, |text| value::integer(text, min, max))?;
        T::try_from(number).ok()
    }

    /// A whole number with a default.
    pub(crate) fn integer<T: TryFrom<i64>>(&mut self, name: &str) -> T {
        self.optional_integer(name)
            .expect("a setting with a default within its bounds")
    }

    /// One of the declared words, in its declared spelling.
    pub(crate) fn word(&mut self, name: &str) -> &'static str {
        let Shape::Choice(words) = declared::setting(name).shape else {
            panic!("{name} is not declared as a choice");
        };
        self.defaulted(name, |text| value::choice(text, words))
    }

    /// `on` or `off`.
    pub(crate) fn switch(&mut self, name: &str) -> bool {
        self.defaulted(name, value::switch)
    }

    /// Refuses what is known and not built yet: encryption must never be silently off.
    pub(crate) fn refuse_what_is_not_built(&mut self) {
        for setting in SETTINGS {
            let Shape::NotYet(what) = setting.shape else {
                continue;
            };
            if self.set(setting.name).is_some() {
                let text = format!("{}: {what} is not built yet in this version", setting.name);
                self.mistakes.push(
                    Mistake::new(setting.group, text)
                        .hint("unset it, or wait for the version that has it"),
                );
            }
        }
    }

    /// A mistake as it may be told. Many a parser quotes what it refuses.
    pub(crate) fn without_secrets(&mut self, mistake: Mistake) -> Mistake {
        let secrets: Vec<String> = SETTINGS
            .iter()
            .filter(|setting| setting.secret)
            .filter_map(|setting| self.sources.value(setting).text)
            .flat_map(|text| [text.trim().to_owned(), text])
            .filter(|text| !text.is_empty())
            .collect();
        self.sources.mistakes.clear();
        let clean = |text: String| {
            let text = redact::without(text, &secrets);
            // The name before the colon is a setting's. What follows is no value of that name, but words about it.
            match text.split_once(": ").filter(|(name, _)| is_known(name)) {
                Some((name, problem)) => format!("{name}: {}", redact(problem)),
                None => redact(&text),
            }
        };
        Mistake {
            group: mistake.group,
            text: clean(mistake.text),
            hint: mistake.hint.map(clean),
        }
    }

    /// Warnings about names that nobody reads: variables without effect, and those that look like
    /// ours and are not known.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let mut names: Vec<&str> = self.sources.names().collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            if let Some((_, why)) = WITHOUT_EFFECT.iter().find(|(known, _)| *known == name) {
                warnings.push(format!("{name} has no effect: {why}"));
            } else if self.looks_like_ours(name) && !is_known(name) {
                let nearest = nearest(name, SETTINGS.iter().map(|setting| setting.name));
                let advice = nearest.map_or_else(String::new, |n| format!("; did you mean {n}?"));
                warnings.push(format!(
                    "{name} is not a known setting and has no effect{advice}"
                ));
            }
        }
        warnings
    }

    fn looks_like_ours(&self, name: &str) -> bool {
        (name.starts_with("WALE_") && !is_of_kubernetes(name)) || self.sources.is_in_file(name)
    }
}

/// Whether the file of this setting holds a secret, which somebody may give in place of the path.
pub(super) fn is_path_of_secret(name: &str) -> bool {
    name.ends_with("TOKEN_FILE") || name.ends_with("KEY_FILE") || name == "PGPASSFILE"
}

/// The quote that stands around a value in which none can be meant.
fn quote_around(setting: &Setting, text: &str) -> Option<char> {
    let is_free = setting.secret || matches!(setting.shape, Shape::Text | Shape::Lines);
    let quote = text
        .chars()
        .next()
        .filter(|first| matches!(first, '"' | '\''))?;
    (!is_free && text.len() > 1 && text.ends_with(quote)).then_some(quote)
}

fn is_known(name: &str) -> bool {
    SETTINGS.iter().any(|setting| {
        setting.name == name
            || setting.aliases.contains(&name)
            || setting
                .file_variable()
                .is_some_and(|variable| variable == name)
    })
}

/// Kubernetes sets these for every Service of the namespace; a Service called `wale` makes them
/// begin like our settings.
fn is_of_kubernetes(name: &str) -> bool {
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.contains("_PORT_") && name.contains("_TCP")
        || name == "WALE_PORT"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_name_the_nearest_setting() {
        let environment = [
            ("WALE_FILE_PERFIX", "x"),
            ("WALE_PORT_5000_TCP_ADDR", "10.0.0.1"),
            ("WALE_SERVICE_HOST", "10.0.0.1"),
            ("WALE_HTTP_TOKEN_FILE", "/nonexistent"),
            ("WALE_RETRIES", "3"),
            ("PGOPTIONS", "-c work_mem=1GB"),
            ("PATH", "/bin"),
        ];
        let sources = Sources::for_test(&[], &environment, "PGHOTS=db");
        let warnings = Reader::new(sources).warnings();
        assert_eq!(
            warnings,
            [
                "PGHOTS is not a known setting and has no effect; did you mean PGHOST?",
                "PGOPTIONS has no effect: the control connection passes no options to the server",
                "WALE_FILE_PERFIX is not a known setting and has no effect; did you mean WALE_FILE_PREFIX?",
                "WALE_RETRIES has no effect: retries are bounded by time, not by number",
            ]
        );
    }

    #[test]
    fn every_default_parses() {
        let mut reader = Reader::new(Sources::for_test(&[], &[], ""));
        for setting in SETTINGS
            .iter()
            .filter(|s| matches!(s.default, Default::Fixed(_)))
        {
            let name = setting.name;
            match setting.shape {
                Shape::Path => drop(reader.path(name)),
                Shape::Port => drop(reader.port(name)),
                Shape::Duration(_) => drop(reader.duration(name)),
                Shape::Integer { .. } => drop(reader.integer::<i64>(name)),
                Shape::Choice(_) => drop(reader.word(name)),
                Shape::Switch => drop(reader.switch(name)),
                Shape::Address => drop(reader.parse(name, value::address)),
                Shape::Zone => drop(reader.parse(name, value::zone)),
                Shape::LogFilter => drop(reader.parse(name, value::log_filter)),
                _ => drop(reader.text(name)),
            }
        }
        assert_eq!(reader.mistakes, []);
    }
}
