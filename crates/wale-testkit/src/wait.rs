//! Waiting for conditions and finding free ports.

use std::net::{Ipv4Addr, TcpListener};
use std::time::{Duration, Instant};

/// A TCP port of the loopback interface that was free a moment ago.
///
/// # Panics
/// When the machine has no free port.
#[must_use]
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free loopback port");
    listener.local_addr().expect("a bound address").port()
}

/// Asks `condition` every 20 ms until it answers `Some`, and returns that answer.
///
/// # Panics
/// When `limit` passes first; the message names `what`.
pub fn wait_until<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = condition() {
            return answer;
        }
        assert!(
            Instant::now() < deadline,
            "gave up after {limit:?} waiting for {what}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}
