//! What the shipped binary is made of: a bill of materials (`CycloneDX` 1.5, JSON) and the licences of others, both from
//! Cargo's own metadata and the sources that Cargo has on this machine. The image carries them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

/// The program whose parts are told, and the platform it is built for.
const PROGRAM: &str = "wale";
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The C library is linked into the binary. Debian's package says under which terms.
const LIBC_TERMS: &str = "/usr/share/doc/libc6/copyright";

/// How file names begin that hold terms, in lower case.
const TERMS: [&str; 5] = ["license", "licence", "copying", "notice", "unlicense"];

/// A package that is linked into the program.
#[derive(Debug)]
struct Part {
    name: String,
    version: String,
    license: String,
    /// SHA-256 of the package as the registry serves it; none for our own.
    checksum: Option<String>,
    folder: PathBuf,
}

/// Writes `sbom.cdx.json` and `THIRD-PARTY-NOTICES.txt` into `folder`.
pub(crate) fn write(root: &Path, folder: &Path) -> Result<String, String> {
    let parts = parts(&metadata(root)?, &lock(root)?)?;
    let at = |name: &str| folder.join(name);
    let put = |path: PathBuf, text: String| {
        std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
    };
    std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let bill = serde_json::to_string_pretty(&bill(&parts)).map_err(|error| error.to_string())?;
    put(at("sbom.cdx.json"), bill + "\n")?;
    put(at("THIRD-PARTY-NOTICES.txt"), notices(&parts)?)?;
    Ok(format!("wrote the terms of {} packages", parts.len()))
}

fn metadata(root: &Path) -> Result<Value, String> {
    let cargo = option_env!("CARGO").unwrap_or("cargo");
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked"])
        .args(["--filter-platform", TARGET])
        .current_dir(root)
        .output()
        .map_err(|error| format!("{cargo} metadata: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    serde_json::from_slice(&output.stdout).map_err(|error| format!("cargo metadata: {error}"))
}

/// Checksums by name and version, from `Cargo.lock`: blocks of `key = "value"` lines.
fn lock(root: &Path) -> Result<BTreeMap<(String, String), String>, String> {
    let path = root.join("Cargo.lock");
    let text =
        std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let value = |block: &str, key: &str| {
        let line = block.lines().find_map(|line| line.strip_prefix(key))?;
        Some(line.strip_prefix(" = \"")?.strip_suffix('"')?.to_owned())
    };
    Ok(text
        .split("[[package]]")
        .filter_map(|block| {
            let key = (value(block, "name")?, value(block, "version")?);
            Some((key, value(block, "checksum")?))
        })
        .collect())
}

/// What is reached from the program over normal dependencies: neither tests' nor build scripts'.
fn parts(
    metadata: &Value,
    checksums: &BTreeMap<(String, String), String>,
) -> Result<Vec<Part>, String> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let packages: BTreeMap<String, Value> = list(&metadata["packages"])
        .into_iter()
        .map(|package| (text(&package["id"]), package))
        .collect();
    let nodes: BTreeMap<String, Value> = list(&metadata["resolve"]["nodes"])
        .into_iter()
        .map(|node| (text(&node["id"]), node))
        .collect();
    let program = packages
        .iter()
        .find(|(_, package)| package["name"] == PROGRAM)
        .map(|(id, _)| id.clone())
        .ok_or_else(|| format!("cargo metadata knows no package {PROGRAM}"))?;
    let mut reached = BTreeSet::new();
    let mut open = vec![program];
    while let Some(id) = open.pop() {
        let Some(node) = nodes.get(&id) else {
            return Err(format!("cargo metadata resolves no package {id}"));
        };
        if reached.insert(id) {
            let normal =
                |edge: &Value| list(&edge["dep_kinds"]).iter().any(|k| k["kind"].is_null());
            open.extend(
                list(&node["deps"])
                    .iter()
                    .filter(|edge| normal(edge))
                    .map(|edge| text(&edge["pkg"])),
            );
        }
    }
    let mut parts: Vec<Part> = reached
        .iter()
        .map(|id| {
            let package = &packages[id];
            let (name, version) = (text(&package["name"]), text(&package["version"]));
            Part {
                checksum: checksums.get(&(name.clone(), version.clone())).cloned(),
                name,
                version,
                // The older spelling of "or", which SPDX does not know.
                license: text(&package["license"])
                    .replace(" / ", " OR ")
                    .replace('/', " OR "),
                folder: PathBuf::from(text(&package["manifest_path"])).with_file_name(""),
            }
        })
        .collect();
    parts.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    Ok(parts)
}

fn bill(parts: &[Part]) -> Value {
    let component = |part: &Part| {
        let purl = format!("pkg:cargo/{}@{}", part.name, part.version);
        let mut component = json!({
            "type": "library",
            "bom-ref": purl,
            "name": part.name,
            "version": part.version,
            "purl": purl,
            "licenses": [{ "expression": part.license }],
        });
        if let Some(checksum) = &part.checksum {
            component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
        }
        component
    };
    let (own, others): (Vec<&Part>, Vec<&Part>) =
        parts.iter().partition(|part| part.name == PROGRAM);
    let mut program = own.first().map_or(Value::Null, |part| component(part));
    program["type"] = json!("application");
    json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": program },
        "components": others.into_iter().map(component).collect::<Vec<_>>(),
    })
}

/// The terms of every package of others, each text once.
fn notices(parts: &[Part]) -> Result<String, String> {
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut silent = Vec::new();
    for part in parts.iter().filter(|part| part.checksum.is_some()) {
        let label = format!("{} {} ({})", part.name, part.version, part.license);
        let found = terms(&part.folder)?;
        if found.is_empty() {
            silent.push(label.clone());
        }
        for text in found {
            texts.entry(text).or_default().push(label.clone());
        }
    }
    if let Ok(text) = std::fs::read_to_string(LIBC_TERMS) {
        texts
            .entry(text)
            .or_default()
            .push("the GNU C Library, linked statically".to_owned());
    }
    let mut page =
        String::from("The program wale holds the work of others. These are their terms.\n");
    if !silent.is_empty() {
        page.push_str("\nPackages that name their terms and bring no text of them:\n");
        for label in silent {
            let _ = writeln!(page, "  {label}");
        }
    }
    for (text, labels) in texts {
        let _ = writeln!(
            page,
            "\n{}\n{}\n\n{}",
            "=".repeat(78),
            labels.join("\n"),
            text.trim()
        );
    }
    Ok(page)
}

/// The files with terms in `folder` and, for bundled sources of others, in the folders right below it.
fn terms(folder: &Path) -> Result<Vec<String>, String> {
    let entries = |folder: &Path| -> Result<Vec<PathBuf>, String> {
        let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
        let list = std::fs::read_dir(folder).map_err(failed)?;
        list.map(|entry| entry.map(|entry| entry.path()).map_err(failed))
            .collect()
    };
    let mut paths = entries(folder)?;
    for path in paths.clone() {
        if path.is_dir() {
            paths.extend(entries(&path)?);
        }
    }
    paths.sort();
    let named = |path: &PathBuf| {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .to_lowercase();
        path.is_file() && TERMS.iter().any(|begin| name.starts_with(begin))
    };
    Ok(paths
        .iter()
        .filter(|path| named(path))
        // What is no text is no terms (a picture, a program).
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_linked_counts() {
        let edge = |to: &str, kind: Value| json!({ "pkg": to, "dep_kinds": [{ "kind": kind }] });
        let metadata = json!({
            "packages": [
                { "id": "w", "name": "wale", "version": "1.0.0", "license": "Apache-2.0", "manifest_path": "/w/Cargo.toml" },
                { "id": "a", "name": "a", "version": "2.0.0", "license": "MIT/Apache-2.0", "manifest_path": "/a/Cargo.toml" },
                { "id": "t", "name": "t", "version": "3.0.0", "license": "MIT", "manifest_path": "/t/Cargo.toml" },
            ],
            "resolve": { "nodes": [
                { "id": "w", "deps": [edge("a", Value::Null), edge("t", json!("dev"))] },
                { "id": "a", "deps": [edge("t", json!("build"))] },
                { "id": "t", "deps": [] },
            ] },
        });
        let checksums = BTreeMap::from([(("a".to_owned(), "2.0.0".to_owned()), "5e".to_owned())]);
        let parts = parts(&metadata, &checksums).unwrap();
        let names: Vec<&str> = parts.iter().map(|part| part.name.as_str()).collect();
        assert_eq!(names, ["a", "wale"]);
        let bill = bill(&parts);
        assert_eq!(bill["metadata"]["component"]["name"], "wale");
        assert_eq!(bill["components"][0]["purl"], "pkg:cargo/a@2.0.0");
        assert_eq!(bill["components"][0]["hashes"][0]["content"], "5e");
        assert_eq!(
            bill["components"][0]["licenses"][0]["expression"],
            "MIT OR Apache-2.0"
        );
    }

    #[test]
    fn terms_are_found_beside_the_sources_and_one_folder_below() {
        let folder = std::env::temp_dir().join(format!("wale-xtask-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("bundled")).unwrap();
        for (name, text) in [
            ("LICENSE-MIT", "a"),
            ("bundled/COPYING", "b"),
            ("README", "c"),
        ] {
            std::fs::write(folder.join(name), text).unwrap();
        }
        let found = terms(&folder).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(found, ["a", "b"]);
    }
}
