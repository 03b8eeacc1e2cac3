//! Under which names the sidecar answers, and what it answers to a browser.
//!
//! A page on the web can make a browser send requests, and a page whose own name was made to point here (DNS rebinding)
//! can also read the replies, WAL included, and set nearly every header; The one thing that it cannot change is the
//! name in `Host`. So the name decides for everybody, browser or not. It refuses to know the token.
//!
//! Invariants: an upgrade never stops archiving (a push under a strange name is served unless a browser sent it, and told
//! once); a browser causes nothing under any name.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};

use hyper::StatusCode;
use hyper::header::{
    ACCEPT_LANGUAGE, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN, REFERER, USER_AGENT,
};
use hyper::http::request::Parts;
use wale_ops::Kind;

use super::reply::Failure;
use super::routes::Route;

/// Ends of names that no public domain has: multicast DNS, private networks, and Kubernetes' services.
const PRIVATE_ENDS: [&str; 4] = [".local", ".internal", ".svc", ".cluster.local"];

const PRIORITY: HeaderName = HeaderName::from_static("priority");

/// What our page's own requests carry. Another site's page cannot send it: a browser would ask for leave first (OPTIONS), and there is none.
const OF_PAGE: HeaderName = HeaderName::from_static("wale-page");

/// Browsers send it over plain HTTP when a person opens an address or follows a link, and with nothing that a page asks for within itself
/// but a frame. A script of another site needs the same leave for it.
const OPENS: HeaderName = HeaderName::from_static("upgrade-insecure-requests");

/// The names that are accepted, and whether a strange one was reported.
#[derive(Debug)]
pub(crate) struct Hosts {
    /// In lower case; `*.` at the beginning stands for any first parts.
    more: Vec<String>,
    told: AtomicBool,
}

impl Hosts {
    pub(crate) fn new(more: &[String]) -> Self {
        Self {
            more: more.iter().map(|name| name.to_ascii_lowercase()).collect(),
            told: AtomicBool::new(false),
        }
    }

    /// Refuses requests that must not be served under the requested name, or to a browser.
    pub(crate) fn check(&self, route: Route<'_>, parts: &Parts) -> Result<(), Failure> {
        let headers = &parts.headers;
        let mut named = headers.get_all(HOST).iter();
        let host = match (named.next(), named.next()) {
            (_, Some(_)) => return Err(bad("a request has one Host header, not two")),
            (None, _) if route.is_probe() => return Ok(()),
            (None, _) => return Err(bad("a request needs a Host header")),
            (Some(host), None) => host,
        };
        if route.is_probe() {
            return Ok(());
        }
        // A whole address in the request's first line counts, too: some servers behind proxies believe that one.
        let written = parts
            .uri
            .authority()
            .map(hyper::http::uri::Authority::as_str);
        let is_own = host.to_str().is_ok_and(|host| self.accepts(host))
            && written.is_none_or(|written| self.accepts(written));
        let is_browser = is_browser(headers);
        if is_own {
            return if is_browser && !route.is_told_to_browsers() {
                Err(forbidden("a browser must not ask for this").hint("use curl or wget"))
            } else if is_from_elsewhere(route, headers, host) {
                Err(forbidden("a page of another site must not ask for this")
                    .hint("open the address in the browser itself"))
            } else {
                Ok(())
            };
        }
        if matches!(route, Route::WalPush(_)) && !is_browser {
            self.tell_once(host.as_bytes());
            return Ok(());
        }
        Err(
            forbidden("the sidecar is asked under a name that it does not know as its own").hint(
                "ask by its address, by a name without a dot, or add the name to WALE_HTTP_HOSTS \
                 (or WALE_SIDECAR_HOSTNAME)",
            ),
        )
    }

    fn accepts(&self, host: &str) -> bool {
        let Some(name) = name_of(host) else {
            return false;
        };
        let has_private_end = |name: &str| PRIVATE_ENDS.iter().any(|end| name.ends_with(end));
        let is_listed = |name: &str| {
            let mut more = self.more.iter();
            more.any(|listed| match listed.strip_prefix('*') {
                Some(end) => name.ends_with(end),
                None => name == listed,
            })
        };
        match name {
            Name::Address => true,
            Name::Words(name) => !name.contains('.') || has_private_end(&name) || is_listed(&name),
        }
    }

    fn tell_once(&self, host: &[u8]) {
        if !self.told.swap(true, Ordering::Relaxed) {
            let host: String = String::from_utf8_lossy(host).chars().take(100).collect();
            tracing::warn!(
                host = host.escape_default().to_string(),
                hint = "add the name to WALE_HTTP_HOSTS; reads and backups are refused under it",
                "WAL is pushed to the sidecar under a name that it does not know as its own; it is archived"
            );
        }
    }
}

/// What stands in `Host`, without the port.
enum Name {
    Address,
    /// In lower case, without the dot at its end.
    Words(String),
}

fn name_of(host: &str) -> Option<Name> {
    if let Some(rest) = host.strip_prefix('[') {
        let (address, _) = rest.split_once(']')?;
        return address.parse::<Ipv6Addr>().is_ok().then_some(Name::Address);
    }
    let name = host.split_once(':').map_or(host, |(name, _)| name);
    if name.parse::<Ipv4Addr>().is_ok() {
        return Some(Name::Address);
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    (!name.is_empty()).then(|| Name::Words(name.to_ascii_lowercase()))
}

/// A program that says what it is, and not a browser: some send headers as browsers do (Node's `fetch`). A page cannot call itself
/// anything else without leave.
fn names_itself(headers: &HeaderMap) -> bool {
    let agent = headers.get(USER_AGENT);
    agent.is_some_and(|agent| !agent.is_empty() && !agent.as_bytes().starts_with(b"Mozilla/"))
}

/// Our clients send none of these: curl, both wgets, Prometheus, `wale client`.
fn is_browser(headers: &HeaderMap) -> bool {
    let signs = [ORIGIN, REFERER, ACCEPT_LANGUAGE, PRIORITY];
    signs.iter().any(|sign| headers.contains_key(sign))
        || headers.keys().any(|name| name.as_str().starts_with("sec-"))
        || headers
            .get(USER_AGENT)
            .is_some_and(|agent| agent.as_bytes().starts_with(b"Mozilla/"))
}

/// Another site's page asks in the background, or shows the answer within itself. It could read nothing, but it may not even ask. A
/// link that a person follows from a chat or a wiki comes from elsewhere, too, and is no such thing. Browsers tell this over TLS
/// and on their own machine only. To an address over plain HTTP they tell from where they come, unless that site hides it. So there our
/// own page says that it is it, a person's own request shows as such, and what says nothing is not answered.
fn is_from_elsewhere(route: Route<'_>, headers: &HeaderMap, host: &HeaderValue) -> bool {
    let says = |name: &str, words: &[&str]| {
        let value = headers.get(name).map(HeaderValue::as_bytes);
        value.is_some_and(|value| words.iter().any(|word| word.as_bytes() == value))
    };
    if !headers.contains_key("sec-fetch-site") {
        let sources = || {
            let names = [ORIGIN, REFERER].into_iter();
            names.flat_map(|name| headers.get_all(name))
        };
        let is_known = headers.contains_key(OF_PAGE)
            || headers.contains_key(OPENS)
            || sources().next().is_some()
            || names_itself(headers)
            || !is_browser(headers);
        return route != Route::Page && (!is_known || sources().any(|source| !is_of(source, host)));
    }
    let is_link = says("sec-fetch-mode", &["navigate"]) && says("sec-fetch-dest", &["document"]);
    !says("sec-fetch-site", &["same-origin", "none"]) && !is_link
}

/// Whether an `Origin` or a `Referer` is of the host that is asked. Ports do not count: proxies leave them out of `Host`.
fn is_of(source: &HeaderValue, host: &HeaderValue) -> bool {
    let (Ok(source), Ok(host)) = (source.to_str(), host.to_str()) else {
        return false;
    };
    let Some((_, rest)) = source.split_once("://") else {
        return false;
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let named = authority.rsplit_once('@').map_or(authority, |(_, at)| at);
    without_port(named).eq_ignore_ascii_case(without_port(host))
}

/// The name or address of `Host`, without the port and the dot at its end.
fn without_port(host: &str) -> &str {
    let end = match host.find(']') {
        Some(end) => end + 1,
        None => host.find(':').unwrap_or(host.len()),
    };
    let name = &host[..end];
    name.strip_suffix('.').unwrap_or(name)
}

fn bad(message: &str) -> Failure {
    Failure::of(Kind::Usage, message).closing()
}

fn forbidden(message: &str) -> Failure {
    Failure::new(StatusCode::FORBIDDEN, "forbidden", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(uri: &str, headers: &[(&'static str, &str)]) -> Parts {
        let mut request = hyper::Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn fault_90_names_that_nobody_can_make_point_here_are_accepted() {
        let hosts = Hosts::new(&["wale.example.org".into(), "*.db.example".into()]);
        for host in [
            "localhost",
            "sidecar:5000",
            "SIDECAR",
            "sidecar.",
            "10.0.0.5:5000",
            "[::1]:5000",
            "[fe80::1]",
            "db.local",
            "wale.prod.internal:5000",
            "wale.ns.svc",
            "wale.ns.svc.cluster.local:5000",
            "Wale.Example.org:5000",
            "a.db.example",
        ] {
            assert!(hosts.accepts(host), "{host}");
        }
        for host in [
            "",
            ":5000",
            "evil.example",
            "127.0.0.1.evil.example",
            "evil.example:5000",
            "db.example",
            "xwale.example.org",
            "wale.example.org.evil.example",
            "svc.evil.example",
            "[evil.example]",
            "[::1",
            "localhost.evil.example.",
        ] {
            assert!(!hosts.accepts(host), "{host}");
        }
    }

    type Case<'a> = (Route<'a>, &'a [(&'static str, &'a str)], u16);

    fn judged(hosts: &Hosts, cases: &[Case<'_>]) {
        for (route, headers, expected) in cases {
            let checked = hosts.check(*route, &request("/x", headers));
            let status = checked.map_or_else(|failure| failure.status.as_u16(), |()| 200);
            assert_eq!(status, *expected, "{route:?} {headers:?}");
        }
    }

    /// Row 90: a page reads nothing and starts nothing under a name of its own, whatever it sets; archiving goes on.
    #[test]
    fn fault_90_a_page_reads_nothing_and_starts_nothing_whatever_it_sets() {
        let hosts = Hosts::new(&[]);
        let (push, backup, wal) = (Route::WalPush("x"), Route::BackupPush, Route::Wal("x"));
        let (own, evil) = (("host", "sidecar:5000"), ("host", "evil.example:5000"));
        let curl = ("user-agent", "curl/8.5.0");
        let cases: &[Case<'_>] = &[
            (push, &[own], 200),
            (wal, &[own, curl], 200),
            (backup, &[own, curl], 200),
            // A page that calls itself curl, which Firefox lets it do.
            (wal, &[evil, curl], 403),
            (backup, &[evil, curl], 403),
            (Route::WalAbsent("x"), &[evil], 403),
            (Route::WalFetch("x"), &[evil], 403),
            (Route::Status, &[evil], 403),
            (Route::Backups, &[evil], 403),
            (Route::Metrics, &[evil], 403),
            // An upgrade stops no archiving.
            (push, &[evil, curl], 200),
            (push, &[evil, ("accept-language", "de")], 403),
            (push, &[evil, ("sec-fetch-mode", "cors")], 403),
            // Signs of a browser, at a name that is accepted.
            (push, &[own, ("origin", "null")], 403),
            (backup, &[own, ("referer", "http://evil.example/")], 403),
            (backup, &[own, ("sec-fetch-site", "none")], 403),
            (wal, &[own, ("priority", "u=4")], 403),
            (wal, &[own, ("user-agent", "Mozilla/5.0")], 403),
            (
                Route::Status,
                &[own, ("accept-language", "de"), ("wale-page", "1")],
                200,
            ),
            (
                Route::Backups,
                &[
                    own,
                    ("user-agent", "Mozilla/5.0"),
                    ("upgrade-insecure-requests", "1"),
                ],
                200,
            ),
            (Route::Metrics, &[own, ("sec-fetch-site", "none")], 200),
            // Two names, and none.
            (push, &[own, own], 400),
            (Route::Ping, &[own, evil], 400),
            (push, &[], 400),
            (Route::Status, &[], 400),
            (Route::Ping, &[], 200),
            (Route::Ready, &[evil], 200),
        ];
        judged(&hosts, cases);
        let absolute = request("http://evil.example/wal/x", &[own]);
        assert!(hosts.check(wal, &absolute).is_err());
        assert!(
            hosts
                .check(wal, &request("http://10.0.0.1/wal/x", &[own]))
                .is_ok()
        );
    }

    /// A program's request in the manner of a browser; and a browser's that says nothing more.
    #[test]
    fn a_program_that_sends_what_browsers_send_reads_the_status() {
        let own = ("host", "sidecar:5000");
        let cases: &[Case<'_>] = &[
            (
                Route::Status,
                &[
                    own,
                    ("accept-language", "*"),
                    ("sec-fetch-mode", "cors"),
                    ("user-agent", "node"),
                ],
                200,
            ),
            (
                Route::Status,
                &[own, ("accept-language", "*"), ("user-agent", "Mozilla/5.0")],
                403,
            ),
            (
                Route::Wal("x"),
                &[own, ("accept-language", "*"), ("user-agent", "node")],
                403,
            ),
        ];
        judged(&Hosts::new(&[]), cases);
    }

    /// Row 90: our own page is read by who opens it, and asks for itself; a page of another site gets neither.
    #[test]
    fn fault_90_only_our_own_page_asks_in_a_browser() {
        let hosts = Hosts::new(&[]);
        let (backup, wal) = (Route::BackupPush, Route::Wal("x"));
        let (own, evil) = (("host", "sidecar:5000"), ("host", "evil.example:5000"));
        let (site, navigate) = (
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-mode", "navigate"),
        );
        let cases: &[Case<'_>] = &[
            (Route::Page, &[own, ("user-agent", "Mozilla/5.0")], 200),
            (Route::Page, &[evil, ("user-agent", "Mozilla/5.0")], 403),
            (Route::Page, &[evil], 403),
            // The page's own requests, and those of other sites' pages.
            (
                Route::Status,
                &[own, ("sec-fetch-site", "same-origin")],
                200,
            ),
            (Route::Status, &[own, ("sec-fetch-site", "cross-site")], 403),
            (Route::Backups, &[own, ("sec-fetch-site", "same-site")], 403),
            (Route::Page, &[own, ("sec-fetch-site", "cross-site")], 403),
            (
                Route::Page,
                &[own, site, navigate, ("sec-fetch-dest", "document")],
                200,
            ),
            (
                Route::Page,
                &[own, site, navigate, ("sec-fetch-dest", "iframe")],
                403,
            ),
            (
                backup,
                &[own, site, navigate, ("sec-fetch-dest", "document")],
                403,
            ),
            (wal, &[own, ("sec-fetch-site", "same-origin")], 403),
        ];
        judged(&hosts, cases);
    }

    /// Over plain HTTP to an address a browser sends no `Sec-Fetch-Site`; what it sends is from where it comes.
    #[test]
    fn fault_90_over_plain_http_a_page_of_another_site_is_known_by_where_it_comes_from() {
        let hosts = Hosts::new(&[]);
        let (own, named) = (("host", "10.0.0.5:5000"), ("host", "Sidecar."));
        let agent = ("user-agent", "Mozilla/5.0");
        let referer = |text| ("referer", text);
        let backups = Route::Backups;
        let (of_own, evil) = (
            referer("http://10.0.0.5:5000/"),
            referer("http://evil.example/a?http://10.0.0.5:5000/"),
        );
        let cases: &[Case<'_>] = &[
            // The page's own requests; an address that a person opens; those of who lets a browser tell.
            (backups, &[own, agent, ("wale-page", "1")], 200),
            (
                Route::Status,
                &[own, agent, ("upgrade-insecure-requests", "1")],
                200,
            ),
            // A picture, a frame's picture, a request in the background, of a site that hides itself.
            (backups, &[own, agent], 403),
            (Route::Status, &[own, ("accept-language", "de")], 403),
            (Route::Metrics, &[own, agent], 403),
            // Who says both is from where he says.
            (backups, &[own, agent, evil, ("wale-page", "1")], 403),
            (backups, &[own, agent, of_own], 200),
            (backups, &[named, referer("http://SIDECAR:80/ui")], 200),
            // A proxy that leaves the port out.
            (backups, &[("host", "10.0.0.5"), of_own], 200),
            (
                backups,
                &[("host", "[::1]:5000"), referer("http://[::1]/")],
                200,
            ),
            (backups, &[own, agent, evil], 403),
            (Route::Status, &[own, agent, evil], 403),
            (Route::Metrics, &[own, agent, evil], 403),
            (backups, &[own, of_own, ("origin", "null")], 403),
            (backups, &[own, ("origin", "http://evil.example")], 403),
            (backups, &[own, of_own, evil], 403),
            (backups, &[own, referer("")], 403),
            (
                backups,
                &[own, referer("http://10.0.0.5@evil.example/")],
                403,
            ),
            (
                backups,
                &[own, referer("http://10.0.0.5:5000@evil.example/")],
                403,
            ),
            (
                backups,
                &[own, referer("http://10.0.0.5.evil.example/")],
                403,
            ),
            (
                backups,
                &[("host", "[::1]:5000"), referer("http://[::2]:5000/")],
                403,
            ),
        ];
        judged(&hosts, cases);
    }

    #[test]
    fn fault_90_over_plain_http_a_link_and_who_is_no_browser_are_served() {
        let hosts = Hosts::new(&[]);
        let own = ("host", "10.0.0.5:5000");
        let agent = ("user-agent", "Mozilla/5.0");
        let evil = ("referer", "http://evil.example/a?http://10.0.0.5:5000/");
        let cases: &[Case<'_>] = &[
            // A link in a wiki leads to the page; where a browser says that it is one, anywhere.
            (Route::Page, &[own, agent, evil], 200),
            (
                Route::Backups,
                &[
                    own,
                    evil,
                    ("sec-fetch-site", "cross-site"),
                    ("sec-fetch-mode", "navigate"),
                    ("sec-fetch-dest", "document"),
                ],
                200,
            ),
            // The clients of PostgreSQL, probes and Prometheus send neither.
            (
                Route::WalPush("x"),
                &[own, ("user-agent", "Wget/1.21")],
                200,
            ),
            (Route::Wal("x"), &[own, ("user-agent", "curl/8.5.0")], 200),
            (
                Route::Metrics,
                &[own, ("user-agent", "Prometheus/3.0")],
                200,
            ),
            (Route::Ready, &[own, evil], 200),
        ];
        judged(&hosts, cases);
    }
}
