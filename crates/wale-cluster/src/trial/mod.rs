//! A server that is started on a restored copy to see whether it works, and the programs that look at it.
//!
//! The server is cut off by options on its command line, which beat every file: it listens at a socket in a folder of this
//! user alone, archives nothing, follows nobody, and what starts jobs is held. [`settings`] is the whole list. Its environment is
//! empty but for `PATH` and `HOME`, of which `restore_command` lives.
//!
//! Everything is waited for by events: what the server writes on its standard error, and its end. Whatever a program prints, a
//! bounded part of it is kept. A value that is dropped kills its program.

mod command;
mod log;
mod output;
mod programs;
mod server;
mod settings;

pub use command::{Client, PsqlSource, Ran};
pub use output::Records;
pub use programs::Programs;
pub use server::{Recovered, StopMode, Stopped, TrialServer};
pub use settings::TrialPlaces;
