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
    let at = last.at;
    let own = app.journal.entries().last_verification;
    let known = known(last, own.as_ref());
    app.metrics.verified(known.at, known.damaged);
    app.journal.note(|entries| entries.verified = Some(known));
    Ok(at)
}

/// What is remembered, and what this process found last: names, sizes and gaps are not remembered from a host that reads nothing,
/// nor from a sample. So what it found stays until it verifies again.
fn known(last: LastVerified, own: Option<&VerifyRecord>) -> VerifiedRecord {
    let mut known = record(last);
    let Some(own) = own else { return known };
    // Where nothing can be stored, what is remembered is older than what was found.
    let is_forgotten = own.not_remembered.is_some() && known.at.is_none_or(|at| at <= own.began);
    if own.damaged > known.damaged || is_forgotten {
        known.damaged = own.damaged;
        known.examples.clone_from(&own.damage);
    }
    known.at = known.at.max(Some(own.began));
    known
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

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    fn at(minutes: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::minutes(minutes)
    }

    fn own(damaged: u64, not_remembered: Option<&str>) -> VerifyRecord {
        VerifyRecord {
            began: at(5),
            duration: Duration::ZERO,
            bytes_read: 0,
            backups_read: 0,
            segments_read: 0,
            damaged,
            damage: vec![DamageRecord {
                object: "own".to_owned(),
                found: String::new(),
                meaning: Vec::new(),
            }],
            remedy: None,
            not_remembered: not_remembered.map(str::to_owned),
        }
    }

    #[test]
    fn what_this_process_found_is_told_until_it_verifies_again() {
        let last = |minutes, damaged| LastVerified {
            at: Some(at(minutes)),
            damaged,
            ..LastVerified::default()
        };
        for (last, own, damaged, is_own) in [
            (last(5, 0), own(2, None), 2, true),
            (last(5, 3), own(2, None), 3, false),
            (last(9, 3), own(0, None), 3, false),
            // It could not store that it found all good, and nobody found anything since.
            (last(4, 3), own(0, Some("refused")), 0, true),
            (last(9, 3), own(0, Some("refused")), 3, false),
            (LastVerified::default(), own(2, Some("refused")), 2, true),
        ] {
            let known = known(last, Some(&own));
            let told_own = known
                .examples
                .first()
                .is_some_and(|one| one.object == "own");
            assert_eq!((known.damaged, told_own), (damaged, is_own));
            assert!(known.at >= Some(at(5)));
        }
        assert_eq!(known(last(9, 3), None).damaged, 3);
    }
}
