//! libpq's password file: `host:port:database:user:password`, one a line.
//!
//! Follows `passwordFromFile` in PostgreSQL's `fe-connect.c`: the first line that matches wins, `*` matches
//! anything, `\` makes the next character literal, lines that begin with `#` are comments, and a file that
//! others may read is not used. Here that is not only a warning: the reason is kept for the message of a
//! failed login.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::options::Secret;

/// Directories of the Unix socket that a password file calls `localhost`: PostgreSQL's compiled-in default,
/// upstream and in the distributions' packages.
const DEFAULT_SOCKET_DIRECTORIES: [&str; 2] = ["/tmp", "/var/run/postgresql"];

/// Largest password file: ten thousand lines of 100 bytes.
const PASSFILE_MAX: u64 = 1 << 20;

/// What the password file had to say.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    /// A line matched.
    Found(Secret),
    /// There is no file.
    NoFile,
    /// Nothing usable; why, as a sentence.
    Unusable(String),
}

/// Looks the password up in the file.
pub(super) fn look_up(path: &Path, host: &str, port: u16, database: &str, user: &str) -> Lookup {
    let unusable = |reason: &str| {
        let path = path.display();
        Lookup::Unusable(format!("The password file {path} {reason}"))
    };
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Lookup::NoFile,
        Err(error) => return unusable(&format!("was not used: {error}")),
    };
    if !metadata.is_file() {
        return unusable("was not used because it is not a regular file");
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        return unusable("was not used because others may read it; it needs mode 0600 or less");
    }
    let text = match crate::read_bounded_text(path, PASSFILE_MAX) {
        Ok(text) => text,
        Err(error) => return unusable(&format!("was not used: {error}")),
    };
    let host = if DEFAULT_SOCKET_DIRECTORIES.contains(&host) {
        "localhost"
    } else {
        host
    };
    let wanted = [host, &port.to_string(), database, user];
    match text.lines().find_map(|line| password_of(line, wanted)) {
        Some(password) => Lookup::Found(Secret::new(password)),
        None => unusable("has no line for this host, port, database and user"),
    }
}

/// A file that holds a password and nothing else, up to the end of its line.
pub(super) fn read_alone(path: &Path) -> Result<Secret, String> {
    /// No password is longer; a device that never ends must not fill the memory.
    const PASSWORD_MAX: u64 = 64 << 10;
    let text = crate::read_bounded_text(path, PASSWORD_MAX).map_err(|error| {
        format!(
            "The file of the password, {}, was not read: {error}",
            path.display()
        )
    })?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(Secret::new(text.strip_suffix('\r').unwrap_or(text)))
}

/// The password of a line, if its first four fields match.
fn password_of(line: &str, wanted: [&str; 4]) -> Option<String> {
    let line = line.trim_end_matches(['\r', '\n']);
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let mut rest = line;
    for value in wanted {
        let (raw, field, after) = split_field(rest)?;
        if raw != "*" && field != value {
            return None;
        }
        rest = after;
    }
    // The password ends at a colon that is not escaped, if there is one, as in libpq.
    Some(match split_field(rest) {
        Some((_, password, _)) => password,
        None => unescape(rest),
    })
}

/// The text before the next colon, raw and without its escapes, and the text after it.
fn split_field(text: &str) -> Option<(&str, String, &str)> {
    let mut escaped = false;
    for (index, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ':' => {
                let raw = &text[..index];
                return Some((raw, unescape(raw), &text[index + 1..]));
            }
            _ => {}
        }
    }
    None
}

fn unescape(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => result.extend(characters.next()),
            other => result.push(other),
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_97_a_password_alone_ends_at_the_end_of_its_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (content, password) in [
            ("one\n", "one"),
            ("one\r\n", "one"),
            ("one", "one"),
            ("'quoted' \n\n", "'quoted' \n"),
        ] {
            std::fs::write(file.path(), content).unwrap();
            assert_eq!(read_alone(file.path()).unwrap().expose(), password);
        }
        assert!(read_alone(Path::new("/nonexistent")).is_err());
    }

    #[test]
    fn the_first_matching_line_wins() {
        let wanted = ["db", "5432", "postgres", "wale"];
        let cases = [
            ("db:5432:postgres:wale:secret", Some("secret")),
            ("*:*:*:*:secret", Some("secret")),
            ("db:5432:*:wale:se:cret", Some("se")),
            (r"db:5432:*:wale:se\:c\\ret", Some(r"se:c\ret")),
            ("db:5432:*:wale:", Some("")),
            ("db:5433:*:wale:secret", None),
            ("other:*:*:*:secret", None),
            (r"\*:*:*:*:secret", None),
            ("# db:5432:postgres:wale:secret", None),
            ("db:5432:postgres:wale", None),
            ("", None),
        ];
        for (line, expected) in cases {
            assert_eq!(password_of(line, wanted).as_deref(), expected, "{line}");
        }
        let escaped = [r"a:b\c", "1", "d", "u"];
        let line = r"a\:b\\c:1:d:u:p";
        assert_eq!(password_of(line, escaped).as_deref(), Some("p"));
    }

    #[test]
    fn files_that_others_may_read_are_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pgpass");
        let find = || look_up(&path, "/var/run/postgresql", 5432, "postgres", "wale");
        assert_eq!(find(), Lookup::NoFile);
        std::fs::write(&path, "# comment\nlocalhost:5432:*:wale:secret\n").unwrap();
        for (mode, usable) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let found = find() == Lookup::Found(Secret::new("secret"));
            assert_eq!(found, usable, "{mode:o}");
        }
        assert!(matches!(
            look_up(folder.path(), "h", 1, "d", "u"),
            Lookup::Unusable(_)
        ));
    }
}
