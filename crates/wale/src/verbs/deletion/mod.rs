//! `delete`, `retain`, `backup-mark`: what stays in the archive.
//!
//! Nothing is deleted without `--confirm`. `wal-e delete` reports by WAL-E's log lines, which are watched in the wild;
//! `wale` prints what becomes of every object and why, or JSON. Objects are reported one by one as they are decided,
//! because there may be millions.

mod teller;

use wale_format::BackupName;
use wale_ops::backup_fetch::BackupSelector;
use wale_ops::backup_mark::{self, Mark};
use wale_ops::retention::{self, Act, Bound, Line, Options, Request};
use wale_ops::{Archive, Kind, OpError};
use wale_pg::WalSegmentName;
use wale_service::advice;

use crate::assemble;
use crate::bounds::Bounds;
use crate::cli::{BackupMark, Delete, DeleteWhat, Deletion, Face, Invocation, Retain};
use crate::config::{Group, Loaded, declared};
use crate::report::Failure;
use crate::runtime;
use crate::verbs::print::print;
use teller::{Teller, summary, told_refused};

/// Runs `delete`.
pub(crate) fn delete(
    arguments: &Delete,
    invocation: &Invocation,
    loaded: &Loaded,
) -> Result<(), Failure> {
    let groups = [Group::Archive, Group::Retention];
    let settings = loaded.require(&groups)?;
    let archive = assemble::archive(settings, Bounds::of_verb(settings))?.archive;
    let grace = assemble::sweep_grace(settings);
    let request = match &arguments.what {
        DeleteWhat::OldVersions => None,
        DeleteWhat::Before { bound } => Some(Request::Before(parse_bound(bound)?)),
        DeleteWhat::Retain { count } => Some(Request::Retain(parse_count(*count)?)),
        DeleteWhat::Target { name } => match parse_target(name)? {
            BackupSelector::Name(name) => Some(Request::Target(name)),
            BackupSelector::Latest => Some(Request::Target(latest(&archive)?)),
        },
        DeleteWhat::Everything => Some(Request::Everything),
    };
    let act = act(arguments.act);
    let mut words = vec!["delete".to_owned()];
    words.extend(arguments.what.words());
    let line = line(invocation, &words);
    let mut teller = Teller::new(arguments.act, invocation.face, &archive.location(), line);
    let report = runtime::small()?.block_on(async {
        let mut tell = |line: &Line| teller.tell(line);
        match request {
            Some(request) => {
                let options = Options {
                    request,
                    act,
                    grace,
                    request_interval: settings.get(&declared::WALE_RETAIN_REQUEST_INTERVAL),
                };
                retention::run(&archive, &options, &mut tell).await
            }
            None => retention::old_versions(&archive, act, &mut tell).await,
        }
    })?;
    teller.end(&report)
}

/// Runs `retain`.
pub(crate) fn retain(
    arguments: &Retain,
    invocation: &Invocation,
    loaded: &Loaded,
) -> Result<(), Failure> {
    let groups = [Group::Archive, Group::Sidecar, Group::Retention];
    let settings = loaded.require(&groups)?;
    if !settings.retention().is_set() {
        return Err(OpError::new(
            Kind::Configuration,
            "no setting says what is to be kept, so nothing is deleted",
        )
        .hint("set WALE_RETAIN_BACKUPS, WALE_RETAIN_DAYS, or one of WALE_RETAIN_DAILY, WALE_RETAIN_WEEKLY and WALE_RETAIN_MONTHLY")
        .into());
    }
    let archive = assemble::archive(settings, Bounds::of_verb(settings))?.archive;
    let options = Options {
        request: Request::Policy(settings.retention()),
        act: act(arguments.act),
        grace: assemble::sweep_grace(settings),
        request_interval: settings.get(&declared::WALE_RETAIN_REQUEST_INTERVAL),
    };
    let line = line(invocation, &["retain".to_owned()]);
    let mut teller = Teller::new(arguments.act, invocation.face, &archive.location(), line);
    let report = runtime::small()?.block_on(async {
        retention::run(&archive, &options, &mut |line| teller.tell(line)).await
    })?;
    teller.end(&report)
}

/// What the policy deletes after a base backup by verb. The backup is complete whatever becomes of this.
pub(crate) async fn after_backup(archive: &Archive, options: &Options) {
    match retention::run(archive, options, &mut |_| {}).await {
        Ok(report) => {
            for warning in &report.warnings {
                tracing::warn!("{warning}");
            }
            if report.refused_count > 0 {
                tracing::warn!("{}", told_refused(&report));
            }
            if !report.is_idle() {
                tracing::info!("{}", summary(&report, false));
            }
        }
        Err(error) => tracing::warn!(
            kind = error.kind.name(),
            detail = error.detail.as_deref(),
            hint = advice(&error),
            "the backup is complete, but old ones could not be deleted: {}",
            error.chain()
        ),
    }
}

/// Runs `backup-mark`.
pub(crate) fn mark(arguments: &BackupMark, loaded: &Loaded) -> Result<(), Failure> {
    let settings = loaded.require(&[Group::Archive])?;
    let selector: BackupSelector = arguments
        .name
        .parse()
        .map_err(|problem: String| OpError::new(Kind::Usage, problem))?;
    let (mark, words) = if arguments.impermanent {
        (Mark::Impermanent, "is no longer marked to be kept")
    } else {
        (Mark::Permanent, "is marked to be kept")
    };
    let archive = assemble::archive(settings, Bounds::of_verb(settings))?.archive;
    let name = runtime::small()?.block_on(backup_mark::run(&archive, &selector, mark))?;
    print(&format!("{name} {words}\n"))
}

const fn act(arguments: Deletion) -> Act {
    if arguments.is_dry_run() {
        Act::Show
    } else {
        Act::Delete
    }
}

fn parse_bound(text: &str) -> Result<Bound, OpError> {
    if let Ok(name) = BackupName::parse(text) {
        return Ok(Bound::Backup(name));
    }
    WalSegmentName::parse(text).map(Bound::Segment).map_err(|error| {
        let shown = text.escape_default();
        OpError::new(
            Kind::Usage,
            format!("\"{shown}\" is neither a base backup nor a WAL segment"),
        )
        .hint("give the full name of a base backup as backup-list prints it, or the 24 digits of a segment")
        .source(error)
    })
}

fn parse_target(text: &str) -> Result<BackupSelector, OpError> {
    text.parse().map_err(|_| {
        let shown = text.escape_default();
        OpError::new(
            Kind::Usage,
            format!("\"{shown}\" is no name of a base backup"),
        )
        .hint("give the full name as backup-list prints it, or LATEST")
    })
}

/// The backup that `LATEST` means now.
fn latest(archive: &Archive) -> Result<BackupName, OpError> {
    let chosen = runtime::small()?.block_on(async {
        let catalog = archive.catalog().await?;
        archive.choose(&catalog, &BackupSelector::Latest).await
    })?;
    for sentence in &chosen.passed_over {
        tracing::warn!("{sentence}");
    }
    Ok(chosen.entry.name)
}

/// The command line that does what this one only reports. Settings that came as flags are among its options.
fn line(invocation: &Invocation, words: &[String]) -> String {
    let program = match invocation.face {
        Face::Wale => "wale",
        Face::WalE => "wal-e",
    };
    let options = invocation.options();
    let words = options.iter().chain(words).map(|word| quoted(word));
    let words: Vec<String> = words.collect();
    format!("{program} {} --confirm", words.join(" "))
}

/// As a shell takes it for one word.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,@%+".contains(c);
    if word.chars().all(plain) && !word.is_empty() {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

fn parse_count(count: i64) -> Result<u32, OpError> {
    u32::try_from(count)
        .ok()
        .filter(|&count| count > 0)
        .ok_or_else(|| {
            OpError::new(Kind::Usage, format!("cannot retain {count} base backups"))
                .hint("give a number of 1 or more; `delete everything` empties the archive")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_backups_or_segments() {
        let backup = "base_00000001000000000000000B_00000040";
        assert!(matches!(parse_bound(backup), Ok(Bound::Backup(_))));
        let segment = "00000001000000000000000B";
        assert!(matches!(parse_bound(segment), Ok(Bound::Segment(_))));
        for text in ["", "LATEST", "00000001000000000000000b", "2026-01-01"] {
            let error = parse_bound(text).unwrap_err();
            assert_eq!(error.kind, Kind::Usage, "{text}");
        }
        assert!(matches!(parse_target(backup), Ok(BackupSelector::Name(_))));
        for text in ["LATEST", "latest"] {
            assert!(matches!(parse_target(text), Ok(BackupSelector::Latest)));
        }
        for text in ["", segment] {
            assert_eq!(parse_target(text).unwrap_err().kind, Kind::Usage, "{text}");
        }
    }

    #[test]
    fn a_dry_run_ends_with_the_line_to_run() {
        let typed = ["wale", "--file-prefix=/a b", "delete", "retain", "3"];
        let typed = typed.into_iter().map(Into::into).collect();
        let invocation = crate::cli::parse(typed).unwrap();
        let words = ["delete", "retain", "3"].map(str::to_owned);
        assert_eq!(
            line(&invocation, &words),
            "wale '--file-prefix=/a b' delete retain 3 --confirm"
        );
    }

    #[test]
    fn counts_are_positive() {
        assert_eq!(parse_count(3).unwrap(), 3);
        for count in [0, -1, i64::MIN, i64::MAX] {
            assert_eq!(parse_count(count).unwrap_err().kind, Kind::Usage, "{count}");
        }
    }
}
