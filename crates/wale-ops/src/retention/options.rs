//! What a caller asks for, and how the result is reported.

use std::time::Duration;

use super::plan::Request;
use super::report::Line;

/// Whether to delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Only report what would be done with every object.
    Show,
    /// Delete, and report the objects that go.
    Delete,
}

/// What a caller asks for.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is to go.
    pub request: Request,
    /// Whether it goes.
    pub act: Act,
    /// How long a backup without a sentinel is taken for one that is being written, counted from its newest object.
    pub grace: Duration,
    /// A backup that was requested over HTTP is counted when it began this long after the one before it.
    pub request_interval: Duration,
}

/// Receives a line for each object, as it is decided.
pub type Tell<'a> = &'a mut (dyn FnMut(&Line) + Send);
