//! The archive is read to its last byte when its schedule says so, slowly, and what is known of it by such readings, whoever
//! made them, is told.
//!
//! It refuses to judge: wale-ops does. A verification fails no probe and stops nothing: what is damaged is in `/status`, in the
//! log and in a metric. One at a time. Everything may be dropped at any await: what was proven so far is remembered in the
//! archive, and the next run does not read it again.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use wale_ops::verify::{self, LastVerified, VerifyDepth, VerifyOptions, VerifyReport};
use wale_ops::{CancellationToken, OpError, Progress};

use crate::app::App;
use crate::journal::{DamageRecord, FailureRecord, VerifiedRecord, VerifyRecord, log_failure};
use crate::options::Verification;
use crate::remedy::advice;

/// The longest sleep between two looks at the clock.
const LOOK: Duration = Duration::from_secs(30);

/// Damaged objects that are told. 20 × at most 4 KiB = 80 KiB.
const TOLD_MAX: usize = 20;

/// Partitions or segments that are read at a time: one, so that pushes and backups keep the memory.
const WORKERS: usize = 1;

/// Verifies for ever, when the schedule says so. A slot that was missed is caught up with once.
pub(crate) async fn keep_verifying(app: Arc<App>, verification: Verification) {
    let clock = app.archive.clock();
    let mut covered = match recall(&app).await {
        Ok(last) => last.unwrap_or_else(|| clock.now()),
        Err(error) => {
            log_failure("the look for the last verification", &error);
            clock.now()
        }
    };
    loop {
        let now = clock.now();
        if verification.schedule.missed_since(covered, now).is_some() {
            covered = now;
            run(&app, &verification).await;
            continue;
        }
        let Some(next) = verification.schedule.next_after(covered.max(now)) else {
            return;
        };
        app.journal
            .note(|entries| entries.next_verification = Some(next));
        let sleep = (next - now).to_std().unwrap_or_default() + Duration::from_millis(1);
        tokio::time::sleep(sleep.min(LOOK)).await;
    }
}

/// Verifies once, and tells what came of it.
async fn run(app: &App, verification: &Verification) {
    let options = VerifyOptions {
        depth: VerifyDepth::Content,
        share: verification.share,
        older_than: Some(verification.older_than),
        rate: verification.rate,
        workers: WORKERS,
    };
    let began = app.archive.clock().now();
    app.journal
        .note(|entries| entries.verifying_since = Some(began));
    tracing::info!("the archive is being verified");
    let (progress, cancel) = (Progress::new(), CancellationToken::new());
    let done = verify::run(&app.archive, &options, &progress, &cancel).await;
    app.journal.note(|entries| entries.verifying_since = None);
    match done {
        Ok(report) => {
            note(app, &report);
            match report.failure() {
                Some(error) if !report.is_damaged() => note_failure(app, &error),
                _ => app
                    .journal
                    .note(|entries| entries.last_verification_failure = None),
            }
        }
        Err(error) => note_failure(app, &error),
    }
    if let Err(error) = recall(app).await {
        log_failure("the look for the last verification", &error);
    }
}

fn note_failure(app: &App, error: &OpError) {
    log_failure("the verification of the archive", error);
    let record = FailureRecord::new("verify", error, app.archive.clock().now());
    app.journal
        .note(|entries| entries.last_verification_failure = Some(record));
}

fn note(app: &App, report: &VerifyReport) {
    for finding in &report.findings {
        tracing::error!(
            object = finding.object,
            meaning = finding.meaning.join("; "),
            "the archive is damaged: {} ({})",
            finding.found,
            finding.trouble.name()
        );
    }
    for note in &report.notes {
        tracing::info!("{note}");
    }
    if let Some(why) = &report.not_remembered {
        tracing::warn!("what was read is not remembered, and is read again the next time: {why}");
    }
    let damage = report
        .findings
        .iter()
        .take(TOLD_MAX)
        .map(|finding| DamageRecord {
            object: finding.object.clone(),
            found: finding.found.clone(),
            meaning: finding.meaning.clone(),
        });
    let is_read = |state| state == verify::BackupState::Proven;
    let record = VerifyRecord {
        began: report.began,
        duration: report.duration,
        bytes_read: report.bytes_read,
        backups_read: report
            .backups
            .iter()
            .filter(|one| is_read(one.state))
            .count(),
        segments_read: report.wal.read,
        damaged: report.findings_count,
        damage: damage.collect(),
        remedy: report.failure().as_ref().and_then(advice),
        not_remembered: report.not_remembered.clone(),
    };
    tracing::info!(
        backups_read = record.backups_read,
        segments_read = record.segments_read,
        bytes_read = record.bytes_read,
        damaged = record.damaged,
        seconds = record.duration.as_secs_f64(),
        "the archive is verified"
    );
    app.metrics.verified(Some(record.began), record.damaged);
    app.journal
        .note(|entries| entries.last_verification = Some(record));
}

/// Notes what is remembered in the archive, by this process or another. Gives when something was last verified.
///
/// # Errors
/// As [`verify::last`].
pub(crate) async fn recall(app: &App) -> Result<Option<DateTime<Utc>>, OpError> {
    let last = verify::last(&app.archive).await?;
    let own = app.journal.entries().last_verification;
    // Where nothing can be stored, this process alone knows.
    let is_forgotten = own.is_some_and(|own| own.not_remembered.is_some());
    if !is_forgotten {
        app.metrics.verified(last.at, last.damaged);
    }
    let at = last.at;
    app.journal
        .note(|entries| entries.verified = Some(record(last)));
    Ok(at)
}

fn record(last: LastVerified) -> VerifiedRecord {
    let examples = last.examples.into_iter().map(|damage| DamageRecord {
        object: damage.object,
        found: damage.found,
        meaning: Vec::new(),
    });
    VerifiedRecord {
        at: last.at,
        backups: last.backups,
        proven_backups: last.proven_backups,
        oldest_backup_proof: last.oldest_backup,
        proven_segments: last.proven_segments,
        oldest_segment_proof: last.oldest_segment,
        damaged: last.damaged,
        examples: examples.collect(),
    }
}
