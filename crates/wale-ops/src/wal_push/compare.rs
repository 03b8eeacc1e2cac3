//! Is a stored object the same as the local file? Decided on the plain bytes, since encoders do not agree; where this host cannot
//! decrypt what it writes, on the keyed digest of the plain bytes that the object has.

use std::io::Read;

use sha2::{Digest, Sha256};
use wale_archive::{Archive, ConsumeError, Remedy, StoredWal};
use wale_format::{Codec, ContentDigest, hex};
use wale_pg::ArchiveFileName;
use wale_pipeline::blocking;

use super::done::gone;
use super::memory::READ_BYTES;
use super::source::Source;
use crate::error::{Kind, OpError, Result};

/// Whether `stored` holds exactly the bytes of `source`: decoded, or, where this host writes what it cannot read, by the digest of
/// the content that the object's header has.
///
/// # Errors
/// The store's failures; [`Kind::CorruptData`] when the object is damaged, so that nothing can be said;
/// [`Kind::Configuration`] when this version lacks its codec or its key. Of an object that may be our own and is not known to
/// hold the bytes or not, that error is a refusal of the push: [`Archive::may_be_ours_locked`].
pub(super) async fn same_content(
    archive: &Archive,
    source: &Source,
    stored: &StoredWal,
) -> Result<bool> {
    match first_difference(archive, source, stored).await {
        Err(locked) if archive.may_be_ours_locked(&locked) => {
            same_digest(archive, source, stored, locked).await
        }
        other => other.map(|difference| difference.is_none()),
    }
}

/// As [`same_content`], of an object that no key here opens: `locked` says so.
async fn same_digest(
    archive: &Archive,
    source: &Source,
    stored: &StoredWal,
    locked: OpError,
) -> Result<bool> {
    let noted = archive.content_digest(stored).await;
    let Some(noted) = noted.map_err(|error| explain(source, stored, error))? else {
        let why = "The object does not say what its content is: an older wale or another program wrote it, or the control file of \
                   the server could not be read then.";
        return Err(not_comparable(source, stored, &locked, why));
    };
    let local = source.clone();
    let Some(ours) = blocking(move || content_digest(&local)).await?? else {
        let why = "The object says what its content is, but that can be checked only where the control file of the server can be \
                   read.";
        return Err(not_comparable(source, stored, &locked, why));
    };
    Ok(ours == noted)
}

/// The refusal of a file whose name an object has that may be our own, and that nobody here can compare with it. To store the
/// file beside it would make two copies that may differ, and one more at each attempt.
pub(super) fn not_comparable(
    source: &Source,
    stored: &StoredWal,
    locked: &OpError,
    why: &str,
) -> OpError {
    let locked = locked.locked();
    let method = locked.and_then(|locked| locked.method);
    let encrypted = method.map_or("encrypted".to_owned(), |one| {
        format!("encrypted with {one}")
    });
    let error = OpError::new(
        Kind::Configuration,
        format!(
            "{} is in the archive already, {encrypted}, and it cannot be compared with the file without the secret key",
            source.stored_as
        ),
    )
    .detail(format!(
        "{why} The stored object {} was left as it is. Nothing was stored and nothing is acknowledged, so PostgreSQL keeps the file.",
        stored.key
    ))
    .hint(
        "give the secret key on this host until PostgreSQL has archived the file; or compare them where the key is, and move \
         the object out of the archive: the next attempt stores the file anew",
    )
    .remedy(Remedy::ReadingKey { method });
    match locked {
        Some(locked) => error.source(locked),
        None => error,
    }
}

/// The position in bytes of the first difference between the file and what `stored` decodes to; `None` without one. The
/// end of the shorter one is a difference.
///
/// # Errors
/// As [`same_content`].
pub(super) async fn first_difference(
    archive: &Archive,
    source: &Source,
    stored: &StoredWal,
) -> Result<Option<u64>> {
    let local = source.clone();
    let difference = archive
        .decode(&stored.key, stored.codec, move |plain| {
            let difference = differ(&local, plain)?;
            local.check_unchanged()?;
            Ok(difference)
        })
        .await
        .map_err(|error| explain(source, stored, error))?;
    // No codec shows what an object without one is; every page of WAL of one server begins with the same two bytes.
    let is_segment = matches!(
        source.name,
        ArchiveFileName::Segment(_) | ArchiveFileName::Partial(_)
    );
    match difference {
        Some(0 | 1) if is_segment && stored.codec == Codec::None => Err(OpError::new(
            Kind::Configuration,
            format!(
                "object {} holds no WAL of this server; it may be encrypted",
                stored.key
            ),
        )
        .hint("use the tool that wrote it")),
        _ => Ok(difference),
    }
}

fn differ(local: &Source, plain: &mut dyn Read) -> Result<Option<u64>, ConsumeError> {
    let mut reader = local.reader();
    let mut ours = vec![0; READ_BYTES];
    let mut theirs = vec![0; READ_BYTES];
    let mut before = 0;
    loop {
        let count = reader.read(&mut ours).map_err(|e| {
            ConsumeError::Refused(OpError::from_io(e, format_args!("read {}", local.name)))
        })?;
        if count == 0 {
            // Equal so far, and the file ends here: does the object, too?
            return Ok((plain.read(&mut theirs[..1])? > 0).then_some(before));
        }
        let other = read_full(plain, &mut theirs[..count])?;
        if ours[..count] == theirs[..other] {
            before += count as u64;
            continue;
        }
        let pairs = ours[..count].iter().zip(&theirs[..other]);
        let same = pairs.take_while(|(one, other)| one == other).count();
        return Ok(Some(before + same as u64));
    }
}

/// Where the content of a file ends: after its last byte that is not zero. Blocks.
pub(super) fn content_end(source: &Source) -> Result<u64> {
    let failed = |e| OpError::from_io(e, format_args!("read {}", source.name));
    let mut reader = source.reader();
    let mut buffer = vec![0; READ_BYTES];
    let (mut before, mut end) = (0, 0);
    loop {
        let count = reader.read(&mut buffer).map_err(failed)?;
        if count == 0 {
            source.check_unchanged()?;
            return Ok(end);
        }
        if let Some(last) = buffer[..count].iter().rposition(|byte| *byte != 0) {
            end = before + last as u64 + 1;
        }
        before += count as u64;
    }
}

/// Fills `buffer` as far as the source goes.
fn read_full(source: &mut dyn Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn explain(source: &Source, stored: &StoredWal, error: OpError) -> OpError {
    // Retention, or somebody else, has removed it since it was found. Another attempt stores the file.
    if error.kind == Kind::NotFound {
        return gone(&stored.key).source(error);
    }
    if error.kind != Kind::CorruptData {
        return error;
    }
    error
        .detail(format!(
            "{} is in the archive already, but what is stored cannot be compared with the file.",
            source.name
        ))
        .hint(format!(
            "move {} out of the archive, or repair it; then PostgreSQL's next attempt stores the file anew",
            stored.key
        ))
}

/// The digest of the file's content as its object may have it; nothing where the control file is not known. Blocks.
pub(super) fn content_digest(source: &Source) -> Result<Option<ContentDigest>> {
    let Some(mut hash) = source.content_hash() else {
        return Ok(None);
    };
    each_piece(source, |piece| hash.update(piece))?;
    Ok(Some(hash.finish()))
}

/// SHA-256 of the file, 64 lower-case hexadecimal digits. Blocks.
pub(super) fn digest(source: &Source) -> Result<String> {
    let mut hash = Sha256::new();
    each_piece(source, |piece| hash.update(piece))?;
    Ok(hex(&hash.finalize()))
}

/// Reads the whole file, which does not change meanwhile. Blocks.
fn each_piece(source: &Source, mut take: impl FnMut(&[u8])) -> Result<()> {
    let failed = |e| OpError::from_io(e, format_args!("read {}", source.name));
    let mut reader = source.reader();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let count = reader.read(&mut buffer).map_err(failed)?;
        if count == 0 {
            return source.check_unchanged();
        }
        take(&buffer[..count]);
    }
}
