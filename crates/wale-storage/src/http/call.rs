//! A request as a store puts it together, without what shows who asks.

use std::time::Duration;

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue, Method};

use super::options::HttpTimeouts;
use super::transport::{Outgoing, Payload};

/// A request for something of a store's.
#[derive(Debug, Clone)]
pub(crate) struct HttpCall<'a, T> {
    pub(crate) method: Method,
    pub(crate) target: T,
    pub(crate) query: Vec<(&'a str, &'a str)>,
    pub(crate) headers: HeaderMap,
    pub(crate) payload: Payload,
    answer_limit: Option<Duration>,
}

impl<'a, T> HttpCall<'a, T> {
    pub(crate) fn new(method: Method, target: T) -> Self {
        Self {
            method,
            target,
            query: Vec::new(),
            headers: HeaderMap::new(),
            payload: Payload::default(),
            answer_limit: None,
        }
    }

    /// With these, too, in the query.
    pub(crate) fn query(mut self, pairs: &[(&'a str, &'a str)]) -> Self {
        self.query.extend_from_slice(pairs);
        self
    }

    /// With this header. The value is one of ours, or was checked where it came in.
    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(HeaderName::from_static(name), value);
        }
        self
    }

    /// With all these headers.
    pub(crate) fn headers(mut self, headers: &HeaderMap) -> Self {
        for (name, value) in headers {
            self.headers.insert(name, value.clone());
        }
        self
    }

    /// With this body.
    pub(crate) fn payload(mut self, payload: impl Into<Payload>) -> Self {
        self.payload = payload.into();
        self
    }

    /// With this time for the server to think.
    pub(crate) fn answer_limit(mut self, limit: Duration) -> Self {
        self.answer_limit = Some(limit);
        self
    }

    /// The same on its way to this address, with these headers.
    pub(crate) fn outgoing(
        &self,
        url: String,
        headers: HeaderMap,
        timeouts: &HttpTimeouts,
    ) -> Outgoing {
        Outgoing {
            method: self.method.clone(),
            url,
            headers,
            answer_limit: self
                .answer_limit
                .unwrap_or_else(|| timeouts.answer_to_upload(self.payload.len())),
            payload: self.payload.clone(),
        }
    }
}
