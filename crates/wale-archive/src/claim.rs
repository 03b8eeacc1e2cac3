//! A claim: one object that says who works under a name in the archive, so that only one of several sidecars does.
//!
//! It is taken by create-if-absent and refreshed while the work goes on. A holder that dies leaves it behind. A claim
//! is dead when it has not been refreshed for [`DEAD_AFTER`] by the store's clock. That is the one rule, for a base
//! backup that wants the name, for the sweep and for retention; and each of them takes the claim before it removes
//! anything.
//!
//! Invariants: a holder that could not refresh for [`HELD_MAX`] gives the claim up for good, before anybody else may
//! take it. It checks whether the claim is still its own before each removal and before it commits. So of two holders,
//! one that slept and one that took over, the first touches nothing that the second wrote.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use tokio::time::Instant;
use wale_format::layout;
use wale_pipeline::CancellationToken;
use wale_storage::{ObjectKey, PutOutcome, StoreError, body_from};

use crate::Archive;
use crate::error::{Kind, OpError, Result};

/// A claim that was not refreshed for so long is dead: twenty refreshes are missing.
pub const DEAD_AFTER: TimeDelta = TimeDelta::minutes(10);

/// A holder that could not refresh for so long, by its own clock, has lost the claim. A minute less than [`DEAD_AFTER`],
/// for the request that was under way.
const HELD_MAX: Duration = Duration::from_mins(9);

/// Between two refreshes; after one that failed. An older wale takes a backup for dead whose newest object is older than
/// two minutes: a refresh is an object.
const REFRESH: Duration = Duration::from_secs(30);
const REFRESH_AGAIN: Duration = Duration::from_secs(5);

/// Looks while a claim comes and goes under our hands.
const LOOKS: usize = 4;

/// Whether a claim that was refreshed at `refreshed`, by the store's clock, is nobody's any more.
pub fn is_dead(refreshed: DateTime<Utc>, store_now: DateTime<Utc>) -> bool {
    store_now - refreshed >= DEAD_AFTER
}

/// Whether the holder of the claim `key` removes what lies under the name: then everybody who wants that may go on.
///
/// # Errors
///
/// The store's.
pub async fn is_removal(archive: &Archive, key: &str) -> Result<bool> {
    let found = archive.read_small(&Archive::key(key)?).await?;
    Ok(found.is_some_and(|found| is_for(&found, Purpose::Remove)))
}

/// The store's time of day, by an object that is put for it. Another host's clock may be wrong; the times of objects
/// are the store's, and can only be compared with that.
///
/// # Errors
///
/// The store's.
pub async fn store_now(archive: &Archive) -> Result<DateTime<Utc>> {
    let key = Archive::key(layout::CLOCK)?;
    let failed = |error| OpError::from_store(error, format_args!("store {key}"));
    let meta = archive
        .store()
        .put(&key, body_from(Bytes::from_static(b"\n")))
        .await
        .map_err(failed)?;
    if let Err(error) = archive.store().delete(&key).await {
        // It is replaced by the next one.
        tracing::debug!(%key, %error, "the object that shows the store's time stays");
    }
    Ok(meta.modified)
}

/// What a claim is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To write under the name.
    Write,
    /// To remove what lies under it. Two that do this do not disturb each other, so the second takes over at once:
    /// the next run finishes a deletion that was killed.
    Remove,
}

impl Purpose {
    const fn name(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Remove => "remove",
        }
    }
}

/// What came of asking for a claim.
#[derive(Debug)]
pub enum Taken {
    /// It is ours. Whether a dead one was in its place.
    Ours {
        /// The claim.
        claim: Claim,
        /// Whether somebody died who had it.
        from_the_dead: bool,
    },
    /// Somebody works under it.
    Theirs(Holder),
}

/// The holder of a claim, as far as the claim says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Host and process, for people.
    pub who: String,
    /// When it was refreshed, by the store's clock.
    pub refreshed: DateTime<Utc>,
}

/// A claim that was taken. It does not end by itself: [`Claim::release`] it, or let it die.
#[derive(Debug)]
pub struct Claim {
    archive: Archive,
    key: ObjectKey,
    content: Bytes,
    /// When the last refresh that the store confirmed was begun; none when the claim is lost.
    held_since: Mutex<Option<Instant>>,
}

impl Claim {
    /// Takes the claim `key`, if it is free or its holder is dead.
    ///
    /// # Errors
    ///
    /// The store's.
    pub async fn take(archive: &Archive, key: &str, purpose: Purpose) -> Result<Taken> {
        let key = Archive::key(key)?;
        let claim = Self {
            archive: archive.clone(),
            content: content(purpose, archive.clock().now()),
            key,
            held_since: Mutex::new(None),
        };
        let mut from_the_dead = false;
        let mut outage = None;
        for _ in 0..LOOKS {
            let begun = Instant::now();
            match claim.create().await {
                Ok(true) => {
                    claim.confirm(begun);
                    // Where the store has no conditions, another's may have replaced it by now.
                    claim.check().await?;
                    return Ok(Taken::Ours {
                        claim,
                        from_the_dead,
                    });
                }
                Ok(false) => {}
                // It may be stored all the same: the next round sees whose it is.
                Err(error) if error.kind == Kind::StorageUnavailable && outage.is_none() => {
                    outage = Some(error);
                    continue;
                }
                Err(error) => return Err(error),
            }
            let Some((found, refreshed)) = claim.read().await? else {
                continue;
            };
            if found == claim.content {
                claim.confirm(begun);
                return Ok(Taken::Ours {
                    claim,
                    from_the_dead,
                });
            }
            let holder = Holder {
                who: who(&found),
                refreshed,
            };
            let joins = purpose == Purpose::Remove && is_for(&found, Purpose::Remove);
            if !joins && !is_dead(refreshed, store_now(archive).await?) {
                return Ok(Taken::Theirs(holder));
            }
            // This asks once more: another one may have taken it while the store was asked for the time.
            if claim.read().await? == Some((found, refreshed)) {
                tracing::info!(key = %claim.key, holder = holder.who, refreshed = %refreshed, "taking over a claim");
                claim.delete().await?;
                from_the_dead = true;
            }
        }
        Err(OpError::new(
            Kind::Busy,
            format!(
                "{} comes and goes: others work under the same name",
                claim.key
            ),
        )
        .hint("repeat the request in a minute"))
    }

    /// Makes sure that the claim is ours: by the clock, and by its content in the store.
    ///
    /// # Errors
    ///
    /// [`Kind::Busy`] when it is not, for good; the store's.
    pub async fn check(&self) -> Result<()> {
        self.check_clock()?;
        match self.archive.read_small(&self.key).await? {
            Some(found) if found == self.content => self.check_clock(),
            Some(found) => {
                self.lose();
                Err(self.lost().detail(format!("It is {}'s now.", who(&found))))
            }
            None => {
                self.lose();
                Err(self.lost().detail("Its object is gone."))
            }
        }
    }

    /// As [`Claim::check`], without asking the store.
    ///
    /// # Errors
    ///
    /// [`Kind::Busy`] when the claim is known to be lost.
    pub fn check_clock(&self) -> Result<()> {
        let mut held = self.held();
        if held.is_some_and(|since| since.elapsed() >= HELD_MAX) {
            *held = None;
        }
        if held.is_some() {
            return Ok(());
        }
        Err(self.lost())
    }

    /// Whether the claim is ours still, although its time may be over: nobody has taken it.
    ///
    /// # Errors
    ///
    /// The store's.
    pub async fn is_untouched(&self) -> Result<bool> {
        let found = self.archive.read_small(&self.key).await?;
        Ok(found.is_some_and(|found| found == self.content))
    }

    /// Tells the store that we live.
    ///
    /// # Errors
    ///
    /// As [`Claim::check`].
    pub async fn refresh(&self) -> Result<()> {
        self.check().await?;
        let begun = Instant::now();
        let put = self
            .archive
            .store()
            .put(&self.key, body_from(self.content.clone()));
        put.await.map_err(|error| self.failed("refresh", error))?;
        // After this moment somebody may have taken it before the refresh arrived.
        self.check_clock()?;
        self.confirm(begun);
        Ok(())
    }

    /// As [`Claim::check`], and refreshes where it is time. For work that asks again and again.
    ///
    /// # Errors
    ///
    /// As [`Claim::check`].
    pub async fn check_or_refresh(&self) -> Result<()> {
        let fresh = |since: Instant| since.elapsed() < REFRESH;
        if self.held().is_some_and(fresh) {
            self.check().await
        } else {
            self.refresh().await
        }
    }

    /// Refreshes until `done`, or until the claim is lost, which is the error.
    ///
    /// # Errors
    ///
    /// [`Kind::Busy`] when the claim is lost. A store that does not answer is asked again.
    pub async fn keep(&self, done: &CancellationToken) -> Result<()> {
        let mut pause = REFRESH;
        while done
            .run_until_cancelled(tokio::time::sleep(pause))
            .await
            .is_some()
        {
            pause = REFRESH;
            if let Err(error) = self.refresh().await {
                self.check_clock().map_err(|_| error.duplicate())?;
                tracing::warn!(key = %self.key, error = %error.chain(), "the claim could not be refreshed; it is tried again");
                pause = REFRESH_AGAIN;
            }
        }
        Ok(())
    }

    /// Gives the claim back, if it is ours. Returns whether it was, and its object is gone. What the store does not do
    /// is reported in the log: the claim dies by itself.
    pub async fn release(&self) -> bool {
        let released = match self.check().await {
            Ok(()) => self.delete().await,
            Err(error) => Err(error),
        };
        self.lose();
        if let Err(error) = &released {
            tracing::info!(key = %self.key, error = %error.chain(), "the claim is not given back: it counts as dead in ten minutes");
        }
        released.is_ok()
    }

    async fn create(&self) -> Result<bool> {
        let body = body_from(self.content.clone());
        match self.archive.store().put_if_absent(&self.key, body).await {
            Ok(PutOutcome::Created(_)) => Ok(true),
            Ok(PutOutcome::Exists) => Ok(false),
            Err(error) => Err(self.failed("store", error)),
        }
    }

    async fn delete(&self) -> Result<()> {
        let deleted = self.archive.store().delete(&self.key).await;
        deleted.map_err(|error| self.failed("remove", error))
    }

    /// What lies under the key, and since when.
    async fn read(&self) -> Result<Option<(Bytes, DateTime<Utc>)>> {
        let store = self.archive.store();
        let Some(content) = self.archive.read_small(&self.key).await? else {
            return Ok(None);
        };
        let head = store.head(&self.key).await;
        let meta = head.map_err(|error| self.failed("look for", error))?;
        Ok(meta.map(|meta| (content, meta.modified)))
    }

    fn confirm(&self, begun: Instant) {
        *self.held() = Some(begun);
    }

    fn lose(&self) {
        *self.held() = None;
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        // Only whole values are assigned.
        self.held_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, what: &str, error: StoreError) -> OpError {
        OpError::from_store(error, format_args!("{what} {}", self.key))
    }

    fn lost(&self) -> OpError {
        OpError::new(
            Kind::Busy,
            format!("the claim {} is lost: another may work under this name", self.key),
        )
        .hint("nothing needs to be done; this host could not reach the store for nine minutes, or stood still")
    }
}

/// What nobody else writes.
fn content(purpose: Purpose, now: DateTime<Utc>) -> Bytes {
    let random = || RandomState::new().build_hasher().finish();
    let value = json!({
        "attempt": format!("{:016x}{:016x}", random(), random()),
        "for": purpose.name(),
        "host": host_name(),
        "process": std::process::id(),
        "since": now,
    });
    Bytes::from(format!("{value}\n"))
}

fn is_for(content: &[u8], purpose: Purpose) -> bool {
    let value: serde_json::Value = serde_json::from_slice(content).unwrap_or_default();
    value.get("for").and_then(|text| text.as_str()) == Some(purpose.name())
}

/// Host and process that a claim names. It is text from the archive: only what a host's name may have is shown.
fn who(content: &[u8]) -> String {
    let value: serde_json::Value = serde_json::from_slice(content).unwrap_or_default();
    let host = value.get("host").and_then(|host| host.as_str());
    let host: String = host
        .unwrap_or("unknown")
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || "-._".contains(*c))
        .take(255)
        .collect();
    let process = value.get("process").and_then(serde_json::Value::as_u64);
    process.map_or_else(
        || format!("host {host}"),
        |process| format!("host {host}, process {process}"),
    )
}

/// The kernel's host name: in a container, the container's. Empty where it cannot be read.
pub fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use wale_storage::{Fault, FaultPlan, Occurrence, Verb};

    use super::*;
    use crate::testing::{Bench, archive};

    const KEY: &str = "basebackups_005/base_000000010000000000000002_00000040/wale_attempt.json";

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds)
    }

    async fn take(bench: &Bench, purpose: Purpose) -> Option<(Claim, bool)> {
        let taken = Claim::take(&bench.archive, KEY, purpose).await;
        match taken.expect("the store answers") {
            Taken::Ours {
                claim,
                from_the_dead,
            } => Some((claim, from_the_dead)),
            Taken::Theirs(holder) => {
                assert!(holder.who.contains("process"), "{}", holder.who);
                None
            }
        }
    }

    fn stored(bench: &Bench) -> Option<Bytes> {
        bench.memory.content(&Archive::key(KEY).expect("a key"))
    }

    #[tokio::test]
    async fn fault_103_a_name_has_one_holder_until_it_is_dead_by_the_stores_clock() {
        let bench = Bench::new();
        bench.memory.set_now(at(0));
        let (first, from_the_dead) = take(&bench, Purpose::Write).await.expect("free");
        assert!(!from_the_dead);
        bench.memory.set_now(at(599));
        assert!(take(&bench, Purpose::Write).await.is_none());
        assert!(take(&bench, Purpose::Remove).await.is_none());
        first.refresh().await.expect("ours");
        bench.memory.set_now(at(599 + 599));
        assert!(take(&bench, Purpose::Write).await.is_none(), "refreshed");
        bench.memory.set_now(at(599 + 600));
        let (second, from_the_dead) = take(&bench, Purpose::Write).await.expect("dead");
        assert!(from_the_dead);
        // The first one woke up.
        let content = stored(&bench);
        for lost in [
            first.check().await,
            first.refresh().await,
            first.check_clock(),
        ] {
            assert_eq!(lost.expect_err("lost").kind, Kind::Busy);
        }
        first.release().await;
        assert_eq!(stored(&bench), content, "the second one's is untouched");
        second.check().await.expect("ours");
        second.release().await;
        assert_eq!(stored(&bench), None);
        assert!(take(&bench, Purpose::Write).await.is_some());
    }

    #[tokio::test]
    async fn a_deletion_that_was_killed_is_gone_on_with_at_once_and_a_writer_is_not_let_in() {
        let bench = Bench::new();
        let (killed, _) = take(&bench, Purpose::Remove).await.expect("free");
        assert!(take(&bench, Purpose::Write).await.is_none());
        let (next, _) = take(&bench, Purpose::Remove).await.expect("joined");
        assert_eq!(killed.check().await.expect_err("lost").kind, Kind::Busy);
        next.check().await.expect("ours");
    }

    #[tokio::test(start_paused = true)]
    async fn fault_103_a_holder_that_stood_still_gives_up_before_another_may_take_over() {
        let bench = Bench::new();
        let (claim, _) = take(&bench, Purpose::Write).await.expect("free");
        tokio::time::advance(Duration::from_mins(8)).await;
        claim.check_clock().expect("in time");
        claim.refresh().await.expect("in time");
        tokio::time::advance(HELD_MAX).await;
        let error = claim.check().await.expect_err("too late");
        assert_eq!(error.kind, Kind::Busy);
        assert!(claim.is_untouched().await.expect("asked"), "nobody came");
        claim.refresh().await.expect_err("for good");
        assert!(TimeDelta::from_std(HELD_MAX).expect("short") < DEAD_AFTER);
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_kept_through_an_outage_and_lost_in_a_long_one() {
        let bench = Bench::new();
        let (claim, _) = take(&bench, Purpose::Write).await.expect("free");
        let done = CancellationToken::new();
        let outage = || FaultPlan::new().fail(Verb::Put, Occurrence::Always, Fault::Unavailable);
        let script = async {
            bench.faulty.set_plan(outage());
            tokio::time::sleep(Duration::from_mins(8)).await;
            bench.faulty.set_plan(FaultPlan::new());
            tokio::time::sleep(Duration::from_mins(1)).await;
            claim.check_clock().expect("kept");
            bench.faulty.set_plan(outage());
        };
        let ((), kept) = tokio::join!(script, claim.keep(&done));
        assert_eq!(kept.expect_err("lost").kind, Kind::Busy);
        claim.check_clock().expect_err("lost");
    }

    /// A store that checks and then writes, where another writer comes in between.
    #[tokio::test]
    async fn where_the_store_has_no_conditions_the_last_writer_has_it() {
        let bench = Bench::new();
        let (first, _) = take(&bench, Purpose::Write).await.expect("free");
        bench.memory.insert(
            &Archive::key(KEY).expect("a key"),
            content(Purpose::Write, at(0)),
        );
        let error = first.check().await.expect_err("overwritten");
        assert_eq!(error.kind, Kind::Busy);
        assert!(error.detail.expect("whose").contains("process"));
    }

    #[tokio::test]
    async fn a_lost_reply_is_no_reason_to_wait_for_oneself() {
        let plan = FaultPlan::new().fail(Verb::PutIfAbsent, Occurrence::Nth(1), Fault::LostReply);
        let bench = Bench::with_plan(plan);
        assert!(take(&bench, Purpose::Write).await.is_some());
        let other = archive(
            bench.archive.store().clone(),
            wale_format::Codec::Zstd,
            1 << 20,
        );
        let taken = Claim::take(&other, KEY, Purpose::Write).await;
        assert!(matches!(taken.expect("asked"), Taken::Theirs(_)));
    }

    #[test]
    fn a_foreign_claim_shows_nothing_but_a_name() {
        assert_eq!(who(b"no json"), "host unknown");
        let evil = "{\"host\": \"a\\u001b[31m\\nb\", \"process\": 7}";
        assert_eq!(who(evil.as_bytes()), "host a31mb, process 7");
    }
}
