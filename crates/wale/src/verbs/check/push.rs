//! `check --push`: the server's `archive_command`, run as the server runs it, for a segment that is archived already. It must
//! succeed, and nothing new may be stored. Then for a segment that does not exist: there it must fail, or it hides its failures.
//!
//! It refuses to run anything that does not look like wale's, or as anybody but the owner of the data directory: whoever may set
//! `archive_command` would run programs as root.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use wale_ops::{Archive, ArchiveStatus, OpError, Owner, WalDirectory};
use wale_pg::ArchiveFileName;
use wale_service::advice;

use super::judge::{Finding, looks_like_ours};

/// How long the command may take: more than a sidecar takes to answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(150);

/// Of what the command says so much is shown, from its end.
const SHOWN_MAX: usize = 400;

const TOPIC: &str = "push";

/// Runs it.
pub(super) async fn run(
    archive: &Archive,
    command: &str,
    data: &Path,
    wal: &WalDirectory,
) -> Finding {
    let Some(name) = newest_archived(wal) else {
        let found = "PostgreSQL has no archived segment in its WAL directory any more";
        return Finding::good(TOPIC, found.to_owned());
    };
    if let Err(why) = may_run(command, data) {
        return Finding::bad(TOPIC, why, None);
    }
    let before = match archive.find_wal_copies(&name).await {
        Ok(copies) if copies.is_empty() => {
            let hint =
                "find out where archive_command leads: PostgreSQL was told that it is stored";
            let found = format!("PostgreSQL has archived {name}, and it is not in the archive");
            return Finding::bad(TOPIC, found, Some(hint.to_owned()));
        }
        Ok(copies) => copies,
        Err(error) => return failed(&error),
    };
    if let Err(why) = execute(&expanded(command, &name, data, wal), data).await {
        let hint = "it was run on this host, as this user: run wale check where the server runs, or as its user";
        return Finding::bad(
            TOPIC,
            format!("archive_command fails for {name}: {why}"),
            Some(hint.to_owned()),
        );
    }
    match archive.find_wal_copies(&name).await {
        Ok(after) if after == before => fails_where_it_must(command, &name, data, wal).await,
        Ok(_) => {
            let hint = "retention may have run meanwhile: try again";
            let found = format!("after it {name} is stored otherwise than before");
            Finding::bad(TOPIC, found, Some(hint.to_owned()))
        }
        Err(error) => failed(&error),
    }
}

/// Why the command is not run.
fn may_run(command: &str, data: &Path) -> Result<(), String> {
    if !looks_like_ours(command) {
        return Err("archive_command does not look like wale's, and is not run".to_owned());
    }
    let owner =
        Owner::of(data).map_err(|error| format!("the data directory cannot be read: {error}"))?;
    if owner.uid == Owner::of_process().uid {
        return Ok(());
    }
    Err("archive_command is run by the owner of the data directory only: run wale check as that user".to_owned())
}

/// Runs the command for a segment that nobody has.
async fn fails_where_it_must(
    command: &str,
    archived: &ArchiveFileName,
    data: &Path,
    wal: &WalDirectory,
) -> Finding {
    let missing = archived.segment().map(|segment| {
        let text = format!("{}FFFFFFFF00000000", segment.timeline().to_hex());
        ArchiveFileName::parse(&text)
    });
    let Some(Ok(missing)) = missing else {
        return Finding::good(
            TOPIC,
            format!("archive_command succeeded again for {archived}"),
        );
    };
    match execute(&expanded(command, &missing, data, wal), data).await {
        Err(_) => Finding::good(
            TOPIC,
            format!(
                "archive_command succeeded again for {archived}, stored nothing new, and fails for a file that does not exist"
            ),
        ),
        Ok(()) => Finding::bad(
            TOPIC,
            "archive_command ends with 0 for a file that does not exist: PostgreSQL deletes WAL that nobody has".to_owned(),
            Some("set it as the guide to archiving says, with its end `|| false`".to_owned()),
        ),
    }
}

fn failed(error: &OpError) -> Finding {
    Finding::bad(TOPIC, error.chain(), advice(error))
}

/// The newest segment of which PostgreSQL says that it is archived, and that is still there.
fn newest_archived(wal: &WalDirectory) -> Option<ArchiveFileName> {
    let entries = std::fs::read_dir(wal.path()).ok()?;
    let names = entries.flatten().filter_map(|entry| {
        let name = entry.file_name();
        ArchiveFileName::parse(name.to_str()?).ok()
    });
    let archived = |name: &ArchiveFileName| {
        name.is_segment() && matches!(wal.status(name), Ok(ArchiveStatus::Done))
    };
    names.filter(archived).max()
}

/// The command with what PostgreSQL puts into it: `%f`, `%p`, relative to the data directory where it lies there, and `%%`.
fn expanded(command: &str, name: &ArchiveFileName, data: &Path, wal: &WalDirectory) -> String {
    let inside = data.join("pg_wal").canonicalize().ok();
    let own = wal.path().canonicalize().ok();
    let path = if inside.is_some() && inside == own {
        format!("pg_wal/{name}")
    } else {
        wal.path_of(name).display().to_string()
    };
    let mut text = String::with_capacity(command.len());
    let mut rest = command.chars().peekable();
    while let Some(c) = rest.next() {
        match (c, rest.peek()) {
            ('%', Some('f')) => text.push_str(&name.to_string()),
            ('%', Some('p')) => text.push_str(&path),
            ('%', Some('%')) => text.push('%'),
            _ => {
                text.push(c);
                continue;
            }
        }
        rest.next();
    }
    text
}

async fn execute(command: &str, data: &Path) -> Result<(), String> {
    let running = Command::new("sh")
        .args(["-c", command])
        .current_dir(data)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = match tokio::time::timeout(ANSWERS_WITHIN, running).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(format!("it cannot be started: {error}")),
        Err(_) => return Err(format!("no end within {} s", ANSWERS_WITHIN.as_secs())),
    };
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let said: String = said.trim().chars().rev().take(SHOWN_MAX).collect();
    let said: String = said.chars().rev().collect();
    Err(format!("{}: {said}", output.status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_what_postgresql_makes_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        std::fs::create_dir_all(data.join("pg_wal")).unwrap();
        let name = ArchiveFileName::parse("000000010000000000000003").unwrap();
        let wal = WalDirectory::at(data.join("pg_wal"));
        let text = expanded("a %f \"%p\" 100%% %x", &name, &data, &wal);
        assert_eq!(text, format!("a {name} \"pg_wal/{name}\" 100% %x"));
        let elsewhere = WalDirectory::at(folder.path().join("wal"));
        let text = expanded("%p", &name, &data, &elsewhere);
        assert_eq!(text, elsewhere.path_of(&name).display().to_string());
    }
}
