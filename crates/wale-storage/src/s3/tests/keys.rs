//! Keys of services that stand beside the host.

use super::super::credentials::Keys;
use super::*;
use crate::http::transport::Transport;

const ROLE: &str = "/latest/meta-data/iam/security-credentials/";

/// A metadata service of version 2: it tells nothing to those without its token, which a plain GET does not obtain.
fn metadata() -> Server {
    Server::start(|seen| {
        let text = |text: &str| Reply::Answer(200, Vec::new(), text.as_bytes().to_vec());
        let is_known = seen.header("x-aws-ec2-metadata-token").as_deref() == Some("s3ssion");
        match (seen.method.as_str(), seen.target.as_str()) {
            ("PUT", "/latest/api/token") => {
                match seen.header("x-aws-ec2-metadata-token-ttl-seconds") {
                    Some(_) => text("s3ssion"),
                    None => answer(400),
                }
            }
            ("GET", _) if !is_known => answer(401),
            ("GET", ROLE) => text("the-role\n"),
            ("GET", "/latest/meta-data/iam/security-credentials/the-role") => text(
                r#"{"Code":"Success","AccessKeyId":"KI","SecretAccessKey":"canary","Token":"T",
                    "Expiration":"2099-01-01T00:00:00Z"}"#,
            ),
            _ => answer(404),
        }
    })
}

#[tokio::test]
async fn row_31_an_instance_gives_its_keys_for_a_token_that_is_asked_for_first() {
    let metadata = metadata();
    let server = Server::start(|_| Reply::Answer(200, object("e"), b"text".to_vec()));
    let options = S3Options {
        credentials: CredentialSource::Instance(format!("http://127.0.0.1:{}", metadata.port)),
        ..server.options()
    };
    let store = S3Store::open(&options).expect("opens");
    store.get(&key()).await.expect("the keys are good");
    let asked = metadata.asked();
    assert_eq!(asked[0], "PUT /latest/api/token");
    assert_eq!(asked.len(), 3, "{asked:?}");
    let seen = &server.seen()[0];
    let authorization = seen.header("authorization").expect("signed");
    assert!(authorization.contains("Credential=KI/"), "{authorization}");
    assert_eq!(seen.header("x-amz-security-token").as_deref(), Some("T"));
}

/// A service that names the keys which it gives after the secret that it was shown: a token in the form, in a header, or the
/// one of a temporary pair of keys.
fn echo() -> Server {
    Server::start(|seen| {
        let form = String::from_utf8_lossy(&seen.body).into_owned();
        let field = |name: &str| {
            let mut pairs = form.split('&').filter_map(|pair| pair.split_once('='));
            let found = pairs.find(|(found, _)| *found == name);
            found.map(|(_, value)| value.to_owned())
        };
        let Some(action) = field("Action") else {
            let shown = seen.header("authorization").expect("a token");
            let text =
                format!(r#"{{"AccessKeyId":"{shown}","SecretAccessKey":"canary","Token":"T"}}"#);
            return Reply::Answer(200, Vec::new(), text.into_bytes());
        };
        let shown = field("WebIdentityToken").or_else(|| seen.header("x-amz-security-token"));
        let text = format!(
            "<{action}Response><{action}Result><Credentials><AccessKeyId>{}</AccessKeyId>\
             <SecretAccessKey>canary</SecretAccessKey><SessionToken>T</SessionToken>\
             <Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></{action}Result></{action}Response>",
            shown.expect("a token")
        );
        Reply::Answer(200, Vec::new(), text.into_bytes())
    })
}

/// Row 97 of the battery. Keys are asked for when there are none, when they end, and when the store refuses them.
#[tokio::test]
async fn fault_97_whatever_lies_in_a_file_is_read_anew_when_keys_are_asked_for() {
    let service = echo();
    let endpoint = format!("http://127.0.0.1:{}", service.port);
    let file = tempfile::NamedTempFile::new().expect("a file");
    let path = || file.path().to_owned();
    let (role_arn, session_name) = ("arn:role".to_owned(), "wale".to_owned());
    let pair = FileSource {
        keys: keys("id"),
        secret_access_key: None,
        session_token: Some(path()),
    };
    let sources = [
        (
            "the keys that assume a role",
            CredentialSource::Role(RoleSource {
                keys: pair,
                role_arn: role_arn.clone(),
                session_name: session_name.clone(),
                sts_endpoint: Some(endpoint.clone()),
            }),
        ),
        (
            "the token of a web identity",
            CredentialSource::WebIdentity(WebIdentitySource {
                token_file: path(),
                role_arn,
                session_name,
                sts_endpoint: Some(endpoint.clone()),
            }),
        ),
        (
            "the token of a container",
            CredentialSource::Container(ContainerSource {
                url: endpoint.clone(),
                token: Some(ContainerToken::File(path())),
            }),
        ),
        (
            "a profile",
            CredentialSource::Profile(ProfileSource {
                name: "default".to_owned(),
                credentials_file: path(),
                config_file: "/nonexistent".into(),
                sts_endpoint: Some(endpoint),
            }),
        ),
    ];
    for (case, credentials) in sources {
        let is_profile = matches!(credentials, CredentialSource::Profile(_));
        let options = S3Options {
            credentials,
            timeouts: HttpTimeouts::default(),
            ..service.options()
        };
        let transport = Transport::new(None, &options.proxies, options.timeouts.clone());
        let keeper = Keys::new(&options, transport.expect("a transport")).expect("a keeper");
        for secret in ["first", "second"] {
            let text = if is_profile {
                format!("[default]\naws_access_key_id={secret}\naws_secret_access_key=canary\n")
            } else {
                format!("{secret}\n")
            };
            std::fs::write(file.path(), text).expect("written");
            let granted = keeper.grant().await.expect(case);
            assert_eq!(granted.credentials.access_key_id, secret, "{case}");
        }
    }
}
