//! Rows 31 and 97 of the fault battery: tokens that are asked for, renewed and read anew, and signatures in URLs.

use super::super::keys::AzureKeys;
use super::super::source::AzureCredentials;
use super::*;
use crate::http::transport::Transport;

/// A service that gives tokens T1, T2 and so on, each of which holds for an hour.
fn tokens(check: impl Fn(&Seen) + Send + Sync + 'static) -> Server {
    let given = Mutex::new(0);
    Server::start(move |seen| {
        check(seen);
        let mut given = given.lock().expect("not poisoned");
        *given += 1;
        let text =
            format!(r#"{{"token_type":"Bearer","expires_in":"3599","access_token":"T{given}"}}"#);
        Reply::Answer(200, Vec::new(), text.into_bytes())
    })
}

fn url(server: &Server) -> String {
    format!("http://127.0.0.1:{}", server.port)
}

fn store_with(server: &Server, credentials: AzureCredentialSource) -> AzureStore {
    let options = AzureOptions {
        credentials,
        ..options(server)
    };
    AzureStore::open(&options).expect("opens")
}

/// A second passes, after which refused credentials are asked for again.
async fn a_second_passes() {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(2)).await;
    tokio::time::resume();
}

#[tokio::test]
async fn row_31_a_refused_token_is_asked_for_again() {
    let identity = tokens(|seen| {
        assert_eq!(seen.header("metadata").as_deref(), Some("true"));
        let asked = "/metadata/identity/oauth2/token?api-version=2018-02-01&client_id=id&\
                     resource=https%3A%2F%2Fstorage.azure.com%2F";
        assert_eq!(seen.target, asked);
    });
    let server = of_store(|seen| match seen.header("authorization").as_deref() {
        Some("Bearer T1" | "Bearer T2") => refusal(401, "InvalidAuthenticationInfo"),
        Some("Bearer T3") => Reply::Answer(200, object("e"), b"text".to_vec()),
        other => panic!("{other:?}"),
    });
    let source = AzureCredentialSource::ManagedIdentity {
        service: url(&identity),
        client_id: Some("id".to_owned()),
    };
    let store = store_with(&server, source);
    // Once; the next one not at once, too: a store that refuses everything makes no storm.
    for _ in 0..3 {
        let error = store.get(&key()).await.expect_err("expired");
        assert_eq!(problem(&error), Some(Misconfiguration::ExpiredCredentials));
        assert_eq!(identity.seen().len(), 2);
    }
    a_second_passes().await;
    store.get(&key()).await.expect("the third token is good");
    assert_eq!(identity.seen().len(), 3);
}

#[tokio::test]
async fn row_31_an_application_shows_a_secret_or_a_token_that_is_read_anew() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    for (is_secret, field) in [
        (true, "client_secret=first"),
        (false, "client_assertion=first"),
    ] {
        std::fs::write(file.path(), "first\n").expect("written");
        let entra = tokens(|seen| {
            assert_eq!(
                (seen.method.as_str(), seen.target.as_str()),
                ("POST", "/tenant/oauth2/v2.0/token")
            );
        });
        let server = of_store(|seen| match seen.header("authorization").as_deref() {
            Some("Bearer T1" | "Bearer T2") => refusal(401, "InvalidAuthenticationInfo"),
            _ => Reply::Answer(200, object("e"), b"text".to_vec()),
        });
        let proof = if is_secret {
            AzureClientProof::SecretFile(file.path().to_owned())
        } else {
            AzureClientProof::TokenFile(file.path().to_owned())
        };
        let source = AzureCredentialSource::Client(AzureClient {
            authority: format!("{}/", url(&entra)),
            tenant: "tenant".to_owned(),
            client_id: "app".to_owned(),
            proof,
        });
        let store = store_with(&server, source);
        store.get(&key()).await.expect_err("expired");
        std::fs::write(file.path(), "second\n").expect("written");
        a_second_passes().await;
        store.get(&key()).await.expect("the third is good");
        let forms: Vec<String> = entra
            .seen()
            .iter()
            .map(|seen| String::from_utf8_lossy(&seen.body).into_owned())
            .collect();
        assert_eq!(forms.len(), 3);
        assert!(
            forms[0].contains("client_id=app&") && forms[0].contains(field),
            "{forms:?}"
        );
        assert!(
            forms[2].contains(&field.replace("first", "second")),
            "{forms:?}"
        );
    }
}

#[tokio::test]
async fn a_service_that_gives_no_token_is_told_and_is_no_absence() {
    for (status, is_passing) in [(400, false), (403, false), (404, true), (503, true)] {
        let identity = Server::start(move |_| {
            let text = r#"{"error":"invalid_request","error_description":"Identity not found"}"#;
            Reply::Answer(status, Vec::new(), text.as_bytes().to_vec())
        });
        let server = of_store(|_| panic!("nothing is asked without a token"));
        let source = AzureCredentialSource::ManagedIdentity {
            service: url(&identity),
            client_id: None,
        };
        let error = store_with(&server, source)
            .head(&key())
            .await
            .expect_err("no token");
        assert_eq!(error.is_transient(), is_passing, "{status}: {error:?}");
        let told = error.to_string();
        assert!(told.contains("managed identity"), "{told}");
        assert!(told.contains("Identity not found"), "{told}");
    }
}

#[tokio::test]
async fn a_shared_access_signature_is_a_part_of_each_url_and_of_no_message() {
    let server = of_store(|seen| {
        assert_eq!(seen.header("authorization"), None);
        assert!(
            seen.target.ends_with("sv=1&sig=can%2Bary"),
            "{}",
            seen.target
        );
        if seen.target.contains("comp=list") {
            return refusal(403, "AuthorizationPermissionMismatch");
        }
        Reply::Answer(200, object("e"), b"text".to_vec())
    });
    let signature = Secret::new("?sv=1&sig=can%2Bary");
    let store = store_with(&server, AzureCredentialSource::SharedAccess(signature));
    store.get(&key()).await.expect("it goes along");
    let error = store.check().await.expect_err("no list");
    assert!(
        !format!("{error:?} {store:?}").contains("can%2Bary"),
        "{error:?}"
    );
    drop(server);
    let error = store.head(&key()).await.expect_err("nobody is there");
    assert!(!format!("{error:?}").contains("can%2Bary"), "{error:?}");
}

#[tokio::test]
async fn fault_97_whatever_lies_in_a_file_is_read_anew_when_it_is_asked_for() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let server = of_store(|_| answer(404));
    let key = |text: &str| AzureCredentials::Key(text.as_bytes().to_vec());
    let signature = |text: &str| AzureCredentials::SharedAccess(Secret::new(text));
    let path = || file.path().to_owned();
    for (source, texts, expected) in [
        (
            AzureCredentialSource::AccountKeyFile(path()),
            ["Zmlyc3Q=", "c2Vjb25k"],
            [key("first"), key("second")],
        ),
        (
            AzureCredentialSource::SharedAccessFile(path()),
            ["?sig=first", "sig=second"],
            [signature("sig=first"), signature("sig=second")],
        ),
    ] {
        let options = AzureOptions {
            credentials: source,
            ..options(&server)
        };
        let transport = Transport::new(None, &options.proxies, options.timeouts.clone());
        let keys = AzureKeys::new(&options, transport.expect("a transport")).expect("a keeper");
        for (text, expected) in texts.into_iter().zip(expected) {
            std::fs::write(file.path(), format!("{text}\n")).expect("written");
            let granted = keys.grant().await.expect("read");
            assert!(granted.credentials == expected, "{text}");
        }
    }
}
