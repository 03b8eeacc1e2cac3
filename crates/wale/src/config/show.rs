//! `wale config show`: every setting, its value and where the value came from. Secrets are told to
//! be set, never shown, nor are those that stand within other values.

use std::fmt::Write;

use super::group::Group;
use super::numbered;
use super::raw::Origin;
use super::redact::{HIDDEN, redact};
use super::setting::{Declared, Default, Values};

/// One setting as it is shown.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    name: String,
    group: Group,
    /// The further archive whose setting it is.
    archive: Option<u8>,
    value: Option<String>,
    origin: String,
    /// Listed only when somebody sets it.
    reserved: bool,
}

impl Shown {
    /// Looks the setting up.
    pub(super) fn of(setting: &dyn Declared, values: &Values) -> Self {
        let facts = setting.facts();
        let raw = values.raw(facts);
        let hides =
            |text: &str| facts.secret || facts.is_path_of_secret() && !text.starts_with('/');
        let (value, origin) = match (&raw.text, facts.default) {
            (Some(text), _) if hides(text) => (Some(HIDDEN.to_owned()), raw.origin.to_string()),
            (Some(text), _) => (Some(redact(text)), raw.origin.to_string()),
            (None, Default::None) => (None, raw.origin.to_string()),
            (None, Default::Fixed(text)) => (Some(redact(text)), Origin::Default.to_string()),
            (None, Default::Time(_)) => (values.default_text(facts), Origin::Default.to_string()),
            (None, Default::Words(words) | Default::Derived(words, _)) => {
                (values.default_text(facts), format!("default: {words}"))
            }
        };
        Self {
            name: facts.name.to_owned(),
            group: facts.group,
            archive: None,
            value,
            origin,
            reserved: facts.hidden || setting.not_built().is_some(),
        }
    }

    /// The same for a further archive: nothing where nobody sets it.
    pub(super) fn of_archive(setting: &dyn Declared, values: &Values, number: u8) -> Option<Self> {
        let shown = Self::of(setting, values);
        let is_set = values.raw(setting.facts()).origin != Origin::Unset;
        is_set.then(|| Self {
            name: numbered::with_numbers(&shown.name, number),
            archive: Some(number),
            ..shown
        })
    }

    fn heading(&self) -> String {
        match self.archive {
            Some(number) => format!("Archive {number}"),
            None => self.group.title().to_owned(),
        }
    }

    fn is_listed(&self) -> bool {
        !self.reserved || self.value.is_some()
    }
}

/// Lines `NAME = value # origin`, by group.
pub(crate) fn show_text(shown: &[Shown]) -> String {
    let listed = || shown.iter().filter(|s| s.is_listed());
    let width = listed().map(|s| s.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    let mut heading = None;
    for shown in listed() {
        let its = shown.heading();
        if heading.as_ref() != Some(&its) {
            let gap = if heading.is_some() { "\n" } else { "" };
            let _ = writeln!(text, "{gap}# {its}");
            heading = Some(its);
        }
        let Shown {
            name,
            value,
            origin,
            ..
        } = shown;
        let value = value.as_deref().unwrap_or("").replace('\n', "\\n");
        let _ = writeln!(text, "{name:width$} = {value:<32} # {origin}");
    }
    text
}

/// The same as a JSON object by name.
pub(crate) fn show_json(shown: &[Shown]) -> serde_json::Value {
    let entry = |s: &Shown| {
        let body =
            serde_json::json!({ "value": s.value, "origin": s.origin, "group": s.heading() });
        (s.name.clone(), body)
    };
    serde_json::Value::Object(shown.iter().filter(|s| s.is_listed()).map(entry).collect())
}
