//! What must not be shown although it stands in a setting that is no secret: the user in a URL, a password in
//! `primary_conninfo`, a header in somebody's own `restore_command`.
//!
//! Pure, and on the safe side: it hides too much rather than too little. A secret that is declared as one never comes
//! here; this is for what people write elsewhere.

use super::declared::SETTINGS;

/// Stands for what is hidden.
pub(super) const HIDDEN: &str = "(secret)";

/// Words that a secret follows, after `=` or `:`; in any case, and as the end of a longer word.
const KEYS: [&str; 10] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "api-key",
    "apikey",
    "api_key",
    "credential",
    "cookie",
];

/// What the name of a secret's variable or option holds, beside [`KEYS`]; in any case.
const NAMES: [&str; 5] = ["pass", "pwd", "key", "cred", "signature"];
/// Names that hold one of [`NAMES`], and whose value is the path of a file. A path is shown.
const PATHS: [&str; 2] = ["file", "sslkey"];

/// A secret below this length is no rare text: it stands within common words, and a hole in them shows what it is.
const SHORT_BYTES: usize = 6;

/// Options of curl and wget that are followed by a user's name and password.
const USERS: [&str; 4] = ["-u", "--user", "--proxy-user", "--oauth2-bearer"];
/// Options of theirs behind which stands a header of a request, of which only the name is shown.
const HEADERS: [&str; 3] = ["-H", "--header", "--proxy-header"];

/// Words that begin the value of an HTTP header that proves who somebody is.
const SCHEMES: [&str; 2] = ["bearer ", "basic "];

/// The text as it may be shown.
pub(super) fn redact(text: &str) -> String {
    let text = without_options(text);
    let text = without_users(&text);
    let text = without_values(&text);
    let text = without_named(&text);
    SCHEMES
        .iter()
        .fold(text, |text, scheme| after_word(&text, scheme))
}

/// The text without these secrets. A short one, and one that is a common word, is cut out only where the quoted value
/// is the secret and nothing else.
pub(super) fn without(text: String, secrets: &[String]) -> String {
    secrets.iter().fold(text, |text, secret| {
        if secret.len() >= SHORT_BYTES && !HIDDEN.contains(secret.as_str()) {
            return text.replace(secret.as_str(), HIDDEN);
        }
        ['"', '\''].iter().fold(text, |text, quote| {
            let quoted = format!("{quote}{secret}{quote}");
            text.replace(&quoted, &format!("{quote}{HIDDEN}{quote}"))
        })
    })
}

/// Hides what stands after [`USERS`], and the values of headers after [`HEADERS`].
fn without_options(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((option, behind)) = next_option(rest) {
        shown.push_str(&rest[..behind]);
        rest = &rest[behind..];
        let length = value_length(rest);
        let (value, later) = rest.split_at(length);
        let bare = value.trim_start_matches(['\'', '"', '\\']);
        let name = bare.find(':').filter(|_| HEADERS.contains(&option));
        match name {
            Some(colon) => {
                let end = value.len() - bare.len() + colon + 1;
                let quotes = &value[..value.len() - bare.len()];
                shown.push_str(&value[..end]);
                shown.extend([" ", HIDDEN, quotes]);
            }
            None if value.is_empty() => {}
            None => shown.push_str(HIDDEN),
        }
        rest = later;
    }
    shown.push_str(rest);
    shown
}

/// The first option of [`USERS`] and [`HEADERS`] that stands as a word of its own, and where its value begins.
fn next_option(text: &str) -> Option<(&'static str, usize)> {
    let options = USERS.iter().chain(&HEADERS);
    let places = options.filter_map(|option| {
        let at = text.match_indices(option).map(|(at, _)| at).find(|&at| {
            let before = text[..at].chars().next_back();
            let after = text[at + option.len()..].chars().next();
            before.is_none_or(is_outside)
                && after.is_some_and(|next| next == '=' || next.is_whitespace())
        })?;
        let behind = &text[at + option.len()..];
        let value = behind.trim_start_matches([' ', '\t', '=']);
        Some((at, *option, text.len() - value.len()))
    });
    let (_, option, value) = places.min_by_key(|place| place.0)?;
    Some((option, value))
}

/// Cuts what stands between `://` and the host of every URL.
fn without_users(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        shown.push_str(before);
        let end = after.find(is_outside).unwrap_or(after.len());
        let (url, behind) = after.split_at(end);
        let authority = &url[..url.find('/').unwrap_or(url.len())];
        // A slash in a password is a mistake of its own, and no reason to show the password.
        let has_password = authority.split_once(':').is_some_and(|(_, port)| {
            !authority.starts_with('[')
                && !port.bytes().all(|b| b.is_ascii_digit())
                && !is_placeholder(port)
        });
        let host = match (authority.rfind('@'), url.rfind('@')) {
            (Some(at), _) => Some(at),
            (None, Some(at)) if has_password => Some(at),
            _ => None,
        };
        match host {
            Some(at) => {
                shown.push_str(HIDDEN);
                shown.push_str(&url[at..]);
            }
            None if has_password => {
                let colon = authority.find(':').unwrap_or(0);
                shown.push_str(&url[..=colon]);
                shown.push_str(HIDDEN);
                shown.push_str(&url[authority.len()..]);
            }
            None => shown.push_str(url),
        }
        rest = behind;
    }
    shown.push_str(&without_scheme(rest));
    shown
}

/// Whether it is the word with which hints show where a port stands.
fn is_placeholder(port: &str) -> bool {
    port.trim_end_matches(|c: char| c.is_ascii_punctuation()) == "port"
}

/// The same for words like `user:password@host`, which somebody who forgot the scheme writes.
fn without_scheme(text: &str) -> String {
    let hide = |word: &str| match (word.find(':'), word.rfind('@')) {
        (Some(colon), Some(at)) if colon < at => format!("{HIDDEN}{}", &word[at..]),
        _ => word.to_owned(),
    };
    text.split_inclusive(is_outside)
        .map(|word| match word.strip_suffix(is_outside) {
            Some(bare) => hide(bare) + &word[bare.len()..],
            None => hide(word),
        })
        .collect()
}

/// Where a URL within a text ends.
fn is_outside(character: char) -> bool {
    character.is_whitespace() || matches!(character, '"' | '\'' | '`' | '<' | '>' | '|' | ';')
}

/// Hides the values after [`KEYS`].
fn without_values(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let mut shown = String::with_capacity(text.len());
    let mut from = 0;
    while let Some((at, key)) = next_key(&lower[from..]) {
        let behind = from + at + key.len();
        shown.push_str(&text[from..behind]);
        from = behind;
        let gap = text[behind..].trim_start_matches([' ', '"', '\'']);
        let Some(value) = gap.strip_prefix(['=', ':']) else {
            continue;
        };
        let value = value.trim_start_matches([' ', '\t']);
        let begins = text.len() - value.len();
        shown.push_str(&text[behind..begins]);
        shown.push_str(HIDDEN);
        from = begins + value_length(value);
    }
    shown.push_str(&text[from..]);
    shown
}

/// Hides the values of variables and options with the name of a secret: `AWS_SECRET_ACCESS_KEY=x command`,
/// `--password x`.
fn without_named(text: &str) -> String {
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(begins) = rest.find(is_name) {
        let length = rest[begins..].find(|c| !is_name(c));
        let ends = length.map_or(rest.len(), |length| begins + length);
        let name = &rest[begins..ends];
        let behind = &rest[ends..];
        let value = match behind.strip_prefix('=') {
            Some(value) => value,
            // Another option follows it: this one has no value.
            None if name.starts_with('-') && behind.starts_with([' ', '\t']) => {
                let value = behind.trim_start_matches([' ', '\t']);
                if value.starts_with('-') { "" } else { value }
            }
            None => "",
        };
        let length = value_length(value);
        if length == 0 || !is_secret_name(name, value) {
            shown.push_str(&rest[..ends]);
            rest = behind;
            continue;
        }
        shown.push_str(&rest[..rest.len() - value.len()]);
        shown.push_str(HIDDEN);
        rest = &value[length..];
    }
    shown.push_str(rest);
    shown
}

/// Whether what that variable or option is given must not be shown.
fn is_secret_name(name: &str, value: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let declared = || SETTINGS.iter().map(|setting| setting.facts());
    let is_declared = || declared().any(|facts| facts.name == name && !facts.secret);
    let is_path = value.trim_start_matches(['\'', '"', '\\']).starts_with('/')
        && PATHS.iter().any(|path| lower.ends_with(path));
    let says_secret = KEYS.iter().chain(&NAMES).any(|key| lower.contains(key))
        || lower == "sig"
        // `require_auth` of a connection string names methods.
        || (lower.ends_with("auth") && lower != "require_auth");
    says_secret && !is_path && !is_declared()
}

fn next_key(lower: &str) -> Option<(usize, &'static str)> {
    KEYS.iter()
        .filter_map(|key| Some((lower.find(key)?, *key)))
        .min()
}

/// Quotes may be doubled, once for each language that a value is quoted in: what begins with some ends with as many.
fn value_length(value: &str) -> usize {
    let unquoted = value.trim_start_matches(['\'', '"', '\\']);
    let quotes = &value[..value.len() - unquoted.len()];
    if quotes.is_empty() {
        return value.find(is_outside).unwrap_or(value.len());
    }
    // Without an end, all of it.
    let end = unquoted.find(quotes);
    end.map_or(value.len(), |end| quotes.len() + end + quotes.len())
}

fn after_word(text: &str, word: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let mut shown = String::with_capacity(text.len());
    let mut from = 0;
    while let Some(at) = lower[from..].find(word) {
        let begins = from + at + word.len();
        shown.push_str(&text[from..begins]);
        let rest = &text[begins..];
        let length = rest.find(is_outside).unwrap_or(rest.len());
        if length > 0 {
            shown.push_str(HIDDEN);
        }
        from = begins + length;
    }
    shown.push_str(&text[from..]);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A text, and how it is shown.
    const REDACTED: [(&str, &str); 37] = [
        ("s3://bucket/path", "s3://bucket/path"),
        ("file://localhost/a/b@c", "file://localhost/a/b@c"),
        ("https+path://minio:9000/x", "https+path://minio:9000/x"),
        ("http://[::1]:5000/x", "http://[::1]:5000/x"),
        (
            "write https+path://host:port, with path",
            "write https+path://host:port, with path",
        ),
        ("s3://key:canary@bucket/path", "s3://(secret)@bucket/path"),
        ("s3://canary@bucket", "s3://(secret)@bucket"),
        ("s3://key:can/ary@bucket/p", "s3://(secret)@bucket/p"),
        ("s3://key:canary/p", "s3://key:(secret)/p"),
        (
            "a http://u:canary@p:1 b http://u:canary@p c",
            "a http://(secret)@p:1 b http://(secret)@p c",
        ),
        ("recovery_target_name = 'x'", "recovery_target_name = 'x'"),
        (
            "primary_conninfo = 'host=a password=canary user=b'",
            "primary_conninfo = 'host=a password=(secret) user=b'",
        ),
        (
            "primary_conninfo = 'host=a password = ''can ary'' user=b'",
            "primary_conninfo = 'host=a password = (secret) user=b'",
        ),
        (
            "primary_conninfo = 'password=''can ary",
            "primary_conninfo = 'password=(secret)",
        ),
        ("PASSWORD=canary", "PASSWORD=(secret)"),
        ("sslpassword=canary\nx", "sslpassword=(secret)\nx"),
        (
            "wget --header 'Authorization: Bearer canary' x",
            "wget --header 'Authorization: (secret)' x",
        ),
        (
            "curl --oauth2-bearer canary",
            "curl --oauth2-bearer (secret)",
        ),
        (
            "wget --http-password=canary x",
            "wget --http-password=(secret) x",
        ),
        (
            "\"key:canary@bucket/p\" is no URL",
            "\"(secret)@bucket/p\" is no URL",
        ),
        (
            "curl -u u:canary -H 'X-Api-Key: canary' https://h/%f -o %p",
            "curl -u (secret) -H 'X-Api-Key: (secret)' https://h/%f -o %p",
        ),
        (
            "recovery_end_command = 'curl --user u:canary https://h/x'",
            "recovery_end_command = 'curl --user (secret) https://h/x'",
        ),
        (
            "curl --user='can ary' -H \"X-Auth: can ary\" --header=X:canary x",
            "curl --user=(secret) -H \"X-Auth: (secret)\" --header=X: (secret) x",
        ),
        ("curl -H 'canary' x -u", "curl -H (secret) x -u"),
        ("id -u postgres-H x", "id -u (secret) x"),
        ("X-API-KEY=canary y", "X-API-KEY=(secret) y"),
        (
            "AWS_SECRET_ACCESS_KEY=canary PGPASS='can ary' foo %f %p",
            "AWS_SECRET_ACCESS_KEY=(secret) PGPASS=(secret) foo %f %p",
        ),
        (
            "wget --password canary http://x/%f -O %p",
            "wget --password (secret) http://x/%f -O %p",
        ),
        (
            "x --secret-key \"can ary\" --no-keys -v --auth-token canary",
            "x --secret-key (secret) --no-keys -v --auth-token (secret)",
        ),
        (
            "curl https://h/%f?sig=canary",
            "curl https://h/%f?sig=(secret)",
        ),
        (
            "sslkey=/k passfile=/p require_auth=md5 keepalives=1",
            "sslkey=/k passfile=/p require_auth=md5 keepalives=1",
        ),
        ("x --password-file canary", "x --password-file (secret)"),
        ("WALE_HTTP_TOKEN_FOR=reads x", "WALE_HTTP_TOKEN_FOR=reads x"),
        (
            "a key word -k x, wal_keep_size=3",
            "a key word -k x, wal_keep_size=3",
        ),
        ("at 12:00 ask a@b", "at 12:00 ask a@b"),
        ("a password and nothing", "a password and nothing"),
        ("", ""),
    ];

    #[test]
    fn secrets_in_other_settings_are_hidden_and_the_rest_is_shown() {
        for (text, shown) in REDACTED {
            assert_eq!(redact(text), shown, "{text}");
        }
    }

    #[test]
    fn a_short_secret_is_cut_out_of_no_word_and_shown_in_no_quotes() {
        let cut = |text: &str, secret: &str| without(text.to_owned(), &[secret.to_owned()]);
        let text = "encryption is not built yet: \"b\" and 'b'";
        assert_eq!(
            cut(text, "b"),
            "encryption is not built yet: \"(secret)\" and '(secret)'"
        );
        assert_eq!(
            cut("a \"secret\" secret", "secret"),
            "a \"(secret)\" secret"
        );
        assert_eq!(cut("x/canary-1/y", "canary"), "x/(secret)-1/y");
    }
}
