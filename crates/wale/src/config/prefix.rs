//! Which archive is meant: exactly one prefix.
//!
//! Knows the spellings of WAL-E and the two variables of the later image; opens nothing.

use std::path::PathBuf;

use super::group::Group;
use super::mistake::Mistake;
use super::raw::Origin;
use super::source::Several;

/// Where the archive is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// A mounted directory.
    Directory(PathBuf),
    /// A container of Swift, and the path in it: nothing, or one that ends with `/`.
    SwiftContainer {
        /// Its name.
        container: String,
        /// The path, without a slash before it.
        path: String,
    },
    /// A bucket of S3, and what names in it begin with: nothing, or a path that ends with `/`.
    Bucket {
        /// Its name.
        bucket: String,
        /// The path.
        prefix: String,
    },
    /// A container of Azure Blob Storage, and what names in it begin with.
    AzureContainer {
        /// Its name.
        container: String,
        /// The path.
        prefix: String,
    },
    /// A bucket of Google Cloud Storage.
    Gcs {
        /// Its name.
        bucket: String,
        /// What follows it and a slash. How names begin depends on it and on whose archive it is.
        path: String,
    },
}

/// WAL-E's order, of options and of variables alike (an option for Swift does not exist).
pub(super) const PREFIXES: [&str; 7] = [
    "WALE_FILE_PREFIX",
    "WALE_GS_PREFIX",
    "WALE_S3_PREFIX",
    "WALE_S3_BUCKET",
    "WALE_SWIFT_PREFIX",
    "WALE_WABS_PREFIX",
    // None of WAL-E's.
    "WALE_PREFIX",
];

/// One prefix setting that is set.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    /// The setting's name.
    pub(crate) name: &'static str,
    /// Its text.
    pub(crate) text: String,
    /// Its origin.
    pub(crate) origin: Origin,
}

const ALL: &str =
    "WALE_FILE_PREFIX, WALE_S3_PREFIX, WALE_GS_PREFIX, WALE_WABS_PREFIX or WALE_SWIFT_PREFIX";

/// Chooses among the prefixes that are set. Where flags name one, the others do not count.
///
/// # Errors
/// When none or several are set, the URL is not understood, or its store is not built yet.
pub(crate) fn choose(candidates: &[Candidate], several: Several) -> Result<Place, Mistake> {
    let by_flag: Vec<&Candidate> = candidates
        .iter()
        .filter(|c| c.origin == Origin::Flag)
        .collect();
    let counted = if by_flag.is_empty() {
        candidates.iter().collect()
    } else {
        by_flag
    };
    match counted.as_slice() {
        [] => Err(
            Mistake::new(Group::Archive, "no place for the archive is set").hint(format!(
                "set exactly one of {ALL}, as in WALE_FILE_PREFIX=file://localhost/archive"
            )),
        ),
        [only] => place(only),
        all if several == Several::FirstOfWalE => {
            let first = PREFIXES
                .iter()
                .find_map(|name| all.iter().find(|candidate| candidate.name == *name));
            place(first.expect("every prefix stands in the order"))
        }
        all => {
            let names: Vec<&str> = all.iter().map(|c| c.name).collect();
            Err(Mistake::new(
                Group::Archive,
                format!(
                    "several places for the archive are set: {}",
                    names.join(", ")
                ),
            )
            .hint("keep exactly one of them"))
        }
    }
}

/// A store that is built.
struct Scheme {
    /// What its URLs begin with.
    name: &'static str,
    /// How they are written.
    form: &'static str,
    /// The settings that are meant for it.
    settings: &'static [&'static str],
    /// The place that the rest of a URL means, or what is wrong with it.
    read: fn(&str) -> Result<Place, &'static str>,
}

/// The stores. The first one's form is the example where no other is meant.
const SCHEMES: [Scheme; 6] = [
    Scheme {
        name: "file",
        form: "file://localhost/absolute/path",
        settings: &["WALE_FILE_PREFIX"],
        read: |rest| {
            directory(rest)
                .map(Place::Directory)
                .ok_or("has no absolute path")
        },
    },
    Scheme {
        name: "swift",
        form: "swift://container/path",
        settings: &["WALE_SWIFT_PREFIX"],
        read: swift_container,
    },
    Scheme {
        name: "s3",
        form: "s3://bucket/path",
        settings: &["WALE_S3_PREFIX", "WALE_S3_BUCKET"],
        read: bucket,
    },
    Scheme {
        name: "wabs",
        form: "wabs://container/path",
        settings: &["WALE_WABS_PREFIX"],
        read: azure_container,
    },
    // WAL-G's name for the same.
    Scheme {
        name: "azure",
        form: "azure://container/path",
        settings: &[],
        read: azure_container,
    },
    Scheme {
        name: "gs",
        form: "gs://bucket/path",
        settings: &["WALE_GS_PREFIX"],
        read: |rest| {
            let (bucket, path) = bucket_and_path(rest)?;
            Ok(Place::Gcs { bucket, path })
        },
    },
];

/// Stores of WAL-E that are not built yet.
const PLANNED: [&str; 1] = ["ssh"];

fn place(candidate: &Candidate) -> Result<Place, Mistake> {
    let Candidate { name, text, .. } = candidate;
    let mistake = |problem: &str| Mistake::new(Group::Archive, format!("{name}: {problem}"));
    let [file, ..] = &SCHEMES;
    let meant = SCHEMES.iter().find(|scheme| scheme.settings.contains(name));
    let form = meant.unwrap_or(file).form;
    if text.starts_with(['"', '\'']) {
        return Err(mistake("the value stands in quotes, which are part of it")
            .hint("leave the quotes out: an env file and a Secret keep them, only a shell takes them off"));
    }
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (scheme, rest),
        None if text.starts_with('/') && *name == "WALE_FILE_PREFIX" => (file.name, text.as_str()),
        // As WAL-E's variables are: of the scheme, if there is one, and never a folder by accident.
        None if text.starts_with('/') => {
            let problem = format!("\"{text}\" is a path, and no URL of a store");
            let elsewhere = "an archive in a folder is set with WALE_FILE_PREFIX";
            return Err(mistake(&problem).hint(match meant {
                Some(_) => format!("write {form}; {elsewhere}"),
                None => elsewhere.to_owned(),
            }));
        }
        None => {
            let problem = format!("\"{text}\" is not a URL");
            return Err(mistake(&problem).hint(format!("write {form}")));
        }
    };
    if let Some(built) = SCHEMES.iter().find(|built| built.name == scheme) {
        return (built.read)(rest).map_err(|problem| {
            mistake(&format!("\"{text}\" {problem}")).hint(format!("write {}", built.form))
        });
    }
    Err(if PLANNED.contains(&scheme) {
        mistake(&format!(
            "stores of type {scheme} are not built yet in this version"
        ))
        .hint("use WALE_S3_PREFIX, or WALE_FILE_PREFIX with a mounted directory")
    } else {
        mistake(&format!("\"{scheme}\" is not a known type of store")).hint(format!("write {form}"))
    })
}

/// The path after the host, which is ignored, as by WAL-E. Nothing is percent-decoded, as by WAL-E.
fn directory(rest: &str) -> Option<PathBuf> {
    let path = rest.get(rest.find('/')?..)?.trim_end_matches('/');
    let sound =
        !path.is_empty() && !path.contains('\0') && !path.split('/').any(|part| part == "..");
    sound.then(|| PathBuf::from(path))
}

/// The warning for `file://srv/path`, whose first folder is taken for a host and dropped.
pub(super) fn dropped_host(name: &str, text: &str) -> Option<String> {
    let rest = text.trim().strip_prefix("file://")?;
    let (host, path) = (&rest[..rest.find('/')?], directory(rest)?);
    if host.is_empty() || host.eq_ignore_ascii_case("localhost") {
        return None;
    }
    let path = path.display();
    // Somebody's name and password may stand there.
    let (dropped, advice) = if host.contains(['@', ':']) {
        ("what stands before the path".to_owned(), String::new())
    } else {
        let advice = format!("; if it is part of the path, write file:///{host}{path}");
        (format!("\"{host}\""), advice)
    };
    Some(format!(
        "{name}: {dropped} is taken for a host and not used, so the archive is {path}{advice}"
    ))
}

/// A container of Swift, whose name may hold nearly everything.
fn swift_container(rest: &str) -> Result<Place, &'static str> {
    /// Swift's own bound.
    const CONTAINER_BYTES_MAX: usize = 256;
    let (container, path) = rest.split_once('/').unwrap_or((rest, ""));
    let is_name = !container.is_empty()
        && container.len() <= CONTAINER_BYTES_MAX
        && !container
            .chars()
            .any(|c| c.is_control() || "?#".contains(c))
        && !matches!(container, "." | "..");
    if !is_name {
        return Err("has no container");
    }
    Ok(Place::SwiftContainer {
        container: container.to_owned(),
        path: prefix_of(path)?,
    })
}

fn bucket(rest: &str) -> Result<Place, &'static str> {
    let (bucket, path) = bucket_and_path(rest)?;
    let prefix = prefix_of(&path)?;
    Ok(Place::Bucket { bucket, prefix })
}

/// A bucket, and what follows it and a slash.
fn bucket_and_path(rest: &str) -> Result<(String, String), &'static str> {
    let (bucket, path) = rest.split_once('/').unwrap_or((rest, ""));
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    if bucket.is_empty() || !bucket.bytes().all(fits) {
        return Err("has no bucket");
    }
    check_path(path)?;
    Ok((bucket.to_owned(), path.to_owned()))
}

fn azure_container(rest: &str) -> Result<Place, &'static str> {
    let (container, path) = rest.split_once('/').unwrap_or((rest, ""));
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if container.is_empty() || !container.bytes().all(fits) {
        return Err(
            "has no container; a container's name has only small letters, digits and hyphens",
        );
    }
    Ok(Place::AzureContainer {
        container: container.to_owned(),
        prefix: prefix_of(path)?,
    })
}

/// What names begin with: slashes before the path do not count, and one follows it, as by WAL-E.
fn prefix_of(path: &str) -> Result<String, &'static str> {
    let path = path.trim_matches('/');
    check_path(path)?;
    Ok(match path {
        "" => String::new(),
        path => format!("{path}/"),
    })
}

fn check_path(path: &str) -> Result<(), &'static str> {
    if path.chars().any(char::is_control) || path.split('/').any(|part| part == "." || part == "..")
    {
        return Err("has a path that cannot be the beginning of names");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(name: &'static str, text: &str, origin: Origin) -> Candidate {
        Candidate {
            name,
            text: text.to_owned(),
            origin,
        }
    }

    fn choose_file(text: &str) -> Result<Place, Mistake> {
        let origin = Origin::Environment("WALE_FILE_PREFIX".into());
        choose(
            &[candidate("WALE_FILE_PREFIX", text, origin)],
            Several::Refused,
        )
    }

    #[test]
    fn spellings_of_a_directory() {
        for text in [
            "file://localhost/a/b",
            "file:///a/b",
            "file://elsewhere/a/b/",
            "/a/b",
            "/a/b//",
        ] {
            assert_eq!(
                choose_file(text),
                Ok(Place::Directory("/a/b".into())),
                "{text}"
            );
        }
        for text in [
            "file://localhost",
            "file:///",
            "/",
            "a/b",
            "ftp://x/y",
            "file:///a/../b",
        ] {
            assert!(choose_file(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_folder_that_is_taken_for_a_host_is_told() {
        let told = |text| dropped_host("WALE_FILE_PREFIX", text);
        assert_eq!(
            told("file://srv/wal-archive").as_deref(),
            Some(
                "WALE_FILE_PREFIX: \"srv\" is taken for a host and not used, so the archive is /wal-archive; \
                 if it is part of the path, write file:///srv/wal-archive"
            )
        );
        for text in [
            "file:///a",
            "file://localhost/a",
            "/a",
            "s3://b/a",
            "file://a",
        ] {
            assert_eq!(told(text), None, "{text}");
        }
        let secret = told("file://u:canary@h/a").unwrap();
        assert!(!secret.contains("canary"), "{secret}");
    }

    #[test]
    fn spellings_of_a_bucket() {
        for (text, bucket, prefix) in [
            ("s3://b", "b", ""),
            ("s3://b/", "b", ""),
            ("s3://b//p", "b", "p/"),
            ("s3://b.c_d/p/q/", "b.c_d", "p/q/"),
        ] {
            let expected = Place::Bucket {
                bucket: bucket.into(),
                prefix: prefix.into(),
            };
            assert_eq!(choose_file(text), Ok(expected), "{text}");
        }
        for text in [
            "s3://",
            "s3:///p",
            "s3://b?/p",
            "s3://b/../p",
            "s3://b/a/./c",
        ] {
            assert!(choose_file(text).is_err(), "{text}");
        }
    }

    #[test]
    fn spellings_of_a_container() {
        for (text, container, prefix) in [
            ("wabs://c", "c", ""),
            ("wabs://c-1//p/", "c-1", "p/"),
            ("azure://c/p/q", "c", "p/q/"),
        ] {
            let expected = Place::AzureContainer {
                container: container.into(),
                prefix: prefix.into(),
            };
            assert_eq!(choose_file(text), Ok(expected), "{text}");
        }
        for text in ["wabs://", "wabs:///p", "wabs://C/p", "wabs://c/a/../b"] {
            assert!(choose_file(text).is_err(), "{text}");
        }
    }

    #[test]
    fn spellings_of_a_container_of_swift() {
        for (text, container, path) in [
            ("swift://c", "c", ""),
            ("swift://c/", "c", ""),
            ("swift://My Container//p/q/", "My Container", "p/q/"),
        ] {
            let expected = Place::SwiftContainer {
                container: container.into(),
                path: path.into(),
            };
            assert_eq!(choose_file(text), Ok(expected), "{text}");
        }
        for text in [
            "swift://",
            "swift:///p",
            "swift://../p",
            "swift://c?x/p",
            "swift://c/../p",
        ] {
            assert!(choose_file(text).is_err(), "{text}");
        }
    }

    #[test]
    fn fault_101_a_folder_in_the_setting_of_a_bucket_is_a_mistake() {
        let of = |name, text| {
            let set = candidate(name, text, Origin::Environment("x".into()));
            choose(&[set], Several::Refused).expect_err("it is no bucket")
        };
        for (text, problem) in [
            ("/backup", "is a path"),
            ("bucket/path", "is not a URL"),
            ("S3:bucket", "is not a URL"),
            ("minio://bucket", "not a known type"),
        ] {
            let mistake = of("WALE_S3_PREFIX", text);
            assert!(mistake.text.contains(problem), "{mistake:?}");
            let hint = mistake.hint.expect("the form");
            assert!(hint.contains("s3://bucket/path"), "{hint}");
        }
        let hint = of("WALE_GS_PREFIX", "/backup").hint.expect("the form");
        assert!(hint.contains("gs://bucket/path"), "{hint}");
        assert!(hint.contains("WALE_FILE_PREFIX"), "{hint}");
    }

    #[test]
    fn exactly_one() {
        let none = choose(&[], Several::Refused).unwrap_err();
        assert!(none.hint.unwrap().contains("WALE_SWIFT_PREFIX"));
        let file = candidate("WALE_FILE_PREFIX", "/a", Origin::Environment("x".into()));
        let s3 = candidate(
            "WALE_S3_PREFIX",
            "s3://b/p",
            Origin::Environment("x".into()),
        );
        let several = choose(&[file.clone(), s3.clone()], Several::Refused).unwrap_err();
        assert!(several.text.contains("WALE_FILE_PREFIX, WALE_S3_PREFIX"));
        let ssh = candidate(
            "WALE_FILE_PREFIX",
            "ssh://h/p",
            Origin::Environment("x".into()),
        );
        let refused = choose(std::slice::from_ref(&ssh), Several::Refused).unwrap_err();
        assert!(
            refused.text.contains("ssh are not built yet"),
            "{refused:?}"
        );
        assert!(refused.hint.unwrap().contains("WALE_FILE_PREFIX"));
        let flag = Candidate {
            origin: Origin::Flag,
            ..file
        };
        let both = [flag, s3];
        assert_eq!(
            choose(&both, Several::Refused),
            Ok(Place::Directory("/a".into()))
        );
    }

    #[test]
    fn wal_e_takes_the_first_in_its_own_order() {
        let set = |name, text| candidate(name, text, Origin::Environment("x".into()));
        let s3 = set("WALE_S3_PREFIX", "s3://b/p");
        let swift = set("WALE_SWIFT_PREFIX", "swift://c/p");
        let file = set("WALE_FILE_PREFIX", "/a");
        let chosen = choose(&[swift.clone(), s3.clone()], Several::FirstOfWalE);
        assert!(matches!(chosen, Ok(Place::Bucket { .. })), "{chosen:?}");
        let chosen = choose(&[swift, s3, file], Several::FirstOfWalE);
        assert_eq!(chosen, Ok(Place::Directory("/a".into())));
        // The scheme decides, not the name of the variable.
        let wabs = set("WALE_WABS_PREFIX", "s3://b/p");
        let chosen = choose(&[wabs], Several::FirstOfWalE);
        assert!(matches!(chosen, Ok(Place::Bucket { .. })), "{chosen:?}");
    }
}
