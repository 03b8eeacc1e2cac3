//! What the proxy sees, what it is told to do about it, and how often.

use std::sync::Arc;
use std::time::Duration;

use super::kind::Kind;
use super::message::{Head, percent_decode};
use crate::azure::seen as azure;
use crate::gcs::seen as google;

/// A request that the proxy has seen.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Which verb it is.
    pub kind: Kind,
    /// The object's name within the bucket, decoded; empty for the bucket itself.
    pub key: String,
    /// `GET`, `PUT` …
    pub method: String,
    /// The path as it was sent, without host and query.
    pub path: String,
    /// The query as it was sent.
    pub query: String,
    /// The headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The status that the client was sent, 0 as long as or because it got none.
    pub status: u16,
}

impl Seen {
    /// The value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Reads a request's head. `bucket` is taken off the path where it leads it.
    pub(super) fn new(head: &Head, bucket: &str) -> Self {
        let mut words = head.first.split(' ');
        let method = words.next().unwrap_or_default().to_owned();
        let target = origin_form(words.next().unwrap_or_default());
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let range = head.get("content-range").unwrap_or_default();
        let (kind, key) = azure::kind_and_key(&method, path, query)
            .or_else(|| google::kind_and_key(&method, path, query, range))
            .unwrap_or_else(|| kind_and_key(&method, path, query, bucket));
        Self {
            kind,
            key,
            method,
            path: path.to_owned(),
            query: query.to_owned(),
            headers: head
                .headers
                .iter()
                .map(|(name, value)| (name.to_lowercase(), value.clone()))
                .collect(),
            status: 0,
        }
    }
}

/// The part of a request target that a server wants: a proxy is sent the whole address.
pub(super) fn origin_form(target: &str) -> &str {
    let Some((_, rest)) = target.split_once("://") else {
        return target;
    };
    rest.find('/').map_or("/", |slash| &rest[slash..])
}

fn kind_and_key(method: &str, path: &str, query: &str, bucket: &str) -> (Kind, String) {
    let decoded = percent_decode(path);
    let decoded = below_account(&decoded);
    let key = match decoded.strip_prefix(bucket) {
        Some("") => "",
        Some(rest) if rest.starts_with('/') => rest.trim_start_matches('/'),
        _ => decoded,
    };
    (kind(method, key, query), key.to_owned())
}

/// What follows the account in a path of Swift's (`/v1/AUTH_test/bkt//key`); all of it where there is none.
fn below_account(path: &str) -> &str {
    let path = path.trim_start_matches('/');
    match path.strip_prefix("v1/AUTH_") {
        Some(rest) => rest.split_once('/').map_or("", |(_, rest)| rest),
        None => path,
    }
}

fn kind(method: &str, key: &str, query: &str) -> Kind {
    let has = |name: &str| {
        query
            .split('&')
            .any(|pair| pair.split('=').next() == Some(name))
    };
    match (method, key.is_empty()) {
        ("PUT", false) if has("partNumber") => Kind::PutPart,
        ("PUT", false) => Kind::Put,
        ("POST", false) if has("uploads") => Kind::CreateUpload,
        ("POST", false) if has("uploadId") => Kind::CompleteUpload,
        ("DELETE", false) if has("uploadId") => Kind::AbortUpload,
        ("DELETE", false) => Kind::Delete,
        ("GET", false) if !has("uploadId") => Kind::Get,
        ("HEAD", false) => Kind::Head,
        ("POST", true) if has("delete") || has("bulk-delete") => Kind::DeleteMany,
        ("GET", true) if has("uploads") => Kind::ListUploads,
        ("GET", true) if has("list-type") || query.is_empty() || has("prefix") => Kind::List,
        _ => Kind::Other,
    }
}

/// A question about a request.
type Condition = Arc<dyn Fn(&Seen) -> bool + Send + Sync>;

/// Which requests a fault befalls. Without any condition: all.
#[derive(Clone, Default)]
pub struct Fault {
    kinds: Vec<Kind>,
    key: Option<String>,
    condition: Option<Condition>,
    after: u32,
    times: Option<u32>,
}

impl Fault {
    /// Every request.
    #[must_use]
    pub fn any() -> Self {
        Self::default()
    }

    /// Requests of these kinds.
    #[must_use]
    pub fn on(kinds: &[Kind]) -> Self {
        Self {
            kinds: kinds.to_vec(),
            ..Self::default()
        }
    }

    /// Only those whose key holds this text.
    #[must_use]
    pub fn key(mut self, text: &str) -> Self {
        self.key = Some(text.to_owned());
        self
    }

    /// Only those of which this is true.
    #[must_use]
    pub fn when(mut self, condition: impl Fn(&Seen) -> bool + Send + Sync + 'static) -> Self {
        self.condition = Some(Arc::new(condition));
        self
    }

    /// Lets the first `count` of them pass.
    #[must_use]
    pub fn after(mut self, count: u32) -> Self {
        self.after = count;
        self
    }

    /// Ends after it befell `count` of them.
    #[must_use]
    pub fn times(mut self, count: u32) -> Self {
        self.times = Some(count);
        self
    }

    /// Ends after it befell one.
    #[must_use]
    pub fn once(self) -> Self {
        self.times(1)
    }

    /// Whether it befalls this request; counts. The trials with which wale finds out what a store does go on in the
    /// background, so only a fault of everything, or one that names them, befalls them.
    pub(super) fn befalls(&mut self, seen: &Seen) -> bool {
        const TRIAL: &str = "wale_probe_";
        let is_meant = self.kinds.is_empty()
            || self
                .key
                .as_ref()
                .is_some_and(|text| text.contains("wale_probe"));
        if seen.key.contains(TRIAL) && !is_meant {
            return false;
        }
        let fits = (self.kinds.is_empty() || self.kinds.contains(&seen.kind))
            && self.key.as_ref().is_none_or(|text| seen.key.contains(text))
            && self.condition.as_ref().is_none_or(|holds| holds(seen));
        if !fits || self.times == Some(0) {
            return false;
        }
        if self.after > 0 {
            self.after -= 1;
            return false;
        }
        if let Some(times) = &mut self.times {
            *times -= 1;
        }
        true
    }
}

impl std::fmt::Debug for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fault")
    }
}

/// A change of a body.
pub type Edit = Arc<dyn Fn(&mut Vec<u8>) + Send + Sync>;

/// What the proxy does to a request.
#[derive(Clone)]
pub enum Action {
    /// Passes it on after a while.
    Delay(Duration),
    /// Reads it and never answers.
    Stall,
    /// Ends the connection without having read the body; the store hears nothing.
    CutBefore,
    /// Ends both connections after so many bytes of the body.
    CutUpload(u64),
    /// Lets the store do its work, and ends the connection in place of its reply.
    LoseReply,
    /// Ends the connection after so many bytes of the reply's body.
    CutReply(u64),
    /// Goes silent after so many bytes of the reply's body.
    StallReply(u64),
    /// Answers in the store's place; the store hears nothing.
    Answer(Answer),
    /// The same, with an answer that depends on the request.
    AnswerWith(Arc<dyn Fn(&Seen) -> Answer + Send + Sync>),
    /// Lets the store do its work, and answers something else.
    ReplaceReply(Answer),
    /// Takes a header out of the request.
    StripHeader(&'static str),
    /// Adds this to the request's query.
    AddQuery(&'static str),
    /// Takes a pair out of the request's query.
    StripQuery(&'static str),
    /// Changes the body on its way to the store. The length that is declared follows.
    EditUpload(Edit),
    /// Changes the body on its way back. The length that is declared follows.
    EditReply(Edit),
}

impl std::fmt::Debug for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Action")
    }
}

impl Action {
    /// Flips one bit in the middle of what is uploaded.
    #[must_use]
    pub fn garble_upload() -> Self {
        Self::EditUpload(Arc::new(|body| flip_the_middle(body)))
    }

    /// Flips one bit in the middle of what is downloaded.
    #[must_use]
    pub fn garble_reply() -> Self {
        Self::EditReply(Arc::new(|body| flip_the_middle(body)))
    }

    /// Loses one byte from the middle of what is uploaded.
    #[must_use]
    pub fn shorten_upload() -> Self {
        Self::EditUpload(Arc::new(drop_the_middle))
    }

    /// Loses one byte from the middle of what is downloaded.
    #[must_use]
    pub fn shorten_reply() -> Self {
        Self::EditReply(Arc::new(drop_the_middle))
    }

    /// Hides the objects whose name holds `text` from a listing of Google's.
    #[must_use]
    pub fn hide_from_json_list(text: &str) -> Self {
        let text = text.to_owned();
        Self::EditReply(Arc::new(move |body| {
            let mut page: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
            if let Some(items) = page["items"].as_array_mut() {
                items.retain(|item| !item["name"].as_str().is_some_and(|n| n.contains(&text)));
            }
            *body = page.to_string().into_bytes();
        }))
    }

    /// Hides the objects whose key holds `text` from a listing.
    #[must_use]
    pub fn hide_from_list(text: &str) -> Self {
        let text = text.to_owned();
        Self::EditReply(Arc::new(move |body| {
            let xml = String::from_utf8_lossy(body).into_owned();
            // S3's element of an object, and Azure's.
            let xml = ["Contents", "Blob"]
                .iter()
                .fold(xml, |xml, element| without_entries(&xml, element, &text));
            *body = xml.into_bytes();
        }))
    }
}

/// A listing without the elements that hold this text.
fn without_entries(xml: &str, element: &str, text: &str) -> String {
    let (open, close) = (format!("<{element}>"), format!("</{element}>"));
    let mut kept = String::new();
    for (n, piece) in xml.split(&open).enumerate() {
        let (entry, rest) = piece.split_once(&close).unwrap_or(("", piece));
        if n == 0 {
            kept.push_str(piece);
        } else if entry.contains(text) {
            kept.push_str(rest);
        } else {
            kept.push_str(&open);
            kept.push_str(piece);
        }
    }
    kept
}

/// A query without the pair of this name.
pub(super) fn without(target: &str, name: &str) -> String {
    let Some((path, query)) = target.split_once('?') else {
        return target.to_owned();
    };
    let pairs = query.split('&');
    let kept: Vec<&str> = pairs
        .filter(|pair| pair.split('=').next() != Some(name))
        .collect();
    format!("{path}?{}", kept.join("&"))
}

fn flip_the_middle(body: &mut [u8]) {
    let middle = body.len() / 2;
    if let Some(byte) = body.get_mut(middle) {
        *byte ^= 1;
    }
}

fn drop_the_middle(body: &mut Vec<u8>) {
    if !body.is_empty() {
        body.remove(body.len() / 2);
    }
}

/// A reply of our own.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Further headers.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

impl Answer {
    /// A reply without further headers.
    #[must_use]
    pub fn new(status: u16, body: &str) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.to_owned(),
        }
    }

    /// An error in S3's form.
    #[must_use]
    pub fn error(status: u16, code: &str, message: &str) -> Self {
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{message}</Message>\
             <RequestId>0000000000000000</RequestId></Error>"
        );
        Self::new(status, &body).header("Content-Type", "application/xml")
    }

    /// An error in Azure's form.
    #[must_use]
    pub fn azure_error(status: u16, code: &str, message: &str) -> Self {
        let body = format!(
            "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>{code}</Code><Message>{message}\n\
             RequestId:00000000-0000-0000-0000-000000000000</Message></Error>"
        );
        Self::new(status, &body)
            .header("Content-Type", "application/xml")
            .header("x-ms-error-code", code)
    }

    /// With a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The head and the body as they are sent in answer to a request of `method`.
    pub(super) fn message(&self, method: &str) -> (Head, &[u8]) {
        let mut headers = self.headers.clone();
        headers.push(("Content-Length".into(), self.body.len().to_string()));
        let head = Head {
            first: format!("HTTP/1.1 {} -", self.status),
            headers,
        };
        let body = if method == "HEAD" { "" } else { &self.body };
        (head, body.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(first: &str) -> Seen {
        let head = Head {
            first: first.into(),
            headers: Vec::new(),
        };
        Seen::new(&head, "bkt")
    }

    #[test]
    fn kinds_and_keys() {
        for (first, kind, key) in [
            ("PUT /bkt/a/b%20c HTTP/1.1", Kind::Put, "a/b c"),
            (
                "PUT /bkt/a?partNumber=1&uploadId=u HTTP/1.1",
                Kind::PutPart,
                "a",
            ),
            ("POST /bkt/a?uploads HTTP/1.1", Kind::CreateUpload, "a"),
            ("POST /bkt/a?uploads= HTTP/1.1", Kind::CreateUpload, "a"),
            ("POST /bkt/a?uploadId=u HTTP/1.1", Kind::CompleteUpload, "a"),
            ("DELETE /bkt/a?uploadId=u HTTP/1.1", Kind::AbortUpload, "a"),
            ("DELETE /bkt/a HTTP/1.1", Kind::Delete, "a"),
            ("POST /bkt?delete HTTP/1.1", Kind::DeleteMany, ""),
            ("GET /bkt?uploads&prefix=a HTTP/1.1", Kind::ListUploads, ""),
            ("GET /bkt?list-type=2&prefix=a%2F HTTP/1.1", Kind::List, ""),
            ("GET /bkt/a HTTP/1.1", Kind::Get, "a"),
            ("HEAD http://bkt.s3.test:80/a HTTP/1.1", Kind::Head, "a"),
            (
                "GET http://bkt.s3.test/?list-type=2 HTTP/1.1",
                Kind::List,
                "",
            ),
            ("HEAD /bkt HTTP/1.1", Kind::Other, ""),
            ("PUT /v1/AUTH_test/bkt//a/b HTTP/1.1", Kind::Put, "a/b"),
            (
                "PUT /v1/AUTH_test/bkt/wale_segments/a HTTP/1.1",
                Kind::Put,
                "wale_segments/a",
            ),
            (
                "GET /v1/AUTH_test/bkt?format=json&prefix=%2Fa HTTP/1.1",
                Kind::List,
                "",
            ),
            (
                "POST /v1/AUTH_test?bulk-delete= HTTP/1.1",
                Kind::DeleteMany,
                "",
            ),
        ] {
            let seen = seen(first);
            assert_eq!((seen.kind, seen.key.as_str()), (kind, key), "{first}");
        }
    }

    #[test]
    fn a_fault_befalls_what_it_is_told_to() {
        let mut fault = Fault::on(&[Kind::Put]).key("wal").after(1).times(2);
        let put = seen("PUT /bkt/wal/1 HTTP/1.1");
        let befallen: Vec<bool> = (0..5).map(|_| fault.befalls(&put)).collect();
        assert_eq!(befallen, [false, true, true, false, false]);
        let mut fault = Fault::on(&[Kind::Put]).key("wal");
        assert!(!fault.befalls(&seen("GET /bkt/wal/1 HTTP/1.1")));
        assert!(!fault.befalls(&seen("PUT /bkt/other HTTP/1.1")));
        assert!(Fault::any().befalls(&put));
    }

    #[test]
    fn a_query_loses_a_pair() {
        assert_eq!(without("/a?b=1&c=2", "b"), "/a?c=2");
        assert_eq!(without("/a", "b"), "/a");
    }

    #[test]
    fn a_listing_loses_what_is_hidden() {
        let Action::EditReply(edit) = Action::hide_from_list("b") else {
            unreachable!("it is an edit");
        };
        let mut body = b"<L><Contents><Key>a</Key></Contents><Contents><Key>b</Key></Contents>\
            <Contents><Key>c</Key></Contents></L>"
            .to_vec();
        edit(&mut body);
        assert_eq!(
            String::from_utf8(body).unwrap(),
            "<L><Contents><Key>a</Key></Contents><Contents><Key>c</Key></Contents></L>"
        );
    }
}
