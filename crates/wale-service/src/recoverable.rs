//! Whether WAL or a timeline history is missing after the newest base backup: checked when the sidecar starts, after each base backup and
//! from time to time, and reported in `/status`, by a metric and in the log.
//!
//! It refuses to judge: wale-ops does. A gap fails no probe, because nothing that is served fails for it. A check
//! that fails leaves what was known. Everything may be dropped at any await.

use std::sync::Arc;
use std::time::Duration;

use wale_ops::OpError;
use wale_ops::recoverable::{self, Holdings, Recoverable, TimelineHeld, Window};
use wale_ops::retry::Pauses;

use crate::app::App;
use crate::journal::{
    GapRecord, GrowthRecord, HoldingsRecord, LegRecord, LostHistoryRecord, RecoverableRecord,
    RehearsalNote, RunRecord, TimelineRecord, WindowRecord, log_failure,
};
use crate::verifier;

/// Between two checks. A listing of N keys is N / 1,000 requests on S3: 100,000 segments (1.6 TB of WAL) make 100 an
/// hour, and all objects and the way from the oldest base backup cost as much again each: 7,200 a day, which is three cents. On top
/// come two reads of each sentinel and, for the timelines that might follow, eight look-ups under each of the codecs' names and sixteen
/// short listings; the same for each of the last timelines that were left (`recoverable::LEFT_MAX`).
const EVERY: Duration = Duration::from_hours(1);

/// Between two checks while something is missing: a person who puts segments back wants to see that it was right, and
/// the old primary's last segments may come a little later than the promotion. Six times the cost, for that time only.
const EVERY_WHILE_MISSING: Duration = Duration::from_mins(10);

/// The pause after a check that failed, doubled up to [`EVERY`].
const AGAIN: Duration = Duration::from_mins(1);

/// Looks for ever.
pub(crate) async fn watch(app: Arc<App>) {
    let mut completions = app.backups.completions();
    let mut pauses = Pauses::new(AGAIN, EVERY);
    loop {
        let pause = match look(&app).await {
            Ok(found) => {
                pauses = Pauses::new(AGAIN, EVERY);
                match found {
                    Some(found) if found.gap.is_some() || found.lost_history.is_some() => {
                        EVERY_WHILE_MISSING
                    }
                    Some(_) => EVERY,
                    // `/readyz` reports that the first base backup is missing. Without one, one short listing is all.
                    None => AGAIN,
                }
            }
            Err(error) => {
                log_failure("the check for gaps in the WAL", &error);
                pauses.take()
            }
        };
        // A base backup may leave the gap behind. Their sender lives as long as the application does.
        let _ = tokio::time::timeout(pause, completions.changed()).await;
    }
}

/// Looks once and notes what there is.
///
/// # Errors
/// As [`recoverable::run`].
pub(crate) async fn look(app: &App) -> Result<Option<Recoverable>, OpError> {
    let found = recoverable::run(&app.archive).await?;
    note(app, found.as_ref());
    // Without a base backup this is asked every minute, and there is nothing that can be restored.
    if found.is_some() {
        note_holdings(app, &recoverable::holdings(&app.archive).await?);
        verifier::recall(app).await?;
    }
    recall_push(app, found.as_ref()).await;
    app.journal.note(|entries| entries.has_looked = true);
    Ok(found)
}

/// When the newest segment was stored, for alarms on the time since the last push: a restart is no reason for one.
async fn recall_push(app: &App, found: Option<&Recoverable>) {
    if let Some(segment) = found.and_then(|found| found.until)
        && let Ok(Some(stored)) = app.archive.find_wal(&segment.into()).await
    {
        app.metrics.recalled_push(stored.modified);
    }
}

fn note(app: &App, found: Option<&Recoverable>) {
    let before = app.journal.entries().recoverable;
    let record = found.map(|found| RecoverableRecord {
        backup: found.backup.to_string(),
        until: found.until.map(|name| name.to_string()),
        gap: gap_of(found),
        lost_history: lost_history_of(found),
        checked_at: app.archive.clock().now(),
    });
    let known = before.as_ref().and_then(|before| before.gap.as_ref());
    tell(known, record.as_ref());
    let known = before
        .as_ref()
        .and_then(|before| before.lost_history.as_ref());
    tell_history(known, record.as_ref());
    let gap = record.as_ref().and_then(|record| record.gap.as_ref());
    app.metrics.gap(gap.map_or(0, |gap| gap.segments));
    let lost = record
        .as_ref()
        .and_then(|record| record.lost_history.as_ref());
    app.metrics.lost_history(lost.is_some());
    app.journal.note(|entries| entries.recoverable = record);
}

/// Notes what the archive holds.
fn note_holdings(app: &App, found: &Holdings) {
    app.metrics.holdings(found);
    let last = found.rehearsals.last.as_ref();
    let record = HoldingsRecord {
        last_rehearsal: last.map(|(backup, record)| RehearsalNote {
            backup: backup.to_string(),
            record: record.clone(),
        }),
        backups: found.backups,
        objects: found.objects,
        bytes: found.bytes,
        growth: GrowthRecord {
            last_day_bytes: found.growth.last_day,
            last_week_bytes: found.growth.last_week,
            wal_bytes_per_hour: found.growth.wal_bytes_per_hour,
        },
        windows: found.windows.iter().map(window).collect(),
        left: found.left.iter().map(window).collect(),
        timelines: found.timelines.iter().map(timeline).collect(),
        checked_at: app.archive.clock().now(),
    };
    app.journal.note(|entries| entries.holdings = Some(record));
}

fn window(window: &Window) -> WindowRecord {
    let stretch = &window.stretch;
    let legs = window.legs.iter().map(|leg| LegRecord {
        timeline: leg.timeline.get(),
        from: leg.from,
        until: leg.until,
    });
    WindowRecord {
        backup: stretch.backup.to_string(),
        timeline: stretch.until.unwrap_or(stretch.from).timeline().get(),
        from: window.from,
        until: window.until,
        until_segment: stretch.until.map(|segment| segment.to_string()),
        gap: gap_of(stretch),
        lost_history: lost_history_of(stretch),
        legs: legs.collect(),
        backups: window.backups.iter().map(ToString::to_string).collect(),
    }
}

fn timeline(held: &TimelineHeld) -> TimelineRecord {
    let runs = held.runs.iter().map(|run| RunRecord {
        first: run.first.to_string(),
        last: run.last.to_string(),
        from: run.from,
        until: run.until,
    });
    TimelineRecord {
        timeline: held.timeline.get(),
        parent: held.parent.map(|(parent, _)| parent.get()),
        fork: held.parent.map(|(_, at)| at.to_string()),
        began: held.began,
        wal: runs.collect(),
    }
}

fn gap_of(found: &Recoverable) -> Option<GapRecord> {
    let gap = found.gap?;
    Some(GapRecord {
        from: gap.from.to_string(),
        to: gap.to.to_string(),
        segments: found.missing,
        unreadable: found.unreadable.clone(),
    })
}

fn lost_history_of(found: &Recoverable) -> Option<LostHistoryRecord> {
    let lost = found.lost_history.as_ref()?;
    Some(LostHistoryRecord {
        name: lost.name().to_string(),
        shown_by: lost.witness.to_string(),
    })
}

/// Says in the log what has changed about the segments.
fn tell(known: Option<&GapRecord>, record: Option<&RecoverableRecord>) {
    let gap = record.and_then(|record| record.gap.as_ref());
    if gap == known {
        return;
    }
    if let (Some(record), Some(gap)) = (record, gap)
        && let Some(unreadable) = &gap.unreadable
    {
        tracing::warn!(
            backup = record.backup,
            from = gap.from,
            to = gap.to,
            segments = gap.segments,
            recoverable_until = record.until,
            sealed = unreadable,
            hint =
                "take a base backup now; until then restore with the tool that wrote the segments",
            "WAL is in the archive only in a form that this version cannot read: a recovery by wale ends before it"
        );
    } else if let (Some(record), Some(gap)) = (record, gap) {
        tracing::warn!(
            backup = record.backup,
            from = gap.from,
            to = gap.to,
            segments = gap.segments,
            recoverable_until = record.until,
            hint = "put the segments back if they exist anywhere, and take a base backup now",
            "WAL is missing from the archive: recovery ends before it"
        );
    } else if let Some(record) = record {
        tracing::info!(
            backup = record.backup,
            recoverable_until = record.until,
            "no WAL is missing any more after the newest base backup"
        );
    }
}

/// Says in the log what has changed about the histories.
fn tell_history(known: Option<&LostHistoryRecord>, record: Option<&RecoverableRecord>) {
    let lost = record.and_then(|record| record.lost_history.as_ref());
    if lost == known {
        return;
    }
    if let (Some(record), Some(lost)) = (record, lost) {
        tracing::warn!(
            backup = record.backup,
            history = lost.name,
            shown_by = lost.shown_by,
            hint = "put it back: a server of that timeline has it in pg_wal",
            "a timeline history is missing from the archive: a recovery stops where it asks for it"
        );
    } else if let Some(record) = record {
        tracing::info!(
            backup = record.backup,
            "no timeline history is missing any more behind the newest base backup"
        );
    }
}
