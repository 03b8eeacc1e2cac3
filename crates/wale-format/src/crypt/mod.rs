//! Encryption, one stage of a [`Seal`](crate::Seal).
//!
//! | module | what it holds |
//! |---|---|
//! | [`openpgp`] | messages of OpenPGP, as WAL-E's `gpg` and WAL-G write and read them |

pub mod openpgp;
