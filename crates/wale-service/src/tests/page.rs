//! The page, as a browser asks for it, and as nobody else may.

use super::support::{Reply, Sidecar, bench, serving};
use crate::HttpToken;

/// What Chromium sends with a request that a person makes.
const CHROMIUM: &str = "User-Agent: Mozilla/5.0 (X11; Linux x86_64) Chrome/142.0\r\nAccept-Language: de\r\n\
    Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\nUpgrade-Insecure-Requests: 1\r\n";

async fn ask(sidecar: &Sidecar, line: &str, host: &str, more: &str) -> Reply {
    let request = format!("{line} HTTP/1.1\r\nHost: {host}\r\n{more}Connection: close\r\n\r\n");
    sidecar.raw(request).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_gets_the_page_with_its_policy_and_nothing_that_acts() {
    let sidecar = serving().await;
    for path in ["/", "/ui"] {
        let page = ask(&sidecar, &format!("GET {path}"), "sidecar:5000", CHROMIUM).await;
        assert_eq!(page.status(), 200, "{}", page.body());
        assert!(page.body().ends_with("</html>\n"));
        let head = page.head();
        for line in [
            "content-type: text/html; charset=utf-8",
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
            "cache-control: no-store",
            "x-frame-options: deny",
            "cross-origin-opener-policy: same-origin",
            "cross-origin-resource-policy: same-origin",
        ] {
            assert!(head.lines().any(|found| found == line), "{line}: {head}");
        }
        assert!(
            head.contains("content-security-policy: default-src 'none'; style-src 'sha256-"),
            "{head}"
        );
    }
    for (path, expected) in [("/status", 200), ("/backups", 200)] {
        let same = format!("{CHROMIUM}Sec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: cors\r\n");
        let reply = ask(&sidecar, &format!("GET {path}"), "sidecar:5000", &same).await;
        assert_eq!(reply.status(), expected, "{path}");
        assert!(reply.head().contains("x-content-type-options: nosniff"));
        let cross = format!("{CHROMIUM}Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\n");
        let reply = ask(&sidecar, &format!("GET {path}"), "sidecar:5000", &cross).await;
        assert_eq!(reply.status(), 403, "{path}");
    }
    let (segment, _) = sidecar.segment(1);
    for line in [
        format!("GET /wal-push/{segment}"),
        format!("GET /wal/{segment}"),
        format!("GET /wal-absent/{segment}"),
        format!("GET /wal-fetch/{segment}"),
        "GET /backup-push".to_owned(),
        "POST /backup-push".to_owned(),
    ] {
        let same = format!("{CHROMIUM}Sec-Fetch-Site: same-origin\r\n");
        let reply = ask(&sidecar, &line, "sidecar:5000", &same).await;
        assert_eq!(reply.status(), 403, "{line}");
    }
    assert!(
        sidecar.memory.keys().is_empty(),
        "{:?}",
        sidecar.memory.keys()
    );
    // Under a name that somebody else can make point here there is no page.
    let strange = ask(&sidecar, "GET /", "wale.evil.example", CHROMIUM).await;
    assert_eq!(strange.status(), 403);
    sidecar.stop().await.unwrap();
}

/// A 200 at `/`, or a reply that is whole, would be an archived segment to an `archive_command` with a slip.
#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_ask_for_html_gets_no_page_and_a_broken_reply() {
    let sidecar = serving().await;
    for (line, more) in [
        ("GET /", ""),
        ("GET /ui", "Accept: */*\r\n"),
        ("GET /", "Accept: application/json\r\n"),
        ("POST /", CHROMIUM),
        ("PUT /", "Accept: text/html\r\n"),
        ("HEAD /", CHROMIUM),
        ("GET /ui/", CHROMIUM),
        ("GET /index.html", CHROMIUM),
    ] {
        let reply = ask(&sidecar, line, "sidecar:5000", more).await;
        assert_eq!(reply.status(), 404, "{line} {more}");
        if !line.starts_with("HEAD") {
            assert_eq!(
                reply.declared(),
                Some(reply.bytes().len() + 1),
                "{line} {more}"
            );
        }
    }
    sidecar.stop().await.unwrap();
}

/// Row 62: the browser asks its person, and sends the token with the page's own requests.
#[tokio::test(flavor = "multi_thread")]
async fn row62_the_page_is_behind_the_token() {
    for token_for in [crate::TokenFor::Everything, crate::TokenFor::Reads] {
        let mut bench = bench();
        bench.options.token = HttpToken::new("s3cret".into()).ok();
        bench.options.token_for = token_for;
        let sidecar = bench.start(None).await;
        sidecar.app.life.wait(crate::Phase::started).await;
        for path in ["/", "/ui", "/status", "/backups"] {
            let bare = ask(&sidecar, &format!("GET {path}"), "sidecar:5000", CHROMIUM).await;
            assert_eq!(bare.status(), 401, "{path}");
            assert!(
                bare.head()
                    .contains("www-authenticate: basic realm=\"wale\""),
                "{}",
                bare.head()
            );
            assert!(!bare.body().contains("<script"), "{path}");
            // base64 of "wale:s3cret".
            let with = format!("{CHROMIUM}Authorization: Basic d2FsZTpzM2NyZXQ=\r\n");
            let reply = ask(&sidecar, &format!("GET {path}"), "sidecar:5000", &with).await;
            assert_eq!(reply.status(), 200, "{path}");
        }
        sidecar.stop().await.unwrap();
    }
}
