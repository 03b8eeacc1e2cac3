//! Recovery settings that a user typed: checked here, not by a server that refuses to start at night.
//!
//! One setting a line, as in a configuration file. Lines are divided by line breaks or, outside of quotes, by
//! the two characters `\n`: environment variables often cannot hold a line break, and the shell of the
//! original's image turned the two into one. All mistakes are reported together.

use wale_pg::{Lsn, MajorVersion, TARGET_SETTINGS};

use super::configuration::{LineError, parse_line};
use super::mistake::{Problem, SettingMistake};
use super::names::{self, Known, Shape};
use super::target_time;

/// Bytes of a restore point's name: `MAXFNAMELEN` of PostgreSQL is 64, with the end of the string.
const RESTORE_POINT_BYTES_MAX: usize = 63;

/// Reads added recovery settings: names in lower case and plain values, in the order given.
///
/// # Errors
/// All mistakes: unknown settings, settings of other major versions, values without the quotes that they
/// need, a target time without a zone (it would be the server's) or with one that the version refuses, two targets, one setting twice, values
/// of the wrong form.
pub fn parse_addition(
    text: &str,
    major: MajorVersion,
) -> Result<Vec<(String, String)>, Vec<SettingMistake>> {
    let mut settings: Vec<(String, String)> = Vec::new();
    let mut mistakes = Vec::new();
    for (index, line) in split_lines(text).into_iter().enumerate() {
        let mut mistake = |(problem, hint): Problem| {
            mistakes.push(SettingMistake {
                line: index + 1,
                text: line.trim().to_owned(),
                problem,
                hint,
            });
        };
        let setting = match parse_line(line) {
            Ok(None) => continue,
            Ok(Some(setting)) => setting,
            Err(error) => {
                mistake(explain(&error, line));
                continue;
            }
        };
        let name = setting.name.to_ascii_lowercase();
        match names::find(&name).filter(|known| known.is_in(major)) {
            None => mistake(unknown(&name, major)),
            Some(known) => {
                if settings.iter().any(|(given, _)| *given == name) {
                    mistake((format!("{name} is set twice"), None));
                } else if let Some(other) = other_target(&settings, &name, &setting.value) {
                    mistake((
                        format!("{name} and {other} are both recovery targets"),
                        Some("Keep one of them.".to_owned()),
                    ));
                } else if let Err(problem) = check(known, &setting.value, major) {
                    mistake(problem);
                }
                let value = match known.shape {
                    Shape::TargetTime => target_time::written(&setting.value),
                    _ => setting.value,
                };
                settings.push((name, value));
            }
        }
    }
    if mistakes.is_empty() {
        Ok(settings)
    } else {
        Err(mistakes)
    }
}

/// Checks the value of one recovery setting, where the version of the server is not known yet: what some version takes is
/// taken.
///
/// # Errors
/// What is wrong, and what to write instead.
pub fn check_value(name: &str, value: &str) -> Result<(), (String, Option<String>)> {
    let Some(known) = names::find(name) else {
        return Err((format!("{name} is not a recovery setting"), None));
    };
    if value.trim().is_empty() {
        return Err((format!("{name} has no value"), None));
    }
    check(known, value, MajorVersion::NEWEST)
        .or_else(|problem| check(known, value, MajorVersion::OLDEST).map_err(|_| problem))
}

/// The settings of lines that may be wrong: names in lower case and plain values. What is no setting is passed over.
/// For a caller that must know the target before it knows the version of the server; [`parse_addition`] is the judge.
#[must_use]
pub fn read_addition(text: &str) -> Vec<(String, String)> {
    split_lines(text)
        .into_iter()
        .filter_map(|line| parse_line(line).ok().flatten())
        .map(|setting| (setting.name.to_ascii_lowercase(), setting.value))
        .collect()
}

/// Divides at line breaks, and at `\n` outside of quotes.
fn split_lines(text: &str) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut start = 0;
    let mut quoted = false;
    let mut characters = text.char_indices().peekable();
    while let Some((index, character)) = characters.next() {
        match character {
            // A value never spans lines, so a forgotten quote ends here too.
            '\n' => {
                lines.push(&text[start..index]);
                start = index + 1;
                quoted = false;
            }
            '\'' => quoted = !quoted,
            '\\' => {
                let next = characters.next().map(|(_, next)| next);
                match next {
                    Some('n') if !quoted => {
                        lines.push(&text[start..index]);
                        start = index + 2;
                    }
                    Some('\n') => {
                        lines.push(&text[start..=index]);
                        start = index + 2;
                        quoted = false;
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }
    lines.push(&text[start..]);
    lines
}

fn explain(error: &LineError, line: &str) -> Problem {
    let whole = line.trim();
    if whole.starts_with(['"', '\'']) {
        return (
            "the line begins with a quote".to_owned(),
            Some("Remove the quotes around the whole; only the value is quoted.".to_owned()),
        );
    }
    let name = whole.split([' ', '\t', '=']).next().unwrap_or_default();
    // Anything else may hold a password, and an error goes into logs.
    let is_shown = name.to_ascii_lowercase().starts_with("recovery_target");
    let quoted = || {
        if !is_shown {
            return Some(format!("Write {name} = '…', the value in single quotes."));
        }
        let value = whole[name.len()..]
            .trim_start()
            .trim_start_matches('=')
            .trim();
        // Double quotes are none of PostgreSQL's here: they would be part of the value.
        Some(format!(
            "Write {name} = '{}'.",
            value.replace(['\'', '"'], "")
        ))
    };
    match error {
        LineError::NoName => (
            "a line must begin with the name of a setting".to_owned(),
            None,
        ),
        LineError::NoValue => (format!("{name} has no value"), None),
        LineError::OpenQuote => (
            format!("the value of {name} has no closing quote"),
            quoted(),
        ),
        LineError::Rest(rest) if whole.contains('\'') && is_shown => {
            (format!("{rest:?} follows the value of {name}"), None)
        }
        LineError::Rest(_) if whole.contains('\'') => {
            (format!("something follows the value of {name}"), None)
        }
        LineError::NeedsQuotes | LineError::Rest(_) => {
            (format!("the value of {name} needs single quotes"), quoted())
        }
    }
}

fn unknown(name: &str, major: MajorVersion) -> Problem {
    if name == "standby_mode" {
        return (
            format!("PostgreSQL {major} has no standby_mode"),
            Some("Restore as a standby instead.".to_owned()),
        );
    }
    let known: Vec<_> = names::all(major).collect();
    (
        format!("{name} is not a recovery setting of PostgreSQL {major}"),
        Some(format!("Use one of {}.", known.join(", "))),
    )
}

/// Another target that has a value, if this one has.
fn other_target<'a>(settings: &'a [(String, String)], name: &str, value: &str) -> Option<&'a str> {
    if value.is_empty() || !TARGET_SETTINGS.contains(&name) {
        return None;
    }
    settings
        .iter()
        .find(|(other, value)| TARGET_SETTINGS.contains(&other.as_str()) && !value.is_empty())
        .map(|(other, _)| other.as_str())
}

fn check(known: &Known, value: &str, major: MajorVersion) -> Result<(), Problem> {
    let name = known.name;
    if value.chars().any(char::is_control) {
        return Err((format!("{name} holds a control character"), None));
    }
    // An empty value unsets.
    if value.is_empty() {
        return Ok(());
    }
    let one_of = |ok: bool, allowed: &str| {
        if ok {
            Ok(())
        } else {
            Err((format!("{name} cannot be {value:?}, only {allowed}"), None))
        }
    };
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let lower = value.to_ascii_lowercase();
    match known.shape {
        Shape::Text if name == "recovery_target_name" && value.len() > RESTORE_POINT_BYTES_MAX => {
            Err((
                format!(
                    "{name} is longer than {RESTORE_POINT_BYTES_MAX} bytes: PostgreSQL refuses it"
                ),
                None,
            ))
        }
        Shape::Text => Ok(()),
        Shape::Delay => one_of(is_delay(value), "a number with ms, s, min, h or d"),
        Shape::Boolean => one_of(is_boolean(&lower), "on or off"),
        Shape::Immediate => one_of(value == "immediate", "immediate"),
        Shape::Action => one_of(
            matches!(lower.as_str(), "pause" | "promote" | "shutdown"),
            "pause, promote or shutdown",
        ),
        Shape::TransactionId => one_of(
            is_number(value) && value.parse::<u64>().is_ok(),
            "a decimal transaction number",
        ),
        Shape::Position => one_of(
            Lsn::parse(value).is_ok(),
            "a WAL position such as 0/3000148",
        ),
        Shape::Timeline => {
            let number = value.parse::<u32>().is_ok_and(|timeline| timeline > 0);
            let word = value == "latest" || value == "current" && major.has_recovery_signal();
            let words = if major.has_recovery_signal() {
                "latest, current or a timeline's decimal number"
            } else {
                "latest or a timeline's decimal number"
            };
            one_of(word || number && is_number(value), words)
        }
        Shape::TargetTime => target_time::check(name, value, major),
    }
}

/// `'5min'`, `'1 h'`; milliseconds without a unit.
fn is_delay(value: &str) -> bool {
    let value = value.trim();
    let end = value
        .find(|c: char| {
            !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-' | 'e' | 'E' | 'x' | 'X'))
        })
        .unwrap_or(value.len());
    let (number, unit) = value.split_at(end);
    number.contains(|c: char| c.is_ascii_digit())
        && matches!(unit.trim(), "" | "us" | "ms" | "s" | "min" | "h" | "d")
}

/// PostgreSQL takes any unambiguous beginning of these words (`parse_bool`).
fn is_boolean(value: &str) -> bool {
    matches!(value, "1" | "0" | "on" | "of" | "off")
        || ["true", "false", "yes", "no"]
            .iter()
            .any(|word| word.starts_with(value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<Vec<(String, String)>, Vec<String>> {
        parse_in(text, 15)
    }

    fn parse_in(text: &str, major: u32) -> Result<Vec<(String, String)>, Vec<String>> {
        parse_addition(text, MajorVersion::new(major).unwrap())
            .map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn what_people_write_is_read() {
        let time = ("recovery_target_time", "2017-02-02 17:00:00 UTC");
        let timeline = ("recovery_target_timeline", "1");
        let cases: [(&str, &[(&str, &str)]); 8] = [
            ("", &[]),
            ("  \n# nothing\n\n", &[]),
            ("recovery_target_time = '2017-02-02 17:00:00 UTC'", &[time]),
            (
                "  Recovery_Target_Time '2017-02-02 17:00:00 UTC'  # note\r\n",
                &[time],
            ),
            (
                "recovery_target_time = '2017-02-02 17:00:00 UTC'\nrecovery_target_timeline = 1",
                &[time, timeline],
            ),
            (
                r"recovery_target_time = '2017-02-02 17:00:00 UTC'\nrecovery_target_timeline = '1'\n",
                &[time, timeline],
            ),
            (
                r"recovery_target_name = 'a\nb' ",
                &[("recovery_target_name", "a\nb")],
            ),
            (
                "recovery_target_xid = ''\nrecovery_target_lsn = '0/3000148'",
                &[
                    ("recovery_target_xid", ""),
                    ("recovery_target_lsn", "0/3000148"),
                ],
            ),
        ];
        for (text, expected) in cases {
            let expected: Vec<_> = expected
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect();
            if expected.iter().any(|(_, value)| value.contains('\n')) {
                assert!(parse(text).unwrap_err()[0].contains("control character"));
                continue;
            }
            assert_eq!(parse(text), Ok(expected), "{text:?}");
        }
    }

    #[test]
    fn what_postgresql_would_refuse_is_refused_here() {
        let cases = [
            (
                "recovery_target_time = 2017-02-02 17:00:00 UTC",
                "needs single quotes",
            ),
            ("recovery_target_lsn = 0/3000148", "needs single quotes"),
            ("recovery_target_name = a b", "needs single quotes"),
            (
                "recovery_target_time = '2017-02-02 17:00:00'",
                "has no time zone",
            ),
            ("recovery_target_time = 'now'", "cannot be"),
            ("recovery_target_time = 'UTC'", "holds no time"),
            (
                "recovery_target_time = '2017-02-02 17:00:00 UTC",
                "no closing quote",
            ),
            (
                "\"recovery_target_time = '2017-02-02 17:00:00 UTC'\"",
                "begins with a quote",
            ),
            ("recovery_target_tme = 'x'", "is not a recovery setting"),
            ("shared_buffers = '1GB'", "is not a recovery setting"),
            ("include = 'x'", "is not a recovery setting"),
            ("recovery_target_xid", "has no value"),
            ("recovery_target_xid = 'abc'", "cannot be"),
            (
                "recovery_target_xid = '99999999999999999999999'",
                "cannot be",
            ),
            ("recovery_target_timeline = '0'", "cannot be"),
            ("recovery_target_timeline = '+1'", "cannot be"),
            ("recovery_target_timeline = 'newest'", "cannot be"),
            ("recovery_target_inclusive = 'o'", "cannot be"),
            ("recovery_target_action = 'stop'", "cannot be"),
            ("recovery_target = 'latest'", "cannot be"),
            ("recovery_target_lsn = '3000148'", "cannot be"),
            ("recovery_min_apply_delay = 'soon'", "cannot be"),
            (
                "recovery_target_time = '2026-13-28 20:49:55+00'",
                "refuses the time",
            ),
            (
                "recovery_target_time = '28.11.2026 20:49:55+00'",
                "DateStyle",
            ),
            ("standby_mode = on", "has no standby_mode"),
            ("= 'x'", "must begin with the name"),
            ("recovery_target_xid = '1' '2'", "follows the value"),
            (
                "recovery_target_xid = 1\nrecovery_target_xid = 2",
                "is set twice",
            ),
            (
                "recovery_target_xid = 1\nrecovery_target = immediate",
                "are both recovery targets",
            ),
        ];
        for (text, problem) in cases {
            let mistakes = parse(text).expect_err(text);
            assert_eq!(mistakes.len(), 1, "{text:?}: {mistakes:?}");
            assert!(mistakes[0].contains(problem), "{text:?}: {mistakes:?}");
        }
    }

    #[test]
    fn all_mistakes_are_reported_with_their_lines() {
        let text = "recovery_target_xid = x y\n\nnonsense = 1\\nrecovery_target_action = go";
        let mistakes = parse(text).unwrap_err();
        assert_eq!(mistakes.len(), 3, "{mistakes:?}");
        assert!(mistakes[0].starts_with("line 1:"));
        assert!(mistakes[1].starts_with("line 3:"));
        assert!(mistakes[2].starts_with("line 4:"));
        let hints = parse_addition(
            "recovery_target_time = 2026-01-01 00:00:00 UTC",
            MajorVersion::NEWEST,
        );
        assert_eq!(
            hints.unwrap_err()[0].hint.as_deref(),
            Some("Write recovery_target_time = '2026-01-01 00:00:00 UTC'.")
        );
        let quoted = "recovery_target_time = \"2026-01-01 00:00:00 UTC\"";
        let hints = parse_addition(quoted, MajorVersion::NEWEST);
        assert_eq!(
            hints.unwrap_err()[0].hint.as_deref(),
            Some("Write recovery_target_time = '2026-01-01 00:00:00 UTC'.")
        );
    }

    #[test]
    fn versions_differ() {
        let cases = [
            (11, "standby_mode = on", true),
            (12, "standby_mode = on", false),
            (11, "recovery_target_timeline = current", false),
            (12, "recovery_target_timeline = current", true),
            (15, "promote_trigger_file = '/x'", true),
            (16, "promote_trigger_file = '/x'", false),
        ];
        for (major, text, ok) in cases {
            assert_eq!(parse_in(text, major).is_ok(), ok, "{major} {text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_parser(text in "[a-z_='\\\\n \n#0-9./:+-]{0,60}") {
            let _ = parse(&text);
        }
    }

    #[test]
    fn a_password_is_not_repeated_in_a_mistake() {
        for text in [
            "primary_conninfo = host=a password=canary",
            "primary_conninfo = 'password=canary",
            "primary_conninfo = 'host=a' canary",
            "conninfo = canary",
            "primary_conninfo = canary\u{1}",
        ] {
            let major = MajorVersion::new(15).unwrap();
            let mistakes = parse_addition(text, major).unwrap_err();
            let told: Vec<_> = mistakes.iter().map(|m| (m.to_string(), &m.hint)).collect();
            assert!(!format!("{told:?}").contains("canary"), "{told:?}");
        }
    }
}
