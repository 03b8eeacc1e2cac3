//! Waiting for conditions and finding free ports.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Below the ports that the kernel gives to outgoing connections (from 32768 on): one of those could take a port
/// between the choice and its use.
const PORTS: std::ops::Range<u32> = 10_000..32_000;

/// A TCP port of the loopback interface that is free, and that this process was not given before.
///
/// # Panics
/// When the machine has no free port.
#[must_use]
pub fn free_port() -> u16 {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    // Test runs beside each other begin in different places.
    let start = std::process::id().wrapping_mul(997);
    PORTS
        .map(|_| GIVEN.fetch_add(1, Ordering::Relaxed).wrapping_add(start))
        .map(|number| PORTS.start + number % (PORTS.end - PORTS.start))
        .filter_map(|port| u16::try_from(port).ok())
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .expect("a free loopback port")
}

/// Asks `condition` every 20 ms, later every 100 ms, until it answers `Some`, and returns that answer.
///
/// # Panics
/// When `limit` passes first; the message names `what`.
pub fn wait_until<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    // A condition may start a process each time: it is asked less often the longer it takes.
    let mut pause = Duration::from_millis(20);
    loop {
        if let Some(answer) = condition() {
            return answer;
        }
        assert!(
            Instant::now() < deadline,
            "gave up after {limit:?} waiting for {what}"
        );
        std::thread::sleep(pause);
        pause = (pause * 5 / 4).min(Duration::from_millis(100));
    }
}
