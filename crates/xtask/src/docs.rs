//! The generated pages. The program prints them, or the tests' names say them; this writes them where they
//! are committed.

use std::path::Path;
use std::process::Command;

/// Page of `wale reference` and its file below `docs/reference`.
const PAGES: [(&str, &str); 4] = [
    ("settings", "settings.md"),
    ("errors", "errors.md"),
    ("commands", "commands.md"),
    (FAULTS, "faults.md"),
];

/// The page that is read off the tests, not printed by the program.
const FAULTS: &str = "faults";

/// Writes every page, as `program` prints it, or one that is built for this.
pub(crate) fn write(root: &Path, program: Option<&Path>) -> Result<String, String> {
    let folder = root.join("docs/reference");
    std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    for (page, file) in PAGES {
        let path = folder.join(file);
        std::fs::write(&path, text(root, page, program)?)
            .map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(format!("wrote {} pages to docs/reference", PAGES.len()))
}

/// Compares every page with the committed one, as `program` prints it, or one that is built for this.
pub(crate) fn check(root: &Path, program: Option<&Path>) -> Result<String, String> {
    let mut stale = Vec::new();
    for (page, file) in PAGES {
        let committed = std::fs::read_to_string(root.join("docs/reference").join(file));
        if committed.unwrap_or_default() != text(root, page, program)? {
            stale.push(file);
        }
    }
    if stale.is_empty() {
        Ok("the generated pages are current".to_owned())
    } else {
        Err(format!(
            "stale: {}; run `cargo run -p xtask -- docs`",
            stale.join(", ")
        ))
    }
}

fn text(root: &Path, page: &str, program: Option<&Path>) -> Result<String, String> {
    if page == FAULTS {
        return crate::faults::page(root);
    }
    let mut command = if let Some(program) = program {
        Command::new(program)
    } else {
        let mut cargo = Command::new(option_env!("CARGO").unwrap_or("cargo"));
        cargo.args(["run", "--quiet", "--package", "wale", "--"]);
        cargo
    };
    let output = command
        .args(["reference", page])
        .current_dir(root)
        .output()
        .map_err(|e| format!("{}: {e}", command.get_program().display()))?;
    if !output.status.success() {
        return Err(format!(
            "wale reference {page}: {}",
            String::from_utf8_lossy(&output.stderr)
        ));
    }
    String::from_utf8(output.stdout).map_err(|e| format!("wale reference {page}: {e}"))
}
