//! Whose both places are. A copy goes into an empty place, or into one of the same cluster; and `wale.json` is there before
//! anything else is, so that nobody else begins an archive in it meanwhile.

use std::hash::{BuildHasher, Hasher, RandomState};

use bytes::Bytes;
use wale_archive::Archive;
use wale_format::ArchiveIdentity;
use wale_format::layout;
use wale_pg::SystemIdentifier;
use wale_storage::{ObjectMeta, StoreError, body_from};

use super::options::CopyMode;
use super::pairs::Pairs;
use super::plan::{is_copy_of, merged_identity};
use super::transfer::{Brought, Route};
use crate::cluster_shown::cluster_of;
use crate::error::{Kind, OpError, Result};

/// Makes sure that the destination is not the source, that it is nobody else's, and that it has `wale.json` where the
/// source has one. In a dry run it only looks.
///
/// # Errors
/// [`Kind::Usage`] where both are one place; [`Kind::ArchiveMismatch`] where the destination is another cluster's, or may be;
/// the stores' failures.
pub(super) async fn settle(route: &Route, act: CopyMode) -> Result<()> {
    let Route { source, copy, .. } = route;
    match act {
        CopyMode::Copy => refuse_same_place(source, copy).await?,
        // Two buckets of one name may be two stores' ones; only a folder is known by its name.
        CopyMode::Show
            if copy.location().starts_with("file:") && source.location() == copy.location() =>
        {
            return Err(same_place(source));
        }
        CopyMode::Show => {}
    }
    let (of_source, of_copy) = (source.read_identity().await?, copy.read_identity().await?);
    match (&of_source, &of_copy) {
        (Some(one), Some(other)) => compare(one, other, copy)?,
        _ => compare_contents(route, of_source.as_ref(), of_copy.as_ref()).await?,
    }
    match (of_source, of_copy) {
        _ if act == CopyMode::Show => Ok(()),
        (None, _) => Ok(()),
        (Some(_), None) => put_identity(route).await,
        (Some(of_source), Some(of_copy)) => match merged_identity(&of_source, &of_copy) {
            Some(merged) => rewrite(copy, &merged).await,
            None => Ok(()),
        },
    }
}

fn same_place(source: &Archive) -> OpError {
    let message = format!(
        "the destination is the archive itself: {}",
        source.location()
    );
    OpError::new(Kind::Usage, message).hint("name another place for the copy")
}

/// Two spellings may mean one place: an object that is put at the destination is looked for at the source.
async fn refuse_same_place(source: &Archive, copy: &Archive) -> Result<()> {
    let key = Archive::key(layout::CLOCK)?;
    let random = || RandomState::new().build_hasher().finish();
    let token = Bytes::from(format!("{:016x}{:016x}\n", random(), random()));
    let place = copy.location();
    let put = copy.store().put(&key, body_from(token.clone())).await;
    put.map_err(|error| OpError::from_store(error, format_args!("store {key} at {place}")))?;
    let found = source.read_small(&key).await;
    if let Err(error) = copy.store().delete(&key).await {
        // It is replaced by the next one.
        tracing::debug!(%key, %error, "the object of a moment stays at the destination");
    }
    if found? == Some(token) {
        return Err(same_place(source));
    }
    Ok(())
}

fn compare(source: &ArchiveIdentity, other: &ArchiveIdentity, copy: &Archive) -> Result<()> {
    let (one, two) = (&source.cluster, &other.cluster);
    if one.system_identifier != two.system_identifier {
        return Err(another_cluster(
            copy,
            one.system_identifier,
            two.system_identifier,
        ));
    }
    if one.wal_segment_size != two.wal_segment_size {
        let message = format!("the WAL segment size is not the one of {}", copy.location());
        return Err(OpError::new(Kind::ArchiveMismatch, message).hint("copy to an empty place"));
    }
    if source.encryption != other.encryption && !is_copy_of(source, other) {
        let message = format!(
            "{} is an archive of its own, and is not encrypted as the source is",
            copy.location()
        );
        return Err(OpError::new(Kind::ArchiveMismatch, message).hint("copy to an empty place"));
    }
    Ok(())
}

fn another_cluster(copy: &Archive, source: SystemIdentifier, found: SystemIdentifier) -> OpError {
    let message = format!("{} is the archive of another cluster", copy.location());
    OpError::new(Kind::ArchiveMismatch, message)
        .detail(format!(
            "Its system identifier is {found}; the source's is {source}. Nothing was written there."
        ))
        .hint("copy to an empty place, or to a former copy of this archive")
}

/// Where one of both has no identity, what they hold must show that they are one cluster's.
async fn compare_contents(
    route: &Route,
    of_source: Option<&ArchiveIdentity>,
    of_copy: Option<&ArchiveIdentity>,
) -> Result<()> {
    let Route { source, copy, .. } = route;
    if of_copy.is_none() && copy.holds_nothing().await? {
        return Ok(());
    }
    match (
        cluster_of(source, of_source).await?,
        cluster_of(copy, of_copy).await?,
    ) {
        (Some(one), Some(other)) if one == other => Ok(()),
        (Some(one), Some(other)) => Err(another_cluster(copy, one, other)),
        _ => refuse_strangers(source, copy).await,
    }
}

/// Where nothing shows whose they are, as everything is encrypted: what the destination has must all be the source's.
async fn refuse_strangers(source: &Archive, copy: &Archive) -> Result<()> {
    for prefix in [layout::WAL_PREFIX, layout::BACKUP_PREFIX] {
        let mut pairs = Pairs::open(source, copy, prefix).await?;
        while let Some(group) = pairs.next().await? {
            let is_ours = |meta: &&ObjectMeta| layout::is_ours(meta.key.as_str());
            let unknown = |meta: &&ObjectMeta| !group.source.iter().any(|own| own.key == meta.key);
            if let Some(strange) = group.copy.iter().filter(is_ours).find(unknown) {
                let message = format!(
                    "could not tell whether {} is of the same cluster",
                    copy.location()
                );
                return Err(OpError::new(Kind::ArchiveMismatch, message)
                    .detail(format!(
                        "Neither its backups nor its WAL show it, and it has {}, which the source does not have.",
                        strange.key
                    ))
                    .hint("copy to an empty place"));
            }
        }
    }
    Ok(())
}

async fn put_identity(route: &Route) -> Result<()> {
    let key = Archive::key(layout::IDENTITY)?;
    let head = route.source.store().head(&key).await;
    let head = head.map_err(|error| OpError::from_store(error, format_args!("look for {key}")))?;
    let object = head.ok_or_else(|| {
        OpError::from_store(
            StoreError::NotFound { key: key.clone() },
            format_args!("read {key} of {}", route.source.location()),
        )
    })?;
    match route.bring(&object, None).await? {
        Brought::Copied | Brought::There => Ok(()),
        Brought::Trouble(kind, why) => {
            let place = route.copy.location();
            Err(OpError::new(kind, format!("object {key} {why}"))
                .detail(format!("Somebody else begins an archive at {place}."))
                .hint("run the copy again"))
        }
        Brought::Vanished | Brought::Marked { .. } => {
            let message = format!("{} has lost its {key}", route.source.location());
            Err(OpError::new(Kind::StorageUnavailable, message).hint("bring the source back"))
        }
    }
}

/// Two copies that do this at the same moment write the same.
async fn rewrite(copy: &Archive, identity: &ArchiveIdentity) -> Result<()> {
    let key = Archive::key(layout::IDENTITY)?;
    let body = body_from(identity.to_json().into());
    let place = copy.location();
    let put = copy.store().put(&key, body).await;
    put.map_err(|error| OpError::from_store(error, format_args!("rewrite {key} at {place}")))?;
    Ok(())
}
