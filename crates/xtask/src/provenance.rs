//! Where an image comes from: a statement of in-toto (version 1) with the provenance of SLSA (version 1), in JSON.
//!
//! It says what this machine saw when it packed: the image and the binary in it by their digests, the commit and whether the tree was that
//! commit's, the lock file, the compiler, and how the binary is built. The binary may have been there before; it is not compared. Nobody signs it here, so it is worth what the place is worth where it lies.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

/// How the binary is built; the Makefile's `build` runs the same.
const BUILD: &str = "RUSTFLAGS='-C target-feature=+crt-static' cargo build --release --locked --target x86_64-unknown-linux-gnu -p wale";

/// What the statement is about, and from what it was made.
struct Facts {
    /// The image's name and tag.
    image: String,
    /// The digest of the image's configuration, hexadecimal: what podman and docker call its id.
    image_sha256: String,
    binary_sha256: String,
    /// The commit, and whether anything in the tree is not as it has it; none where git cannot say.
    source: Option<(String, bool)>,
    lock_sha256: String,
    compiler: String,
    now: String,
}

/// Writes the statement about the image `name`, whose id is `id`, with this binary in it.
pub(crate) fn write(
    root: &Path,
    binary: &Path,
    (name, id): (&str, &str),
    file: &Path,
) -> Result<String, String> {
    let at_root = |program: &str, arguments: &[&str]| {
        let output = Command::new(program)
            .args(arguments)
            .current_dir(root)
            .output()
            .map_err(|error| format!("{program}: {error}"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(format!("{program} {}: {said}", arguments.join(" ")));
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let sha256 = |path: &Path| {
        let said = at_root("sha256sum", &["--", &path.to_string_lossy()])?;
        hexadecimal(said.split(' ').next().unwrap_or_default())
    };
    let binary = binary
        .canonicalize()
        .map_err(|error| format!("{}: {error}", binary.display()))?;
    let facts = Facts {
        image: name.to_owned(),
        image_sha256: hexadecimal(id.trim_start_matches("sha256:"))?,
        binary_sha256: sha256(&binary)?,
        source: at_root("git", &["rev-parse", "HEAD"])
            .and_then(|commit| {
                let changes = at_root("git", &["status", "--porcelain"])?;
                Ok((commit, !changes.is_empty()))
            })
            .ok(),
        lock_sha256: sha256(&root.join("Cargo.lock"))?,
        compiler: at_root("rustc", &["--version"])?,
        now: at_root("date", &["-u", "+%Y-%m-%dT%H:%M:%SZ"])?,
    };
    let text =
        serde_json::to_string_pretty(&statement(&facts)).map_err(|error| error.to_string())?;
    std::fs::write(file, text + "\n").map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(format!("wrote {}", file.display()))
}

/// A SHA-256 as digits.
fn hexadecimal(text: &str) -> Result<String, String> {
    let is_digest = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_digest {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(format!("\"{text}\" is no SHA-256"))
    }
}

fn statement(facts: &Facts) -> Value {
    let source = match &facts.source {
        Some((commit, false)) => json!({
            "name": "source",
            "digest": {"gitCommit": commit},
            "annotations": {"tree": "when the image was packed, as the commit has it; whether the binary was built from it, nobody compared"},
        }),
        Some((commit, true)) => json!({
            "name": "source",
            "digest": {"gitCommit": commit},
            "annotations": {"tree": "when the image was packed, modified: the binary may be of no commit"},
        }),
        None => json!({"name": "source", "annotations": {"tree": "of no commit that git knows"}}),
    };
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [
            {
                "name": facts.image,
                "digest": {"sha256": facts.image_sha256},
                "annotations": {"digest": "of the image's configuration, its id; a registry names the image by its manifest's"},
            },
            {"name": "usr/local/bin/wale", "digest": {"sha256": facts.binary_sha256}},
        ],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "urn:wale:make-image:1",
                "externalParameters": {"target": "image", "tag": facts.image},
                "internalParameters": {"build": BUILD, "image": "scripts/image.sh", "compiler": facts.compiler},
                "resolvedDependencies": [
                    source,
                    {"name": "Cargo.lock", "digest": {"sha256": facts.lock_sha256}},
                ],
            },
            "runDetails": {
                "builder": {"id": "urn:wale:whoever-ran-make"},
                "metadata": {"finishedOn": facts.now},
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_names_what_it_is_about_and_says_when_the_tree_was_another() {
        let commit = |is_modified| Some(("3".repeat(40), is_modified));
        for (source, tree) in [
            (commit(false), "when the image was packed, as the commit"),
            (commit(true), "when the image was packed, modified"),
            (None, "of no commit"),
        ] {
            let is_known = source.is_some();
            let facts = Facts {
                image: "wale:1".to_owned(),
                image_sha256: "1".repeat(64),
                binary_sha256: "2".repeat(64),
                source,
                lock_sha256: "4".repeat(64),
                compiler: "rustc 1".to_owned(),
                now: "2026-12-01T00:00:00Z".to_owned(),
            };
            let said = statement(&facts);
            assert_eq!(said["subject"][0]["digest"]["sha256"], "1".repeat(64));
            assert_eq!(said["subject"][1]["digest"]["sha256"], "2".repeat(64));
            let from = &said["predicate"]["buildDefinition"]["resolvedDependencies"];
            let commit = &from[0]["digest"]["gitCommit"];
            assert_eq!(*commit == "3".repeat(40), is_known, "{said}");
            assert_eq!(from[1]["digest"]["sha256"], "4".repeat(64));
            let told = from[0]["annotations"]["tree"].as_str().unwrap();
            assert!(told.starts_with(tree), "{told}");
        }
        assert!(hexadecimal(&"A".repeat(64)).is_ok());
        for wrong in ["", "latest", &"g".repeat(64)] {
            assert!(hexadecimal(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_command_is_the_makefile_s() {
        let makefile =
            include_str!("../../../Makefile").replace("$(TARGET)", "x86_64-unknown-linux-gnu");
        assert!(makefile.contains(&BUILD.replace('\'', "\"")), "{BUILD}");
    }
}
