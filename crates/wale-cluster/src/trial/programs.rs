//! The programs of an installed server.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;
use wale_pg::MajorVersion;

use crate::error::ClusterError;

/// Where servers have their programs: Debian's packages, those of postgresql.org for Red Hat, Docker's images on Alpine, a build
/// from source, and the distribution's own of others. `#` stands for the major version.
const USUAL: [&str; 5] = [
    "/usr/lib/postgresql/#/bin",
    "/usr/pgsql-#/bin",
    "/usr/local/bin",
    "/usr/local/pgsql/bin",
    "/usr/bin",
];

/// A server has this library always.
const ALWAYS_THERE: &str = "plpgsql.so";

/// The programs of one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Programs {
    /// Their folder.
    pub folder: PathBuf,
    /// What `postgres --version` says, without the program's name.
    pub version: String,
}

impl Programs {
    /// The programs in `folder`, or where servers of that version usually have them.
    ///
    /// # Errors
    /// `Configuration`, when there is no server, or one of another version.
    pub async fn find(folder: Option<&Path>, major: MajorVersion) -> Result<Self, ClusterError> {
        if let Some(folder) = folder {
            let version = version(folder).await?;
            return if major_of(&version) == Some(major.get()) {
                Ok(Self {
                    folder: folder.to_owned(),
                    version,
                })
            } else {
                Err(ClusterError::Configuration {
                    message: format!(
                        "the server in {} is {version}, and the backup is of PostgreSQL {major}",
                        folder.display()
                    ),
                    hint: Some(format!("Name the folder of PostgreSQL {major}'s programs.")),
                })
            };
        }
        for place in USUAL {
            let folder = PathBuf::from(place.replace('#', &major.to_string()));
            if let Ok(version) = version(&folder).await
                && major_of(&version) == Some(major.get())
            {
                return Ok(Self { folder, version });
            }
        }
        Err(ClusterError::Configuration {
            message: format!("no server of PostgreSQL {major} is installed in the usual places"),
            hint: Some(format!(
                "Run it where PostgreSQL {major} is installed, or name the folder of its programs."
            )),
        })
    }

    /// Whether the server has this program.
    #[must_use]
    pub fn has(&self, program: &str) -> bool {
        self.folder.join(program).is_file()
    }

    /// The folder of the server's libraries; `None` where it is not known.
    pub async fn libraries(&self) -> Option<PathBuf> {
        let mut places = Vec::new();
        if let Ok(told) = printed(&self.folder.join("pg_config"), "--pkglibdir").await {
            places.push(PathBuf::from(told));
        }
        if let Some(prefix) = self.folder.parent() {
            places.extend(["lib", "lib/postgresql", "lib64"].map(|name| prefix.join(name)));
        }
        places
            .into_iter()
            .find(|place| place.join(ALWAYS_THERE).is_file())
    }
}

async fn version(folder: &Path) -> Result<String, ClusterError> {
    let program = folder.join("postgres");
    let failed = |reason: String| ClusterError::Configuration {
        message: format!(
            "{} is no server that can be run: {reason}",
            program.display()
        ),
        hint: Some(
            "Name the folder in which PostgreSQL's programs are (postgres, psql …).".to_owned(),
        ),
    };
    let told = printed(&program, "--version").await.map_err(failed)?;
    let version = told.strip_prefix("postgres (PostgreSQL) ");
    let version = version.ok_or_else(|| failed(format!("it says {told:?}")))?;
    Ok(format!("PostgreSQL {version}"))
}

/// The line that a program prints.
async fn printed(program: &Path, argument: &str) -> Result<String, String> {
    let ran = Command::new(program)
        .arg(argument)
        .env_clear()
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&ran.stdout).trim().to_owned();
    if ran.status.success() && !text.is_empty() {
        Ok(text)
    } else {
        let said = String::from_utf8_lossy(&ran.stderr).trim().to_owned();
        Err(format!("it ended with {}: {said}", ran.status))
    }
}

/// The major version that a version begins with, of a beta, too.
fn major_of(version: &str) -> Option<u32> {
    let number = version.strip_prefix("PostgreSQL ")?;
    let digits = number.find(|c: char| !c.is_ascii_digit());
    number[..digits.unwrap_or(number.len())].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_what_servers_print() {
        for (text, expected) in [
            ("PostgreSQL 15.18 (Debian 15.18-1.pgdg12+1)", Some(15)),
            ("PostgreSQL 19beta1", Some(19)),
            ("PostgreSQL 10.23", Some(10)),
            ("PostgreSQL devel", None),
            ("EDB 15", None),
        ] {
            assert_eq!(major_of(text), expected, "{text}");
        }
    }

    #[tokio::test]
    async fn a_folder_without_a_server_and_one_of_another_version_are_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let find = || Programs::find(Some(folder.path()), MajorVersion::new(15).unwrap());
        let said = find().await.unwrap_err().to_string();
        assert!(said.contains("no server that can be run"), "{said}");
        let program = folder.path().join("postgres");
        for (version, good) in [("16.2", false), ("15.18 (Debian)", true)] {
            let text = format!("#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n");
            std::fs::write(&program, text).unwrap();
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
            let found = find().await;
            assert_eq!(found.is_ok(), good, "{found:?}");
        }
    }
}
