//! Mistakes in the configuration, gathered so that all are reported together.

use wale_ops::{Kind, OpError};

use super::group::Group;

/// One mistake. Texts never hold a secret's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mistake {
    /// The group of settings that it spoils.
    pub(crate) group: Group,
    /// What is wrong: the setting's name, a colon, the problem.
    pub(crate) text: String,
    /// What to do.
    pub(crate) hint: Option<String>,
}

impl Mistake {
    /// A mistake in that group.
    pub(crate) fn new(group: Group, text: impl Into<String>) -> Self {
        Self {
            group,
            text: text.into(),
            hint: None,
        }
    }

    /// A mistake that concerns every verb.
    pub(crate) fn of_program(text: impl Into<String>) -> Self {
        Self::new(Group::Program, text)
    }

    /// The same with advice.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// One mistake or several in the three voices of an error: message, detail and hint.
fn render(mistakes: &[Mistake]) -> (String, Option<String>, Option<String>) {
    if let [only] = mistakes {
        return (
            format!("configuration: {}", only.text),
            None,
            only.hint.clone(),
        );
    }
    let mut detail = Vec::new();
    for mistake in mistakes {
        detail.push(mistake.text.clone());
        if let Some(hint) = &mistake.hint {
            detail.push(format!("  hint: {hint}"));
        }
    }
    let message = format!("configuration: {} mistakes", mistakes.len());
    let hint = "correct all of them; `wale config show` prints every setting and its origin";
    (message, Some(detail.join("\n")), Some(hint.to_owned()))
}

/// All of them in one error of kind `Configuration`.
pub(crate) fn error(mistakes: &[Mistake]) -> OpError {
    let (message, detail, hint) = render(mistakes);
    let mut error = OpError::new(Kind::Configuration, message);
    error.detail = detail;
    error.hint = hint;
    error
}

/// The known name nearest to a misspelt one, if one is near enough to be meant.
pub(crate) fn nearest<'a>(unknown: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // A third of the name may be wrong: enough for a transposed or forgotten part, too little for
    // another name altogether.
    let limit = unknown.len() / 3;
    known
        .map(|name| (distance(unknown, name), name))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, name)| name)
}

/// Levenshtein's distance in bytes; names are ASCII.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, expected) in [
            ("", "", 0),
            ("abc", "abc", 0),
            ("abc", "abd", 1),
            ("abc", "", 3),
            ("ab", "ba", 2),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }

    #[test]
    fn the_nearest_name_or_none() {
        let known = ["WALE_FILE_PREFIX", "WALE_S3_PREFIX", "WALE_LOG"];
        for (unknown, expected) in [
            ("WALE_FILE_PERFIX", Some("WALE_FILE_PREFIX")),
            ("WALE_FILEPREFIX", Some("WALE_FILE_PREFIX")),
            ("WALE_LOGS", Some("WALE_LOG")),
            ("WALE_SOMETHING_ELSE_ENTIRELY", None),
        ] {
            assert_eq!(nearest(unknown, known.into_iter()), expected, "{unknown}");
        }
    }

    #[test]
    fn one_mistake_is_a_message_and_many_are_a_list() {
        let one = Mistake::of_program("A: bad").hint("do b");
        let (message, detail, hint) = render(std::slice::from_ref(&one));
        assert_eq!(
            (message.as_str(), detail, hint.as_deref()),
            ("configuration: A: bad", None, Some("do b"))
        );
        let two = [one, Mistake::of_program("C: worse")];
        let (message, detail, _) = render(&two);
        assert_eq!(message, "configuration: 2 mistakes");
        assert_eq!(detail.as_deref(), Some("A: bad\n  hint: do b\nC: worse"));
    }
}
