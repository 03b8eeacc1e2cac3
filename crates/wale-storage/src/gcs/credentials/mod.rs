//! Access tokens, where they come from, and when they are asked for again. Nothing here is ever printed.

mod exchange;
mod file;
mod jwt;
mod metadata;
mod tokens;

pub(super) use self::tokens::{AccessToken, Tokens};
