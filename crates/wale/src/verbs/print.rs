//! Standard output, for what a verb has to say.

use std::io::Write;

use wale_ops::OpError;

use crate::report::Failure;

/// Prints on standard output. Its reader may have seen enough.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut output = std::io::stdout().lock();
    match output
        .write_all(text.as_bytes())
        .and_then(|()| output.flush())
    {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(OpError::from_io(error, "write to standard output").into())
        }
        _ => Ok(()),
    }
}
