//! The `Authorization` header: nobody comes in who does not show the token.

#![no_main]

use http::{HeaderMap, HeaderValue, header};
use libfuzzer_sys::fuzz_target;

// The room keeps the module to itself; its neighbours stand in as far as it needs them.
#[path = "../../crates/wale-service/src/http/guard.rs"]
#[allow(dead_code, reason = "the room's module, as it is")]
mod guard;

mod options {
    use std::time::Duration;

    pub(crate) struct HttpLimits {
        pub(crate) url_bytes: usize,
        pub(crate) body_bytes: usize,
        pub(crate) body_timeout: Duration,
    }

    pub(crate) struct HttpToken(pub(crate) &'static str);

    impl HttpToken {
        pub(crate) fn matches(&self, shown: &[u8]) -> bool {
            self.0.as_bytes() == shown
        }
    }
}

mod reply {
    use hyper::StatusCode;

    pub(crate) struct Failure(pub(crate) StatusCode);

    impl Failure {
        pub(crate) fn new(status: StatusCode, _kind: &str, _message: impl Into<String>) -> Self {
            Self(status)
        }

        pub(crate) fn closing(self) -> Self {
            self
        }

        pub(crate) fn hint(self, _hint: &str) -> Self {
            self
        }
    }
}

mod routes {
    #[derive(Clone, Copy)]
    pub(crate) struct Route<'a>(pub(crate) &'a str);

    impl Route<'_> {
        pub(crate) fn is_probe(self) -> bool {
            self.0 == "ping"
        }

        pub(crate) fn changes_something(self) -> bool {
            self.0 == "push"
        }
    }
}

const TOKEN: &str = "s3cret";
/// The token at each of the three places that it may have in a group of base64, without letters of which a part are
/// other bits: those before it, and those that nobody reads at the end.
const ENCODED: [&str; 3] = ["czNjcmV0", "MzY3Jld", "zM2NyZX"];

fuzz_target!(|data: &[u8]| {
    let Ok(value) = HeaderValue::from_bytes(data) else {
        return;
    };
    let mut headers = HeaderMap::new();
    headers.insert(header::AUTHORIZATION, value.clone());
    headers.insert(header::HOST, value.clone());
    headers.insert(header::USER_AGENT, value);
    let token = options::HttpToken(TOKEN);
    let route = routes::Route("push");
    let came_in = guard::token(route, &headers, Some(&token)).is_ok();
    let text = String::from_utf8_lossy(data);
    let shows = text.contains(TOKEN) || ENCODED.iter().any(|encoded| text.contains(encoded));
    assert!(shows || !came_in, "{text}");
    assert!(guard::token(routes::Route("ping"), &headers, Some(&token)).is_ok());
    for route in [routes::Route("push"), routes::Route("status")] {
        if let Err(failure) = guard::origin(route, &headers) {
            assert_eq!(failure.0, hyper::StatusCode::FORBIDDEN);
        }
    }
});
