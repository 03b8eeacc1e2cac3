//! WAL-G's list of files beside our sentinel: with it WAL-G puts tablespaces elsewhere, restores some of the files, and makes small
//! deltas on this backup. What it does not list WAL-G passes over without a word, so it is complete or there is none.

use std::collections::BTreeMap;

use wale_cluster::{Control, DatabaseRelations};
use wale_format::{Codec, Encryption, FileListDatabase, FileListMember, file_list, layout};

use super::backup::Backup;
use super::ended::Ended;
use super::options::BackupOptions;
use super::partitions::member_names;
use crate::error::Result;

impl Ended {
    /// Stores the list. Gives whether it did: a backup that the real WAL-E reads has none, an encrypted one has none, for the list
    /// is read only in the clear and has the names of tables, and none that WAL-G could misread.
    ///
    /// # Errors
    ///
    /// The store's; cancellation.
    pub(super) async fn store_file_list(&self, backup: &Backup<'_>) -> Result<bool> {
        let codec = backup.archive.codec();
        let is_in_the_clear = backup.archive.write_key().method() == Encryption::None;
        // Nobody can be asked for the names of the relations of a stopped server.
        if codec == Codec::Lzo || !is_in_the_clear || self.ending.running().is_none() {
            return Ok(false);
        }
        let asked = Box::pin(databases(backup.options));
        let Some(databases) = backup.unless_cancelled(asked).await? else {
            return Ok(false);
        };
        let Some(list) = self.file_list(codec, &databases) else {
            tracing::info!(
                "WAL-G's list of files is not stored: it cannot say a name that is not UTF-8"
            );
            return Ok(false);
        };
        let key = layout::files_metadata(&self.started.name);
        backup.uploads.put_bytes(&key, list.into()).await?;
        Ok(true)
    }

    /// The list, where it can be said. Every member of every partition is in it.
    pub(super) fn file_list(
        &self,
        codec: Codec,
        databases: &BTreeMap<String, FileListDatabase>,
    ) -> Option<Vec<u8>> {
        let names = member_names(codec);
        let directories: Vec<_> = self
            .listing
            .directories
            .iter()
            .map(|(path, modified)| (names.of_directory(path), modified))
            .collect();
        let files: Vec<_> = self
            .contents
            .files
            .iter()
            .map(|file| (names.of_file(&file.path), file))
            .collect();
        let object = |number| {
            let key = layout::partition(&self.started.name, number, codec);
            key.rsplit('/').next().unwrap_or_default().to_owned()
        };
        let mut partitions: BTreeMap<u32, Vec<FileListMember<'_>>> = BTreeMap::new();
        for (name, modified) in &directories {
            partitions.entry(0).or_default().push(FileListMember {
                name,
                modified: **modified,
                is_settled: true,
            });
        }
        for (name, file) in &files {
            let members = partitions.entry(file.partition).or_default();
            members.push(FileListMember {
                name,
                modified: file.mtime,
                is_settled: file.is_settled,
            });
        }
        let partitions = partitions.into_iter();
        let partitions = partitions.map(|(number, members)| (object(number), members));
        file_list(&partitions.collect(), databases)
    }
}

/// The relations of all databases; nothing where one of them does not say: WAL-G would pass over its files.
async fn databases(options: &BackupOptions) -> Option<BTreeMap<String, FileListDatabase>> {
    let asked = async {
        let control = Control::connect(&options.connect).await?;
        let relations = control.relations(&options.connect).await;
        control.close().await;
        relations
    };
    match asked.await {
        Ok(databases) => Some(databases.into_iter().map(listed).collect()),
        Err(error) => {
            let reason = match error.detail() {
                Some(detail) => format!("{error}: {detail}"),
                None => error.to_string(),
            };
            tracing::warn!(
                reason,
                "WAL-G's list of files is not stored: a database does not say what its relations are"
            );
            None
        }
    }
}

fn listed(database: DatabaseRelations) -> (String, FileListDatabase) {
    let DatabaseRelations {
        oid,
        name,
        relations,
    } = database;
    (name, FileListDatabase::new(oid, &relations))
}
