//! What of wale-storage's `http` the decoders need: failures and texts as they are, and stand-ins for what asks anybody.

#[path = "../../../crates/wale-storage/src/http/failure.rs"]
#[allow(dead_code, reason = "the room's module, as it is")]
pub(crate) mod failure;
#[path = "../../../crates/wale-storage/src/http/markup.rs"]
#[allow(dead_code, reason = "the room's module, as it is")]
pub(crate) mod markup;
#[path = "../../../crates/wale-storage/src/http/text.rs"]
#[allow(dead_code, reason = "the room's module, as it is")]
pub(crate) mod text;

#[allow(dead_code, reason = "what profiles need")]
pub(crate) mod named_file {
    use std::path::Path;

    use super::failure::Failure;

    pub(crate) async fn read_secret_text(path: &Path) -> Result<String, Failure> {
        std::fs::read_to_string(path).map_err(|error| Failure::NoCredentials(error.to_string()))
    }
}

#[allow(dead_code, reason = "what profiles need")]
pub(crate) mod transport {
    pub(crate) struct Transport;
}
