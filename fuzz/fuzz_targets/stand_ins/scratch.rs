//! A folder of the process's own, for decoders that read files.

use std::path::PathBuf;
use std::sync::OnceLock;

/// The folder; made once. The next run of the same process id empties it.
pub(crate) fn folder() -> &'static PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let path = std::env::temp_dir().join(format!("wale-fuzz-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a folder");
        path
    })
}
