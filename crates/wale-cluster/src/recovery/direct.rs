//! The text of `restore_command` for a server that fetches from the archive by wale itself, without a sidecar, and the file that
//! the command takes wale's settings from.
//!
//! The server's environment knows nothing of the archive, and a command line is seen by every user of the host. So the settings
//! lie in a file of mode 0600 in the data directory. It is no part of a base backup. They lie there alone: a variable that the server
//! was started with would come before the file, and lead to another archive or send it another one's keys.

use std::path::Path;

use super::files::FILE_MODE;
use crate::control::Secret;
use crate::durable;
use crate::error::ClusterError;
use crate::owner::Owner;

/// The file in the data directory that holds wale's settings for `restore_command`.
pub const SETTINGS_FILE: &str = "wale_restore_settings.conf";

/// The command for a server on `data_directory`, both paths absolute.
///
/// # Errors
/// `Configuration`, when a path cannot stand in a command.
pub fn direct_restore_command(
    program: &Path,
    data_directory: &Path,
) -> Result<String, ClusterError> {
    let program = word(program)?;
    let settings = word(&data_directory.join(SETTINGS_FILE))?;
    Ok(format!(
        "env -i PATH=\"$PATH\" HOME=\"$HOME\" {program} --config-file {settings} wal-fetch %f \"%p\""
    ))
}

/// Writes [`SETTINGS_FILE`], mode 0600.
///
/// # Errors
/// When it cannot be written.
pub fn write_settings(
    data_directory: &Path,
    content: &Secret,
    owner: Option<Owner>,
) -> Result<(), ClusterError> {
    let path = data_directory.join(SETTINGS_FILE);
    durable::write_atomic(&path, content.expose().as_bytes(), FILE_MODE, owner)
        .map_err(ClusterError::io("write", &path))
}

/// A path as one word of a shell's command, with percent signs as `PostgreSQL` wants them.
fn word(path: &Path) -> Result<String, ClusterError> {
    let text = path
        .to_str()
        .filter(|text| !text.chars().any(char::is_control))
        .ok_or_else(|| ClusterError::Configuration {
            message: format!("\"{}\" cannot stand in a restore_command", path.display()),
            hint: Some("Use a path without control characters, in UTF-8.".to_owned()),
        })?;
    // What is one word stays one with its percent signs doubled.
    Ok(shell_word(text).replace('%', "%%"))
}

/// One word of a shell's command, in quotes where it needs them.
#[must_use]
pub fn shell_word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@=:".contains(c);
    if text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_one_word_each() {
        assert_eq!(shell_word("/srv/it's here"), r"'/srv/it'\''s here'");
        let command = |program: &str, data: &str| {
            direct_restore_command(Path::new(program), Path::new(data)).unwrap()
        };
        assert_eq!(
            command("/usr/bin/wale", "/srv/copy"),
            "env -i PATH=\"$PATH\" HOME=\"$HOME\" /usr/bin/wale --config-file /srv/copy/wale_restore_settings.conf wal-fetch %f \"%p\""
        );
        assert_eq!(
            command("/opt/my wale", "/srv/50%/it's"),
            "env -i PATH=\"$PATH\" HOME=\"$HOME\" '/opt/my wale' --config-file '/srv/50%%/it'\\''s/wale_restore_settings.conf' wal-fetch %f \"%p\""
        );
        assert!(direct_restore_command(Path::new("/a\nb"), Path::new("/c")).is_err());
    }
}
