//! What makes an object: the request, its condition, what the object is told, and record and content in one body.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use super::bucket::{Request, Target};
use super::resource::{MARK, RESOURCE_FIELDS};
use super::state::GcsStore;
use crate::ObjectKey;
use crate::http::marks::{content_type, random_mark};
use crate::http::part::Whole;
use crate::http::transport::Payload;
use crate::http::writes::Condition;

/// A CRC-32C as Google writes it.
pub(super) fn crc32c_text(whole: &Whole) -> String {
    BASE64_STANDARD.encode(whole.crc32c())
}

impl GcsStore {
    /// The request that makes an object in this way. Its name is part of the query.
    pub(super) fn creation<'a>(
        &'a self,
        key: &'a ObjectKey,
        way: &'a str,
        condition: Condition,
    ) -> Request<'a> {
        let inner = &*self.inner;
        let mut request = Request::new(Method::POST, Target::Upload(key))
            .query(&[("uploadType", way), ("fields", RESOURCE_FIELDS)])
            .headers(inner.bucket.customer_key());
        if condition == Condition::Create {
            request = request.query(&[("ifGenerationMatch", "0")]);
        }
        if let Some(key) = &inner.kms_key {
            request = request.query(&[("kmsKeyName", key)]);
        }
        request
    }

    /// The request that makes a whole object of this content.
    pub(super) fn creation_at_once<'a>(
        &'a self,
        key: &'a ObjectKey,
        record: &Value,
        content: &Payload,
        condition: Condition,
    ) -> Request<'a> {
        let boundary = format!("wale-{}", random_mark());
        let kind = format!("multipart/related; boundary={boundary}");
        self.creation(key, "multipart", condition)
            .header("content-type", &kind)
            .payload(related(&boundary, record, content))
    }

    /// What a new object is told. Its name stands in the request.
    pub(super) fn new_record(&self, key: &ObjectKey, mark: &str) -> Value {
        let mut record = json!({
            "contentType": content_type(key),
            "metadata": { (MARK): mark },
        });
        if let Some(class) = &self.inner.storage_class {
            record["storageClass"] = Value::String(class.clone());
        }
        record
    }
}

/// A record and the content in one body (RFC 2387).
fn related(boundary: &str, record: &Value, content: &Payload) -> Payload {
    let mut payload = Payload::default();
    let head = format!(
        "--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{record}\r\n--{boundary}\r\n\
         Content-Type: application/octet-stream\r\n\r\n"
    );
    payload.push(Bytes::from(head));
    for chunk in content.chunks() {
        payload.push(chunk.clone());
    }
    payload.push(Bytes::from(format!("\r\n--{boundary}--\r\n")));
    payload
}
