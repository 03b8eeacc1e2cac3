//! `install`: this program as a file in a folder that a database container shares, for images without `wget`.

use std::fs::File;
use std::path::Path;

use wale_cluster::durable::PendingFile;
use wale_ops::OpError;

use super::print::print;
use crate::report::Failure;

/// The running program itself, also where its file has another name or is gone (proc(5)).
const OWN: &str = "/proc/self/exe";

/// Everybody may run it.
const MODE: u32 = 0o755;

/// Puts the program into `folder` as `wale`, whole, over one that is there.
///
/// # Errors
/// When the folder is not there or cannot be written to.
pub(super) fn run(folder: &Path) -> Result<(), Failure> {
    let path = folder.join("wale");
    install(&path).map_err(|error| {
        OpError::from_io(error, format_args!("install {}", path.display()))
            .hint("the folder must be there, and writable for the user as whom this runs")
    })?;
    print(&format!("{}\n", path.display()))
}

fn install(path: &Path) -> std::io::Result<()> {
    let mut program = File::open(OWN)?;
    let mut file = PendingFile::create(path, MODE, None)?;
    std::io::copy(&mut program, &mut file)?;
    file.commit()
}
