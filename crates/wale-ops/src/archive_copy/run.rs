//! The copy from its beginning to its end.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use wale_archive::Archive;
use wale_pipeline::{CancellationToken, Progress, Urgency};

use super::backup::Backups;
use super::options::{CopyMode, CopyOptions, Which};
use super::report::{BackupFate, CopyReport};
use super::scope::Scope;
use super::transfer::Route;
use super::{wal, whose};
use crate::error::{Kind, OpError, Result};

/// Copies backups and their WAL from `source` to `copy`. What the report names as left out is the caller's to judge:
/// [`CopyReport::failure`].
///
/// The WAL goes first, then each backup, so whatever is listed in the copy can be restored to every moment that the source
/// had when the copy began. A copy that ends early is taken up by the next one: nothing is put twice.
///
/// # Errors
///
/// [`crate::Kind::Usage`] where both are one place; [`crate::Kind::ArchiveMismatch`] where the destination is another
/// cluster's; [`crate::Kind::NotFound`] for a backup that is named and not there; [`crate::Kind::Cancelled`]; the stores'
/// failures. What was copied until then stays.
pub async fn run(
    source: &Archive,
    copy: &Archive,
    options: &CopyOptions,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<CopyReport> {
    let begun = Instant::now();
    let route = Arc::new(Route {
        source: source.clone(),
        copy: copy.clone(),
        progress: progress.clone(),
        present: options.present,
        retry: options.retry,
        urgency: Urgency::Waits,
    });
    let mut report = CopyReport {
        source: source.location(),
        destination: copy.location(),
        ..CopyReport::default()
    };
    progress.set_phase("taking stock");
    // Boxed, as the other steps are: their own state is tens of kilobytes.
    let stock = Box::pin(async {
        whose::settle(&route, options.act).await?;
        Scope::take(source, &options.which).await
    });
    let scope = unless_cancelled(cancel, stock).await?;
    report.unfinished = scope.unfinished;
    report.strange = scope.strange;
    progress.set_total(scope.total.bytes);
    progress.set_total_files(scope.total.objects);
    progress.set_phase("copying WAL");
    let copied = Box::pin(wal::copy(
        &route,
        &scope.wal,
        options.act,
        options.workers,
        &mut report,
    ));
    let lacking = unless_cancelled(cancel, copied).await?;
    progress.set_phase("copying backups");
    let mut backups = Backups {
        route: &route,
        catalog: &scope.catalog,
        histories: &scope.wal.histories,
        lacking: &lacking,
        act: options.act,
        workers: options.workers,
        cancel,
        listed: match &options.which {
            Which::Lacking(wishes) => wishes.there.iter().cloned().collect(),
            Which::All | Which::These(_) => BTreeSet::new(),
        },
    };
    for chosen in &scope.backups {
        if cancel.is_cancelled() {
            return Err(OpError::cancelled());
        }
        Box::pin(backups.copy(chosen, &mut report)).await?;
    }
    if matches!(options.which, Which::These(_)) {
        not_as_asked(&mut report);
    }
    add_notes(&mut report, options.act);
    report.duration = begun.elapsed();
    Ok(report)
}

async fn unless_cancelled<T>(
    cancel: &CancellationToken,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let done = cancel.run_until_cancelled(work).await;
    done.unwrap_or_else(|| Err(OpError::cancelled()))
}

/// Who asks for a backup by its name has not got it when the source deletes it meanwhile.
fn not_as_asked(report: &mut CopyReport) {
    for line in &mut report.backups {
        if let BackupFate::Gone(why) = &mut line.fate {
            let why = std::mem::take(why);
            let kind = Kind::NotFound;
            line.fate = BackupFate::Left { kind, why };
        }
    }
}

fn add_notes(report: &mut CopyReport, act: CopyMode) {
    if report.vanished > 0 {
        report.notes.push(format!(
            "{} WAL objects were deleted at the source while the copy ran; they are not in the copy",
            report.vanished
        ));
    }
    if report.unfinished > 0 {
        report.notes.push(format!(
            "{} backups of the source have no record: they are being written, or left over, and are not copied",
            report.unfinished
        ));
    }
    if report.strange > 0 {
        report.notes.push(format!(
            "{} objects of the source have names that no part of an archive has, and are not copied",
            report.strange
        ));
    }
    if report.backups.is_empty() && act == CopyMode::Copy {
        let note = "the source has no base backup: the copy has WAL alone, which restores nothing";
        report.notes.push(note.to_owned());
    }
}
