//! Times as Prometheus has them.

use chrono::{DateTime, Utc};

/// Seconds since 1970.
#[expect(
    clippy::cast_precision_loss,
    reason = "milliseconds since 1970 fit a double's 53 bits for 285,000 years"
)]
pub(crate) fn unix_seconds(at: DateTime<Utc>) -> f64 {
    at.timestamp_millis() as f64 / 1000.0
}
