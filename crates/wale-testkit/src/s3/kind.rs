//! What a request is for.

/// The verbs of S3, and of the others in its words, by what a request looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `PutObject`.
    Put,
    /// `CreateMultipartUpload`.
    CreateUpload,
    /// `UploadPart`.
    PutPart,
    /// `CompleteMultipartUpload`.
    CompleteUpload,
    /// `AbortMultipartUpload`.
    AbortUpload,
    /// `ListMultipartUploads`.
    ListUploads,
    /// `GetObject`.
    Get,
    /// `HeadObject`.
    Head,
    /// `ListObjects`, either version.
    List,
    /// `DeleteObject`.
    Delete,
    /// `DeleteObjects`.
    DeleteMany,
    /// Anything else.
    Other,
}
