//! Looking for WAL in the archive, under whatever codec it was stored.

use chrono::{DateTime, Utc};
use futures_util::future::{try_join, try_join_all};
use wale_format::{Codec, layout};
use wale_pg::{ArchiveFileName, WalHeaderError, WalPageHeader};
use wale_storage::{Looking, ObjectKey, ObjectMeta, StoreError};

use crate::Archive;
use crate::error::{Kind, OpError, Result};
use crate::listing::each_wal;
use crate::read::{ConsumeError, damaged};

/// A WAL object that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredWal {
    /// What it holds.
    pub name: ArchiveFileName,
    /// Where it lies.
    pub key: ObjectKey,
    /// How it is compressed.
    pub codec: Codec,
    /// Its stored size in bytes.
    pub size: u64,
    /// When the store says it was written.
    pub modified: DateTime<Utc>,
}

impl Archive {
    /// Where `name` is stored. Under several codecs at once, the configured one is preferred, then one that can be
    /// read.
    ///
    /// # Errors
    /// Any failure of the store, even for one codec of several: an unanswered question is not an absence.
    pub async fn find_wal(&self, name: &ArchiveFileName) -> Result<Option<StoredWal>> {
        Ok(self.find_wal_copies(name).await?.into_iter().next())
    }

    /// All objects that hold `name`, in the order in which they should be read: by one listing where the store lists what
    /// was written before, otherwise by their names. Where nothing is listed, the name under the configured codec has the
    /// last word.
    ///
    /// # Errors
    /// As [`Archive::find_wal`].
    pub async fn find_wal_copies(&self, name: &ArchiveFileName) -> Result<Vec<StoredWal>> {
        let copies = self.list_wal_copies(name).await?;
        self.unless_missed(name, copies).await
    }

    /// The copies that a listing has shown, or the one that it has missed.
    pub(crate) async fn unless_missed(
        &self,
        name: &ArchiveFileName,
        copies: Vec<StoredWal>,
    ) -> Result<Vec<StoredWal>> {
        if copies.is_empty() && self.store().looking() != Looking::ByName {
            return Ok(Vec::from_iter(self.head_wal(name, self.codec()).await?));
        }
        Ok(copies)
    }

    /// As [`Archive::find_wal_copies`], after a listing of all whose names begin as this one's has shown nothing. Where listings
    /// may lag, that says nothing.
    pub(crate) async fn after_a_bare_listing(
        &self,
        name: &ArchiveFileName,
    ) -> Result<Vec<StoredWal>> {
        if self.store().looking() == Looking::ByName {
            return self.find_wal_copies(name).await;
        }
        self.unless_missed(name, Vec::new()).await
    }

    /// As [`Archive::find_wal_copies`], for a caller that learns in another way whether the name under the configured codec
    /// is there.
    ///
    /// # Errors
    /// As [`Archive::find_wal`].
    pub async fn list_wal_copies(&self, name: &ArchiveFileName) -> Result<Vec<StoredWal>> {
        if self.store().looking() == Looking::ByName {
            return self.find_wal_by_name(name).await;
        }
        let mut listed = Vec::new();
        each_wal(self, &name.to_string(), |_, meta| {
            listed.push(meta);
            false
        })
        .await?;
        Ok(self.copies_among(name, listed.into_iter()))
    }

    /// As [`Archive::find_wal_copies`], never by a listing. One request for each known codec, and one for the name that WAL-G 3.0.8
    /// gave to what it did not compress, all at the same time: an archive may be written by other tools beside wale, so the codecs recorded in the identity are not all there can be.
    ///
    /// # Errors
    /// As [`Archive::find_wal`].
    pub async fn find_wal_by_name(&self, name: &ArchiveFileName) -> Result<Vec<StoredWal>> {
        let codecs = self.codecs_in_order().into_iter();
        let questions = codecs.map(|codec| self.head_wal(name, codec));
        let (found, dotted) = try_join(try_join_all(questions), self.head_dotted(name)).await?;
        Ok(found.into_iter().chain([dotted]).flatten().collect())
    }

    /// The object of `name` as WAL-G 3.0.8 named what it did not compress. A store that keeps no such names (Azure) has none.
    async fn head_dotted(&self, name: &ArchiveFileName) -> Result<Option<StoredWal>> {
        let key = Self::key(&layout::wal_with_dot(name))?;
        let meta = match self.store().head(&key).await {
            Ok(meta) => meta,
            Err(StoreError::InvalidKey(_)) => None,
            Err(error) => return Err(OpError::from_store(error, format_args!("look for {key}"))),
        };
        Ok(meta.map(|meta| stored(name, key, Codec::None, &meta)))
    }

    /// The object of `name` under one codec; one request, by its name.
    ///
    /// # Errors
    /// As [`Archive::find_wal`].
    pub async fn head_wal(
        &self,
        name: &ArchiveFileName,
        codec: Codec,
    ) -> Result<Option<StoredWal>> {
        let key = Self::key(&layout::wal(name, codec))?;
        let meta = self
            .store()
            .head(&key)
            .await
            .map_err(|e| OpError::from_store(e, format_args!("look for {key}")))?;
        Ok(meta.map(|meta| stored(name, key, codec, &meta)))
    }

    /// Every codec: the configured one first, then the others.
    pub(crate) fn codecs_in_order(&self) -> Vec<Codec> {
        let mut codecs = vec![self.codec()];
        for codec in Codec::BY_USE {
            if !codecs.contains(&codec) {
                codecs.push(codec);
            }
        }
        codecs
    }

    /// The first page's header of a stored segment; only its beginning is fetched.
    ///
    /// # Errors
    /// [`Kind::CorruptData`] when it is damaged, [`Kind::Configuration`] when this version cannot read it; the store's failures.
    pub async fn read_wal_header(&self, stored: &StoredWal) -> Result<WalPageHeader> {
        let (key, codec) = (stored.key.clone(), stored.codec);
        self.decode(&stored.key, stored.codec, move |plain| {
            let mut head = [0; WalPageHeader::LENGTH];
            plain.read_exact(&mut head)?;
            WalPageHeader::parse(&head).map_err(|error| {
                ConsumeError::Refused(match error {
                    // No codec shows what an object without one is: encrypted, or no WAL at all.
                    WalHeaderError::UnknownMagic { .. } if codec == Codec::None => OpError::new(
                        Kind::Configuration,
                        format!("object {key} holds no WAL; it may be encrypted"),
                    )
                    .hint("use the tool that wrote it")
                    .source(error),
                    error => damaged(&key, &error).source(error),
                })
            })
        })
        .await
    }
}

fn stored(name: &ArchiveFileName, key: ObjectKey, codec: Codec, meta: &ObjectMeta) -> StoredWal {
    StoredWal {
        name: *name,
        key,
        codec,
        size: meta.size,
        modified: meta.modified,
    }
}
