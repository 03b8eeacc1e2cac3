//! What a service manager is told, in the manner of `sd_notify(3)`: that the database may start, and that the sidecar stops.
//!
//! It refuses to read the environment: the binary hands over the address. A manager that cannot be told is no reason to
//! stop, so a failure is a warning.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Where the messages go.
#[derive(Debug, Clone, Default)]
pub struct Notifier {
    /// `$NOTIFY_SOCKET`: a path, or `@` and a name.
    address: Option<String>,
}

impl Notifier {
    /// The one that listens at `address`, or nobody.
    #[must_use]
    pub const fn new(address: Option<String>) -> Self {
        Self { address }
    }

    /// PostgreSQL may not start yet.
    pub(crate) fn restoring(&self) {
        self.tell("STATUS=restoring; PostgreSQL may not start yet");
    }

    /// The database may start.
    pub(crate) fn ready(&self) {
        self.tell("READY=1\nSTATUS=ready; PostgreSQL may start");
    }

    /// The sidecar goes on archiving until PostgreSQL has ended, and ends then.
    pub(crate) fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=stopping; what PostgreSQL still hands over is archived");
    }

    fn tell(&self, message: &str) {
        let Some(address) = &self.address else {
            return;
        };
        if let Err(error) = send(address, message) {
            tracing::warn!(address, "the service manager could not be told: {error}");
        }
    }
}

fn send(address: &str, message: &str) -> std::io::Result<()> {
    let address = match address.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(address)?,
    };
    let socket = UnixDatagram::unbound()?;
    // A manager that does not read must not hold the sidecar.
    socket.set_nonblocking(true)?;
    socket.send_to_addr(message.as_bytes(), &address)?;
    Ok(())
}
