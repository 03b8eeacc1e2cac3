//! The settings of the archive as a configuration file: what a restored server's `restore_command` reads, whose environment
//! knows nothing of them.

use std::fmt::Write as _;

use wale_cluster::Secret;
use wale_ops::{Kind, OpError};

use super::declared::{SETTINGS, WALE_GS_NAMES, WALE_GS_PREFIX};
use super::group::Group;
use super::numbered::is_of_one_archive;
use super::raw::Origin;
use super::setting::{Facts, Values};

/// The file's text: what somebody has set of the archive, its store and the fetching of WAL.
///
/// # Errors
/// `Configuration` for a value of several lines, which no line of the file can hold.
pub(super) fn archive_file(values: &Values, further: &[(u8, Values)]) -> Result<Secret, OpError> {
    let mut text = String::from("# Written by wale's restore, for restore_command.\n");
    let belongs = |facts: &Facts| {
        facts.group.is_of_a_store()
            || [Group::Archive, Group::Wal, Group::Proxies].contains(&facts.group)
    };
    add(&mut text, values, "", belongs)?;
    for (number, values) in further {
        let own = |facts: &Facts| belongs(facts) && is_of_one_archive(facts);
        add(&mut text, values, &format!("_{number}"), own)?;
    }
    Ok(Secret::new(text))
}

/// Adds a line for each setting of these that is set, with the end that its name has.
fn add(
    text: &mut String,
    values: &Values,
    end: &str,
    belongs: impl Fn(&Facts) -> bool,
) -> Result<(), OpError> {
    let mut line = |name: &str, value: &str| {
        if value.contains(['\n', '\r']) {
            return Err(several_lines(name));
        }
        // One pair of quotes is taken off again.
        writeln!(text, "{name}{end}=\"{value}\"")
            .map_err(|_| OpError::internal("text did not grow"))
    };
    for setting in SETTINGS {
        let facts = setting.facts();
        let raw = values.raw(facts);
        let Some(value) = raw.text.as_deref().filter(|_| belongs(facts)) else {
            continue;
        };
        match (&raw.origin, facts.file_variable()) {
            // The server's working directory is another one.
            (Origin::SecretFile(path), Some(variable)) => {
                let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
                line(&variable, &path.to_string_lossy())?;
            }
            _ => line(facts.name, value)?,
        }
    }
    // The variable's name says whose names the objects have; the line's does not.
    let prefix = values.set(&WALE_GS_PREFIX);
    if matches!(prefix, Some((_, Origin::Environment(name))) if name.starts_with("WALG_"))
        && !values.is_set(&WALE_GS_NAMES)
    {
        line(WALE_GS_NAMES.name(), "wal-g")?;
    }
    Ok(())
}

fn several_lines(name: &str) -> OpError {
    OpError::new(
        Kind::Configuration,
        format!("{name} has several lines, and restore_command's file cannot hold it"),
    )
    .hint("keep it in a file and name that, or let the server fetch through the sidecar (--wal-from sidecar)")
}

#[cfg(test)]
mod tests {
    use super::super::Loaded;
    use super::super::declared::AWS_SECRET_ACCESS_KEY;

    #[test]
    fn the_file_holds_what_is_set_of_the_archive_and_reads_the_same() {
        let environment = [
            ("WALE_S3_PREFIX", "s3://bucket/a path"),
            ("AWS_ACCESS_KEY_ID", "id"),
            ("AWS_SECRET_ACCESS_KEY", "x\"y'z"),
            ("PGPASSWORD", "other"),
            ("WALE_FETCH_DEADLINE", "7s"),
            ("CRON_TIMING", "0 3 * * *"),
        ];
        let loaded = Loaded::for_test(&environment, "");
        let file = loaded.settings.archive_file().unwrap();
        let text = file.expose();
        assert!(
            !text.contains("PGPASSWORD") && !text.contains("CRON"),
            "{text}"
        );
        let again = Loaded::for_test(&[], text);
        let same = again.settings.archive_file().unwrap();
        assert_eq!(same.expose(), text);
        assert!(
            text.contains("AWS_SECRET_ACCESS_KEY=\"x\"y'z\"\n"),
            "{text}"
        );
        let several = Loaded::for_test(
            &[
                ("WALE_PREFIX", "file:///a"),
                ("WALE_PREFIX_2", "s3://b/p"),
                ("AWS_REGION_2", "r"),
                ("AWS_ACCESS_KEY_ID_2", "id"),
                ("AWS_SECRET_ACCESS_KEY_2", "of-the-second"),
                ("WALE_RETAIN_DAYS_2", "3"),
                ("WALE_FETCH_DEADLINE", "7s"),
            ],
            "",
        );
        let text = several.settings.archive_file().unwrap();
        assert!(!text.expose().contains("RETAIN"), "{}", text.expose());
        assert_eq!(text.expose().matches("WALE_FETCH_DEADLINE").count(), 1);
        let again = Loaded::for_test(&[], text.expose());
        let second = &again.further[0];
        assert!(second.is_sound() && second.number == 2);
        assert_eq!(
            second
                .settings
                .get(&AWS_SECRET_ACCESS_KEY)
                .map(|secret| secret.expose().to_owned()),
            Some("of-the-second".to_owned())
        );
        let google = Loaded::for_test(&[("WALG_GS_PREFIX", "gs://b/a")], "");
        let text = google.settings.archive_file().unwrap();
        assert!(text.expose().contains("WALE_GS_NAMES=\"wal-g\""));
        let lines = Loaded::for_test(&[("WALE_FILE_PREFIX", "/a"), ("WALG_PGP_KEY", "a\nb")], "");
        assert!(lines.settings.archive_file().is_err());
    }
}
