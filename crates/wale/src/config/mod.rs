//! Settings: the only code that reads the environment, the configuration file and flags.
//!
//! [`declared`] is the list, each setting in one place; everything else follows from it. [`Loaded::of_process`] reads all
//! of it and keeps all mistakes; a verb then asks with [`Loaded::require`] for the groups that it uses and gets
//! either the values, [`Settings::get`], or every mistake together. A wrong schedule never stops a restore at night.
//!
//! What the values do is the rooms' business: they receive typed options and never a setting's name.

pub(crate) mod allocator;
mod azure;
mod carried;
pub(crate) mod declared;
mod encryption;
mod gcs;
mod goal;
mod group;
mod machine;
mod mistake;
mod numbered;
mod pgp;
mod prefix;
mod proxies;
mod raw;
mod reader;
mod redact;
mod reference;
mod s3;
mod setting;
mod settings;
mod several;
mod shape;
mod show;
mod source;
mod swift;
mod value;
mod wal_g;

use std::collections::BTreeMap;
use std::path::Path;

use wale_ops::OpError;

pub(crate) use azure::AzureSettings;
pub(crate) use declared::SETTINGS;
pub(crate) use gcs::GcsSettings;
pub(crate) use goal::{RestoreTo, TargetAction, point, position, time, timeline, transaction};
pub(crate) use group::Group;
pub(crate) use machine::{LEAST_MEMORY_MIB, processors};
pub(crate) use prefix::Place;
pub(crate) use reference::{default_words, settings_page};
pub(crate) use s3::S3Settings;
pub(crate) use setting::{Declared, Facts};
pub(crate) use settings::Settings;
pub(crate) use several::FurtherArchive;
pub(crate) use show::{Shown, show_json, show_text};
pub(crate) use source::Several;
pub(crate) use swift::SwiftSettings;
pub(crate) use swift::value::SwiftNames;
pub(crate) use value::{BadValue, CompressionLevel, duration, mapping, size};

use mistake::Mistake;
use reader::Reader;
use source::Sources;

/// Values given by flags, by the settings' names.
pub(crate) type Flags = BTreeMap<String, String>;

/// What was read: values, what is wrong with them, and what deserves a warning.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// The values; those with mistakes are their defaults.
    pub(crate) settings: Settings,
    /// Everything that is wrong.
    mistakes: Vec<Mistake>,
    /// Names without effect.
    pub(crate) warnings: Vec<String>,
    /// The archives after the first, by their numbers.
    pub(crate) further: Vec<FurtherArchive>,
}

impl Loaded {
    /// Reads the process's environment, the configuration file and these flags.
    pub(crate) fn of_process(flags: Flags, several: Several) -> Self {
        let mut sources = Sources::of_process(flags);
        sources.several = several;
        Self::from_sources(sources)
    }

    /// Reads what a client of the sidecar needs: it runs for each segment, and every other setting would be parsed, and the
    /// machine be asked for its defaults, for nothing. No warnings, and no mistakes but those of the client's groups.
    pub(crate) fn of_client(flags: Flags) -> Self {
        Self::of_endpoint(Sources::of_process(flags))
    }

    fn of_endpoint(sources: Sources) -> Self {
        let mut reader = Reader::new(sources);
        let settings = Settings::read_endpoint(&mut reader);
        Self {
            settings,
            mistakes: reader.shown_mistakes(),
            warnings: Vec::new(),
            further: Vec::new(),
        }
    }

    /// Reads the settings of another archive: this file, and of the environment only what belongs to the machine.
    pub(crate) fn of_file(path: &Path) -> Self {
        Self::from_sources(Sources::of_file(path))
    }

    /// Reads this environment and this configuration file.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn for_test(environment: &[(&str, &str)], file: &str) -> Self {
        Self::from_sources(Sources::for_test(&[], environment, file))
    }

    fn from_sources(sources: Sources) -> Self {
        let (mut mistakes, mut warnings) = several::check(&sources);
        let chosen = several::chosen(&sources);
        if let Some(number) = chosen {
            mistakes.extend(several::check_choice(&sources, number));
        }
        let mut loaded = match chosen {
            Some(number) if number > 1 => {
                let of_first = sources.mistakes.clone();
                let mut loaded = Self::of_one(sources.of_archive(number));
                for mistake in &mut loaded.mistakes {
                    let group = mistake.group;
                    *mistake = several::of_archive(mistake, number);
                    mistake.group = group;
                }
                loaded.mistakes.extend(of_first);
                loaded
            }
            Some(_) => Self::of_one(sources),
            None => Self::of_all(sources),
        };
        loaded.warnings.append(&mut warnings);
        mistakes.retain(|mistake| !loaded.mistakes.contains(mistake));
        loaded.mistakes.append(&mut mistakes);
        loaded.mistakes.sort_by_key(|mistake| mistake.group);
        loaded
    }

    /// The first archive, and those after it.
    fn of_all(sources: Sources) -> Self {
        let further: Vec<(u8, Sources)> = several::numbers(&sources)
            .into_iter()
            .map(|number| (number, sources.of_archive(number)))
            .collect();
        let mut loaded = Self::of_one(sources);
        for (number, sources) in further {
            let one = Self::of_one(sources);
            // What is wrong with settings that are the same for all was said of the first.
            let own = |mistake: &&Mistake| !loaded.mistakes.contains(mistake);
            let mistakes: Vec<Mistake> = one
                .mistakes
                .iter()
                .filter(own)
                .map(|mistake| several::of_archive(mistake, number))
                .collect();
            let news = one.warnings.into_iter();
            let news = news.filter(|warning| !loaded.warnings.contains(warning));
            let news: Vec<String> = news
                .map(|warning| numbered::with_numbers(&warning, number))
                .collect();
            loaded.warnings.extend(news);
            loaded.mistakes.extend(mistakes.iter().cloned());
            loaded.further.push(FurtherArchive {
                number,
                settings: one.settings,
                mistakes,
            });
        }
        let values = |one: &FurtherArchive| (one.number, one.settings.values().clone());
        loaded.settings.further = loaded.further.iter().map(values).collect();
        let same = several::same_places(&loaded.settings, &loaded.further);
        loaded.mistakes.extend(same);
        loaded
    }

    /// One archive alone.
    fn of_one(sources: Sources) -> Self {
        let mut reader = Reader::new(sources);
        let settings = Settings::read(&mut reader);
        reader.refuse_what_is_not_built();
        let mistakes = reader.shown_mistakes();
        let mut warnings = reader.warnings();
        if matches!(settings.place, Some(Place::Directory(_))) {
            let told = settings::places()
                .into_iter()
                .filter_map(|place| prefix::dropped_host(place.name(), reader.set(place)?.0));
            warnings.extend(told);
        }
        warnings.extend(settings.encryption.warnings.iter().cloned());
        Self {
            settings,
            mistakes,
            warnings,
            further: Vec::new(),
        }
    }

    /// Every setting as `config show` prints it.
    pub(crate) fn shown(&self) -> Vec<Shown> {
        let of_first = SETTINGS
            .iter()
            .map(|setting| Shown::of(*setting, self.settings.values()));
        let of_others = self.further.iter().flat_map(|one| {
            let own = SETTINGS
                .iter()
                .filter(|setting| numbered::is_of_one_archive(setting.facts()));
            own.filter_map(|setting| Shown::of_archive(*setting, one.settings.values(), one.number))
        });
        of_first.chain(of_others).collect()
    }

    /// The settings for a verb that uses these groups (and [`Group::Program`], which all use).
    ///
    /// # Errors
    /// All mistakes of these groups in one error of kind `Configuration`.
    pub(crate) fn require(&self, groups: &[Group]) -> Result<&Settings, OpError> {
        let used = |group| match group {
            Group::Program => true,
            group if group.is_of_a_store() => groups.contains(&Group::Archive),
            group => groups.contains(&group),
        };
        let matters = |m: &&Mistake| used(m.group);
        let mistakes: Vec<Mistake> = self.mistakes.iter().filter(matters).cloned().collect();
        if mistakes.is_empty() {
            Ok(&self.settings)
        } else {
            Err(mistake::error(&mistakes))
        }
    }

    /// Every mistake but those of one further archive, which stop nothing that the others can do.
    ///
    /// # Errors
    /// All of them in one error of kind `Configuration`.
    pub(crate) fn require_first(&self) -> Result<&Settings, OpError> {
        let of_another = |mistake: &Mistake| {
            let mut further = self.further.iter();
            further.any(|one| one.mistakes.contains(mistake))
        };
        let mistakes = self.mistakes.iter().filter(|one| !of_another(one));
        let mistakes: Vec<Mistake> = mistakes.cloned().collect();
        if mistakes.is_empty() {
            Ok(&self.settings)
        } else {
            Err(mistake::error(&mistakes))
        }
    }

    /// Every mistake, whatever it concerns.
    ///
    /// # Errors
    /// All of them in one error of kind `Configuration`.
    pub(crate) fn require_all(&self) -> Result<&Settings, OpError> {
        self.require(&Group::ALL)
    }
}

#[cfg(test)]
mod tests;
