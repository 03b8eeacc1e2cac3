//! What was told, and what is to be told next. Pure.
//!
//! A problem is told once, and its end once. What an earlier process told, this one does not know: so it says once, when it has looked at
//! everything, which problems there are. What a receiver has open beside those is over.

use std::collections::BTreeSet;

use super::problems::{Problem, Problems};

/// Something to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Something is wrong.
    Problem(String, Problem),
    /// It is so no more.
    Recovered(String, Problem),
    /// All that is wrong, as far as this process can see it, and what it has not tried; nothing else that an earlier one told is open.
    Started(Problems, BTreeSet<String>),
}

/// What was told.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Told on their own.
    known: Problems,
    /// Only named when everything was: too young to wake anybody, but an earlier process may have told them.
    named: Problems,
    /// Not tried when everything was told: an earlier process may have told them.
    untried: BTreeSet<String>,
    has_started: bool,
}

impl Told {
    /// What is new. `untried` is what this process has not tried, and `has_looked` whether everything else was looked at once.
    pub(super) fn news(
        &mut self,
        now: &Problems,
        untried: &BTreeSet<String>,
        has_looked: bool,
    ) -> Vec<News> {
        let mut news = Vec::new();
        let is_tried = |name: &String| !untried.contains(name);
        for name in self.untried.extract_if(.., is_tried) {
            if !now.contains_key(&name) {
                news.push(News::Recovered(name, Problem::gone()));
            }
        }
        for (name, problem) in now {
            // The words of a problem that lasts may change: it is told once.
            if !problem.is_young && !self.known.contains_key(name) {
                self.named.remove(name);
                self.known.insert(name.clone(), problem.clone());
                news.push(News::Problem(name.clone(), problem.clone()));
            }
        }
        for told in [&mut self.known, &mut self.named] {
            let gone = |name: &String, _: &mut Problem| !now.contains_key(name);
            for (name, problem) in told.extract_if(.., gone) {
                news.push(News::Recovered(name, problem));
            }
        }
        if has_looked && !self.has_started {
            self.has_started = true;
            let is_named = |(_, problem): &(&String, &Problem)| problem.is_young;
            let named = now.iter().filter(is_named);
            let named = named.map(|(name, problem)| (name.clone(), problem.clone()));
            self.named = named
                .filter(|(name, _)| !self.known.contains_key(name))
                .collect();
            self.untried.clone_from(untried);
            news.push(News::Started(now.clone(), untried.clone()));
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name in capitals is one that is too young.
    fn of(names: &[&str]) -> Problems {
        let problem = |name: &str| Problem {
            message: format!("{name} is wrong"),
            hint: None,
            is_young: name.chars().all(char::is_uppercase),
        };
        names
            .iter()
            .map(|name| (name.to_lowercase(), problem(name)))
            .collect()
    }

    fn said(told: &mut Told, now: &[&str], has_looked: bool) -> Vec<String> {
        let news = told.news(&of(now), &BTreeSet::new(), has_looked);
        words(news)
    }

    fn words(news: Vec<News>) -> Vec<String> {
        let news = news.into_iter();
        let said = news.map(|one| match one {
            News::Problem(name, _) => format!("+{name}"),
            News::Recovered(name, _) => format!("-{name}"),
            News::Started(all, untried) => {
                let names = all.into_keys();
                let names: Vec<String> = names
                    .chain(untried.into_iter().map(|name| format!("?{name}")))
                    .collect();
                format!("={}", names.join(","))
            }
        });
        said.collect()
    }

    #[test]
    fn what_is_new_and_what_is_gone_is_told_once() {
        let mut told = Told::default();
        assert_eq!(said(&mut told, &["gap"], false), ["+gap"]);
        assert!(said(&mut told, &["gap"], false).is_empty());
        assert_eq!(said(&mut told, &["backup"], false), ["+backup", "-gap"]);
        // It is there again, for a moment: it never went, as far as anybody was told.
        assert!(said(&mut told, &["BACKUP"], false).is_empty());
        assert_eq!(said(&mut told, &[], false), ["-backup"]);
    }

    #[test]
    fn what_is_wrong_after_a_start_is_said_once_when_everything_was_looked_at() {
        let mut told = Told::default();
        assert!(said(&mut told, &["SERVER"], false).is_empty());
        assert_eq!(
            said(&mut told, &["SERVER", "gap"], true),
            ["+gap", "=gap,server"]
        );
        assert!(said(&mut told, &["SERVER", "gap"], true).is_empty());
        // What was only named may have been told by the process before.
        assert_eq!(said(&mut told, &["gap"], true), ["-server"]);
        // A later one is told when it lasts, and then only.
        assert!(said(&mut told, &["SERVER", "gap"], true).is_empty());
        assert!(said(&mut told, &["gap"], true).is_empty());
        assert_eq!(said(&mut told, &["server", "gap"], true), ["+server"]);
        let mut well = Told::default();
        assert_eq!(said(&mut well, &[], true), ["="]);
    }

    #[test]
    fn what_was_not_tried_since_the_start_is_named_and_its_end_told() {
        let mut told = Told::default();
        let mut news = |now: &[&str], untried: &[&str]| {
            let untried = untried.iter().map(|name| (*name).to_owned()).collect();
            words(told.news(&of(now), &untried, true))
        };
        let begun = ["backup", "conflict", "retention"];
        assert_eq!(news(&[], &begun), ["=?backup,?conflict,?retention"]);
        assert!(news(&[], &begun).is_empty());
        // One went well, and one fails.
        assert_eq!(news(&[], &["backup", "retention"]), ["-conflict"]);
        assert_eq!(news(&["backup"], &["retention"]), ["+backup"]);
        assert_eq!(news(&[], &["retention"]), ["-backup"]);
    }

    #[test]
    fn what_was_only_named_is_told_when_it_lasts() {
        let mut told = Told::default();
        assert_eq!(said(&mut told, &["SERVER"], true), ["=server"]);
        assert_eq!(said(&mut told, &["server"], true), ["+server"]);
        assert_eq!(said(&mut told, &[], true), ["-server"]);
    }
}
