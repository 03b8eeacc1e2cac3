//! Keys of services that stand beside the host.

use super::*;

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
