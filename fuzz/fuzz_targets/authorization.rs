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

    #[derive(Clone, Copy)]
    pub(crate) enum TokenFor {
        Everything,
        Reads,
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

    #[allow(dead_code, reason = "the guard gives it, and nobody here looks")]
    pub(crate) struct Failure(StatusCode);

    impl Failure {
        pub(crate) fn new(status: StatusCode, _kind: &str, _message: impl Into<String>) -> Self {
            Self(status)
        }

        pub(crate) fn of(_kind: wale_ops::Kind, _message: impl Into<String>) -> Self {
            Self(StatusCode::BAD_REQUEST)
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
    #[allow(dead_code, reason = "the guard does not look at the name")]
    pub(crate) enum Route<'a> {
        Ping,
        Status,
        WalPush(&'a str),
    }

    impl Route<'_> {
        pub(crate) fn is_probe(self) -> bool {
            matches!(self, Self::Ping)
        }
    }
}

use options::TokenFor::{Everything, Reads};
use routes::Route;

const TOKEN: &str = "s3cret";
/// The token at each of the three places that it may have in a group of base64, without letters of which a part are
/// other bits: those before it, and those that nobody reads at the end.
const ENCODED: [&str; 3] = ["czNjcmV0", "MzY3Jld", "zM2NyZX"];

fuzz_target!(|data: &[u8]| {
    let Ok(value) = HeaderValue::from_bytes(data) else {
        return;
    };
    let mut headers = HeaderMap::new();
    headers.insert(header::AUTHORIZATION, value);
    let token = options::HttpToken(TOKEN);
    let text = String::from_utf8_lossy(data);
    let shows = text.contains(TOKEN) || ENCODED.iter().any(|encoded| text.contains(encoded));
    let comes_in = |route, what| guard::token(route, &headers, Some(&token), what).is_ok();
    for (route, what) in [
        (Route::WalPush("x"), Everything),
        (Route::Status, Everything),
        (Route::Status, Reads),
    ] {
        assert!(shows || !comes_in(route, what), "{text}");
    }
    assert!(comes_in(Route::Ping, Everything) && comes_in(Route::WalPush("x"), Reads));
});
