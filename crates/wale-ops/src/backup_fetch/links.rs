//! Symbolic links that a backup of WAL-E's brings: those that stay in the data directory are made, the others are
//! reported.
//!
//! They are made after all files, so nothing is ever written through one. A link out of the directory (to a certificate
//! below `/etc`, say) is not made: what it led to is not in the backup, and the name should not suddenly mean something
//! of this machine.

use wale_pg::byte_text;

use super::target::Target;
use crate::backup_content::ForeignLink;
use crate::error::Result;

/// Makes the links that stay inside; returns a sentence for each of the others.
pub(super) fn place(links: &[ForeignLink], target: &Target) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    for link in links {
        let ForeignLink { path, target: to } = link;
        let (path_shown, to_shown) = (byte_text::shown(path), byte_text::shown(to));
        if path == "pg_wal" {
            if !target.path().join("pg_wal").is_symlink() {
                warnings.push(format!(
                    "pg_wal was a link to \"{to_shown}\" when the backup was made; it is a directory now"
                ));
            }
        } else if !stays_inside(path, to) {
            warnings.push(format!(
                "the symbolic link \"{path_shown}\" to \"{to_shown}\" leads out of the data directory and was not restored"
            ));
        } else if !target.link_inside(path, to)? {
            warnings.push(format!(
                "the symbolic link \"{path_shown}\" to \"{to_shown}\" was not restored: something else has its name"
            ));
        }
    }
    Ok(warnings)
}

/// Whether a link cannot lead out of the directory, whatever other links of this kind there are.
///
/// Its target is relative, goes up first and only so far as the link lies deep, and then down only. Going up after
/// having gone down is refused: the way down may be another link. Tablespaces and the WAL directory may lie outside, so
/// no link is made in them or into them.
fn stays_inside(path: &str, target: &str) -> bool {
    let mut place: Vec<&str> = path.split('/').collect();
    place.pop();
    let mut rest = target.split('/').peekable();
    while rest.next_if(|part| *part == "..").is_some() {
        if place.pop().is_none() {
            return false;
        }
    }
    place.extend(rest);
    let plain = |part: &&str| !matches!(*part, "" | "." | "..") && !part.contains('\0');
    let elsewhere = |way: &str| {
        let first = way.split('/').next();
        matches!(first, Some("pg_tblspc" | "pg_wal"))
    };
    !place.is_empty()
        && place.iter().all(plain)
        && !elsewhere(path)
        && !place.first().is_some_and(|first| elsewhere(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_out_is_told_from_what_stays() {
        let cases = [
            ("server.crt", "ssl/server.crt", true),
            ("ssl/current", "../other/server.crt", true),
            ("a/b/c", "../../d", true),
            ("log", "pg_log", true),
            ("server.crt", "/etc/ssl/server.crt", false),
            ("x", "../x", false),
            ("a/b", "../../x", false),
            ("a/b", "..", false),
            ("a", "b/../../x", false),
            ("a", "b/../c", false),
            ("a", "", false),
            ("a", ".", false),
            ("a", "b//c", false),
            ("a", "b\0c", false),
            ("pg_tblspc/16384", "x", false),
            ("base/x", "../pg_tblspc/16384/x", false),
            ("x", "pg_wal/x", false),
            ("pg_wal/x", "../base", false),
        ];
        for (path, target, expected) in cases {
            assert_eq!(stays_inside(path, target), expected, "{path} -> {target}");
        }
    }
}
