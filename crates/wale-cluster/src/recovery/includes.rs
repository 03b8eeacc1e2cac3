//! What the configuration of a restored cluster includes, and whether it is there.
//!
//! A server does not start when a folder that an `include_dir` names is missing, even one that was empty: Debian's
//! `postgresql.conf` ends with `include_dir = 'conf.d'`, and `conf.d` of a fresh cluster has no file. So such a folder is made
//! beneath the data directory. What else is missing is reported before somebody tries to start the server.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use super::configuration::{
    FILES_MAX, INCLUDE_DEPTH, configuration_files, parse_line, read_bounded,
};
use crate::error::ClusterError;
use crate::owner::Owner;
use crate::restore_tree::RestoreTree;

/// The files at which a server begins to read. Rules include others from 16 on.
const FIRST: [&str; 3] = ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"];

/// How something is included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    File,
    FileIfExists,
    Folder,
    /// A list of names in a rule.
    List,
}

impl How {
    pub(super) fn of(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "include" => Some(Self::File),
            "include_if_exists" => Some(Self::FileIfExists),
            "include_dir" => Some(Self::Folder),
            _ => None,
        }
    }
}

/// What [`mend`] did and found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mended {
    /// Folders that were made, by their path in the data directory.
    pub made: Vec<String>,
    /// Sentences about what is included and is not there: the server does not start without it.
    pub missing: Vec<String>,
}

/// What the settings of a file include.
pub(super) fn of_settings(text: &str) -> Vec<(How, String)> {
    text.lines()
        .filter_map(|line| parse_line(line).ok().flatten())
        .filter_map(|setting| Some((How::of(&setting.name)?, setting.value)))
        .collect()
}

/// What a file of rules (`pg_hba.conf`, `pg_ident.conf`) includes: whole files and folders from 16 on, and in every version
/// lists of names, as in `@admins`.
pub(super) fn of_rules(text: &str) -> Vec<(How, String)> {
    let mut found = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let (first, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
        if let Some(how) = How::of(first) {
            found.push((how, rest.trim().trim_matches('"').to_owned()));
            continue;
        }
        let words = rest.split([' ', '\t', ',']);
        let lists = words
            .filter_map(|word| word.strip_prefix('@'))
            .map(|name| name.trim_matches('"'))
            .filter(|name| !name.is_empty())
            .map(|name| (How::List, name.to_owned()));
        found.extend(lists);
    }
    found
}

/// Makes the folders beneath the data directory that its configuration includes and that are missing. To be done after every
/// configuration file is in its place.
///
/// # Errors
/// When a file cannot be read, or a folder cannot be made.
pub fn mend(data_directory: &Path, owner: Option<Owner>) -> Result<Mended, ClusterError> {
    let tree = RestoreTree::open(data_directory, owner)?;
    let mut mended = Mended::default();
    let mut waiting: Vec<(PathBuf, bool, u32)> = FIRST
        .iter()
        .map(|name| (data_directory.join(name), *name != FIRST[0], 0))
        .collect();
    let mut seen = BTreeSet::new();
    while let Some((path, is_rules, depth)) = waiting.pop() {
        // The author of the configuration can let it include itself.
        if depth > INCLUDE_DEPTH || seen.len() >= FILES_MAX as usize || !seen.insert(path.clone()) {
            continue;
        }
        let Some(bytes) = read_bounded(&path)? else {
            continue;
        };
        let text = String::from_utf8_lossy(&bytes);
        let includes = if is_rules {
            of_rules(&text)
        } else {
            of_settings(&text)
        };
        for (how, value) in includes {
            let folder = path.parent().unwrap_or(data_directory);
            let inner = plain(&folder.join(&value));
            let is_there = match how {
                How::Folder => inner.is_dir(),
                How::File | How::FileIfExists | How::List => inner.exists(),
            };
            // What rules include is the server's alone to read.
            if is_there && is_rules {
                continue;
            }
            if is_there {
                let files = match how {
                    How::Folder => {
                        configuration_files(&inner).map_err(ClusterError::io("list", &inner))?
                    }
                    How::File | How::FileIfExists => vec![inner],
                    How::List => Vec::new(),
                };
                waiting.extend(files.into_iter().map(|file| (file, is_rules, depth + 1)));
                continue;
            }
            let beneath = inner.strip_prefix(data_directory).ok();
            match (how, beneath.and_then(Path::to_str)) {
                (How::FileIfExists, _) => {}
                (How::List, _) => mended.missing.push(format!(
                    "{} names the list {}, which is not there: its rules do not hold, or from PostgreSQL 16 on the server does \
                     not start",
                    path.display(),
                    inner.display()
                )),
                (How::Folder, Some(relative)) if !inner.exists() => {
                    tree.create_directory(relative, 0o700)?;
                    mended.made.push(relative.to_owned());
                }
                _ => mended.missing.push(format!(
                    "{} includes {}, which is not there: the server does not start until it is, or until the line is removed",
                    path.display(),
                    inner.display()
                )),
            }
        }
    }
    Ok(mended)
}

/// Without `.` and `..`, by the words alone.
pub(super) fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                plain.pop();
            }
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_included_is_made_and_what_else_is_missing_is_told() {
        let data = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let path = data.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put(
            "postgresql.conf",
            "include_dir 'conf.d'\ninclude_if_exists = 'none.conf'\ninclude 'there.d/more.conf'\n\
             include_dir = '/nonexistent/conf.d'\ninclude 'postgresql.conf'\n#include_dir 'comment.d'\n",
        );
        put(
            "there.d/more.conf",
            "include_dir = '../deep/er'\ninclude 'gone.conf'\ninclude_dir '../../outside'\n",
        );
        put(
            "pg_hba.conf",
            "local all @admins peer\ninclude_dir rules.d # of 16\ninclude_if_exists \"x y\"\n",
        );
        let mended = mend(data.path(), None).unwrap();
        let mut made = mended.made.clone();
        made.sort();
        assert_eq!(made, ["conf.d", "deep/er", "rules.d"]);
        for name in &made {
            assert!(data.path().join(name).is_dir(), "{name}");
        }
        assert!(!data.path().parent().unwrap().join("outside").exists());
        for word in [
            "/nonexistent/conf.d",
            "there.d/gone.conf",
            "/outside",
            "/admins",
        ] {
            let is_told = mended.missing.iter().any(|said| said.contains(word));
            assert!(is_told, "{word}: {mended:?}");
        }
        assert_eq!(mended.missing.len(), 4, "{mended:?}");
        let again = mend(data.path(), None).unwrap();
        assert!(again.made.is_empty(), "{again:?}");
    }

    #[test]
    fn rules_include_files_folders_and_lists() {
        let text = "# @comment\nhost all,@\"dbs\" @admins 127.0.0.1/32 md5\nINCLUDE_DIR \"hba d\"\ninclude x # y\nlocal \"@all\" all peer\n";
        assert_eq!(
            of_rules(text),
            [
                (How::List, "dbs".to_owned()),
                (How::List, "admins".to_owned()),
                (How::Folder, "hba d".to_owned()),
                (How::File, "x".to_owned()),
            ]
        );
    }
}
