//! `delete`, `retain`, `backup-mark`: what stays in the archive.
//!
//! Nothing is deleted without `--confirm`. `wal-e delete` tells by WAL-E's log lines, which are watched in the wild;
//! `wale` prints what becomes of every object and why, or JSON. Objects are told one by one as they are decided,
//! because there may be millions.

mod teller;

use wale_format::BackupName;
use wale_ops::backup_fetch::BackupSelector;
use wale_ops::backup_mark::{self, Mark};
use wale_ops::retention::{self, Act, Bound, Line, Options, Request};
use wale_ops::{Archive, Kind, OpError};
use wale_pg::WalSegmentName;

use crate::assemble::{self, Bounds};
use crate::cli::{BackupMark, Delete, DeleteWhat, Deletion, Face, Retain};
use crate::config::{Group, Loaded};
use crate::report::Failure;
use crate::runtime;
use crate::verbs::print;
use teller::{Teller, summary, told_refused};

/// Runs `delete`.
pub(crate) fn delete(arguments: &Delete, face: Face, loaded: &Loaded) -> Result<(), Failure> {
    let groups = [Group::Archive, Group::Retention];
    let settings = loaded.require(&groups)?;
    let archive = assemble::archive(settings, Bounds::of_verb(settings))?.archive;
    let grace = assemble::sweep_grace(settings);
    let request = match &arguments.what {
        DeleteWhat::OldVersions => None,
        DeleteWhat::Before { bound } => Some(Request::Before(parse_bound(bound)?)),
        DeleteWhat::Retain { count } => Some(Request::Retain(parse_count(*count)?)),
        DeleteWhat::Target { name } => Some(Request::Target(parse_target(name)?)),
        DeleteWhat::Everything => Some(Request::Everything),
    };
    let act = act(arguments.act);
    let mut teller = Teller::new(arguments.act, face, &archive.location());
    let report = runtime::small()?.block_on(async {
        let mut tell = |line: &Line| teller.tell(line);
        match request {
            Some(request) => {
                let options = Options {
                    request,
                    act,
                    grace,
                    request_interval: settings.retain_request_interval,
                };
                retention::run(&archive, &options, &mut tell).await
            }
            None => retention::old_versions(&archive, act, &mut tell).await,
        }
    })?;
    teller.end(&report)
}

/// Runs `retain`.
pub(crate) fn retain(arguments: &Retain, face: Face, loaded: &Loaded) -> Result<(), Failure> {
    let groups = [Group::Archive, Group::Sidecar, Group::Retention];
    let settings = loaded.require(&groups)?;
    if !settings.retention.is_set() {
        return Err(OpError::new(
            Kind::Configuration,
            "no setting says what is to be kept, so nothing is deleted",
        )
        .hint("set WALE_RETAIN_BACKUPS, WALE_RETAIN_DAYS, or one of WALE_RETAIN_DAILY, WALE_RETAIN_WEEKLY and WALE_RETAIN_MONTHLY")
        .into());
    }
    let archive = assemble::archive(settings, Bounds::of_verb(settings))?.archive;
    let options = Options {
        request: Request::Policy(settings.retention.clone()),
        act: act(arguments.act),
        grace: assemble::sweep_grace(settings),
        request_interval: settings.retain_request_interval,
    };
    let mut teller = Teller::new(arguments.act, face, &archive.location());
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
            hint = error.hint.as_deref(),
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

fn parse_target(text: &str) -> Result<BackupName, OpError> {
    BackupName::parse(text).map_err(|error| {
        let shown = text.escape_default();
        OpError::new(
            Kind::Usage,
            format!("\"{shown}\" is no name of a base backup"),
        )
        .hint("give the full name as backup-list prints it")
        .source(error)
    })
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
        assert!(parse_target(backup).is_ok());
        // One by one: LATEST would be another one each time.
        for text in ["", "LATEST", segment] {
            assert_eq!(parse_target(text).unwrap_err().kind, Kind::Usage, "{text}");
        }
    }

    #[test]
    fn counts_are_positive() {
        assert_eq!(parse_count(3).unwrap(), 3);
        for count in [0, -1, i64::MIN, i64::MAX] {
            assert_eq!(parse_count(count).unwrap_err().kind, Kind::Usage, "{count}");
        }
    }
}
