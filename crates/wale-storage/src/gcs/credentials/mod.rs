//! Access tokens, where they come from, and when they are asked for again. Nothing here is ever printed.

mod exchange;
mod file;
mod jwt;
mod metadata;
mod source;
mod tokens;

pub(super) use self::source::AccessToken;
pub(super) use self::tokens::Tokens;
