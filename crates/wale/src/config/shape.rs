//! How the values of a setting are written: the words for the reference page, and the parser.
//!
//! Knows no setting's name. The words of a choice, and the bounds of a number that a room enforces, come from the room.

use std::fmt::Display;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use wale_cluster::Secret;
use wale_pg::Zone;
use wale_service::Schedule;

use super::value::{self, BadValue, CompressionLevel};

/// How a value of type `T` is written.
pub(crate) trait Shape<T>: Sync {
    /// The type as the reference page names it.
    fn describe(&self) -> String;

    /// The value of a text.
    ///
    /// # Errors
    /// What is wrong with it.
    fn parse(&self, text: &str) -> Result<T, BadValue>;

    /// What it means that there is no text at all. None where there must be one, and so a default.
    fn unset(&self) -> Option<T> {
        None
    }

    /// Whether quotes around the text may be its own.
    fn is_free(&self) -> bool {
        false
    }

    /// Whether an empty text is a value.
    fn empty_counts(&self) -> bool {
        false
    }

    /// The capability that is not in this version: the setting is known, and refused.
    fn not_built(&self) -> Option<&'static str> {
        None
    }
}

/// A value that this function finds in the text.
pub(crate) struct Parsed<T>(
    pub(crate) &'static str,
    pub(crate) fn(&str) -> Result<T, BadValue>,
);

impl<T> Shape<T> for Parsed<T> {
    fn describe(&self) -> String {
        self.0.to_owned()
    }

    fn parse(&self, text: &str) -> Result<T, BadValue> {
        (self.1)(text)
    }
}

/// The same of a text in which quotes may be meant.
pub(crate) struct Text<T>(
    pub(crate) &'static str,
    pub(crate) fn(&str) -> Result<T, BadValue>,
);

impl<T> Shape<T> for Text<T> {
    fn describe(&self) -> String {
        self.0.to_owned()
    }

    fn parse(&self, text: &str) -> Result<T, BadValue> {
        (self.1)(text)
    }

    fn is_free(&self) -> bool {
        true
    }
}

/// A whole number within these bounds.
pub(crate) struct Number<N>(pub(crate) RangeInclusive<N>);

impl<N: TryFrom<i64> + Display + PartialOrd + Sync> Shape<N> for Number<N> {
    fn describe(&self) -> String {
        format!("number, {} to {}", self.0.start(), self.0.end())
    }

    fn parse(&self, text: &str) -> Result<N, BadValue> {
        value::number(text, &self.0)
    }
}

/// One of these, by its word.
pub(crate) struct Choice<T: 'static>(pub(crate) &'static [T], pub(crate) fn(T) -> &'static str);

impl<T: Copy + Sync + 'static> Shape<T> for Choice<T> {
    fn describe(&self) -> String {
        let words = self.0.iter().map(|one| format!("`{}`", (self.1)(*one)));
        words.collect::<Vec<_>>().join(", ")
    }

    fn parse(&self, text: &str) -> Result<T, BadValue> {
        value::choice(text, self.0, self.1)
    }
}

/// A value that need not be there.
pub(crate) struct Opt<S>(pub(crate) S);

impl<T, S: Shape<T>> Shape<Option<T>> for Opt<S> {
    fn describe(&self) -> String {
        Shape::<T>::describe(&self.0)
    }

    fn parse(&self, text: &str) -> Result<Option<T>, BadValue> {
        self.0.parse(text).map(Some)
    }

    fn unset(&self) -> Option<Option<T>> {
        Some(None)
    }

    fn is_free(&self) -> bool {
        Shape::<T>::is_free(&self.0)
    }
}

/// Five fields of a cron table, or nothing: `off`.
pub(crate) struct Cron;

impl Shape<Option<Schedule>> for Cron {
    fn describe(&self) -> String {
        "cron, five fields, or `off`".to_owned()
    }

    fn parse(&self, text: &str) -> Result<Option<Schedule>, BadValue> {
        if text.is_empty() || text.eq_ignore_ascii_case("off") {
            return Ok(None);
        }
        let schedule = Schedule::parse(text, Zone::UTC).map_err(|problem| {
            BadValue::new(problem).hint("write five fields, as in 0 3 * * *, or off")
        })?;
        Ok(Some(schedule))
    }

    fn empty_counts(&self) -> bool {
        true
    }
}

/// Known, and refused: this is not built yet.
pub(crate) struct NotYet(pub(crate) &'static str);

impl Shape<()> for NotYet {
    fn describe(&self) -> String {
        format!("refused, {} not built yet", self.0)
    }

    fn parse(&self, _: &str) -> Result<(), BadValue> {
        Ok(())
    }

    fn unset(&self) -> Option<()> {
        Some(())
    }

    fn not_built(&self) -> Option<&'static str> {
        Some(self.0)
    }
}

pub(crate) const TEXT: Text<String> = Text("text", value::text);
pub(crate) const LINES: Text<String> = Text("lines", value::text);
pub(crate) const SECRET: Text<Secret> = Text("text", value::secret);
/// The URL of a place for an archive, which is understood together with the others.
pub(crate) const PLACE: Parsed<String> = Parsed("URL", value::text);
pub(crate) const PATH: Parsed<PathBuf> = Parsed("absolute path", value::absolute_path);
pub(crate) const ADDRESS: Parsed<IpAddr> = Parsed("IP address", value::address);
pub(crate) const PORT: Parsed<u16> = Parsed("port", value::port);
pub(crate) const SIZE: Parsed<u64> = Parsed("size", value::size);
pub(crate) const DURATION: Parsed<Duration> =
    Parsed("duration, a plain number counts seconds", value::duration);
pub(crate) const LEVEL: Parsed<CompressionLevel> =
    Parsed("number, -7 to 19, or `auto`", value::level);
pub(crate) const SWITCH: Parsed<bool> = Parsed("`on`, `off`", value::switch);
pub(crate) const ZONE: Parsed<Zone> = Parsed("time zone name", value::zone);
