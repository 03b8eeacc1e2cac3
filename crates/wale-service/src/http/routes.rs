//! The one table of routes.
//!
//! Pure. Paths are compared raw, as they came. Invariant: only the probes and the JSON routes ever answer a failure in
//! the plain manner. Everything else, an unknown path included, is cut short: a slip in somebody's `archive_command`
//! (`/walpush/…`) must not look like success to a `curl` without `-f`.

use hyper::Method;
use hyper::header::HeaderValue;

use super::answer::{ABSENT, ARCHIVED, MAY_START, SENT};
use super::connections::Share;
use super::name;
use super::reply::Manner;

/// What a path asks for. The text is the raw rest after a WAL route's prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    Ping,
    Startup,
    Live,
    Ready,
    WalPush(&'a str),
    WalFetch(&'a str),
    Wal(&'a str),
    WalAbsent(&'a str),
    BackupPush,
    Backups,
    Status,
    Metrics,
    Page,
}

/// A route that does not exist, or not with this method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoRoute<'a> {
    /// No such path.
    Path,
    /// The path exists, with these methods.
    Method {
        route: Route<'a>,
        allow: &'static str,
    },
}

const GET: &str = "GET";
const GET_HEAD: &str = "GET, HEAD";
const GET_POST: &str = "GET, POST";

/// Finds what a request asks for.
pub(crate) fn find<'a>(method: &Method, path: &'a str) -> Result<Route<'a>, NoRoute<'a>> {
    let rest = |prefix: &str| path.strip_prefix(prefix);
    let (route, allow) = match path {
        "/ping" => (Route::Ping, GET_HEAD),
        "/startupz" => (Route::Startup, GET_HEAD),
        "/livez" => (Route::Live, GET_HEAD),
        "/readyz" => (Route::Ready, GET_HEAD),
        "/backup-push" => (Route::BackupPush, GET_POST),
        "/backups" => (Route::Backups, GET),
        "/status" => (Route::Status, GET),
        "/metrics" => (Route::Metrics, GET),
        // With another method it is no address, which is told in the manner of one: `curl -T` fails at it.
        "/" | "/ui" if method == Method::GET => (Route::Page, GET),
        _ => {
            if let Some(name) = rest("/wal-push/").or_else(|| rest("/push/")) {
                (Route::WalPush(name), GET_POST)
            } else if let Some(name) = rest("/wal-fetch/").or_else(|| rest("/fetch/")) {
                (Route::WalFetch(name), GET)
            } else if let Some(name) = rest("/wal-absent/") {
                (Route::WalAbsent(name), GET)
            } else if let Some(name) = rest("/wal/") {
                (Route::Wal(name), GET)
            } else {
                return Err(NoRoute::Path);
            }
        }
    };
    if allow.split(", ").any(|allowed| allowed == method.as_str()) {
        Ok(route)
    } else {
        Err(NoRoute::Method { route, allow })
    }
}

/// The name of every route in metrics and logs.
#[cfg(test)]
pub(crate) fn names() -> Vec<&'static str> {
    let paths = [
        "/ping",
        "/startupz",
        "/livez",
        "/readyz",
        "/wal-push/x",
        "/wal-fetch/x",
        "/wal/x",
        "/wal-absent/x",
        "/backup-push",
        "/backups",
        "/status",
        "/metrics",
        "/",
    ];
    let found = paths
        .iter()
        .filter_map(|path| find(&Method::GET, path).ok());
    found.map(Route::name).collect()
}

impl Route<'_> {
    /// The route's name in metrics and logs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ping => "/ping",
            Self::Startup => "/startupz",
            Self::Live => "/livez",
            Self::Ready => "/readyz",
            Self::WalPush(_) => "/wal-push",
            Self::WalFetch(_) => "/wal-fetch",
            Self::Wal(_) => "/wal",
            Self::WalAbsent(_) => "/wal-absent",
            Self::BackupPush => "/backup-push",
            Self::Backups => "/backups",
            Self::Status => "/status",
            Self::Metrics => "/metrics",
            Self::Page => "/ui",
        }
    }

    /// What a 200 of this route says in [`super::answer::ANSWER_HEADER`]: a word, and the name of the file that it is about. Any program at
    /// the port may answer 200; only wale says this. `None` for routes that promise nothing.
    pub(crate) fn answer(self, query: Option<&str>) -> Option<HeaderValue> {
        let (word, rest) = match self {
            Self::Startup => return Some(HeaderValue::from_static(MAY_START)),
            Self::WalPush(rest) => (ARCHIVED, rest),
            Self::WalFetch(rest) => ("in-place", rest),
            Self::Wal(rest) => (SENT, rest),
            Self::WalAbsent(rest) => (ABSENT, rest),
            _ => return None,
        };
        let name = name::parse(rest, query).ok()?;
        HeaderValue::try_from(format!("{word} {name}")).ok()
    }

    /// PostgreSQL waits for these: they are answered however crowded it is.
    pub(crate) fn is_archive(self) -> bool {
        matches!(
            self,
            Self::WalPush(_) | Self::WalFetch(_) | Self::Wal(_) | Self::WalAbsent(_)
        )
    }

    /// Which of the connections it may hold while it is answered.
    pub(crate) fn share(self) -> Share {
        match self {
            Self::WalPush(_) => Share::Push,
            Self::Wal(_) | Self::WalAbsent(_) | Self::WalFetch(_) => Share::Recovery,
            _ => Share::Other,
        }
    }

    /// Told to anybody, token or not, crowd or not.
    pub(crate) fn is_probe(self) -> bool {
        matches!(self, Self::Ping | Self::Startup | Self::Live | Self::Ready)
    }

    /// The answer to a person with a browser, at a name that is the sidecar's own. It shows no data and causes nothing.
    pub(crate) fn is_told_to_browsers(self) -> bool {
        self.is_probe()
            || matches!(
                self,
                Self::Status | Self::Backups | Self::Metrics | Self::Page
            )
    }

    /// How a failure of this route is written.
    pub(crate) fn manner(self) -> Manner {
        if self.is_archive() {
            Manner::CutShort
        } else {
            Manner::Plain
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table() {
        let cases = [
            ("/ping", Route::Ping),
            ("/wal-push/a/b", Route::WalPush("a/b")),
            ("/push/x", Route::WalPush("x")),
            ("/wal-push/", Route::WalPush("")),
            ("/wal-fetch/x", Route::WalFetch("x")),
            ("/fetch/x", Route::WalFetch("x")),
            ("/wal/x", Route::Wal("x")),
            ("/wal-absent/x", Route::WalAbsent("x")),
            ("/backup-push", Route::BackupPush),
            ("/readyz", Route::Ready),
            ("/", Route::Page),
            ("/ui", Route::Page),
        ];
        for (path, route) in cases {
            assert_eq!(find(&Method::GET, path), Ok(route), "{path}");
        }
        for path in [
            "",
            "*",
            "//",
            "/ui/",
            "/ping/",
            "/wal-push",
            "//wal-push/x",
            "/./ping",
            "/WAL-PUSH/x",
            "/wal%2dpush/x",
            "/backup-push/",
        ] {
            assert_eq!(find(&Method::GET, path), Err(NoRoute::Path), "{path}");
        }
    }

    /// `curl -T FILE http://sidecar:5000/` must fail.
    #[test]
    fn the_page_is_read_and_nothing_else() {
        for method in [Method::HEAD, Method::POST, Method::PUT, Method::DELETE] {
            for path in ["/", "/ui"] {
                assert_eq!(find(&method, path), Err(NoRoute::Path), "{method} {path}");
            }
        }
        assert_eq!(Route::Page.answer(None), None);
        assert!(!Route::Page.is_probe() && !Route::Page.is_archive());
    }

    #[test]
    fn row63_other_methods_are_told_which_are_allowed() {
        let posts = ["/wal-push/x", "/push/x", "/backup-push"];
        let gets = [
            "/wal-fetch/x",
            "/wal/x",
            "/wal-absent/x",
            "/backups",
            "/status",
            "/metrics",
        ];
        for path in posts {
            assert!(find(&Method::POST, path).is_ok(), "{path}");
        }
        for path in posts.iter().chain(&gets) {
            for method in [
                Method::HEAD,
                Method::OPTIONS,
                Method::TRACE,
                Method::PUT,
                Method::DELETE,
                Method::CONNECT,
            ] {
                assert!(
                    matches!(find(&method, path), Err(NoRoute::Method { .. })),
                    "{method} {path}"
                );
            }
        }
        for path in gets {
            assert!(
                matches!(
                    find(&Method::POST, path),
                    Err(NoRoute::Method { allow: "GET", .. })
                ),
                "{path}"
            );
        }
    }
    /// Row 98: `wget --spider` and many monitors ask with HEAD.
    #[test]
    fn fault_98_probes_answer_head_and_nothing_else_does() {
        for path in ["/ping", "/startupz", "/livez", "/readyz"] {
            assert!(find(&Method::HEAD, path).is_ok(), "{path}");
            assert!(
                matches!(
                    find(&Method::POST, path),
                    Err(NoRoute::Method {
                        allow: "GET, HEAD",
                        ..
                    })
                ),
                "{path}"
            );
        }
        for path in ["/status", "/wal/x", "/wal-absent/x", "/wal-push/x"] {
            assert!(find(&Method::HEAD, path).is_err(), "{path}");
        }
    }
}
