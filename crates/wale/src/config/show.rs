//! `wale config show`: every setting, its value and where the value came from. Secrets are told to
//! be set, never shown, nor are those that stand within other values.

use std::fmt::Write;

use super::declared::{Default, Group, Setting, Shape};
use super::reader::{Reader, is_path_of_secret};
use super::redact::{HIDDEN, redact};

/// One setting as it is shown.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    name: &'static str,
    group: Group,
    value: Option<String>,
    origin: String,
    /// Listed only when somebody sets it.
    reserved: bool,
}

impl Shown {
    /// Looks the setting up. `derived` is what its derived default came to.
    pub(super) fn of(setting: &Setting, reader: &mut Reader, derived: Option<String>) -> Self {
        let raw = reader.raw(setting);
        let (value, origin) = match (raw.text, setting.default) {
            (Some(_), _) if setting.secret => (Some(HIDDEN.to_owned()), raw.origin.to_string()),
            (Some(text), _) if is_path_of_secret(setting.name) && !text.starts_with('/') => {
                (Some(HIDDEN.to_owned()), raw.origin.to_string())
            }
            (None, Default::Derived(words)) => (derived, format!("default: {words}")),
            (text, _) => (text.map(|text| redact(&text)), raw.origin.to_string()),
        };
        let (name, group) = (setting.name, setting.group);
        let reserved = setting.hidden || matches!(setting.shape, Shape::NotYet(_));
        Self {
            name,
            group,
            value,
            origin,
            reserved,
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
    let mut group = None;
    for Shown {
        name,
        group: its,
        value,
        origin,
        ..
    } in listed()
    {
        if group != Some(*its) {
            let gap = if group.is_some() { "\n" } else { "" };
            let _ = writeln!(text, "{gap}# {}", its.title());
            group = Some(*its);
        }
        let value = value.as_deref().unwrap_or("").replace('\n', "\\n");
        let _ = writeln!(text, "{name:width$} = {value:<32} # {origin}");
    }
    text
}

/// The same as a JSON object by name.
pub(crate) fn show_json(shown: &[Shown]) -> serde_json::Value {
    let entry = |s: &Shown| {
        let body =
            serde_json::json!({ "value": s.value, "origin": s.origin, "group": s.group.title() });
        (s.name.to_owned(), body)
    };
    serde_json::Value::Object(shown.iter().filter(|s| s.is_listed()).map(entry).collect())
}
