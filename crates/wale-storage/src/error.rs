//! What can go wrong with a store, as situations and not as sources.
//!
//! The variants are what the caller must distinguish to act; the cause (an `errno`, later an HTTP status)
//! is kept as the error's source. Messages name the object or the place and never hold a secret.

use chrono::{DateTime, SecondsFormat, Utc};

use crate::{InvalidKey, ObjectKey};

/// The cause of an error, whatever its type.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why an operation on a store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store was asked, and does not have this object.
    #[error("object {key} does not exist")]
    NotFound {
        /// The object asked for.
        key: ObjectKey,
    },
    /// The store could not be asked, or did not answer: a folder that is not mounted, a network that is
    /// away, a server that is busy. It says nothing about the object, and asking again may help.
    #[error("{location} is not available: {reason}")]
    Unavailable {
        /// The store, as [`crate::Store::location`] prints it.
        location: String,
        /// What was seen, in lower case.
        reason: String,
        /// The cause, where there is one.
        source: Option<BoxError>,
    },
    /// There is no room left: the device, the quota or the table of inodes is full.
    #[error("no space left for {what}")]
    Full {
        /// The object or folder that found no room.
        what: String,
        /// The cause, where there is one.
        source: Option<BoxError>,
    },
    /// The store refuses this to us: access rights, or a read-only file system.
    #[error("permission denied for {what}")]
    PermissionDenied {
        /// The object or folder that was refused.
        what: String,
        /// The cause, where there is one.
        source: Option<BoxError>,
    },
    /// The object's bytes are not those the store announced.
    #[error("object {key} is damaged: {reason}")]
    Damaged {
        /// The object that was read.
        key: ObjectKey,
        /// What does not fit, with numbers.
        reason: String,
    },
    /// The body handed to a put failed, so nothing was stored. The fault lies with the source of the bytes.
    #[error("the content of object {key} could not be produced")]
    BodyFailed {
        /// The object that was to be stored.
        key: ObjectKey,
        /// What the body said.
        source: BodyError,
    },
    /// The text cannot be an object's name, or not in this store.
    #[error(transparent)]
    InvalidKey(#[from] InvalidKey),
    /// The store, or what stands in its place, cannot be used as it is configured. It says nothing about
    /// any object, and asking again does not help until somebody changes something.
    #[error("{location} cannot be used: {reason}")]
    Misconfigured {
        /// The store, as [`crate::Store::location`] prints it.
        location: String,
        /// What is wrong.
        problem: Misconfiguration,
        /// What was seen, in lower case.
        reason: String,
        /// The cause, where there is one.
        source: Option<BoxError>,
    },
    /// The store keeps an object from being deleted or replaced for some time.
    #[error("object {key} is retained{}", until_when(*.until))]
    Retained {
        /// The object.
        key: ObjectKey,
        /// When the retention ends, where the store says so; a legal hold has no end.
        until: Option<DateTime<Utc>>,
        /// The cause.
        source: BoxError,
    },
    /// The store answered with a failure that is none of the above, such as a read error of the device.
    #[error("input/output error with {what}")]
    Io {
        /// The object or folder concerned.
        what: String,
        /// The cause.
        source: BoxError,
    },
}

/// Why a store cannot be used as it is configured: each is a situation that another person, or another
/// command, mends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misconfiguration {
    /// An option of the store cannot be used.
    BadOptions,
    /// The bucket does not exist, or exists no longer.
    NoSuchBucket,
    /// The bucket is in another region.
    OtherRegion,
    /// The clocks of this host and of the store differ too much for a signature to be accepted.
    ClockSkew,
    /// The store does not know the access key.
    UnknownAccessKey,
    /// The store computes another signature: the secret belongs to another key, or something on the way
    /// changes requests.
    WrongSignature,
    /// The credentials have expired, and new ones of the same source are no better.
    ExpiredCredentials,
    /// The login service refuses the user, the password, or what they were to be used for.
    LoginRefused,
    /// There are no credentials: the file, the service or the role that should give them does not.
    NoCredentials,
    /// The server's certificate is not trusted: expired, another host's, or signed by an unknown authority.
    UntrustedServer,
    /// The answer is not in the endpoint's protocol: TLS was spoken to a port without it, or the other way round.
    OtherProtocol,
    /// The server does not know the checksum that is sent along with objects.
    UnknownChecksum,
    /// The server does not do what was asked of it.
    Unsupported,
    /// The object is in a storage class that cannot be read without restoring it first.
    ArchivedClass,
    /// Nothing is under the names that are meant, and something is under those of another tool's spelling.
    OtherNames,
}

impl Misconfiguration {
    /// What to do.
    #[must_use]
    pub fn hint(self) -> &'static str {
        match self {
            Self::BadOptions => "correct the option that is named above",
            Self::NoSuchBucket => {
                "check the name of the bucket or container, and the endpoint; one that was deleted has taken its archive \
                 along"
            }
            Self::OtherRegion => "set the region in which the bucket is",
            Self::ClockSkew => "set this host's clock; signatures are accepted for 15 minutes",
            Self::UnknownAccessKey => {
                "check the access key, and that it belongs to this endpoint; temporary keys need their session token"
            }
            Self::WrongSignature => {
                "check the secret key, and what else a signature is made of: the account or the region, and the way in \
                 which a request names the bucket"
            }
            Self::ExpiredCredentials => "renew the credentials at their source",
            Self::LoginRefused => {
                "check the user, the password, and what they belong to: tenant, project, domains, version of the login"
            }
            Self::NoCredentials => "check the source of the credentials that is named above",
            Self::UntrustedServer => {
                "check the endpoint's name and certificate; a private authority is trusted by a CA file"
            }
            Self::OtherProtocol => {
                "check whether the endpoint begins with http or https, and its port; a plain port needs http"
            }
            Self::UnknownChecksum => {
                "send MD5 along, or none where an S3 server refuses that, too; what it stores is then compared in another way"
            }
            Self::Unsupported => {
                "use an endpoint that offers this, or a setting that goes without it"
            }
            Self::ArchivedClass => "restore the object into a readable storage class first",
            Self::OtherNames => {
                "say which tool's spelling is meant, wal-e or wal-g: after that wale does not ask"
            }
        }
    }
}

fn until_when(moment: Option<DateTime<Utc>>) -> String {
    moment.map_or_else(String::new, |moment| {
        format!(
            " until {}",
            moment.to_rfc3339_opts(SecondsFormat::Secs, true)
        )
    })
}

impl StoreError {
    /// What to do, where the situation itself says it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Misconfigured { problem, .. } => Some(problem.hint()),
            Self::PermissionDenied { .. } if self.server_reply().is_some() => Some(
                "check what the credentials may do below the archive's prefix: list, read, write and delete; the store's \
                 page in the guide has the policy",
            ),
            Self::Retained { .. } => Some("wait until the retention has ended"),
            _ => None,
        }
    }

    /// Whether asking again, unchanged and soon, may succeed. A full store is not transient: it waits for
    /// an operator, who takes longer than a retry should.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }

    /// Whether the store was asked and does not have the object.
    #[must_use]
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// What the store's server reported, if it was a server and it did.
    #[must_use]
    pub fn server_reply(&self) -> Option<&ServerReply> {
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            if let Some(reply) = error.downcast_ref() {
                return Some(reply);
            }
            cause = error.source();
        }
        None
    }

    /// An [`StoreError::Unavailable`] without a cause.
    pub fn unavailable(location: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Unavailable {
            location: location.into(),
            reason: reason.into(),
            source: None,
        }
    }
}

/// An error as a server reported it, in its own words: the cause of a [`StoreError`]. What the server did not say is
/// empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, thiserror::Error)]
#[error("HTTP status {status}{}{}{}", after(" ", .code), after(": ", .message), after(", request ", .request_id))]
pub struct ServerReply {
    /// The status of the answer, or the one that this error would have had alone.
    pub status: u16,
    /// The store's own code for the situation.
    pub code: String,
    /// What it says to people.
    pub message: String,
    /// How its log calls the request.
    pub request_id: String,
}

/// A text with what comes before it, or nothing.
fn after(before: &str, text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        format!("{before}{text}")
    }
}

/// Why the body of a put ended early. A body that yields this stores nothing.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct BodyError(BoxError);

impl BodyError {
    /// Wraps any error, or a text. The original can be had back with [`BodyError::get_ref`].
    pub fn new(error: impl Into<BoxError>) -> Self {
        Self(error.into())
    }

    /// The original error, for a caller that wants to downcast it.
    #[must_use]
    pub fn get_ref(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
        self.0.as_ref()
    }

    /// The original error.
    #[must_use]
    pub fn into_inner(self) -> BoxError {
        self.0
    }
}

impl From<std::io::Error> for BodyError {
    fn from(error: std::io::Error) -> Self {
        Self::new(error)
    }
}

impl From<String> for BodyError {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl From<&str> for BodyError {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unavailable_is_transient() {
        let key = ObjectKey::new("a").expect("valid");
        let full = StoreError::Full {
            what: "object a".into(),
            source: None,
        };
        assert!(StoreError::unavailable("file:///x", "gone").is_transient());
        assert!(!full.is_transient());
        assert!(!StoreError::NotFound { key: key.clone() }.is_transient());
        assert!(StoreError::NotFound { key }.is_not_found());
    }

    #[test]
    fn messages_are_one_line_and_name_the_object() {
        let key = ObjectKey::new("wal/a").expect("valid");
        let error = StoreError::BodyFailed {
            key,
            source: BodyError::new("reader gave up"),
        };
        assert_eq!(
            error.to_string(),
            "the content of object wal/a could not be produced"
        );
        let source = std::error::Error::source(&error).expect("has a source");
        assert_eq!(source.to_string(), "reader gave up");
    }
}
