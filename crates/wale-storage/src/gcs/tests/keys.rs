//! Row 31, and where tokens come from.

use std::path::Path;

use super::*;
use crate::Misconfiguration;

/// A service that gives tokens: each request another one, as the store then wants it.
fn grants(seen: &Seen, google: &Google, asked: &Mutex<Vec<String>>) -> Option<Reply> {
    let text = String::from_utf8_lossy(&seen.body).into_owned();
    let mut asked = asked.lock().expect("not poisoned");
    let token = format!("token-{}", asked.len() + 1);
    let granted = json!({"access_token": token, "expires_in": 3600, "token_type": "Bearer"});
    let reply = match seen.target.as_str() {
        "/token" => Reply::Answer(200, Vec::new(), granted.to_string().into_bytes()),
        "/computeMetadata/v1/instance/service-accounts/default/token" => {
            assert_eq!(seen.header("metadata-flavor").as_deref(), Some("Google"));
            let headers = vec![("metadata-flavor", "Google".to_owned())];
            Reply::Answer(200, headers, granted.to_string().into_bytes())
        }
        "/impersonate" => {
            let bearer = seen.header("authorization").expect("a token");
            assert_eq!(bearer, format!("Bearer token-{}", asked.len()));
            told(&json!({"accessToken": token, "expireTime": "2099-01-01T00:00:00Z"}))
        }
        "/subject" => {
            assert_eq!(seen.header("metadata").as_deref(), Some("True"));
            return Some(told(&json!({"access_token": "subject-by-url"})));
        }
        _ => return None,
    };
    google.change(|state| state.token = Some(token));
    asked.push(text);
    Some(reply)
}

/// A store that wants tokens, and what was asked for them.
struct Stage {
    server: Server,
    google: Arc<Google>,
    asked: Arc<Mutex<Vec<String>>>,
    folder: tempfile::TempDir,
}

impl Stage {
    fn new() -> Self {
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let noted = Arc::clone(&asked);
        let (server, google) = google(move |seen, google| grants(seen, google, &noted));
        google.change(|state| state.token = Some("nobody's".to_owned()));
        Self {
            server,
            google,
            asked,
            folder: tempfile::tempdir().expect("a folder"),
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.server.port)
    }

    fn write(&self, name: &str, text: &str) -> std::path::PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path
    }

    fn store(&self, credentials: GcsCredentials) -> GcsStore {
        let options = GcsOptions {
            credentials,
            ..options_of(&self.server)
        };
        let store = GcsStore::open(&options).expect("opens");
        believe(&store);
        store
    }

    /// An object goes in and comes out. Gives what the services were asked.
    async fn round_trip(&self, credentials: GcsCredentials) -> Vec<String> {
        self.asked.lock().expect("not poisoned").clear();
        let store = self.store(credentials);
        store.put(&key(), body(10)).await.expect("stored");
        let read = read_all(&store, &key(), 100).await.expect("read");
        assert!(read == pattern(10));
        self.asked.lock().expect("not poisoned").clone()
    }
}

#[tokio::test]
async fn tokens_come_from_every_place_that_google_knows() {
    let stage = Stage::new();
    let token = stage.url("/token");
    let account = stage.write("sa.json", &wale_testkit::gcs::service_account(&token));
    let asked = stage.round_trip(GcsCredentials::File(account)).await;
    assert_eq!(asked.len(), 1, "once for all requests");
    assert!(
        asked[0].contains("jwt-bearer") && asked[0].contains("assertion=ey"),
        "{asked:?}"
    );

    let user = json!({
        "type": "authorized_user", "client_id": "i", "client_secret": "s", "refresh_token": "r/1", "token_uri": token,
    });
    let path = stage.write("user.json", &user.to_string());
    let asked = stage.round_trip(GcsCredentials::File(path)).await;
    assert!(asked[0].contains("refresh_token=r%2F1"), "{asked:?}");

    let host = format!("127.0.0.1:{}", stage.server.port);
    let asked = stage.round_trip(GcsCredentials::Metadata(host)).await;
    assert_eq!(asked.len(), 1);

    let subject = stage.write("subject", "subject-by-file\n");
    let by_file = json!({"file": subject});
    let by_url = json!({
        "url": stage.url("/subject"), "headers": {"Metadata": "True"},
        "format": {"type": "json", "subject_token_field_name": "access_token"},
    });
    for (source, expected) in [
        (by_file, "subject_token=subject-by-file"),
        (by_url, "subject_token=subject-by-url"),
    ] {
        let mut workload = json!({
            "type": "external_account", "audience": "//iam.googleapis.com/x", "token_url": token,
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt", "credential_source": source,
        });
        let path = stage.write("workload.json", &workload.to_string());
        let asked = stage.round_trip(GcsCredentials::File(path)).await;
        assert_eq!(asked.len(), 1);
        assert!(asked[0].contains(expected), "{asked:?}");
        workload["service_account_impersonation_url"] = json!(stage.url("/impersonate"));
        let path = stage.write("workload.json", &workload.to_string());
        let asked = stage.round_trip(GcsCredentials::File(path)).await;
        assert!(asked[1].contains("devstorage.read_write"), "{asked:?}");
    }

    let wrapped = json!({
        "type": "impersonated_service_account", "source_credentials": user,
        "service_account_impersonation_url": stage.url("/impersonate"),
    });
    let path = stage.write("wrapped.json", &wrapped.to_string());
    let asked = stage.round_trip(GcsCredentials::File(path)).await;
    assert_eq!(asked.len(), 2);
}

/// Tokens are not asked for again sooner than a second after the last time.
async fn a_while_later() {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(2)).await;
    tokio::time::resume();
}

#[tokio::test]
async fn fault_31_a_token_that_is_refused_in_mid_upload_is_renewed_and_a_rotated_file_is_read() {
    let stage = Stage::new();
    let account = wale_testkit::gcs::service_account(&stage.url("/token"));
    let path = stage.write("sa.json", &account);
    let store = stage.store(GcsCredentials::File(path.clone()));
    store.put(&key(), body(10)).await.expect("stored");
    // The token is no longer good when the second chunk comes.
    let google = Arc::clone(&stage.google);
    let mut chunks = 0;
    let source = body(12 << 20).inspect(move |_| {
        chunks += 1;
        if chunks == 100 {
            google.change(|state| state.token = Some("another".to_owned()));
        }
    });
    a_while_later().await;
    let stored = store.put(&key(), source.boxed()).await.expect("stored");
    assert_eq!(stored.size, 12 << 20);
    assert_eq!(stage.asked.lock().expect("not poisoned").len(), 2);

    // No other token is to be had: it is the configuration's fault, and says nothing about objects.
    std::fs::remove_file(&path).expect("removed");
    stage
        .google
        .change(|state| state.token = Some("a third".to_owned()));
    a_while_later().await;
    let error = store.head(&key()).await.expect_err("it is no absence");
    let problem = Misconfiguration::NoCredentials;
    assert!(
        matches!(error, StoreError::Misconfigured { problem: p, .. } if p == problem),
        "{error:?}"
    );
    assert!(error.to_string().contains("sa.json"), "{error}");
}

#[tokio::test]
async fn a_source_that_gives_nothing_is_named_and_its_secrets_are_not() {
    let stage = Stage::new();
    let user = |url: &str| {
        let user = json!({
            "type": "authorized_user", "client_id": "i", "client_secret": "canary", "refresh_token": "canary",
            "token_uri": url,
        });
        user.to_string()
    };
    let none = stage.url("/none");
    for (credentials, word) in [
        (GcsCredentials::File(Path::new("/nonexistent/sa.json").into()), "cannot be read"),
        (GcsCredentials::File(stage.write("canary.txt", "canary")), "authorized_user"),
        (GcsCredentials::File(stage.write("http.json", &user("http://example.org/token"))), "in clear"),
        (GcsCredentials::File(stage.write("none.json", &user(&none))), "HTTP status 401"),
        (
            GcsCredentials::File(stage.write(
                "program.json",
                r#"{"type":"external_account","audience":"a","subject_token_type":"t","token_url":"https://x",
                   "credential_source":{"executable":{"command":"canary"}}}"#,
            )),
            "neither a file nor a URL",
        ),
    ] {
        let error = stage.store(credentials).head(&key()).await.expect_err("no token");
        let told = error.to_string();
        assert!(told.contains(word), "{told}");
        assert!(!told.replace("canary.txt", "").contains("canary"), "{told}");
        assert!(error.hint().is_some(), "{error:?}");
    }
    // What answers is no metadata server.
    let (server, _) =
        google(|_, _| Some(told(&json!({"access_token": "canary", "expires_in": 1}))));
    let options = GcsOptions {
        credentials: GcsCredentials::Metadata(format!("127.0.0.1:{}", server.port)),
        ..options_of(&server)
    };
    let error = GcsStore::open(&options).expect("opens").head(&key()).await;
    let told = error.expect_err("no token").to_string();
    assert!(told.contains("no metadata server"), "{told}");
}
