//! The relations of all databases, with what their files are called: for WAL-G, which restores some of them by their names.

use std::time::{Duration, Instant};

use wale_pg::relation::CatalogueRelation;

use super::catalog::REPORT_LOCK_LIMIT;
use super::connection::{Control, USUAL_LOCK_LIMIT, get, get_name, name_bytes};
use super::options::ConnectOptions;
use crate::error::ClusterError;

/// For how long one database is asked, and all of them together. 100,000 relations take a second.
const DATABASE_LIMIT: Duration = Duration::from_secs(10);
const ALL_LIMIT: Duration = Duration::from_mins(1);

/// Relations that are kept, of all databases together. Some 110 bytes each, and 150 in the list that is made of them: 26 MB.
const RELATIONS_MAX: usize = 100_000;

/// Relations that a database tells at once, some 300 bytes each: 1.5 MB.
const PAGE_ROWS: usize = 5_000;

/// The relations of a database that have files, and those that have partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseRelations {
    /// Its OID.
    pub oid: u32,
    /// Its name.
    pub name: String,
    /// Its relations.
    pub relations: Vec<CatalogueRelation>,
}

impl Control {
    /// The relations of every database that takes connections, templates too: one short session for each, one after the other.
    /// `options` are those of this session; only the database is changed.
    ///
    /// # Errors
    /// When one of the databases does not say it, in time too, or they have too many.
    pub async fn relations(
        &self,
        options: &ConnectOptions,
    ) -> Result<Vec<DatabaseRelations>, ClusterError> {
        let during = "listing relations";
        let refused = |reason: String| ClusterError::UnexpectedAnswer { during, reason };
        self.batch(during, REPORT_LOCK_LIMIT).await?;
        let name = name_bytes("datname::text");
        let sql =
            format!("SELECT oid, {name} FROM pg_catalog.pg_database WHERE datallowconn ORDER BY 1");
        let databases = self.query(during, &sql, &[]).await;
        self.batch(during, USUAL_LOCK_LIMIT).await?;
        let (begun, mut left) = (Instant::now(), RELATIONS_MAX);
        let mut all = Vec::new();
        for row in databases? {
            let oid = get(&row, 0, during)?;
            let name = get_name(&row, 1, during)?.unwrap_or_default();
            if begun.elapsed() > ALL_LIMIT {
                return Err(refused("the databases took too long to answer".to_owned()));
            }
            let options = options.with_database(&name);
            let asked = tokio::time::timeout(DATABASE_LIMIT, relations_of(&options, left)).await;
            let limit = DATABASE_LIMIT.as_secs();
            let asked =
                asked.map_err(|_| refused(format!("no answer of {name:?} within {limit} s")))?;
            let relations = asked?;
            left = left.checked_sub(relations.len()).ok_or_else(|| {
                refused(format!(
                    "the databases have more than {RELATIONS_MAX} relations"
                ))
            })?;
            all.push(DatabaseRelations {
                oid,
                name,
                relations,
            });
        }
        Ok(all)
    }
}

/// Those of one database, asked for some at a time; more than `most` where there are more. What comes and goes meanwhile may be missing, as it may
/// from a copy of the files.
async fn relations_of(
    options: &ConnectOptions,
    most: usize,
) -> Result<Vec<CatalogueRelation>, ClusterError> {
    let during = "listing relations";
    let control = Control::connect(options).await?;
    control.batch(during, REPORT_LOCK_LIMIT).await?;
    let name = name_bytes("n.nspname::text || '.' || c.relname::text");
    // Of a relation that the catalogue maps elsewhere (pg_class itself) only its path shows the name of its files.
    let sql = format!(
        "SELECT c.oid,
                CASE WHEN c.relfilenode <> 0 THEN c.relfilenode::bigint
                     ELSE pg_catalog.substring(pg_catalog.pg_relation_filepath(c.oid), '[0-9]+$')::bigint END,
                {name},
                ARRAY(SELECT i.inhparent FROM pg_catalog.pg_inherits i WHERE i.inhrelid = c.oid)
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE c.oid > $1
           AND (c.relfilenode <> 0 OR c.relkind = 'p' OR pg_catalog.pg_relation_filepath(c.oid) IS NOT NULL)
         ORDER BY c.oid LIMIT $2"
    );
    let limit = i64::try_from(PAGE_ROWS).unwrap_or(i64::MAX);
    let mut relations: Vec<CatalogueRelation> = Vec::new();
    while relations.len() <= most {
        let after = relations.last().map_or(0, |relation| relation.oid);
        let rows = control.query(during, &sql, &[&after, &limit]).await?;
        for row in &rows {
            let file_node = get::<Option<i64>>(row, 1, during)?.unwrap_or(0);
            relations.push(CatalogueRelation {
                oid: get(row, 0, during)?,
                file_node: u32::try_from(file_node).unwrap_or(0),
                name: get_name(row, 2, during)?.unwrap_or_default(),
                parents: get(row, 3, during)?,
            });
        }
        if rows.len() < PAGE_ROWS {
            break;
        }
    }
    control.close().await;
    Ok(relations)
}
