//! From the system's error numbers to the situations of [`StoreError`].

use rustix::io::Errno;

use crate::{InvalidKey, ObjectKey, StoreError};

/// How messages call an object.
pub(super) fn object(key: &ObjectKey) -> String {
    format!("object {key}")
}

/// What an error number means for `what`, an object or a folder of the store at `location`.
pub(super) fn failed(location: &str, what: impl Into<String>, errno: Errno) -> StoreError {
    let what = what.into();
    let source = std::io::Error::from(errno);
    match errno {
        Errno::NOSPC | Errno::DQUOT => StoreError::Full {
            what,
            source: Some(source.into()),
        },
        Errno::ROFS | Errno::ACCESS | Errno::PERM => StoreError::PermissionDenied {
            what,
            source: Some(source.into()),
        },
        Errno::NAMETOOLONG => StoreError::InvalidKey(InvalidKey {
            key: what.strip_prefix("object ").unwrap_or(&what).to_owned(),
            reason: "the file system takes no name of this length",
        }),
        // A network file system that is away (STALE, NOTCONN, the network's own), a volume that was
        // pulled (NODEV, NXIO), or a process that is short of descriptors for the moment.
        Errno::STALE
        | Errno::NOTCONN
        | Errno::HOSTDOWN
        | Errno::HOSTUNREACH
        | Errno::NETDOWN
        | Errno::NETUNREACH
        | Errno::CONNABORTED
        | Errno::CONNREFUSED
        | Errno::CONNRESET
        | Errno::TIMEDOUT
        | Errno::NODEV
        | Errno::NXIO
        | Errno::SHUTDOWN
        | Errno::MFILE
        | Errno::NFILE
        | Errno::NOMEM => StoreError::Unavailable {
            location: location.to_owned(),
            reason: format!("{what} cannot be reached"),
            source: Some(source.into()),
        },
        _ => StoreError::Io {
            what,
            source: source.into(),
        },
    }
}

/// As [`failed`], for the errors of the standard library's calls.
pub(super) fn failed_io(
    location: &str,
    what: impl Into<String>,
    error: std::io::Error,
) -> StoreError {
    match Errno::from_io_error(&error) {
        Some(errno) => failed(location, what, errno),
        None => StoreError::Io {
            what: what.into(),
            source: error.into(),
        },
    }
}

/// An entry of the file system that is in the way: it is there, and is no object or folder of ours.
pub(super) fn in_the_way(what: impl Into<String>, reason: &'static str) -> StoreError {
    StoreError::Io {
        what: what.into(),
        source: reason.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_become_situations() {
        type Check = fn(&StoreError) -> bool;
        let full: Check = |e| matches!(e, StoreError::Full { .. });
        let denied: Check = |e| matches!(e, StoreError::PermissionDenied { .. });
        let unavailable: Check = |e| matches!(e, StoreError::Unavailable { .. });
        let io: Check = |e| matches!(e, StoreError::Io { .. });
        let cases = [
            (Errno::NOSPC, full),
            (Errno::DQUOT, full),
            (Errno::ROFS, denied),
            (Errno::ACCESS, denied),
            (Errno::PERM, denied),
            (Errno::STALE, unavailable),
            (Errno::NOTCONN, unavailable),
            (Errno::MFILE, unavailable),
            (Errno::IO, io),
            (Errno::ISDIR, io),
        ];
        for (errno, expected) in cases {
            let error = failed("file:///x", "object a", errno);
            assert!(expected(&error), "{errno:?} became {error:?}");
            assert!(error.to_string().contains("object a"), "{error}");
        }
    }
}
