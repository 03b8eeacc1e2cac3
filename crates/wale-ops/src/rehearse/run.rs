//! The line of a rehearsal: start, wait, look, stop, look at the files.

use std::time::Instant;

use wale_cluster::recovery::SETTINGS_FILE;
use wale_cluster::trial::{Client, Recovered, StopMode, Stopped, TrialServer};
use wale_cluster::{Control, durable};
use wale_format::CheckOutcome;
use wale_pipeline::{CancellationToken, Progress};

use super::checks::{self, Bench};
use super::options::{LeftOut, RehearseOptions, RestoredCopy};
use super::plan::judge_recovery;
use super::report::Findings;
use crate::error::{OpError, Result};

const RECOVERY: &str = "recovery";

/// What was found before the server was stopped.
#[derive(Default)]
struct Seen {
    findings: Findings,
    /// Whether recovery is over.
    has_recovered: bool,
    has_checksums: bool,
}

/// Starts the copy, lets it recover, and looks at it. The server is stopped when this returns.
///
/// # Errors
///
/// [`crate::Kind::Cancelled`]; [`crate::Kind::Configuration`] and those of the file system when the server cannot even be tried.
/// What is wrong with the copy is no error.
pub async fn run(
    copy: &RestoredCopy,
    options: &RehearseOptions,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<Findings> {
    let client = Client::new(
        &options.programs.folder,
        options.home.clone(),
        &copy.places.socket,
        &options.user,
        copy.major,
    );
    let begun = Instant::now();
    let started = TrialServer::start(&client, &copy.places, copy.major, options.shared_buffers);
    let mut server = started.map_err(|error| OpError::from_cluster(error, "start the copy"))?;
    let mut looked = Seen::default();
    let work = look(&mut server, &client, copy, options, progress, &mut looked);
    let bounded = tokio::time::timeout(options.limit, work);
    let ended = cancel.run_until_cancelled(bounded).await;
    let last_lines = server.last_lines();
    progress.set_phase("stopping the copy");
    // After a cancellation, and past the limit, nobody reads its files.
    let mode = match ended {
        Some(Ok(())) => StopMode::Fast,
        None | Some(Err(_)) => StopMode::Immediate,
    };
    let stopped = server.stop(mode).await;
    let Seen {
        mut findings,
        has_recovered,
        has_checksums,
    } = looked;
    let over = || {
        let seconds = options.limit.as_secs();
        format!("it was not over after {seconds} s, the limit that was given")
    };
    let is_over = match ended {
        None => return Err(OpError::cancelled()),
        Some(Ok(())) => false,
        Some(Err(_)) => {
            let name = if has_recovered { "checks" } else { RECOVERY };
            findings.note(name, CheckOutcome::Failed, over());
            true
        }
    };
    if !has_recovered {
        findings.last_lines = last_lines;
    }
    if !has_recovered || is_over {
        return Ok(findings);
    }
    if stopped == Stopped::Killed {
        let told = "the server did not stop in order after the checks";
        findings.note("stop", CheckOutcome::Failed, told);
    } else {
        progress.set_phase("reading every page");
        let checking = Instant::now();
        let work = page_checksums(&client, copy, options, has_checksums, &mut findings);
        let left = options.limit.saturating_sub(begun.elapsed());
        let bounded = tokio::time::timeout(left, work);
        let ended = cancel.run_until_cancelled(bounded).await;
        if ended.ok_or_else(OpError::cancelled)?.is_err() {
            findings.note(checks::CHECKSUMS, CheckOutcome::Failed, over());
        }
        findings.checking += checking.elapsed();
    }
    Ok(findings)
}

async fn page_checksums(
    client: &Client,
    copy: &RestoredCopy,
    options: &RehearseOptions,
    has_checksums: bool,
    findings: &mut Findings,
) {
    let skipped = if !options.makes(LeftOut::Checksums) {
        "it was left out"
    } else if !has_checksums {
        "the cluster's pages have no checksums"
    } else {
        let data = &copy.places.data;
        return checks::checksums(client, options, copy.major, data, findings).await;
    };
    findings.note(checks::CHECKSUMS, CheckOutcome::Skipped, skipped);
}

/// From the start of the server to the last check that needs it.
async fn look(
    server: &mut TrialServer,
    client: &Client,
    copy: &RestoredCopy,
    options: &RehearseOptions,
    progress: &Progress,
    looked: &mut Seen,
) {
    progress.set_phase("recovering");
    let begun = Instant::now();
    let findings = &mut looked.findings;
    let stopped = match server.recovered().await {
        Recovered::Ready { stopped } => stopped,
        Recovered::Ended { status, reason } => {
            let status = status.map_or_else(String::new, |status| format!(" ({status})"));
            let reason = reason.unwrap_or_else(|| "it did not say why".to_owned());
            let told = format!("the server ended{status}: {reason}");
            return findings.note(RECOVERY, CheckOutcome::Failed, told);
        }
    };
    looked.has_recovered = true;
    findings.recovery = Some(begun.elapsed());
    // Nothing needs the archive's keys any more.
    if let Err(error) = durable::remove(&copy.places.data.join(SETTINGS_FILE)) {
        tracing::warn!("the archive's settings in the copy could not be removed: {error}");
    }
    progress.set_phase("checking");
    let checking = Instant::now();
    let facts = async {
        let control =
            Control::connect(&server.connect(&options.control_database, &options.user)).await?;
        let facts = control.copy_facts().await?;
        control.close().await;
        Ok(facts)
    };
    let superuser = match facts.await {
        Ok(facts) => {
            looked.has_checksums = facts.has_checksums;
            findings.newest_commit = facts.newest_commit;
            findings.databases = Some(facts.databases);
            let (planned, newest) = (copy.newest_commit, facts.newest_commit);
            let (outcome, told) = judge_recovery(&copy.target, stopped.as_deref(), planned, newest);
            findings.note(RECOVERY, outcome, told);
            facts.superuser.unwrap_or_else(|| options.user.clone())
        }
        Err(error) => {
            let told = checks::words_of(error, "ask the copy");
            return findings.note(RECOVERY, CheckOutcome::Failed, told);
        }
    };
    let bench = Bench {
        server: &*server,
        client,
        superuser: &superuser,
        options,
    };
    bench.look(findings).await;
    findings.checking = checking.elapsed();
}
