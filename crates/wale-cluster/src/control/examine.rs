//! What a recovered copy is asked, to see whether it is whole. The copy is thrown away, so extensions may be made in it.

use chrono::{DateTime, Utc};

use super::connection::{Control, get, get_name, name_bytes};
use crate::error::ClusterError;

/// Indexes of a database whose faults are told; all are counted.
const FAULTS_TOLD: usize = 5;

/// SQLSTATE of a server that has no files of the extension: "undefined file", and "feature not supported" of later versions.
const NOT_INSTALLED: [&str; 2] = ["58P01", "0A000"];

/// The role that `initdb` makes: `BOOTSTRAP_SUPERUSERID` of PostgreSQL.
const BOOTSTRAP_SUPERUSER: u32 = 10;

/// How far a copy's recovery came, and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyFacts {
    /// When the last transaction was committed or rolled back that the recovery came to.
    pub newest_commit: Option<DateTime<Utc>>,
    /// Whether pages have checksums.
    pub has_checksums: bool,
    /// How many databases there are, templates aside.
    pub databases: u64,
    /// The superuser that every cluster has, where it may log in.
    pub superuser: Option<String>,
}

/// What TimescaleDB says of one database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TimescaleFacts {
    /// Hypertables.
    pub hypertables: u64,
    /// Their chunks.
    pub chunks: u64,
    /// Those of them that are compressed.
    pub compressed_chunks: u64,
    /// Jobs.
    pub jobs: u64,
    /// The edition, as its setting names it: `timescale`, `apache`.
    pub licence: Option<String>,
}

/// What a database says of TimescaleDB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TimescaleLook {
    /// It is not there.
    Absent,
    /// It is there, and has not the views of 2.0 and later.
    Unknown,
    /// It counts.
    Counted(TimescaleFacts),
}

/// What a look at all B-tree indexes of a database found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IndexFaults {
    /// Indexes that were looked at.
    pub checked: u64,
    /// How many of them are at fault.
    pub count: u64,
    /// The first of them, with the server's words.
    pub first: Vec<String>,
}

impl Control {
    /// How far the recovery came, and what the copy is.
    ///
    /// # Errors
    /// When the session is lost.
    pub async fn copy_facts(&self) -> Result<CopyFacts, ClusterError> {
        let during = "asking the copy how far its recovery came";
        let superuser = name_bytes("rolname::text");
        let sql = format!(
            "SELECT (pg_catalog.date_part('epoch', pg_catalog.pg_last_xact_replay_timestamp()) * 1000000)::bigint,
                    pg_catalog.current_setting('data_checksums') = 'on',
                    (SELECT pg_catalog.count(*) FROM pg_catalog.pg_database WHERE NOT datistemplate),
                    (SELECT {superuser} FROM pg_catalog.pg_roles WHERE oid = {BOOTSTRAP_SUPERUSER} AND rolsuper AND rolcanlogin)"
        );
        let row = self.query_one(during, &sql, &[]).await?;
        let newest: Option<i64> = get(&row, 0, during)?;
        Ok(CopyFacts {
            newest_commit: newest.and_then(DateTime::from_timestamp_micros),
            has_checksums: get(&row, 1, during)?,
            databases: get::<i64>(&row, 2, during)?.unsigned_abs(),
            superuser: get_name(&row, 3, during)?
                .filter(|name| !wale_pg::byte_text::has_escapes(name)),
        })
    }

    /// All databases that take connections, templates too. One whose removal was interrupted (-2) takes none.
    ///
    /// # Errors
    /// When the session is lost.
    pub async fn every_database(&self) -> Result<Vec<String>, ClusterError> {
        let during = "listing the databases";
        let name = name_bytes("datname::text");
        let sql = format!(
            "SELECT {name} FROM pg_catalog.pg_database WHERE datallowconn AND datconnlimit <> -2 ORDER BY 1"
        );
        let rows = self.query(during, &sql, &[]).await?;
        rows.iter()
            .map(|row| Ok(get_name(row, 0, during)?.unwrap_or_default()))
            .collect()
    }

    /// Makes the extension `amcheck` in this database, or brings it up to date. `false`: the server has none.
    ///
    /// # Errors
    /// When the role is no superuser, or the session is lost.
    pub async fn make_amcheck(&self) -> Result<bool, ClusterError> {
        let during = "making the extension amcheck";
        // Asked for what is available a server reads the files of all extensions, and fails for a strange one.
        // The user's event triggers are not fired by it.
        let make = "SET session_replication_role = replica;
             SET default_transaction_read_only = off;
             CREATE EXTENSION IF NOT EXISTS amcheck WITH SCHEMA pg_catalog;
             ALTER EXTENSION amcheck UPDATE";
        match self.batch(during, make).await {
            Ok(()) => Ok(true),
            Err(ClusterError::Query { sqlstate, .. }) if NOT_INSTALLED.contains(&&*sqlstate) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Checks every B-tree index of this database with `amcheck`, which must be there.
    ///
    /// # Errors
    /// When the session is lost, or the server ends.
    pub async fn check_indexes(&self) -> Result<IndexFaults, ClusterError> {
        let during = "checking an index";
        let schema = "SELECT pg_catalog.quote_ident(n.nspname) FROM pg_catalog.pg_extension e
             JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'amcheck'";
        let row = self.query_one(during, schema, &[]).await?;
        let schema: String = get(&row, 0, during)?;
        let list = "SELECT c.oid, c.oid::pg_catalog.regclass::text FROM pg_catalog.pg_index i
             JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
             JOIN pg_catalog.pg_am a ON a.oid = c.relam
             WHERE a.amname = 'btree' AND c.relkind = 'i' AND c.relpersistence = 'p'
               AND i.indisready AND i.indisvalid";
        let check =
            format!("SELECT {schema}.bt_index_check($1::pg_catalog.oid::pg_catalog.regclass)");
        let mut faults = IndexFaults::default();
        for row in self.query(during, list, &[]).await? {
            faults.checked += 1;
            let (oid, name): (u32, String) = (get(&row, 0, during)?, get(&row, 1, during)?);
            match self.query(during, &check, &[&oid]).await {
                Ok(_) => {}
                Err(ClusterError::Query { message, .. }) => {
                    faults.count += 1;
                    if faults.first.len() < FAULTS_TOLD {
                        faults.first.push(format!("index {name}: {message}"));
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(faults)
    }

    /// What TimescaleDB counts in this database.
    ///
    /// # Errors
    /// When it is there and does not answer, as with a library of another version.
    pub async fn timescale(&self) -> Result<TimescaleLook, ClusterError> {
        let during = "asking TimescaleDB";
        // Its own views alone: of others somebody else says what they do, with our role's rights.
        let sql = "SELECT (SELECT pg_catalog.count(*) = 3 FROM pg_catalog.pg_class c
                JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid
                  AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.refobjid = e.oid AND d.deptype = 'e'
                WHERE n.nspname = 'timescaledb_information' AND c.relname IN ('hypertables', 'chunks', 'jobs'))
              FROM pg_catalog.pg_extension e WHERE e.extname = 'timescaledb'";
        let known = match self.query(during, sql, &[]).await?.first() {
            None => return Ok(TimescaleLook::Absent),
            Some(row) => get::<bool>(row, 0, during)?,
        };
        if !known {
            return Ok(TimescaleLook::Unknown);
        }
        // A column that a version lacks is none.
        let sql = "SELECT (SELECT pg_catalog.count(*) FROM timescaledb_information.hypertables),
                    (SELECT pg_catalog.count(*) FROM timescaledb_information.chunks),
                    (SELECT pg_catalog.count(*) FROM timescaledb_information.chunks wale_chunk WHERE
                      pg_catalog.jsonb_extract_path_text(pg_catalog.to_jsonb(wale_chunk), 'is_compressed') = 'true'),
                    (SELECT pg_catalog.count(*) FROM timescaledb_information.jobs),
                    pg_catalog.current_setting('timescaledb.license', true)";
        let row = self.query_one(during, sql, &[]).await?;
        let count =
            |column| Ok::<_, ClusterError>(get::<i64>(&row, column, during)?.unsigned_abs());
        let licence: Option<String> = get(&row, 4, during)?;
        Ok(TimescaleLook::Counted(TimescaleFacts {
            hypertables: count(0)?,
            chunks: count(1)?,
            compressed_chunks: count(2)?,
            jobs: count(3)?,
            licence: licence.filter(|licence| !licence.is_empty()),
        }))
    }
}
