//! WAL-G's list of files beside our sentinel: with it WAL-G puts tablespaces elsewhere, restores some of the files, and makes small
//! deltas on this backup. What it does not list WAL-G passes over without a word, so it is complete or there is none.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use wale_cluster::{Control, DatabaseRelations};
use wale_format::{
    BackupName, Codec, Encryption, FileListDatabase, FileListMember, can_be_listed, layout,
    write_file_list,
};
use wale_pipeline::blocking;

use super::backup::Backup;
use super::contents::StoredFiles;
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
    pub(super) async fn store_file_list(
        &self,
        backup: &Backup<'_>,
        directories: Vec<(String, DateTime<Utc>)>,
    ) -> Result<bool> {
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
        let list = Arc::new(ListedBackup {
            name: self.started.name.clone(),
            codec,
            directories,
            files: Arc::clone(&self.contents.files),
            databases,
        });
        let asked = Arc::clone(&list);
        if !blocking(move || asked.can_be_listed()).await? {
            tracing::info!(
                "WAL-G's list of files is not stored: it cannot say a name that is not UTF-8"
            );
            return Ok(false);
        }
        let key = layout::files_metadata(&self.started.name);
        let write = move |sink: &mut dyn Write| list.write(sink);
        backup.store_written(&key, Codec::None, write).await?;
        Ok(true)
    }
}

/// What the list is made of. Every member of every partition is in it.
struct ListedBackup {
    name: BackupName,
    codec: Codec,
    directories: Vec<(String, DateTime<Utc>)>,
    files: Arc<StoredFiles>,
    databases: BTreeMap<String, FileListDatabase>,
}

impl ListedBackup {
    fn can_be_listed(&self) -> bool {
        let members = self.partitions().flat_map(|(_, members)| members);
        can_be_listed(members, self.databases.keys())
    }

    fn write(&self, sink: &mut dyn Write) -> io::Result<()> {
        write_file_list(sink, || self.partitions(), &self.databases)
    }

    /// The names of the objects, and what is in each: the first has the directories.
    fn partitions(
        &self,
    ) -> impl Iterator<Item = (String, Box<dyn Iterator<Item = FileListMember> + '_>)> {
        let names = member_names(self.codec);
        let object = |number| {
            let key = layout::partition(&self.name, number, self.codec);
            key.rsplit('/').next().unwrap_or_default().to_owned()
        };
        let directories = self.directories.iter();
        let directories = directories.map(move |(path, modified)| FileListMember {
            name: names.of_directory(path),
            modified: *modified,
            is_settled: true,
        });
        let directories: Box<dyn Iterator<Item = FileListMember>> = Box::new(directories);
        let first = std::iter::once((object(0), directories));
        let parts = self.files.partitions();
        first.chain(parts.map(move |(number, files)| {
            let files = files.iter().map(move |file| FileListMember {
                name: names.of_file(&file.path).into_owned(),
                modified: file.mtime,
                is_settled: file.is_settled,
            });
            let files: Box<dyn Iterator<Item = FileListMember>> = Box::new(files);
            (object(number), files)
        }))
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
