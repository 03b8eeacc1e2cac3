//! The log: one line for each event on standard error, as text or as JSON.
//!
//! Text is `time level target: message key=value …`. Line ends inside an event are escaped, so that
//! no input of ours can forge a line. Times are UTC.

use std::fmt;
use std::io::{self, Write};

use chrono::{SecondsFormat, Utc};
use indicatif::ProgressBar;
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{FmtContext, FormattedFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// Installs the log for the process. The bar steps aside while a line is written.
pub(crate) fn install(filter: Targets, json: bool, bar: ProgressBar) {
    let registry = tracing_subscriber::registry().with(filter);
    let sink = Sink { bar };
    // A second call changes nothing: there is one log.
    let _ = if json {
        let layer = tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_timer(Time);
        registry.with(layer.with_writer(sink)).try_init()
    } else {
        let layer = tracing_subscriber::fmt::layer()
            .event_format(Line)
            .with_ansi(false);
        registry.with(layer.with_writer(sink)).try_init()
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

/// Control characters as escapes: an event is one line.
fn escaped(text: &str) -> String {
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

/// Standard error, with the bar out of the way.
struct Sink {
    bar: ProgressBar,
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = SinkWriter<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        SinkWriter { bar: &self.bar }
    }
}

struct SinkWriter<'a> {
    bar: &'a ProgressBar,
}

impl Write for SinkWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bar.suspend(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        assert_eq!(escaped("a\nb\r\u{1b}[31mü\t"), "a\\nb\\r\\u{1b}[31mü\\t");
    }
}
