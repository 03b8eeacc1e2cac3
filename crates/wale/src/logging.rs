//! The log: one record for each event, on standard error, in the system log or in both.
//!
//! A record is a line of text, a line of JSON, or WAL-E's (see [`wal_e`]). Text is `time level target: message key=value …`. Line ends inside an event are escaped, so that
//! no input of ours can forge a line. Times are UTC.

mod syslog;
mod wal_e;

use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;

use chrono::{SecondsFormat, Utc};
use indicatif::ProgressBar;
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{FmtContext, FormattedFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use syslog::Syslog;

/// How a record is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// A line of text.
    Line,
    /// A line of JSON.
    Json,
    /// WAL-E's record of several lines.
    WalE,
}

/// Where the records go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Destinations {
    stderr: bool,
    syslog: bool,
}

impl Destinations {
    /// From the words of `WALE_LOG_DESTINATION`; those that are not known count for nothing, as in WAL-E.
    pub(crate) fn of(words: Option<&str>, format: Format) -> Self {
        let default = match format {
            Format::WalE => "stderr,syslog",
            Format::Line | Format::Json => "stderr",
        };
        let words = words.unwrap_or(default);
        let has = |name: &str| words.split(',').any(|word| word.trim() == name);
        Self {
            stderr: has("stderr"),
            syslog: has("syslog"),
        }
    }

    /// Whether anybody can read the records.
    pub(crate) fn is_nowhere(self) -> bool {
        !(self.stderr || self.syslog)
    }
}

/// What the log is made of.
pub(crate) struct LogOptions {
    /// What is logged.
    pub(crate) filter: Targets,
    /// How.
    pub(crate) format: Format,
    /// Where.
    pub(crate) destinations: Destinations,
    /// The facility in the system log.
    pub(crate) facility: String,
    /// The system log's socket, where it is not one of the usual.
    pub(crate) socket: Option<PathBuf>,
}

/// All but rPGP's own records, whatever the filter asks for: below `info` they show keys as they are parsed, secret ones, too. And none of
/// the HTTP client's below `info` (reqwest, and what it stands on): they show the proxy, whose address is a secret.
fn without_keys() -> Targets {
    Targets::new()
        .with_default(LevelFilter::TRACE)
        .with_target("pgp", LevelFilter::OFF)
        .with_target("reqwest", LevelFilter::INFO)
        .with_target("hyper_util", LevelFilter::INFO)
}

/// Installs the log for the process. The bar steps aside while a line is written.
pub(crate) fn install(options: LogOptions, bar: ProgressBar) {
    let LogOptions {
        filter,
        format,
        destinations,
        facility,
        socket,
    } = options;
    let registry = tracing_subscriber::registry()
        .with(filter)
        .with(without_keys());
    let syslog = destinations.syslog.then(|| {
        let (facility, known) = syslog::facility(&facility);
        if !known {
            // WAL-E's words. Nobody is left to hear that standard error is closed.
            let _ = io::stderr().write_all(b"invalid syslog facility level specified\n");
        }
        let program = if format == Format::WalE {
            "wal-e"
        } else {
            "wale"
        };
        Syslog::connect(socket, facility, program)
    });
    // Without a listener the system log takes nothing. Where it is the only place, the records go to standard
    // error instead: better there than lost.
    let listener = syslog.as_ref().is_some_and(Syslog::is_connected);
    let stderr = destinations.stderr || (destinations.syslog && !listener);
    let sink = Sink {
        bar,
        stderr,
        syslog,
    };
    // A second call changes nothing: there is one log.
    let _ = match format {
        Format::Json => {
            let layer = tracing_subscriber::fmt::layer()
                .event_format(Json)
                .with_ansi(false);
            registry.with(layer.with_writer(sink)).try_init()
        }
        Format::Line => {
            let layer = tracing_subscriber::fmt::layer()
                .event_format(Line)
                .with_ansi(false);
            registry.with(layer.with_writer(sink)).try_init()
        }
        Format::WalE => {
            let layer = tracing_subscriber::fmt::layer()
                .event_format(wal_e::Record)
                .with_ansi(false);
            registry.with(layer.with_writer(sink)).try_init()
        }
    };
}

struct Time;

impl FormatTime for Time {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(
            writer,
            "{}",
            Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true)
        )
    }
}

/// The text format.
struct Line;

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        Time.format_time(&mut writer)?;
        let room = metadata.target().split("::").next().unwrap_or_default();
        write!(writer, " {:<5} {room}: ", metadata.level().as_str())?;
        let mut body = String::new();
        context
            .field_format()
            .format_fields(Writer::new(&mut body), event)?;
        for span in context.event_scope().into_iter().flatten() {
            let extensions = span.extensions();
            if let Some(fields) = extensions.get::<FormattedFields<N>>()
                && !fields.is_empty()
            {
                body.push(' ');
                body.push_str(fields);
            }
        }
        writeln!(writer, "{}", escaped(&body))
    }
}

/// The JSON format: one object for each record, every key once. Numbers are numbers, lengths of time are seconds.
struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        let mut time = String::new();
        Time.format_time(&mut Writer::new(&mut time))?;
        let mut members = Members::default();
        members.add("timestamp", time.into());
        members.add("level", metadata.level().as_str().into());
        members.add("target", metadata.target().into());
        event.record(&mut members);
        let members = members.0.iter();
        let members: Vec<String> = members
            .map(|(key, value)| format!("{}:{value}", Value::from(key.as_str())))
            .collect();
        writeln!(writer, "{{{}}}", members.join(","))
    }
}

/// The members of an object, in order.
#[derive(Default)]
struct Members(Vec<(String, Value)>);

impl Members {
    /// A key that is taken already gets a line behind it: JSON lets nobody say what the same key twice means.
    fn add(&mut self, key: &str, value: Value) {
        let mut key = key.to_owned();
        while self.0.iter().any(|(taken, _)| *taken == key) {
            key.push('_');
        }
        self.0.push((key, value));
    }
}

impl Visit for Members {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field.name(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field.name(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field.name(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field.name(), value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field.name(), value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field.name(), format!("{value:?}").into());
    }
}

/// Control characters as escapes: an event is one line.
pub(crate) fn escaped(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}

/// The destinations, with the bar out of the way.
struct Sink {
    bar: ProgressBar,
    stderr: bool,
    syslog: Option<Syslog>,
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = SinkWriter<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        SinkWriter {
            sink: self,
            level: Level::INFO,
        }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Self::Writer {
        SinkWriter {
            sink: self,
            level: *metadata.level(),
        }
    }
}

struct SinkWriter<'a> {
    sink: &'a Sink,
    level: Level,
}

impl Write for SinkWriter<'_> {
    /// One call is one record.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(syslog) = &self.sink.syslog {
            syslog.send(self.level, &String::from_utf8_lossy(bytes));
        }
        if self.sink.stderr {
            self.sink.bar.suspend(|| io::stderr().write_all(bytes))?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_filter_brings_keys_into_the_log() {
        let kept = without_keys();
        assert!(!kept.would_enable("pgp::packet::secret_key_parser", &Level::DEBUG));
        assert!(!kept.would_enable("pgp", &Level::ERROR));
        assert!(kept.would_enable("wale_ops::wal_push", &Level::TRACE));
    }

    #[test]
    fn destinations_are_wal_es_words() {
        let of = |words, format| {
            let found = Destinations::of(words, format);
            (found.stderr, found.syslog)
        };
        assert_eq!(of(None, Format::WalE), (true, true));
        assert_eq!(of(None, Format::Line), (true, false));
        assert_eq!(of(Some("syslog, stderr"), Format::Line), (true, true));
        assert_eq!(of(Some("syslog,nonsense"), Format::WalE), (false, true));
        assert!(Destinations::of(Some("nonsense"), Format::WalE).is_nowhere());
    }

    #[derive(Clone, Default)]
    struct Kept(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_json_record_has_every_key_once_and_numbers_are_numbers() {
        let kept = Kept::default();
        let writer = kept.clone();
        let layer = tracing_subscriber::fmt::layer()
            .event_format(Json)
            .with_writer(move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let seconds = std::time::Duration::from_millis(1500).as_secs_f64();
            tracing::info!(
                level = "mine",
                target = 3,
                duration_seconds = seconds,
                ok = true,
                none = None::<u64>,
                "two\nlines"
            );
        });
        let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        for key in [
            "level",
            "target",
            "message",
            "timestamp",
            "level_",
            "target_",
        ] {
            assert_eq!(text.matches(&format!("\"{key}\":")).count(), 1, "{text}");
        }
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["level"], "INFO");
        assert_eq!(value["level_"], "mine");
        assert_eq!(value["message"], "two\nlines");
        assert_eq!(value["duration_seconds"], 1.5);
        assert_eq!((&value["target_"], &value["ok"]), (&3.into(), &true.into()));
    }

    #[test]
    fn an_event_is_one_line() {
        assert_eq!(escaped("a\nb\r\u{1b}[31mü\t"), "a\\nb\\r\\u{1b}[31mü\\t");
    }
}
