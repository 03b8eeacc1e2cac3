//! What a fact means: good, to be looked at, or wrong, and what to do. Pure.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use wale_ops::ownership::Ownership;
use wale_ops::recoverable::Holdings;
use wale_ops::server_check::ServerCheck;
use wale_ops::wal_volume::WalVolume;
use wale_ops::{CredentialEnd, Renewal};
use wale_pg::ClusterIdentity;
use wale_service::advice;

use crate::progress::{bytes, duration};
use crate::verbs::adopt::{gap_of, shown};

/// How it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    Good,
    /// Nothing is lost by it now.
    Warning,
    /// Archiving, base backups or a restore fail for it.
    Bad,
}

impl Verdict {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Warning => "warning",
            Self::Bad => "wrong",
        }
    }

    /// Nagios's word.
    pub(super) const fn state(self) -> &'static str {
        match self {
            Self::Good => "OK",
            Self::Warning => "WARNING",
            Self::Bad => "CRITICAL",
        }
    }

    /// The exit status, which is Nagios's, too.
    pub(super) const fn status(self) -> u8 {
        match self {
            Self::Good => 0,
            Self::Warning => 1,
            Self::Bad => 2,
        }
    }
}

/// One line of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) topic: &'static str,
    pub(super) verdict: Verdict,
    pub(super) found: String,
    pub(super) hint: Option<String>,
}

impl Finding {
    pub(super) const fn good(topic: &'static str, found: String) -> Self {
        Self {
            topic,
            verdict: Verdict::Good,
            found,
            hint: None,
        }
    }

    fn warning(topic: &'static str, found: String, hint: &str) -> Self {
        Self {
            topic,
            verdict: Verdict::Warning,
            found,
            hint: Some(hint.to_owned()),
        }
    }

    pub(super) const fn bad(topic: &'static str, found: String, hint: Option<String>) -> Self {
        Self {
            topic,
            verdict: Verdict::Bad,
            found,
            hint,
        }
    }

    fn wrong(topic: &'static str, found: String, hint: &str) -> Self {
        Self::bad(topic, found, Some(hint.to_owned()))
    }
}

/// Files that may wait: a busy server has a few of them.
const WAITING_MAX: usize = 16;

/// Less than this on the WAL volume is some sixty segments.
const FREE_LEAST: u64 = 1 << 30;

/// Less than this in a folder that is the archive.
const ARCHIVE_FREE_LEAST: u64 = 4 << 30;

/// What ends sooner is renewed now.
const ENDS_SOON: TimeDelta = TimeDelta::days(14);

/// Two clocks that differ more: claims on names go by the store's, and signatures for S3 are refused at 15 minutes.
const CLOCKS_DIFFER: TimeDelta = TimeDelta::seconds(60);

/// A base backup that is older makes a restore replay much WAL.
const BACKUP_AGE_MAX: TimeDelta = TimeDelta::hours(48);

pub(super) fn ownership(found: &Ownership, location: &str) -> Finding {
    match found {
        Ownership::Own => Finding::good(
            "archive",
            format!("{location} answers, and is this cluster's"),
        ),
        Ownership::Open => Finding::warning(
            "archive",
            format!("{location} answers, and nothing says yet whose it is"),
            "the first push or base backup says it; where one was made already, check the prefix and PGDATA",
        ),
        Ownership::Lost(why) => Finding::bad("archive", why.clone(), None),
    }
}

pub(super) fn data_directory(path: &Path, cluster: &ClusterIdentity) -> Finding {
    let found = format!(
        "{} is of cluster {}",
        path.display(),
        cluster.system_identifier
    );
    Finding::good("data directory", found)
}

pub(super) fn waiting(files: usize) -> Finding {
    let found = format!("{files} files wait to be archived");
    if files <= WAITING_MAX {
        return Finding::good("WAL directory", found);
    }
    Finding::wrong(
        "WAL directory",
        found,
        "PostgreSQL keeps them; its log and pg_stat_archiver say why archive_command fails",
    )
}

pub(super) fn volume(volume: &WalVolume) -> Finding {
    let found = format!("{} are free for WAL", bytes(volume.free_bytes));
    if let Some(full_in) = volume.full_in() {
        return Finding::wrong(
            "WAL volume",
            format!(
                "{found}: full in {}, since archiving does not keep up",
                duration(full_in)
            ),
            "find out why WAL is not archived, or grow the volume; never delete anything in pg_wal",
        );
    }
    if volume.free_bytes >= FREE_LEAST {
        return Finding::good("WAL volume", found);
    }
    Finding::warning(
        "WAL volume",
        found,
        "a full volume stops PostgreSQL: grow it, and never delete anything in pg_wal",
    )
}

pub(super) fn archive_free(free: u64) -> Finding {
    let found = format!("{} are free in the archive", bytes(free));
    if free >= ARCHIVE_FREE_LEAST {
        return Finding::good("archive volume", found);
    }
    Finding::warning(
        "archive volume",
        found,
        "a full archive takes no WAL, and then the WAL volume fills: grow it, or let retention keep less",
    )
}

/// Something that ends at a time, where it says so.
pub(super) fn expiry(
    topic: &'static str,
    end: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Finding {
    let Some(end) = end else {
        return Finding::good(topic, "it does not say when it ends".to_owned());
    };
    let found = format!("ends at {}", shown(end));
    if end <= now {
        Finding::wrong(topic, format!("{found}: it has ended"), "renew it now")
    } else if end - now < ENDS_SOON {
        Finding::warning(topic, found, "renew it before that")
    } else {
        Finding::good(topic, found)
    }
}

/// What the store knows of the right to ask it.
pub(super) fn credentials(end: &CredentialEnd, now: DateTime<Utc>) -> Finding {
    let topic = "credentials";
    let found = format!("{} ends at {}", end.what, shown(end.expires));
    let has_ended = end.expires <= now;
    match end.renewal {
        // They were in use a moment ago: that they could not be renewed is told by what failed.
        Renewal::Own => Finding::good(topic, format!("{found}, and is renewed before that")),
        Renewal::Others if has_ended => Finding::wrong(
            topic,
            format!("{found}: it has ended, and nobody has written another one"),
            "find out what should renew the file: a service account's token is renewed by the kubelet while the volume is mounted",
        ),
        Renewal::Others => Finding::good(topic, format!("{found}, and is renewed by others")),
        Renewal::Nobody => {
            let mut finding = expiry(topic, Some(end.expires), now);
            finding.found = finding
                .found
                .replacen("ends", &format!("{} ends", end.what), 1);
            finding
        }
    }
}

/// This host's clock and the store's. The object was put a moment before `here` was read.
pub(super) fn clock(here: DateTime<Utc>, there: DateTime<Utc>) -> Finding {
    let differ = (here - there).abs();
    let found = format!(
        "this host's and the archive's differ by {} s",
        differ.num_seconds()
    );
    if differ <= CLOCKS_DIFFER {
        return Finding::good("clock", found);
    }
    Finding::warning(
        "clock",
        found,
        "let both hosts take the time from NTP: retention and claims compare times",
    )
}

pub(super) fn server(server: &ServerCheck, directory: Option<&ClusterIdentity>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let what = if server.in_recovery {
        "in recovery"
    } else {
        "primary"
    };
    let found = format!("PostgreSQL {}, {what}", server.version);
    let ours =
        directory.is_none_or(|own| own.system_identifier == server.cluster.system_identifier);
    findings.push(if ours {
        Finding::good("server", found)
    } else {
        Finding::wrong(
            "server",
            format!(
                "{found}, is of cluster {}, and the data directory of another",
                server.cluster.system_identifier
            ),
            "check PGHOST, PGPORT and PGDATA: they must lead to one server",
        )
    });
    findings.push(match &server.no_backup {
        None => Finding::good("role", format!("{} may take base backups", server.role)),
        Some(error) => Finding::bad("role", error.chain(), advice(error)),
    });
    findings.extend(archiving(server));
    findings.extend(configuration(server));
    findings
}

/// Where the server's configuration lies; none where the role may not know.
fn configuration(server: &ServerCheck) -> Option<Finding> {
    let path = |name: &str| server.settings.get(name).map(Path::new);
    let data = path("data_directory")?;
    let files = ["config_file", "hba_file", "ident_file"];
    let outside = files
        .iter()
        .filter_map(|name| path(name))
        .filter(|file| !file.starts_with(data));
    let outside: Vec<String> = outside.map(|file| file.display().to_string()).collect();
    Some(if outside.is_empty() {
        Finding::good("configuration", "it lies in the data directory".to_owned())
    } else {
        Finding::warning(
            "configuration",
            format!("outside of the data directory: {}", outside.join(", ")),
            "a base backup has it only where the sidecar sees these paths; the guide to base backups says how",
        )
    })
}

fn archiving(server: &ServerCheck) -> Vec<Finding> {
    let mut findings = Vec::new();
    let setting = |name: &str| server.settings.get(name).map(String::as_str);
    let mode = setting("archive_mode").unwrap_or("unknown");
    findings.push(match mode {
        "off" => Finding::wrong(
            "archive_mode",
            "off: nothing is archived".to_owned(),
            "set archive_mode = on, and restart the server",
        ),
        mode => Finding::good("archive_mode", mode.to_owned()),
    });
    let library = setting("archive_library").unwrap_or_default();
    let command = setting("archive_command").unwrap_or_default();
    findings.push(command_of(mode, library, command));
    if setting("archive_timeout") == Some("0") {
        findings.push(Finding::warning(
            "archive_timeout",
            "0: a server that writes little keeps its last changes to itself until a segment is full".to_owned(),
            "archive_timeout = 60 archives at least every minute",
        ));
    }
    if setting("full_page_writes") == Some("off") {
        findings.push(Finding::wrong(
            "full_page_writes",
            "off: a base backup that is taken meanwhile may hold torn pages".to_owned(),
            "set full_page_writes = on",
        ));
    }
    findings.push(archiver(server));
    findings
}

/// Whether a command can be one that archives by wale.
pub(super) fn looks_like_ours(command: &str) -> bool {
    let ours = ["/wal-push/", "/push/", "client push", "wal-push"];
    ours.iter().any(|word| command.contains(word))
}

/// Whether the command can be wale's.
fn command_of(mode: &str, library: &str, command: &str) -> Finding {
    let topic = "archive_command";
    if mode == "off" {
        // Said already; PostgreSQL shows "(disabled)".
        return Finding::warning(topic, "not in force".to_owned(), "see archive_mode");
    }
    if !library.is_empty() {
        return Finding::wrong(
            topic,
            format!("not in force: archive_library = {library}"),
            "clear archive_library, and set archive_command",
        );
    }
    if command.is_empty() {
        Finding::wrong(
            topic,
            "empty: PostgreSQL keeps all WAL until its volume is full".to_owned(),
            "set it as the guide to archiving says",
        )
    } else if looks_like_ours(command) {
        Finding::good(topic, command.to_owned())
    } else {
        Finding::warning(
            topic,
            format!("{command}: it does not look like wale's"),
            "check that it ends at this archive, as the guide to archiving says",
        )
    }
}

fn archiver(server: &ServerCheck) -> Finding {
    let stats = &server.archiver;
    let mut found = format!("{} files archived", stats.archived);
    if let Some(last) = &stats.last {
        let _ = write!(found, ", the last {} at {}", last.wal, shown(last.at));
    }
    let failed = stats.last_failure.as_ref();
    let fails =
        failed.filter(|failure| stats.last.as_ref().is_none_or(|last| last.at < failure.at));
    match fails {
        None => Finding::good("archiver", found),
        Some(failure) => Finding::wrong(
            "archiver",
            format!("{found}; {} failed at {}", failure.wal, shown(failure.at)),
            "PostgreSQL repeats it; its log says what the command answered",
        ),
    }
}

pub(super) fn holdings(found: &Holdings, now: DateTime<Utc>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let age = |then: DateTime<Utc>| duration((now - then).to_std().unwrap_or(Duration::ZERO));
    findings.push(match &found.newest_backup {
        None => Finding::wrong(
            "backups",
            "none: WAL alone restores nothing".to_owned(),
            "take a base backup: wale backup-push, and set CRON_TIMING",
        ),
        Some((name, end)) => {
            let told = format!("{}, newest {name}, ended {} ago", found.backups, age(*end));
            if now - *end > BACKUP_AGE_MAX {
                Finding::warning(
                    "backups",
                    told,
                    "a restore replays all WAL since then: take one, and look why the schedule took none",
                )
            } else {
                Finding::good("backups", told)
            }
        }
    });
    if let Some(window) = found.current() {
        let told = match window.until {
            Some(until) => format!(
                "{} to {}, {} ago",
                shown(window.from),
                shown(until),
                age(until)
            ),
            None => format!("nothing since {}", shown(window.from)),
        };
        findings.push(match gap_of(&window.stretch) {
            None if window.until.is_some() => Finding::good("recoverable", told),
            gap => Finding::wrong(
                "recoverable",
                format!(
                    "{told}; {}",
                    gap.unwrap_or_else(|| "the backup's own WAL is missing".to_owned())
                ),
                "take a base backup at once, then look for the segments: the runbook has a page",
            ),
        });
    }
    findings
}

pub(super) fn retention(is_set: bool) -> Finding {
    if is_set {
        return Finding::good("retention", "rules are set".to_owned());
    }
    Finding::warning(
        "retention",
        "no rule is set: nothing is ever deleted, and the archive grows".to_owned(),
        "set WALE_RETAIN_DAYS or another rule, or leave it so where a person deletes",
    )
}

#[cfg(test)]
mod tests {
    use wale_ops::recoverable::Growth;
    use wale_ops::wal_volume::Trend;

    use super::*;

    #[test]
    fn a_command_is_judged_by_what_it_is() {
        let cases = [
            (
                "on",
                "",
                "timeout 120 wget -q -O - http://wale:5000/wal-push/%f || false",
                Verdict::Good,
            ),
            ("on", "", "/wale/wale client push %f", Verdict::Good),
            ("on", "", "cp %p /mnt/%f", Verdict::Warning),
            ("on", "", "", Verdict::Bad),
            (
                "on",
                "basic_archive",
                "wget http://wale:5000/wal-push/%f",
                Verdict::Bad,
            ),
            ("off", "", "(disabled)", Verdict::Warning),
        ];
        for (mode, library, command, verdict) in cases {
            assert_eq!(
                command_of(mode, library, command).verdict,
                verdict,
                "{command}"
            );
        }
    }

    #[test]
    fn credentials_that_nobody_renews_are_told_before_they_end_and_the_others_after() {
        let now = DateTime::from_timestamp(1_800_000_000, 0).expect("a time");
        for (renewal, minutes, verdict) in [
            (Renewal::Own, -1, Verdict::Good),
            (Renewal::Others, 1, Verdict::Good),
            (Renewal::Others, 0, Verdict::Bad),
            (Renewal::Nobody, 60 * 24 * 15, Verdict::Good),
            (Renewal::Nobody, 60, Verdict::Warning),
            (Renewal::Nobody, 0, Verdict::Bad),
        ] {
            let end = CredentialEnd {
                what: "the token".to_owned(),
                expires: now + TimeDelta::minutes(minutes),
                renewal,
            };
            let found = credentials(&end, now);
            assert_eq!(found.verdict, verdict, "{end:?}");
            assert!(
                found.found.starts_with("the token ends at 2027-"),
                "{found:?}"
            );
        }
    }

    #[test]
    fn what_is_not_good_says_what_to_do() {
        let now = DateTime::from_timestamp(1_800_000_000, 0).expect("a time");
        let nothing = Holdings {
            rehearsals: wale_ops::Rehearsals::default(),
            backups: 0,
            newest_backup: None,
            objects: 0,
            bytes: 0,
            growth: Growth::default(),
            windows: Vec::new(),
            left: Vec::new(),
            timelines: Vec::new(),
        };
        let room = |free_bytes, trend| WalVolume {
            free_bytes,
            waiting: 0,
            trend,
            lasts: None,
        };
        let fills = Trend::Fills {
            bytes_per_hour: 1,
            full_in: Some(Duration::from_hours(9)),
        };
        let mut all = holdings(&nothing, now);
        let soon = Some(now + TimeDelta::days(1));
        all.extend([
            waiting(17),
            volume(&room(5, Trend::Steady)),
            volume(&room(FREE_LEAST, fills)),
            retention(false),
            archive_free(5),
            expiry("certificate", soon, now),
            expiry("certificate", Some(now), now),
            clock(now, now + TimeDelta::seconds(61)),
        ]);
        assert_eq!(all.len(), 9);
        for one in all {
            assert_ne!(one.verdict, Verdict::Good, "{one:?}");
            assert!(one.hint.is_some(), "{one:?}");
        }
        assert_eq!(waiting(16).verdict, Verdict::Good);
        let well = volume(&room(FREE_LEAST, Trend::CatchesUp));
        assert_eq!(well.verdict, Verdict::Good);
        assert_eq!(archive_free(ARCHIVE_FREE_LEAST).verdict, Verdict::Good);
        assert_eq!(clock(now, now).verdict, Verdict::Good);
        let late = Some(now + TimeDelta::days(15));
        assert_eq!(expiry("certificate", late, now).verdict, Verdict::Good);
        assert_eq!(expiry("certificate", None, now).verdict, Verdict::Good);
        assert!(Verdict::Bad > Verdict::Warning && Verdict::Warning > Verdict::Good);
    }
}
