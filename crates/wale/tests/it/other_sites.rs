//! A page of another site, in a real Chromium that reaches the sidecar by its name over plain HTTP: there a browser does not say from which
//! site a request comes, and the page hides itself.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::time::Duration;

use wale_testkit::{shell, wait_until};

use crate::browser::Browser;
use crate::support::Stage;

/// Fires everything that a page can, and says when all of it has ended.
const SITE: &str = r"<!doctype html><title>fires</title><body><script>
const at = 'http://sidecar:PORT', ended = [];
const paths = ['/backup-push', '/backup-push?wait=false', '/wal-push/NAME', '/wal/NAME', '/wal-fetch/NAME', '/wal-absent/NAME', '/backups', '/status', '/metrics'];
for (const path of paths) {
  ended.push(fetch(at + path, {mode: 'no-cors', credentials: 'include'}).catch(() => 0));
  ended.push(fetch(at + path, {mode: 'no-cors', headers: {'Wale-Page': '1', 'Upgrade-Insecure-Requests': '1'}}).catch(() => 0));
  ended.push(fetch(at + path, {headers: {'Wale-Page': '1'}}).then(() => 'read', () => 0));
  // What a browser takes for a download ends no frame: nobody waits for frames.
  document.body.append(Object.assign(document.createElement('iframe'), {src: at + path}));
  for (const tag of ['img', 'script']) ended.push(new Promise((done) => {
    const one = document.createElement(tag);
    one.onload = one.onerror = done;
    one.src = at + path;
    document.body.append(one);
  }));
}
for (const path of ['/backup-push', '/wal-push/NAME'])
  ended.push(fetch(at + path, {method: 'POST', mode: 'no-cors', body: 'x'}).catch(() => 0));
Promise.all(ended).then((all) => { document.title = all.includes('read') ? 'read' : 'ended'; });
</script>";

/// A server of one page.
fn site(text: String) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let _ = stream.read(&mut [0; 8192]);
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nreferrer-policy: no-referrer\r\ncontent-length: {}\r\n\
                 connection: close\r\n\r\n{text}",
                text.len()
            );
        }
    });
    port
}

#[test]
fn a_site_that_hides_itself_starts_nothing_and_costs_nothing_over_plain_http() {
    let rules = "--host-resolver-rules=MAP sidecar 127.0.0.1,MAP evil.example 127.0.0.1";
    let Some(browser) = Browser::start_with(
        "a_site_that_hides_itself",
        &[rules, "--disable-features=HttpsUpgrades"],
    ) else {
        return;
    };
    let stage = Stage::new("other_sites", 15);
    stage.cluster.sql("create table t (v int)");
    let segment = stage.archive_all();
    let port = stage.options.port;
    let count = |route: &str, status: u16| -> u64 {
        let metrics = stage.sidecar.get("/metrics").text();
        let series = format!("wale_http_requests_total{{route=\"{route}\",status=\"{status}\"}} ");
        let lines = metrics.lines();
        let mut values = lines.filter_map(|line| line.strip_prefix(&series)?.parse().ok());
        values.next().unwrap_or(0)
    };
    let pushed = count("/wal-push", 200);
    let read = count("/metrics", 200);
    let text = SITE.replace("PORT", &port.to_string());
    let evil = site(text.replace("NAME", &segment));
    browser.open(&format!("http://evil.example:{evil}/"));
    browser.wait(
        "the page to have fired everything",
        "return document.title !== 'fires'",
    );
    assert_eq!(browser.text("return document.title"), "ended");
    // The count of this question comes after its answer.
    let read = count("/metrics", 200) - read - 1;
    for route in ["/backup-push", "/wal", "/wal-fetch", "/wal-absent"] {
        assert!(count(route, 403) >= 4, "{route}");
        for status in [200, 202, 404, 409, 500, 503] {
            assert_eq!(count(route, status), 0, "{route} {status}");
        }
    }
    assert!(count("/wal-push", 403) >= 4);
    assert_eq!(count("/wal-push", 200), pushed);
    // A frame is as a link that a person follows; pictures, scripts and requests in the background are not.
    for route in ["/backups", "/status", "/metrics"] {
        assert!(count(route, 403) >= 4, "{route}");
    }
    assert!(read <= 1 && count("/backups", 200) <= 1, "{read}");
    let running = &stage.sidecar.get("/status").json()["backup"];
    assert!(
        running["running"].is_null() && running["last"].is_null(),
        "{running}"
    );
    // Our own page, under the same name.
    browser.open(&format!("http://sidecar:{port}/"));
    browser.wait(
        "the page to show what it was told",
        "return document.getElementById('health').innerText.includes('WAL volume')",
    );
    clients_are_served(port, &segment);
    wait_until("the last push to be told", Duration::from_secs(60), || {
        let wal = stage.sidecar.get("/status").json()["wal"]["last_push"]["name"].clone();
        (wal == segment.as_str()).then_some(())
    });
}

/// Clients as PostgreSQL's commands have them, by the same address.
fn clients_are_served(port: u16, segment: &str) {
    for client in [
        "wget -q -O -",
        "busybox wget -q -O -",
        "curl -sSf",
        "curl -sSf -X POST",
    ] {
        let url = format!("http://127.0.0.1:{port}/wal-push/{segment}");
        shell(&format!("{client} {url}"));
        let url = format!("http://127.0.0.1:{port}/backups");
        if !client.contains("POST") {
            shell(&format!("{client} {url}"));
        }
    }
}
