//! Google Cloud Storage for the tests: fake-gcs-server on loopback, and files of accounts that nobody has.
//!
//! What was seen of the server (fake-gcs-server 1.54.0, objects in memory):
//!
//! | | fake-gcs-server |
//! |---|---|
//! | tokens | never looked at |
//! | `ifGenerationMatch=0` of an upload in one request | 412 when the object exists |
//! | the same at the end of a resumable upload | **ignored**: the last writer wins |
//! | `ifGenerationMatch` of a deletion | ignored |
//! | CRC-32C that goes along | ignored, also when wrong; the answer has the right one |
//! | a chunk that comes a second time | **appended again** |
//! | the question how far a resumable upload is | **ends it** |
//! | reasons of errors | the words of the status (`Not Found`), where Google has reasons (`notFound`) |
//! | an object or a bucket that does not exist | 404 with the same words |
//! | names that begin with a slash, listings in pages, `startOffset`, ranges, generations | yes |
//!
//! So resumable uploads that are interrupted are tried on a server of wale-storage's own tests, which does what
//! Google's documents say.

pub(crate) mod seen;
mod server;

pub use server::GcsServer;

/// The private key of a service account, PEM, PKCS #8. It was made for these tests and opens nothing.
pub const PRIVATE_KEY: &str = include_str!("private-key.pem");

/// The file of a service account whose tokens come from `token_uri`.
#[must_use]
pub fn service_account(token_uri: &str) -> String {
    serde_json::json!({
        "type": "service_account",
        "project_id": "wale-test",
        "private_key_id": "0123456789abcdef",
        "private_key": PRIVATE_KEY,
        "client_email": "wale@wale-test.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": token_uri,
    })
    .to_string()
}
