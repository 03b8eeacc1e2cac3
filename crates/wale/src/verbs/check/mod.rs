//! `check`: what is right, what is wrong, and what to do, in one list. Settings, archive, data directory, server, recoverability.
//!
//! `judge` decides what each finding means (pure); this asks for the facts, one after the other, so that what fails hides
//! nothing behind it. Nothing is changed, but for a small object that is put into the archive and taken away.

mod judge;
mod push;

use std::fmt::Write;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use wale_ops::ownership::Ownership;
use wale_ops::recoverable;
use wale_ops::{
    Archive, DataDirectory, Kind, OpError, WalDirectory, ownership, server_check, sweep, wal_volume,
};
use wale_pg::ClusterIdentity;
use wale_service::{Tls, advice, strange_wal_directory};

use self::judge::{Finding, Verdict};
use super::print::print;
use crate::assemble;
use crate::bounds::Bounds;
use crate::cli::Check;
use crate::config::{Group, Loaded, Place, Settings, declared};
use crate::logging::escaped;
use crate::report::Failure;
use crate::runtime;

/// Runs the verb.
///
/// # Errors
/// When anything is not well: with status 1 for warnings, 2 for what is wrong.
pub(super) fn run(arguments: &Check, loaded: &Loaded) -> Result<(), Failure> {
    let mut findings = Vec::new();
    match loaded.require_all() {
        Ok(_) => findings.push(Finding::good("settings", "no mistake".to_owned())),
        Err(error) => findings.push(of_error("settings", &error)),
    }
    // What cannot even be opened was found above.
    if let Ok(settings) = loaded.require(&[Group::Archive]) {
        let archive = assemble::archive(settings, Bounds::of_fetch(settings))?.archive;
        let runtime = runtime::small()?;
        runtime.block_on(look(&archive, settings, arguments.push, &mut findings));
        runtime.block_on(look_at_further(loaded, &archive, &mut findings));
    }
    print(&if arguments.json {
        format!("{:#}\n", as_json(&findings))
    } else if arguments.nagios {
        as_nagios(&findings)
    } else {
        as_text(&findings)
    })?;
    let worst = findings.iter().map(|one| one.verdict).max();
    match worst {
        None | Some(Verdict::Good) => Ok(()),
        Some(verdict) => {
            let error = OpError::new(Kind::Configuration, summary(&findings));
            Err(Failure::with_status(error, verdict.status()))
        }
    }
}

async fn look(
    archive: &Archive,
    settings: &Settings,
    with_push: bool,
    findings: &mut Vec<Finding>,
) {
    look_at_what_ends(archive, settings, findings);
    let data = settings.get(&declared::PGDATA);
    let wal = WalDirectory::at(settings.get(&declared::PGWAL));
    let has_archive = look_at_archive(archive, &data, &wal, findings).await;
    let cluster = look_at_directories(&data, &wal, archive.clock().now(), findings);
    let server = server_check::run(&assemble::connect(settings)).await;
    match &server {
        Ok(server) => {
            findings.extend(judge::server(server, cluster.as_ref()));
            if with_push {
                let command = server.settings.get("archive_command");
                let command = command.map(String::as_str).unwrap_or_default();
                findings.push(push::run(archive, command, &data, &wal).await);
            }
        }
        Err(error) => findings.push(of_error("server", error)),
    }
    if has_archive {
        match recoverable::holdings(archive).await {
            Ok(found) => findings.extend(judge::holdings(&found, archive.clock().now())),
            Err(error) => findings.push(of_error("recoverable", &error)),
        }
    }
    findings.push(judge::retention(settings.retention().is_set()));
}

/// A certificate that ends, and room that does.
fn look_at_what_ends(archive: &Archive, settings: &Settings, findings: &mut Vec<Finding>) {
    let now = archive.clock().now();
    if let Some((certificate, key)) = settings.tls_files() {
        findings.push(match Tls::load(certificate, key) {
            Ok(tls) => judge::expiry("certificate", tls.expires(), now),
            Err(error) => of_error("certificate", &error),
        });
    }
    if let Some(Place::Directory(folder)) = &settings.place
        && let Ok(free) = WalDirectory::at(folder).free_bytes()
    {
        findings.push(judge::archive_free(free));
    }
}

/// Whether the archives after the first answer, and are this cluster's.
async fn look_at_further(loaded: &Loaded, first: &Archive, findings: &mut Vec<Finding>) {
    // What is wrong with settings was found before.
    let Ok(readers) = assemble::readers(loaded, first) else {
        return;
    };
    let own = first.identity().await.ok().flatten();
    for (number, archive) in readers.others() {
        let finding = match (archive.identity().await, &own) {
            (Err(error), _) => {
                let mut finding = of_error("further archive", &error);
                finding.found = format!("{number}: {}", finding.found);
                finding
            }
            (Ok(Some(its)), Some(own))
                if its.cluster.system_identifier != own.cluster.system_identifier =>
            {
                let found = format!("{number}: {} is another cluster's", archive.location());
                let hint = format!("correct where archive {number} is");
                Finding::bad("further archive", found, Some(hint))
            }
            (Ok(_), _) => Finding::good(
                "further archive",
                format!(
                    "{number}: {} answers; /status says how far it lags",
                    archive.location()
                ),
            ),
        };
        findings.push(finding);
        let now = archive.clock().now();
        for end in archive.store().credential_ends().await {
            let mut finding = judge::credentials(&end, now);
            finding.found = format!("{number}: {}", finding.found);
            findings.push(finding);
        }
    }
}

/// Whether it answers.
async fn look_at_archive(
    archive: &Archive,
    data: &std::path::Path,
    wal: &WalDirectory,
    findings: &mut Vec<Finding>,
) -> bool {
    let answered = archive.store().check().await;
    // Also where it was refused: that they have ended may be why.
    let now = archive.clock().now();
    let ends = archive.store().credential_ends().await;
    findings.extend(ends.iter().map(|end| judge::credentials(end, now)));
    if let Err(error) = answered {
        let error = OpError::from_store(error, "ask the archive");
        findings.push(of_error("archive", &error));
        return false;
    }
    match ownership::check(archive, data, wal).await {
        Ok(found) => {
            findings.push(judge::ownership(&found, &archive.location()));
            if matches!(found, Ownership::Lost(_)) {
                // Nothing is written into somebody else's.
                return true;
            }
        }
        Err(error) => findings.push(of_error("archive", &error)),
    }
    match sweep::try_writing(archive).await {
        Ok(there) => {
            let written = "an object was written and taken away".to_owned();
            findings.push(Finding::good("writing", written));
            findings.push(judge::clock(archive.clock().now(), there));
        }
        Err(error) => findings.push(of_error("writing", &error)),
    }
    true
}

/// The cluster of the data directory, where there is one.
fn look_at_directories(
    data: &std::path::Path,
    wal: &WalDirectory,
    now: DateTime<Utc>,
    findings: &mut Vec<Finding>,
) -> Option<ClusterIdentity> {
    let control = DataDirectory::open(data).and_then(|directory| directory.control_file());
    let cluster = match control {
        Ok(control) => {
            let identity = control.identity();
            findings.push(judge::data_directory(data, &identity));
            if let Some(why) = strange_wal_directory(&control, data, wal) {
                let hint = "mount the volume of the server's WAL directory, and set PGWAL to it";
                findings.push(Finding::bad("WAL directory", why, Some(hint.to_owned())));
            }
            Some(identity)
        }
        Err(error) => {
            let error = OpError::from_cluster(error, "read the data directory");
            findings.push(of_error("data directory", &error));
            None
        }
    };
    match wal.ready() {
        Ok(waiting) => findings.push(judge::waiting(waiting.len())),
        Err(error) => {
            let error = OpError::from_cluster(error, "read the WAL directory");
            findings.push(of_error("WAL directory", &error));
        }
    }
    if let Ok(volume) = wal_volume::look(wal, None, now) {
        findings.push(judge::volume(&volume));
    }
    cluster
}

/// An error as what it is: something that is wrong.
fn of_error(topic: &'static str, error: &OpError) -> Finding {
    let mut found = error.chain();
    if let Some(detail) = &error.detail {
        let _ = write!(found, ": {detail}");
    }
    Finding::bad(topic, found, advice(error))
}

fn as_text(findings: &[Finding]) -> String {
    let mut text = String::new();
    for one in findings {
        // Much of it comes from the archive and the server.
        let mut lines = one.found.lines().map(str::trim_end);
        let _ = writeln!(
            text,
            "{:<8} {:<15} {}",
            one.verdict.word(),
            one.topic,
            escaped(lines.next().unwrap_or_default())
        );
        for line in lines {
            let _ = writeln!(text, "{:<24} {}", "", escaped(line));
        }
        for line in one.hint.iter().flat_map(|hint| hint.lines()) {
            let _ = writeln!(text, "{:<24} > {}", "", escaped(line));
        }
    }
    let _ = writeln!(text, "\n{}", summary(findings));
    text
}

/// One line, as Nagios and its kin want it: the state, what is not well, and numbers.
fn as_nagios(findings: &[Finding]) -> String {
    let worst = findings.iter().map(|one| one.verdict).max();
    let state = worst.unwrap_or(Verdict::Good).state();
    let ill = findings.iter().filter(|one| one.verdict != Verdict::Good);
    let told: Vec<String> = ill
        .map(|one| {
            let first = one.found.lines().next().unwrap_or_default();
            // A bar begins the numbers.
            format!("{}: {}", one.topic, escaped(first).replace('|', "/"))
        })
        .collect();
    let told = if told.is_empty() {
        summary(findings)
    } else {
        told.join("; ")
    };
    let (good, warnings, bad) = counts(findings);
    format!("WALE {state} - {told} | good={good} warnings={warnings} bad={bad}\n")
}

fn as_json(findings: &[Finding]) -> Value {
    let (good, warnings, bad) = counts(findings);
    let findings = findings.iter().map(|one| {
        json!({
            "topic": one.topic,
            "verdict": one.verdict.word(),
            "found": one.found,
            "hint": one.hint,
        })
    });
    json!({
        "good": good,
        "warnings": warnings,
        "bad": bad,
        "findings": findings.collect::<Vec<Value>>(),
    })
}

fn counts(findings: &[Finding]) -> (usize, usize, usize) {
    let of = |verdict| {
        let these = findings.iter().filter(|one| one.verdict == verdict);
        these.count()
    };
    (of(Verdict::Good), of(Verdict::Warning), of(Verdict::Bad))
}

fn summary(findings: &[Finding]) -> String {
    let (good, warnings, bad) = counts(findings);
    format!("{good} good, {warnings} to be looked at, {bad} wrong")
}
