//! A real Chromium, driven by Debian's `chromedriver` over its plain HTTP (the protocol of the W3C, `WebDriver`).

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use wale_testkit::{free_port, shell, skip, wait_until};

const LONG: Duration = Duration::from_secs(60);

/// Keys as the protocol names them.
pub(crate) const TAB: &str = "\u{E004}";
pub(crate) const DOWN: &str = "\u{E015}";
pub(crate) const LEFT: &str = "\u{E012}";
pub(crate) const HOME: &str = "\u{E011}";

/// One window of a browser.
pub(crate) struct Browser {
    driver: Child,
    port: u16,
    session: String,
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver ends the browser.
        let _ = self.raw("DELETE", &format!("/session/{}", self.session), None);
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

impl Browser {
    /// None, and a skip that is counted, where it is not installed.
    pub(crate) fn start(test: &str) -> Option<Self> {
        Self::start_with(test, &[])
    }

    /// The same with further arguments.
    pub(crate) fn start_with(test: &str, more: &[&str]) -> Option<Self> {
        let is_there = |name: &str| Path::new("/usr/bin").join(name).exists();
        if !is_there("chromium") || !is_there("chromedriver") {
            skip(test, "Chromium and chromedriver are not installed");
            return None;
        }
        let port = free_port();
        let driver = Command::new("/usr/bin/chromedriver")
            .arg(format!("--port={port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver starts");
        let mut browser = Self {
            driver,
            port,
            session: String::new(),
        };
        wait_until("chromedriver to listen", LONG, || {
            browser.raw("GET", "/status", None).ok()
        });
        let mut arguments = vec![
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-proxy-server",
            "--hide-scrollbars",
            // What the browser asks for itself is no page's.
            "--disable-background-networking",
            "--disable-component-update",
            "--no-first-run",
        ];
        arguments.extend(more);
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
            "goog:chromeOptions": {"binary": "/usr/bin/chromium", "args": arguments},
        }}});
        let made = browser.call("POST", "/session", Some(&wanted));
        made["sessionId"]
            .as_str()
            .expect("a session")
            .clone_into(&mut browser.session);
        Some(browser)
    }

    /// The driver keeps the connection, whatever it is told: an answer ends where its length says.
    fn raw(&self, method: &str, path: &str, body: Option<&Value>) -> std::io::Result<Value> {
        let body = body.map_or_else(String::new, Value::to_string);
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = BufReader::new(stream);
        let (mut line, mut length) = (String::new(), 0);
        while answer.read_line(&mut line)? > 0 && line != "\r\n" {
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
            line.clear();
        }
        let mut body = vec![0; length];
        answer.read_exact(&mut body)?;
        Ok(serde_json::from_slice(&body)?)
    }

    fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let answer = self.raw(method, path, body).expect("chromedriver answers");
        let value = answer["value"].clone();
        assert!(value["error"].is_null(), "{method} {path}: {value}");
        value
    }

    fn of_session(&self, path: &str, body: &Value) -> Value {
        self.call(
            "POST",
            &format!("/session/{}{path}", self.session),
            Some(body),
        )
    }

    fn devtools(&self, command: &str, parameters: &Value) -> Value {
        self.of_session(
            "/goog/cdp/execute",
            &json!({"cmd": command, "params": parameters}),
        )
    }

    pub(crate) fn open(&self, url: &str) {
        self.of_session("/url", &json!({"url": url}));
    }

    /// The size in CSS pixels and the scheme of colours, `light` or `dark`.
    pub(crate) fn look(&self, width: u32, height: u32, scheme: &str) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500});
        self.devtools("Emulation.setDeviceMetricsOverride", &size);
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.devtools("Emulation.setEmulatedMedia", &features);
    }

    /// The value of a script's `return`.
    pub(crate) fn script(&self, text: &str) -> Value {
        self.of_session("/execute/sync", &json!({"script": text, "args": []}))
    }

    /// The same, as text.
    pub(crate) fn text(&self, text: &str) -> String {
        let value = self.script(text);
        value
            .as_str()
            .unwrap_or_else(|| panic!("{text}: {value}"))
            .to_owned()
    }

    /// Presses keys where the focus is.
    pub(crate) fn press(&self, keys: &str) {
        let each = keys.chars().flat_map(|key| {
            let key = key.to_string();
            [
                json!({"type": "keyDown", "value": key}),
                json!({"type": "keyUp", "value": key}),
            ]
        });
        let actions = json!({"actions": [{"type": "key", "id": "keyboard", "actions": each.collect::<Vec<_>>()}]});
        self.of_session("/actions", &actions);
    }

    /// Waits until a script returns `true`.
    pub(crate) fn wait(&self, what: &str, script: &str) {
        wait_until(what, LONG, || (self.script(script) == true).then_some(()));
    }

    /// The whole page as a picture.
    pub(crate) fn picture(&self, path: &Path) {
        let size = self.script("return [innerWidth, document.documentElement.scrollHeight]");
        let clip = json!({"x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1});
        let taken = self.devtools(
            "Page.captureScreenshot",
            &json!({"captureBeyondViewport": true, "clip": clip}),
        );
        let text = path.with_extension("base64");
        std::fs::write(&text, taken["data"].as_str().expect("a picture")).expect("written");
        shell(&format!(
            "base64 -d {} > {}",
            text.display(),
            path.display()
        ));
    }

    /// What the console says.
    pub(crate) fn console(&self) -> Vec<String> {
        let lines = self.of_session("/se/log", &json!({"type": "browser"}));
        let lines = lines.as_array().expect("a log").iter();
        lines.map(|line| line["message"].to_string()).collect()
    }

    /// The addresses that were asked for since the last call.
    pub(crate) fn asked_for(&self) -> Vec<String> {
        let lines = self.of_session("/se/log", &json!({"type": "performance"}));
        let urls = lines.as_array().expect("a log").iter().filter_map(|line| {
            let event: Value = serde_json::from_str(line["message"].as_str()?).ok()?;
            let event = &event["message"];
            (event["method"] == "Network.requestWillBeSent").then(|| {
                event["params"]["request"]["url"]
                    .as_str()
                    .map(str::to_owned)
            })?
        });
        urls.collect()
    }
}
