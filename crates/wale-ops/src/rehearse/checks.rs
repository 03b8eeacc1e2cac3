//! The checks of a copy that has recovered. Each one notes what it found; none ends the others.

use std::path::Path;

use wale_cluster::trial::{Client, PsqlSource, Ran, TrialServer};
use wale_cluster::{ClusterError, Control, TimescaleLook};
use wale_format::{CheckOutcome, TimescaleCounts};
use wale_pg::MajorVersion;

use super::options::{Fingerprint, LeftOut, RehearseOptions};
use super::report::Findings;
use crate::error::OpError;

/// SQLSTATE of "insufficient privilege".
const NO_RIGHT: &str = "42501";
/// The status of `pg_amcheck` that says that something is damaged.
const AMCHECK_DAMAGE: i32 = 2;

const AMCHECK: &str = "amcheck";
pub(super) const CHECKSUMS: &str = "checksums";
const TIMESCALEDB: &str = "timescaledb";

/// What the checks work with.
#[derive(Clone, Copy)]
pub(super) struct Bench<'a> {
    pub(super) server: &'a TrialServer,
    /// As the user who was named, for the caller's SQL.
    pub(super) client: &'a Client,
    /// The role of the checks: it may see everything, whoever was named.
    pub(super) superuser: &'a str,
    pub(super) options: &'a RehearseOptions,
}

impl Bench<'_> {
    /// Everything that needs a running server.
    pub(super) async fn look(self, findings: &mut Findings) {
        if self.options.makes(LeftOut::Amcheck) {
            self.amcheck(findings).await;
        } else {
            findings.note(AMCHECK, CheckOutcome::Skipped, "it was left out");
        }
        self.timescale(findings).await;
        for file in &self.options.sql {
            self.sql(file, findings).await;
        }
        if let Some(fingerprint) = &self.options.fingerprint {
            self.fingerprint(fingerprint, findings).await;
        }
    }

    async fn connect(self, database: &str) -> Result<Control, ClusterError> {
        Control::connect(&self.server.connect(database, self.superuser)).await
    }

    /// The databases that can be asked.
    async fn databases(self) -> Result<Vec<String>, ClusterError> {
        let control = self.connect(&self.options.control_database).await?;
        let mut databases = control.every_database().await?;
        control.close().await;
        databases.retain(|database| !wale_pg::byte_text::has_escapes(database));
        Ok(databases)
    }

    /// Tables and indexes of all databases, by `pg_amcheck`; B-tree indexes alone where the server has none.
    async fn amcheck(self, findings: &mut Findings) {
        let by_program = self.options.programs.has("pg_amcheck");
        match self.amcheck_of_all(by_program).await {
            Ok((outcome, told)) => findings.note(AMCHECK, outcome, told),
            Err(ClusterError::Query {
                sqlstate, message, ..
            }) if sqlstate == NO_RIGHT => {
                findings.note(AMCHECK, CheckOutcome::Skipped, message);
            }
            Err(error) => findings.note(
                AMCHECK,
                CheckOutcome::Failed,
                words_of(error, "run amcheck"),
            ),
        }
    }

    async fn amcheck_of_all(
        self,
        by_program: bool,
    ) -> Result<(CheckOutcome, String), ClusterError> {
        let (mut checked, mut faults, mut told) = (0, 0, Vec::new());
        let databases = self.databases().await?;
        for database in &databases {
            let control = self.connect(database).await?;
            if !control.make_amcheck().await? {
                let why =
                    "the server has no extension amcheck (it is part of PostgreSQL's contrib)";
                return Ok((CheckOutcome::Skipped, why.to_owned()));
            }
            if !by_program {
                let found = control.check_indexes().await?;
                checked += found.checked;
                faults += found.count;
                told.extend(
                    found
                        .first
                        .into_iter()
                        .map(|one| format!("{database}: {one}")),
                );
            }
            control.close().await;
        }
        if by_program {
            let ran = self.client.with_user(self.superuser).amcheck().await;
            return Ok(judge_amcheck(&ran, databases.len()));
        }
        if faults == 0 {
            let told = format!(
                "{checked} B-tree indexes of {} databases are whole; of tables this version checks nothing but checksums",
                databases.len()
            );
            return Ok((CheckOutcome::Ok, told));
        }
        let told = format!("{faults} indexes are damaged: {}", told.join("; "));
        Ok((CheckOutcome::Failed, told))
    }

    /// What TimescaleDB counts. A database with the extension in which it does not answer is as good as lost.
    async fn timescale(self, findings: &mut Findings) {
        let count = async {
            let (mut sum, mut unknown) = (None::<TimescaleCounts>, None);
            for database in self.databases().await? {
                let control = self.connect(&database).await?;
                match control.timescale().await? {
                    TimescaleLook::Absent => {}
                    TimescaleLook::Unknown => unknown = Some(database),
                    TimescaleLook::Counted(found) => {
                        let all = sum.get_or_insert_default();
                        all.hypertables += found.hypertables;
                        all.chunks += found.chunks;
                        all.jobs += found.jobs;
                    }
                }
                control.close().await;
            }
            Ok::<_, ClusterError>((sum, unknown))
        };
        match count.await {
            Ok((None, None)) => {}
            Ok((None, Some(database))) => {
                let told = format!("in database {database} it has not the views of 2.0 and later");
                findings.note(TIMESCALEDB, CheckOutcome::Skipped, told);
            }
            Ok((Some(all), _)) => {
                findings.timescaledb = Some(all);
                let told = format!(
                    "{} hypertables, {} chunks, {} jobs, which are held",
                    all.hypertables, all.chunks, all.jobs
                );
                findings.note(TIMESCALEDB, CheckOutcome::Ok, told);
            }
            Err(error) => {
                let told = words_of(error, "ask the databases for TimescaleDB");
                findings.note(TIMESCALEDB, CheckOutcome::Failed, told);
            }
        }
    }

    async fn sql(self, file: &Path, findings: &mut Findings) {
        let database = &self.options.database;
        let ran = self.client.psql(database, PsqlSource::File(file)).await;
        let (outcome, told) = judge_sql(&ran);
        findings.note("sql", outcome, format!("{}: {told}", file.display()));
    }

    async fn fingerprint(self, fingerprint: &Fingerprint, findings: &mut Findings) {
        let database = &self.options.database;
        let text = PsqlSource::Text(&fingerprint.sql);
        let ran = self.client.psql(database, text).await;
        let (outcome, told, value) = judge_fingerprint(&ran, fingerprint.expected.as_deref());
        findings.fingerprint = value;
        findings.note("fingerprint", outcome, told);
    }
}

/// The checksum of every page, of a server that was stopped in order.
pub(super) async fn checksums(
    client: &Client,
    options: &RehearseOptions,
    major: MajorVersion,
    data: &Path,
    findings: &mut Findings,
) {
    /// It has had this name since 12.
    const SINCE: u32 = 12;
    let (program, mut arguments) = if major.get() >= SINCE {
        ("pg_checksums", vec!["--check".as_ref()])
    } else {
        ("pg_verify_checksums", Vec::new())
    };
    if !options.programs.has(program) {
        let why = format!("PostgreSQL {major} has no program {program} here");
        return findings.note(CHECKSUMS, CheckOutcome::Skipped, why);
    }
    arguments.extend(["-D".as_ref(), data.as_os_str()]);
    match client.checksums(program, &arguments).await {
        Ok(ran) if ran.status.success() => {
            findings.note(CHECKSUMS, CheckOutcome::Ok, "every page is whole");
        }
        Ok(ran) => findings.note(CHECKSUMS, CheckOutcome::Failed, ended(&ran)),
        Err(error) => findings.note(CHECKSUMS, CheckOutcome::Failed, not_run(program, &error)),
    }
}

fn judge_amcheck(ran: &std::io::Result<Ran>, databases: usize) -> (CheckOutcome, String) {
    match ran {
        Ok(ran) if ran.status.success() => {
            let told = format!("tables and B-tree indexes of {databases} databases are whole");
            (CheckOutcome::Ok, told)
        }
        Ok(ran) if ran.status.code() == Some(AMCHECK_DAMAGE) => (
            CheckOutcome::Failed,
            format!("it found damage: {}", ran.words),
        ),
        Ok(ran) => (CheckOutcome::Failed, ended(ran)),
        Err(error) => (CheckOutcome::Failed, not_run("pg_amcheck", error)),
    }
}

fn judge_sql(ran: &std::io::Result<Ran>) -> (CheckOutcome, String) {
    let ran = match ran {
        Ok(ran) => ran,
        Err(error) => return (CheckOutcome::Failed, not_run("psql", error)),
    };
    if !ran.status.success() {
        return (CheckOutcome::Failed, ended(ran));
    }
    if let Some((number, record)) = &ran.records.first_false {
        let told = format!("row {number} of what it gives is false: {record}");
        return (CheckOutcome::Failed, told);
    }
    let told = format!("it succeeded, with {} rows, none false", ran.records.count);
    (CheckOutcome::Ok, told)
}

fn judge_fingerprint(
    ran: &std::io::Result<Ran>,
    expected: Option<&str>,
) -> (CheckOutcome, String, Option<String>) {
    let ran = match ran {
        Ok(ran) => ran,
        Err(error) => return (CheckOutcome::Failed, not_run("psql", error), None),
    };
    if !ran.status.success() {
        return (CheckOutcome::Failed, ended(ran), None);
    }
    let Some(value) = ran.records.first.clone().filter(|_| ran.records.count == 1) else {
        let told = format!("one row was expected, {} came", ran.records.count);
        return (CheckOutcome::Failed, told, None);
    };
    let (outcome, told) = match expected {
        Some(expected) if expected != value => (
            CheckOutcome::Failed,
            format!("it is {value}, and {expected} was expected"),
        ),
        Some(_) => (CheckOutcome::Ok, format!("{value}, as expected")),
        None => (CheckOutcome::Ok, value.clone()),
    };
    (outcome, told, Some(value))
}

fn ended(ran: &Ran) -> String {
    format!("it ended with {}: {}", ran.status, ran.words)
}

fn not_run(program: &str, error: &std::io::Error) -> String {
    format!("{program} could not be run: {error}")
}

/// An error of the server's as a sentence.
pub(super) fn words_of(error: ClusterError, what: &str) -> String {
    let error = OpError::from_cluster(error, what);
    match &error.detail {
        Some(detail) => format!("{}: {detail}", error.chain()),
        None => error.chain(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use wale_cluster::trial::Records;

    use super::*;

    #[expect(
        clippy::unnecessary_wraps,
        reason = "what is judged is what came of a start"
    )]
    fn ran(code: i32, records: Records) -> std::io::Result<Ran> {
        Ok(Ran {
            status: ExitStatus::from_raw(code << 8),
            records,
            words: "its words".to_owned(),
        })
    }

    fn one(value: &str) -> Records {
        let mut records = Records::default();
        records.count = 1;
        records.first = Some(value.to_owned());
        records
    }

    #[test]
    fn a_program_that_fails_or_finds_something_fails_the_check() {
        let none = Records::default;
        assert_eq!(judge_sql(&ran(0, one("t"))).0, CheckOutcome::Ok);
        assert_eq!(judge_sql(&ran(3, none())).0, CheckOutcome::Failed);
        let mut of_false = one("f");
        of_false.first_false = Some((1, "f|t".to_owned()));
        let (outcome, told) = judge_sql(&ran(0, of_false));
        assert_eq!(outcome, CheckOutcome::Failed);
        assert!(told.contains("row 1") && told.contains("f|t"), "{told}");
        assert_eq!(judge_amcheck(&ran(0, none()), 2).0, CheckOutcome::Ok);
        for code in [1, 2] {
            let (outcome, told) = judge_amcheck(&ran(code, none()), 2);
            assert_eq!(outcome, CheckOutcome::Failed);
            assert!(told.contains("its words"), "{told}");
        }
        let missing = || Err(std::io::Error::from(std::io::ErrorKind::NotFound));
        assert_eq!(judge_sql(&missing()).0, CheckOutcome::Failed);
        assert_eq!(judge_amcheck(&missing(), 1).0, CheckOutcome::Failed);
    }

    #[test]
    fn a_fingerprint_is_one_value_and_the_expected_one() {
        let cases = [
            (ran(0, one("7 9")), None, CheckOutcome::Ok, Some("7 9")),
            (ran(0, one("7")), Some("7"), CheckOutcome::Ok, Some("7")),
            (ran(0, one("7")), Some("8"), CheckOutcome::Failed, Some("7")),
            (ran(0, Records::default()), None, CheckOutcome::Failed, None),
            (ran(1, one("7")), Some("7"), CheckOutcome::Failed, None),
        ];
        for (ran, expected, outcome, value) in cases {
            let found = judge_fingerprint(&ran, expected);
            assert_eq!(
                (found.0, found.2.as_deref()),
                (outcome, value),
                "{}",
                found.1
            );
        }
    }
}
