//! Reads the values of settings while they are loaded, and keeps every mistake instead of stopping at the first.
//!
//! A value that cannot be parsed is replaced by its default, so that the rest can be read. A caller
//! that needs the group must check the mistakes before using it.

use std::path::{Path, PathBuf};

use super::declared::{SETTINGS, WITHOUT_EFFECT};
use super::mistake::{Mistake, nearest};
use super::numbered;
use super::raw::Origin;
use super::redact::{self, redact};
use super::setting::{Declared, Setting, Values};
use super::source::{Several, Sources, is_declared};
use super::wal_g;

/// Reads from the sources and gathers mistakes.
pub(crate) struct Reader {
    sources: Sources,
    values: Values,
    /// Everything that was wrong so far.
    pub(crate) mistakes: Vec<Mistake>,
}

impl Reader {
    /// A reader of these sources.
    pub(crate) fn new(mut sources: Sources) -> Self {
        let mistakes = std::mem::take(&mut sources.mistakes);
        let values = sources.values();
        Self {
            sources,
            values,
            mistakes,
        }
    }

    /// What several prefixes mean.
    pub(crate) fn several(&self) -> Several {
        self.sources.several
    }

    /// The home directory.
    pub(crate) fn home(&self) -> Option<&Path> {
        self.values.home()
    }

    /// What everything is set to.
    pub(crate) fn values(&self) -> &Values {
        &self.values
    }

    /// The value. What is wrong with it is kept.
    pub(crate) fn get<T>(&mut self, setting: &Setting<T>) -> T {
        self.note(setting);
        self.values.get(setting)
    }

    /// Keeps what is wrong with a setting.
    pub(crate) fn note(&mut self, setting: &dyn Declared) {
        let source = self.values.raw(setting.facts()).mistake.clone();
        self.mistakes.extend(source);
        self.mistakes.extend(setting.mistake(&self.values));
    }

    /// The text and origin of a setting that is set by somebody.
    pub(crate) fn set<T>(&self, setting: &Setting<T>) -> Option<(&str, &Origin)> {
        self.values.set(setting)
    }

    /// Whether somebody sets it, be it wrongly: what is missing because it could not be read is a mistake already.
    pub(crate) fn is_set<T>(&self, setting: &Setting<T>) -> bool {
        self.values.is_set(setting)
    }

    /// The file that holds a secret, when it is set by one.
    pub(crate) fn secret_file<T>(&self, setting: &Setting<T>) -> Option<PathBuf> {
        self.values.secret_file(setting).map(Path::to_path_buf)
    }

    /// Refuses what is known and not built yet: encryption must never be silently off.
    pub(crate) fn refuse_what_is_not_built(&mut self) {
        for setting in SETTINGS {
            let facts = setting.facts();
            let is_set = self.values.raw(facts).text.is_some();
            if let Some(what) = setting.not_built().filter(|_| is_set) {
                let text = format!("{}: {what} is not built yet in this version", facts.name);
                self.mistakes.push(
                    Mistake::new(facts.group, text)
                        .hint("unset it, or wait for the version that has it"),
                );
            }
        }
    }

    /// What was wrong as it may be shown, each once though several parts read a setting, by group.
    pub(crate) fn shown_mistakes(&mut self) -> Vec<Mistake> {
        let mut mistakes: Vec<Mistake> = Vec::new();
        for mistake in std::mem::take(&mut self.mistakes) {
            let mistake = self.without_secrets(mistake);
            if !mistakes.contains(&mistake) {
                mistakes.push(mistake);
            }
        }
        mistakes.sort_by_key(|mistake| mistake.group);
        mistakes
    }

    /// A mistake as it may be shown. Many a parser quotes what it refuses.
    fn without_secrets(&self, mistake: Mistake) -> Mistake {
        let secrets: Vec<String> = SETTINGS
            .iter()
            .filter(|setting| setting.facts().secret)
            .filter_map(|setting| self.values.raw(setting.facts()).text.clone())
            .flat_map(|text| [text.trim().to_owned(), text])
            .filter(|text| !text.is_empty())
            .collect();
        let clean = |text: String| {
            let text = redact::without(text, &secrets);
            // The name before the colon is a setting's. What follows is no value of that name, but words about it.
            match text.split_once(": ").filter(|(name, _)| is_declared(name)) {
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
        let mut names: Vec<(&str, &str)> = self.sources.set_names().collect();
        names.sort_by_key(|(name, _)| *name);
        names.dedup_by_key(|(name, _)| *name);
        for (name, text) in names {
            if let Some(warning) = wal_g::warning(name, text) {
                warnings.push(warning);
            } else if let Some((_, why)) = WITHOUT_EFFECT.iter().find(|(known, _)| *known == name) {
                warnings.push(format!("{name} has no effect: {why}"));
            } else if self.looks_like_ours(name) && !is_declared(name) {
                let (base, number) = match numbered::split(name) {
                    // Judged by `several::check`.
                    Some((base, _)) if is_declared(base) => continue,
                    Some((base, _)) => (base, &name[base.len()..]),
                    None => (name, ""),
                };
                let nearest = nearest(base, SETTINGS.iter().map(|setting| setting.facts().name));
                let advice =
                    nearest.map_or_else(String::new, |n| format!("; did you mean {n}{number}?"));
                warnings.push(format!(
                    "{name} is not a known setting and has no effect{advice}"
                ));
            }
        }
        warnings
    }

    fn looks_like_ours(&self, name: &str) -> bool {
        let is_of_wal_g = name.starts_with("WALG_") && !wal_g::is_needless(name);
        let is_ours = name.starts_with("WALE_") && !is_of_kubernetes(name);
        is_ours || is_of_wal_g || self.sources.is_in_file(name)
    }
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
}
