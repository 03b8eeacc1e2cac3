//! Text to values: pure functions, one for each shape of a setting.
//!
//! Knows no setting's name and no source. A refusal says what is wrong in words that can follow the
//! setting's name and a colon, and, where there is one, what to write instead.

use std::fmt::Display;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use wale_cluster::Secret;
use wale_format::CodecSettings;
use wale_ops::backup_fetch::BackupSelector;
use wale_ops::backup_push::Processors;
use wale_ops::verify::{RATE_LEAST, Share};
use wale_pg::Zone;

/// Why a text is not a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BadValue {
    /// What is wrong, lower case, without a full stop.
    pub(crate) problem: String,
    /// What to write instead.
    pub(crate) hint: Option<String>,
}

impl BadValue {
    /// A refusal without advice.
    pub(crate) fn new(problem: impl Into<String>) -> Self {
        Self {
            problem: problem.into(),
            hint: None,
        }
    }

    /// The same with advice.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// A number of bytes: `1048576`, `1024kB`, `256MiB`, `1GB`. Units count in steps of 1024, with and
/// without the `i`, because PostgreSQL's do.
///
/// # Errors
/// When the text is not a number with a known unit, or beyond 2^64.
pub(crate) fn size(text: &str) -> Result<u64, BadValue> {
    let bad = || {
        BadValue::new(format!("\"{text}\" is not a size"))
            .hint("write a number of bytes, or a number with B, kB, MB, GB or TB, as in 256MB")
    };
    let (number, unit) = split_number(text).ok_or_else(bad)?;
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(bad()),
    };
    number.checked_mul(1 << shift).ok_or_else(bad)
}

/// A length of time: `90`, `90s`, `5min`, `1h`, `250ms`, `2d`. A plain number counts seconds.
///
/// # Errors
/// When the text is not a number with a known unit, or longer than a hundred years.
pub(crate) fn duration(text: &str) -> Result<Duration, BadValue> {
    const LONGEST_MS: u64 = 100 * 366 * 86_400_000;
    let bad = || {
        BadValue::new(format!("\"{text}\" is not a duration"))
            .hint("write a number with ms, s, min, h or d, as in 90s or 5min")
    };
    let (number, suffix) = split_number(text).ok_or_else(bad)?;
    let factor = match suffix {
        "ms" => 1,
        "" | "s" | "sec" => 1_000,
        "min" | "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(bad()),
    };
    match number.checked_mul(factor) {
        Some(milliseconds) if milliseconds <= LONGEST_MS => Ok(Duration::from_millis(milliseconds)),
        _ => Err(bad()),
    }
}

/// A duration as it is written, in the largest unit that it is whole in.
pub(crate) fn duration_text(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    let units = [
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("min", 60_000),
        ("s", 1_000),
    ];
    let whole = units
        .iter()
        .find(|(_, factor)| milliseconds.is_multiple_of(*factor));
    match whole {
        Some((unit, factor)) if milliseconds > 0 => format!("{}{unit}", milliseconds / factor),
        _ => format!("{milliseconds}ms"),
    }
}

fn split_number(text: &str) -> Option<(u64, &str)> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim_start()))
}

/// A whole number within bounds.
///
/// # Errors
/// When the text is no number or out of bounds.
pub(crate) fn number<N>(text: &str, bounds: &RangeInclusive<N>) -> Result<N, BadValue>
where
    N: TryFrom<i64> + Display + PartialOrd,
{
    let (min, max) = (bounds.start(), bounds.end());
    let Ok(number) = text.parse::<i64>() else {
        return Err(BadValue::new(format!("\"{text}\" is not a whole number"))
            .hint(format!("write a number from {min} to {max}")));
    };
    match N::try_from(number) {
        Ok(number) if bounds.contains(&number) => Ok(number),
        _ => Err(BadValue::new(format!(
            "{text} is not within {min} and {max}"
        ))),
    }
}

/// A TCP port.
///
/// # Errors
/// When the text is not a number from 1 to 65535. The URL that Kubernetes writes into variables
/// like `WALE_LISTEN_PORT` for a Service called `wale-listen` has a hint of its own.
pub(crate) fn port(text: &str) -> Result<u16, BadValue> {
    match text.parse::<u16>() {
        Ok(port) if port > 0 => Ok(port),
        _ if text.starts_with("tcp://") || text.starts_with("udp://") => {
            Err(BadValue::new(format!("\"{text}\" is not a port")).hint(
                "Kubernetes writes such variables for Services; rename the Service or set enableServiceLinks: false",
            ))
        }
        _ => Err(BadValue::new(format!("\"{text}\" is not a port"))
            .hint("write a number from 1 to 65535")),
    }
}

/// An IP address, version 6 with or without brackets.
///
/// # Errors
/// When the text is none; a name is not resolved.
pub(crate) fn address(text: &str) -> Result<IpAddr, BadValue> {
    let bare = text
        .strip_prefix('[')
        .and_then(|t| t.strip_suffix(']'))
        .unwrap_or(text);
    if bare == "*" {
        return Ok(IpAddr::from([0, 0, 0, 0]));
    }
    bare.parse().map_err(|_| {
        BadValue::new(format!("\"{text}\" is not an IP address"))
            .hint("write an address as in 0.0.0.0, 127.0.0.1 or ::")
    })
}

/// An absolute path.
///
/// # Errors
/// When it is relative or holds a NUL.
pub(crate) fn absolute_path(text: &str) -> Result<PathBuf, BadValue> {
    let path = Path::new(text);
    if path.is_absolute() && !text.contains('\0') {
        Ok(path.to_path_buf())
    } else {
        Err(BadValue::new(format!("\"{text}\" is not an absolute path"))
            .hint("write a path that begins with /"))
    }
}

/// A server's host: a name, an address, or the folder of its socket.
///
/// # Errors
/// When it is a connection string. That may hold a password, would stand in every error about the server, and is not
/// repeated.
pub(crate) fn host(text: &str) -> Result<String, BadValue> {
    if text.contains("://") || (text.contains('=') && !text.starts_with('/')) {
        return Err(connection_string("PGHOST is a host name or a folder"));
    }
    Ok(text.to_owned())
}

/// The name of a role or of a database.
///
/// # Errors
/// When it is a connection string, as in [`host`]. A name itself may hold a `=`.
pub(crate) fn name(text: &str) -> Result<String, BadValue> {
    if text.contains("://") || text.to_ascii_lowercase().contains("password=") {
        return Err(connection_string("a name belongs here"));
    }
    Ok(text.to_owned())
}

fn connection_string(what: &str) -> BadValue {
    let problem = "its value, which is not shown, is a connection string";
    BadValue::new(format!("{what}; {problem}"))
        .hint("write its parts into PGHOST, PGPORT, PGUSER, PGPASSWORD and PGDATABASE")
}

/// One of these, by its word, in any case.
///
/// # Errors
/// When it is none of them; the hint names all.
pub(crate) fn choice<T: Copy>(
    text: &str,
    all: &[T],
    word: fn(T) -> &'static str,
) -> Result<T, BadValue> {
    let is_it = |one: &&T| word(**one).eq_ignore_ascii_case(text);
    all.iter().find(is_it).copied().ok_or_else(|| {
        let words: Vec<&str> = all.iter().map(|one| word(*one)).collect();
        BadValue::new(format!("\"{text}\" is not one of its values"))
            .hint(format!("write {}", one_of(&words)))
    })
}

/// Any text.
#[expect(clippy::unnecessary_wraps, reason = "it is one parser among others")]
pub(crate) fn text(text: &str) -> Result<String, BadValue> {
    Ok(text.to_owned())
}

/// A secret, as it is.
#[expect(clippy::unnecessary_wraps, reason = "it is one parser among others")]
pub(crate) fn secret(text: &str) -> Result<Secret, BadValue> {
    Ok(Secret::new(text))
}

/// An address for HTTP, which may hold a secret.
///
/// # Errors
/// When it is none. The words do not repeat it.
pub(crate) fn web_address(text: &str) -> Result<Secret, BadValue> {
    let text = text.trim();
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic());
    let host = ["http://", "https://"]
        .into_iter()
        .find_map(|scheme| text.strip_prefix(scheme));
    match host {
        Some(host) if is_plain && !host.is_empty() && !text.contains('#') => Ok(Secret::new(text)),
        _ => Err(BadValue::new("the value is no address of HTTP")
            .hint("give one that begins with https:// or http://")),
    }
}

/// A backup or an upload that is alive stores something more often than this, whatever its size.
const LEAST_GRACE: Duration = Duration::from_hours(1);

/// How long nothing may have been stored.
///
/// # Errors
/// When it is no duration, or too short a one.
pub(crate) fn grace(text: &str) -> Result<Duration, BadValue> {
    let grace = duration(text)?;
    if grace < LEAST_GRACE {
        let problem = "less than 1h would remove uploads that are alive";
        return Err(BadValue::new(problem).hint("write 1h or more"));
    }
    Ok(grace)
}

/// A rate at which objects are read, bytes per second.
pub(crate) fn rate(text: &str) -> Result<u64, BadValue> {
    let rate = size(text)?;
    if rate < RATE_LEAST {
        return Err(BadValue::new(format!("{text} is less than 1MiB")).hint("write 1MiB or more"));
    }
    Ok(rate)
}

/// How hard zstd tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CompressionLevel {
    /// At this level.
    Fixed(i32),
    /// As hard as the store leaves time for.
    Auto,
}

/// A level of zstd, or `auto`.
pub(crate) fn level(text: &str) -> Result<CompressionLevel, BadValue> {
    if text.eq_ignore_ascii_case("auto") {
        return Ok(CompressionLevel::Auto);
    }
    number(text, &CodecSettings::ZSTD_LEVELS)
        .map(CompressionLevel::Fixed)
        .map_err(|problem| problem.hint("write a level, or auto"))
}

/// A number of processors.
pub(crate) fn processors(text: &str) -> Result<Processors, BadValue> {
    text.parse()
        .map_err(|problem: String| BadValue::new(problem).hint("write it as in 0.5"))
}

/// A share of what is stored.
pub(crate) fn share(text: &str) -> Result<Share, BadValue> {
    text.parse()
        .map_err(|problem: String| BadValue::new(problem).hint("write it as in 5%"))
}

/// Which base backup is meant.
///
/// # Errors
/// When it is no name of one.
pub(crate) fn selector(text: &str) -> Result<BackupSelector, BadValue> {
    text.parse().map_err(|problem: String| {
        BadValue::new(problem).hint("write LATEST, or a name that backup-list prints")
    })
}

/// `on` and `off`, in the spellings that PostgreSQL takes.
///
/// # Errors
/// When it is neither.
pub(crate) fn switch(text: &str) -> Result<bool, BadValue> {
    match text.to_ascii_lowercase().as_str() {
        "on" | "true" | "yes" | "1" => Ok(true),
        "off" | "false" | "no" | "0" => Ok(false),
        _ => {
            Err(BadValue::new(format!("\"{text}\" is neither on nor off")).hint("write on or off"))
        }
    }
}

/// A time zone of the IANA database, with or without libc's leading colon.
///
/// # Errors
/// When the database has no such zone; POSIX rules are refused.
pub(crate) fn zone(text: &str) -> Result<Zone, BadValue> {
    let name = text.strip_prefix(':').unwrap_or(text);
    Zone::named(name).ok_or_else(|| {
        BadValue::new(format!("\"{text}\" is not a time zone"))
            .hint("write a name of the time zone database, as in Europe/Berlin or UTC")
    })
}

/// A level, or levels per target.
///
/// # Errors
/// When a level is unknown.
pub(crate) fn log_filter(text: &str) -> Result<tracing_subscriber::filter::Targets, BadValue> {
    let bad = || {
        BadValue::new(format!("\"{text}\" is not a log level"))
            .hint("write error, warn, info, debug or trace, or pairs as in info,wale_storage=debug")
    };
    let lower = text.to_ascii_lowercase();
    // `Targets` takes a lone word that is no level for a target: a misspelt level would log everything.
    let is_level =
        |word: &str| !word.trim().is_empty() && word.trim().parse::<LevelFilter>().is_ok();
    if lower
        .split(',')
        .any(|part| !part.contains('=') && !is_level(part))
    {
        return Err(bad());
    }
    lower.parse().map_err(|_| bad())
}

/// A word that can stand in an HTTP header: visible ASCII. The text is a secret and is not quoted.
///
/// # Errors
/// When it holds anything else.
pub(crate) fn token(text: &str) -> Result<Secret, BadValue> {
    let text = text.trim();
    if text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(Secret::new(text))
    } else {
        Err(
            BadValue::new("the value holds a character that cannot stand in an HTTP header")
                .hint("use letters, digits and punctuation of ASCII only"),
        )
    }
}

/// Host names, separated by commas or spaces; `*.` at the beginning stands for any first parts.
pub(crate) fn host_names(text: &str) -> Result<Vec<String>, BadValue> {
    let names = text.split([',', ' ']).filter(|name| !name.is_empty());
    let names: Vec<String> = names.map(str::to_ascii_lowercase).collect();
    let is_name = |name: &String| {
        let letters = name.strip_prefix("*.").unwrap_or(name);
        let mut parts = letters.split('.');
        let is_part = |part: &str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        };
        parts.all(is_part)
    };
    match names.iter().find(|name| !is_name(name)) {
        None => Ok(names),
        Some(bad) => Err(BadValue::new(format!("\"{bad}\" is not a host name"))
            .hint("write names without scheme and port, separated by commas, as in wale.example.org,*.db.example.org")),
    }
}

/// Pairs `OLD=NEW`, separated by commas. In a path `\,` and `\=` stand for the characters, as in
/// `pg_basebackup`.
///
/// # Errors
/// When a pair has no `=`, or NEW is not an absolute path.
pub(crate) fn mappings(text: &str) -> Result<Vec<(String, PathBuf)>, BadValue> {
    split_unescaped(text, ',')
        .iter()
        .map(|pair| mapping(pair))
        .collect()
}

/// One pair `OLD=NEW`.
///
/// # Errors
/// As [`mappings`].
pub(crate) fn mapping(text: &str) -> Result<(String, PathBuf), BadValue> {
    let bad = || {
        BadValue::new(format!("\"{text}\" is not a tablespace mapping"))
            .hint("write OLD=NEW, OLD being a directory or an OID and NEW an absolute path")
    };
    let parts = split_unescaped(text, '=');
    let [old, new] = parts.as_slice() else {
        return Err(bad());
    };
    let (old, new) = (unescape(old), unescape(new));
    let old_is_sound = old.starts_with('/') || old.parse::<u32>().is_ok();
    if old_is_sound && new.starts_with('/') {
        Ok((old, PathBuf::from(new)))
    } else {
        Err(bad())
    }
}

fn split_unescaped(text: &str, separator: char) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut escaped = false;
    for character in text.chars() {
        if character == separator && !escaped {
            parts.push(String::new());
            continue;
        }
        escaped = character == '\\' && !escaped;
        if let Some(part) = parts.last_mut() {
            part.push(character);
        }
    }
    parts
}

fn unescape(text: &str) -> String {
    text.trim().replace("\\=", "=").replace("\\,", ",")
}

/// The text without one end of a line.
pub(super) fn without_line_end(text: &str) -> &str {
    let text = text.strip_suffix('\n').unwrap_or(text);
    text.strip_suffix('\r').unwrap_or(text)
}

/// The quote that stands around a text.
pub(super) fn quote_around(text: &str) -> Option<char> {
    let quote = text.chars().next()?;
    (matches!(quote, '"' | '\'') && text.len() > 1 && text.ends_with(quote)).then_some(quote)
}

/// "a, b or c".
pub(crate) fn one_of(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_are_names_and_nothing_around_them() {
        let names = host_names("Wale.example.org, *.db_1.example sidecar").unwrap();
        assert_eq!(names, ["wale.example.org", "*.db_1.example", "sidecar"]);
        assert_eq!(host_names(""), Ok(Vec::new()));
        for bad in [
            "http://wale",
            "wale:5000",
            "*",
            "a..b",
            "w*le.example",
            "wale/",
        ] {
            assert!(host_names(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("1048576", 1 << 20),
            ("64kB", 64 << 10),
            ("256MiB", 256 << 20),
            ("256 MB", 256 << 20),
            ("1g", 1 << 30),
            ("3TB", 3 << 40),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "MB",
            "-1",
            "1.5GB",
            "1 XB",
            "99999999999999999999",
            "20000000TB",
            "1 2",
        ] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations() {
        for (text, milliseconds) in [
            ("0", 0),
            ("60", 60_000),
            ("60s", 60_000),
            ("5min", 300_000),
            ("5 min", 300_000),
            ("2h", 7_200_000),
            ("1d", 86_400_000),
            ("250ms", 250),
        ] {
            let expected = Ok(Duration::from_millis(milliseconds));
            assert_eq!(duration(text), expected, "{text}");
        }
        for text in [
            "",
            "s",
            "-1s",
            "1.5h",
            "5 parsecs",
            "99999999999999d",
            "500000000d",
            "1h30",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
        for text in ["0ms", "250ms", "90s", "5min", "20h", "1d"] {
            let read = duration(text).expect("a duration");
            assert_eq!(duration_text(read), text);
        }
    }

    #[test]
    fn ports_and_numbers() {
        assert_eq!(port("5000"), Ok(5000));
        for text in ["0", "65536", "-1", "http", ""] {
            assert!(port(text).is_err(), "{text}");
        }
        let kubernetes = port("tcp://10.0.0.1:5000").unwrap_err();
        assert!(kubernetes.hint.unwrap().contains("enableServiceLinks"));
        assert_eq!(number("8", &(0_u32..=64)), Ok(8));
        for text in ["65", "-1", "many", "", "1.0"] {
            assert!(number(text, &(0_u32..=64)).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_and_paths() {
        for text in ["0.0.0.0", "127.0.0.1", "::", "[::1]", "*"] {
            assert!(address(text).is_ok(), "{text}");
        }
        for text in ["localhost", "300.0.0.1", "[::1", ""] {
            assert!(address(text).is_err(), "{text}");
        }
        assert!(absolute_path("/a/b").is_ok());
        for text in ["a/b", "~/x", ""] {
            assert!(absolute_path(text).is_err(), "{text}");
        }
    }

    #[test]
    fn words_and_switches() {
        let word = |word| word;
        assert_eq!(choice("ZSTD", &["zstd", "lz4"], word), Ok("zstd"));
        let refused = choice("gzip", &["zstd", "lz4", "none"], word).unwrap_err();
        assert_eq!(refused.hint.as_deref(), Some("write zstd, lz4 or none"));
        assert_eq!(switch("On"), Ok(true));
        assert_eq!(switch("0"), Ok(false));
        assert!(switch("maybe").is_err());
        assert!(zone("Europe/Berlin").is_ok() && zone(":UTC").is_ok());
        assert!(zone("CET-1CEST").is_err() && zone("Mars/Olympus").is_err());
        assert!(log_filter("info").is_ok() && log_filter("WARN,wale_ops=debug").is_ok());
        for text in ["info,wale_ops=shout", "loud", "info,", "1x"] {
            assert!(log_filter(text).is_err(), "{text}");
        }
    }

    #[test]
    fn tokens_are_not_quoted() {
        assert!(token("s3cret-Token").is_ok());
        let refused = token("canary\nvalue").unwrap_err();
        assert!(!format!("{refused:?}").contains("canary"));
    }

    #[test]
    fn tablespace_mappings() {
        let one = ("/old".to_owned(), PathBuf::from("/new"));
        assert_eq!(mappings("/old=/new"), Ok(vec![one.clone()]));
        assert_eq!(
            mappings("/old=/new,16384=/n2").unwrap()[1],
            ("16384".into(), "/n2".into())
        );
        assert_eq!(mapping("/a\\=b=/c\\,d"), Ok(("/a=b".into(), "/c,d".into())));
        for text in [
            "", "/old", "/old=", "=/new", "/old=new", "old=/new", "/a=/b=/c",
        ] {
            assert!(mapping(text).is_err(), "{text}");
        }
    }
}
