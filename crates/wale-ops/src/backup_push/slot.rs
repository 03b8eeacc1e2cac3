//! A slot of a schedule, served once for an archive however many sidecars share it.
//!
//! A sidecar that is to serve it checks the server's role, takes the claim on the archive's slot, and checks whether a
//! backup has begun since the slot came. If not, it takes one. It keeps the claim meanwhile, so that the others wait,
//! and gives it back at the end: another may go on after a failure. The claim only spares work: where it is lost, a
//! second backup is taken.

use std::path::Path;

use chrono::{DateTime, Utc};
use wale_archive::claim::{Claim, Holder, Purpose, Taken};
use wale_archive::{Archive, Remedy};
use wale_format::layout;
use wale_pipeline::{CancellationToken, blocking};

use super::report::BackupReport;
use crate::error::{Declined, Kind, OpError, Result};
use crate::role::{self, ServerState};

/// Which servers serve the slots of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Role {
    /// Primary or standby: the one that comes first.
    #[default]
    Any,
    /// The primary only.
    Primary,
    /// Standbys only.
    Standby,
}

impl Role {
    /// Every role, the default first.
    pub const ALL: [Self; 3] = [Self::Any, Self::Primary, Self::Standby];

    /// The word of the setting.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Primary => "primary",
            Self::Standby => "standby",
        }
    }
}

/// A slot of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScheduleSlot {
    /// When it came.
    pub at: DateTime<Utc>,
    /// The servers that serve it.
    pub role: Role,
}

/// Serves the slot by `take`, unless somebody else does or did.
///
/// # Errors
///
/// [`OpError::declined`] says why nothing was done; otherwise those of `take`, and the store's.
pub(super) async fn serve(
    archive: &Archive,
    slot: ScheduleSlot,
    data_directory: &Path,
    take: impl AsyncFnOnce() -> Result<BackupReport>,
) -> Result<BackupReport> {
    let path = data_directory.to_owned();
    // What is not known is left to the backup, which asks the server.
    if let Ok(standing) = blocking(move || role::look(&path)).await? {
        judge(slot.role, standing.state)?;
    }
    let claim = match Claim::take(archive, layout::SLOT, Purpose::Write).await? {
        Taken::Ours { claim, .. } => claim,
        Taken::Theirs(holder) => return Err(served_now(&holder)),
    };
    let done = CancellationToken::new();
    let work = async {
        let taken = match served_since(archive, slot.at).await {
            Ok(None) => take().await,
            Ok(Some(backup)) => Err(served(slot.at, &backup)),
            Err(error) => Err(error),
        };
        done.cancel();
        taken
    };
    let (taken, kept) = tokio::join!(work, claim.keep(&done));
    if let Err(error) = kept {
        tracing::warn!(error = %error.chain(), "the claim on the slot of the schedule was lost: another sidecar may take a backup, too");
    }
    claim.release().await;
    taken
}

/// Whether a server in this state serves.
fn judge(role: Role, state: ServerState) -> Result<()> {
    let declined = |reason, message: String| {
        OpError::new(Kind::Busy, message)
            .detail("Nothing is wrong.")
            .declined(reason)
    };
    match (role, state) {
        (_, ServerState::Recovering) => Err(declined(
            Declined::Recovering,
            "the server recovers and is no standby: the schedule rests until it is promoted"
                .to_owned(),
        )),
        (Role::Primary, ServerState::Standby) | (Role::Standby, ServerState::Primary) => {
            let message = format!(
                "the server is a {}: scheduled base backups are taken of a {}",
                state.name(),
                role.name()
            );
            Err(declined(Declined::Role, message)
                .hint("change the role if they should be taken of this one")
                .remedy(Remedy::BackupRole))
        }
        _ => Ok(()),
    }
}

/// A backup of the archive that began at the slot or later.
async fn served_since(archive: &Archive, slot: DateTime<Utc>) -> Result<Option<String>> {
    let catalog = archive.catalog().await?;
    let since = catalog.backups.iter().rev().find(|entry| {
        let began = entry.readable().and_then(wale_format::Sentinel::started_at);
        // One "from the future" is no reason to take none for ever.
        began.is_some_and(|began| began >= slot && began <= archive.clock().now())
    });
    Ok(since.map(|entry| entry.name.to_string()))
}

fn served(slot: DateTime<Utc>, backup: &str) -> OpError {
    OpError::new(
        Kind::Busy,
        format!(
            "the slot of {} is served: backup {backup} began since",
            slot.to_rfc3339()
        ),
    )
    .declined(Declined::Served)
}

fn served_now(holder: &Holder) -> OpError {
    OpError::new(
        Kind::Busy,
        "another sidecar takes the scheduled base backup of this archive",
    )
    .detail(format!(
        "It is {}, seen at {}.",
        holder.who,
        holder.refreshed.to_rfc3339()
    ))
    .declined(Declined::Elsewhere)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use chrono::TimeDelta;
    use wale_format::BackupName;

    use super::*;
    use crate::testing::Bench;

    #[test]
    fn fault_85_the_schedule_follows_the_role_and_rests_in_a_recovery() {
        use ServerState::{Primary, Recovering, Standby, Stopped};
        let cases = [
            (Role::Any, Primary, None),
            (Role::Any, Standby, None),
            (Role::Any, Recovering, Some(Declined::Recovering)),
            (Role::Primary, Primary, None),
            (Role::Primary, Standby, Some(Declined::Role)),
            (Role::Standby, Standby, None),
            (Role::Standby, Primary, Some(Declined::Role)),
            (Role::Standby, Recovering, Some(Declined::Recovering)),
            // The attempt shows that it is down.
            (Role::Standby, Stopped, None),
        ];
        for (role, state, expected) in cases {
            let declined = judge(role, state).err().map(|error| error.declined);
            assert_eq!(declined.flatten(), expected, "{role:?} {state:?}");
        }
    }

    /// What serving a slot comes to when a backup would fail with `Internal`.
    async fn outcome(bench: &Bench, at: DateTime<Utc>) -> Option<Declined> {
        let slot = ScheduleSlot {
            at,
            role: Role::Any,
        };
        let called = Cell::new(false);
        let served = serve(&bench.archive, slot, Path::new("/nowhere"), async || {
            called.set(true);
            Err(OpError::internal("taken"))
        });
        let error = served.await.expect_err("no backup is taken here");
        assert_eq!(called.get(), error.declined.is_none());
        error.declined
    }

    #[tokio::test]
    async fn fault_108_one_backup_for_each_slot_however_many_sidecars_share_the_archive() {
        let bench = Bench::new();
        let now = bench.archive.clock().now();
        assert_eq!(outcome(&bench, now).await, None);
        assert_eq!(bench.memory.keys(), [], "the claim was given back");
        let taken = Claim::take(&bench.archive, layout::SLOT, Purpose::Write).await;
        let Ok(Taken::Ours { claim, .. }) = taken else {
            panic!("free")
        };
        assert_eq!(outcome(&bench, now).await, Some(Declined::Elsewhere));
        claim.release().await;
        let name = BackupName::parse("base_000000010000000000000002_00000040").expect("a name");
        let began = now - TimeDelta::minutes(5);
        let sentinel = format!(
            r#"{{"wal_segment_backup_stop": "000000010000000000000002", "wal_segment_offset_backup_stop": "00000256",
                "StartTime": "{}", "FinishTime": "{}"}}"#,
            began.to_rfc3339(),
            now.to_rfc3339()
        );
        let key = Archive::key(&layout::sentinel(&name)).expect("a key");
        bench.memory.insert(&key, sentinel.into_bytes());
        assert_eq!(outcome(&bench, began).await, Some(Declined::Served));
        assert_eq!(outcome(&bench, began + TimeDelta::minutes(1)).await, None);
    }
}
