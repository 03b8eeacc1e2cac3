//! What a file of Rust says of names, read from its tokens: modules, items, imports, paths.
//!
//! Tokens, because a path inside a macro counts as any other, and because comments and strings are none. What is
//! compiled for tests only is left out.

use std::collections::BTreeSet;

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

/// One module: a file, or what stands between the braces of `mod name { … }`.
#[derive(Debug, Default)]
pub(crate) struct Module {
    /// What is defined here.
    pub(crate) items: Vec<Item>,
    /// Modules declared here: their names, and their content where it is in this file.
    pub(crate) children: Vec<(String, Option<Module>)>,
    /// `use`, one for each name, those inside functions too.
    pub(crate) imports: Vec<Import>,
    /// Paths of two segments or more outside `use`.
    pub(crate) paths: Vec<Path>,
    /// Every word outside `use`.
    pub(crate) words: BTreeSet<String>,
}

/// Something with a name that is defined in a module or in an `impl` of a type itself.
#[derive(Debug)]
pub(crate) struct Item {
    /// `struct`, `fn` and so on.
    pub(crate) kind: &'static str,
    pub(crate) name: String,
    pub(crate) line: usize,
    /// Is it plainly `pub`?
    pub(crate) public: bool,
    /// Does it stand in the module itself, not in an `impl`?
    pub(crate) of_module: bool,
}

/// One name that `use` brings.
#[derive(Debug)]
pub(crate) struct Import {
    pub(crate) path: Path,
    /// The name here; none for `*`.
    pub(crate) name: Option<String>,
    /// Is it shown to others, too (`pub use`)?
    pub(crate) shown: bool,
}

/// A path as it is written.
#[derive(Debug, Clone)]
pub(crate) struct Path {
    pub(crate) segments: Vec<String>,
    pub(crate) line: usize,
}

/// Where a run of tokens stands.
#[derive(Clone, Copy, PartialEq)]
enum Level {
    Module,
    /// The `impl` of a type itself.
    Impl,
    /// Everything else.
    Body,
}

const ITEMS: [&str; 9] = [
    "struct",
    "enum",
    "union",
    "trait",
    "type",
    "fn",
    "const",
    "static",
    "macro_rules",
];

impl Module {
    /// Reads a file. An error says why the text is no Rust.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let stream: TokenStream = text
            .parse()
            .map_err(|error| format!("cannot be read as Rust: {error}"))?;
        let mut module = Self::default();
        module.gather(stream, Level::Module);
        Ok(module)
    }

    fn gather(&mut self, stream: TokenStream, level: Level) {
        let tokens: Vec<TokenTree> = stream.into_iter().collect();
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            at = match token {
                TokenTree::Punct(punct) if punct.as_char() == '#' => attribute(&tokens, at),
                TokenTree::Ident(word) => {
                    let word = word.to_string();
                    self.word(&word, &tokens, at, level)
                }
                TokenTree::Group(group) => {
                    self.gather(group.stream(), Level::Body);
                    at + 1
                }
                _ => at + 1,
            };
        }
    }

    /// Behind whatever begins with a word.
    fn word(&mut self, word: &str, tokens: &[TokenTree], at: usize, level: Level) -> usize {
        match word {
            "use" if !is(tokens, at + 1, '<') => {
                let shown = visibility(tokens, at).is_some();
                let end = find(tokens, at, ';');
                self.import(&tokens[at + 1..end], &[], shown);
                end + 1
            }
            "mod" => {
                let name = ident(tokens, at + 1).unwrap_or_default();
                let content = group(tokens, at + 2, Delimiter::Brace).map(|group| {
                    let mut module = Self::default();
                    module.gather(group.stream(), Level::Module);
                    module
                });
                self.children.push((name, content));
                at + 3
            }
            // An arrow before it makes it the type of a result.
            "impl" if level == Level::Module && !(at > 0 && is(tokens, at - 1, '>')) => {
                self.implementation(tokens, at)
            }
            // Where something is shown to is no use of it.
            "pub" => at + 1 + usize::from(shown_to(tokens, at + 1)),
            _ => {
                if let Some(kind) = ITEMS.iter().find(|kind| **kind == word)
                    && level != Level::Body
                {
                    self.item(kind, tokens, at, level);
                }
                self.path(tokens, at)
            }
        }
    }

    fn item(&mut self, kind: &'static str, tokens: &[TokenTree], at: usize, level: Level) {
        let before = at.checked_sub(1).and_then(|before| tokens.get(before));
        let in_type =
            matches!(before, Some(TokenTree::Punct(punct)) if "*<,".contains(punct.as_char()));
        let skipped = match kind {
            "macro_rules" => 1,
            "static" => usize::from(ident(tokens, at + 1).is_some_and(|word| word == "mut")),
            _ => 0,
        };
        let Some(name) = ident(tokens, at + 1 + skipped) else {
            return;
        };
        // `const fn`, `const { … }`, a pointer, a parameter.
        if in_type || ["fn", "_", "unsafe", "async"].contains(&name.as_str()) {
            return;
        }
        self.items.push(Item {
            kind,
            name,
            line: line(&tokens[at]),
            public: visibility(tokens, at) == Some(Visibility::Everywhere),
            of_module: level == Level::Module,
        });
    }

    /// An `impl`: its functions are items where it is of the type itself.
    fn implementation(&mut self, tokens: &[TokenTree], at: usize) -> usize {
        let mut end = at + 1;
        let mut of_trait = false;
        while let Some(token) = tokens.get(end) {
            match token {
                TokenTree::Group(body) if body.delimiter() == Delimiter::Brace => {
                    let level = if of_trait { Level::Body } else { Level::Impl };
                    self.gather(body.stream(), level);
                    return end + 1;
                }
                TokenTree::Ident(word) if word == "for" && !is(tokens, end + 1, '<') => {
                    of_trait = true;
                    end += 1;
                }
                TokenTree::Ident(_) => end = self.path(tokens, end),
                TokenTree::Group(group) => {
                    self.gather(group.stream(), Level::Body);
                    end += 1;
                }
                _ => end += 1,
            }
        }
        end
    }

    /// Behind a path; one that begins with `::` is no path of this crate.
    fn path(&mut self, tokens: &[TokenTree], at: usize) -> usize {
        let foreign = at >= 2 && is(tokens, at - 1, ':') && is(tokens, at - 2, ':');
        let mut segments = Vec::new();
        let mut end = at;
        while let Some(segment) = ident(tokens, end) {
            self.words.insert(segment.clone());
            segments.push(segment);
            end += 1;
            if !(is(tokens, end, ':')
                && is(tokens, end + 1, ':')
                && ident(tokens, end + 2).is_some())
            {
                break;
            }
            end += 2;
        }
        if segments.len() > 1 && !foreign {
            self.paths.push(Path {
                segments,
                line: line(&tokens[at]),
            });
        }
        end
    }

    /// The names of one `use`, below `base`.
    fn import(&mut self, tokens: &[TokenTree], base: &[String], shown: bool) {
        let mut path = base.to_vec();
        let mut at = 0;
        let mut name = None;
        let mut first_line = tokens.first().map_or(0, line);
        while let Some(token) = tokens.get(at) {
            match token {
                TokenTree::Ident(word) if word == "as" => {
                    name = ident(tokens, at + 1);
                    at += 1;
                }
                TokenTree::Ident(word) if word == "self" && !path.is_empty() => {}
                TokenTree::Ident(word) => {
                    path.push(word.to_string());
                    first_line = line(token);
                }
                TokenTree::Punct(punct) if punct.as_char() == '*' => {
                    self.bring(path, first_line, None, shown);
                    return;
                }
                TokenTree::Group(group) => {
                    let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                    for part in inner.split(
                        |token| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ','),
                    ) {
                        self.import(part, &path, shown);
                    }
                    return;
                }
                _ => {}
            }
            at += 1;
        }
        // The comma behind the last part of a group.
        if tokens.is_empty() {
            return;
        }
        let name = name.or_else(|| path.last().cloned());
        self.bring(path, first_line, name, shown);
    }

    fn bring(&mut self, segments: Vec<String>, line: usize, name: Option<String>, shown: bool) {
        let path = Path { segments, line };
        self.imports.push(Import { path, name, shown });
    }
}

/// Behind an attribute, and behind what it is for when that is for tests only.
fn attribute(tokens: &[TokenTree], at: usize) -> usize {
    let inner = usize::from(is(tokens, at + 1, '!'));
    let Some(group) = group(tokens, at + 1 + inner, Delimiter::Bracket) else {
        return at + 1;
    };
    let text = group.stream().to_string().replace(' ', "");
    if text == "cfg(test)" || text == "test" {
        end_of_item(tokens, at + 2 + inner)
    } else {
        at + 2 + inner
    }
}

/// The end of the item or field that begins here, behind its further attributes.
fn end_of_item(tokens: &[TokenTree], from: usize) -> usize {
    const ONLY_SEMICOLON: [&str; 5] = ["use", "const", "static", "let", "type"];
    const ITEM: [&str; 10] = [
        "mod",
        "fn",
        "struct",
        "enum",
        "impl",
        "trait",
        "pub",
        "async",
        "unsafe",
        "macro_rules",
    ];
    let mut at = from;
    while is(tokens, at, '#') {
        at += 2;
    }
    let shown = usize::from(ident(tokens, at).is_some_and(|word| word == "pub"));
    let first = at + shown + usize::from(shown == 1 && shown_to(tokens, at + 1));
    let word = ident(tokens, first).unwrap_or_default();
    let is_function = ident(tokens, first + 1).is_some_and(|next| next == "fn");
    let only_semicolon = ONLY_SEMICOLON.contains(&word.as_str()) && !is_function;
    let is_item = only_semicolon || is_function || ITEM.contains(&word.as_str());
    while let Some(token) = tokens.get(at) {
        at += 1;
        match token {
            TokenTree::Punct(punct) if punct.as_char() == ';' => break,
            TokenTree::Punct(punct) if punct.as_char() == ',' && !is_item => break,
            TokenTree::Group(group)
                if group.delimiter() == Delimiter::Brace && is_item && !only_semicolon =>
            {
                break;
            }
            _ => {}
        }
    }
    at
}

#[derive(PartialEq)]
enum Visibility {
    Everywhere,
    Somewhere,
}

/// What stands before the word of an item.
fn visibility(tokens: &[TokenTree], at: usize) -> Option<Visibility> {
    let mut before = at;
    while let Some(previous) = before.checked_sub(1) {
        match &tokens[previous] {
            TokenTree::Ident(word) if word == "pub" => return Some(Visibility::Everywhere),
            TokenTree::Ident(word)
                if ["const", "async", "unsafe"].contains(&word.to_string().as_str()) => {}
            TokenTree::Group(group) if group.delimiter() == Delimiter::Parenthesis => {
                let shown = ident(tokens, previous.checked_sub(1)?)? == "pub";
                return shown.then_some(Visibility::Somewhere);
            }
            _ => return None,
        }
        before = previous;
    }
    None
}

/// Is this the `(crate)` of `pub(crate)`?
fn shown_to(tokens: &[TokenTree], at: usize) -> bool {
    group(tokens, at, Delimiter::Parenthesis).is_some_and(|group| {
        let text = group.stream().to_string();
        ["crate", "super", "self", "in "]
            .iter()
            .any(|word| text.starts_with(word))
    })
}

fn ident(tokens: &[TokenTree], at: usize) -> Option<String> {
    match tokens.get(at)? {
        TokenTree::Ident(word) => Some(word.to_string()),
        _ => None,
    }
}

fn is(tokens: &[TokenTree], at: usize, character: char) -> bool {
    matches!(tokens.get(at), Some(TokenTree::Punct(punct)) if punct.as_char() == character)
}

fn group(tokens: &[TokenTree], at: usize, delimiter: Delimiter) -> Option<&Group> {
    match tokens.get(at)? {
        TokenTree::Group(group) if group.delimiter() == delimiter => Some(group),
        _ => None,
    }
}

fn find(tokens: &[TokenTree], from: usize, character: char) -> usize {
    (from..tokens.len())
        .find(|at| is(tokens, *at, character))
        .unwrap_or(tokens.len())
}

fn line(token: &TokenTree) -> usize {
    token.span().start().line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Module {
        Module::read(text).unwrap()
    }

    fn imports(text: &str) -> Vec<String> {
        let said = |import: &Import| {
            let path = import.path.segments.join("::");
            let name = import.name.as_deref().unwrap_or("*");
            format!(
                "{path} as {name}{}",
                if import.shown { ", shown" } else { "" }
            )
        };
        read(text).imports.iter().map(said).collect()
    }

    #[test]
    fn use_is_read_whatever_its_form() {
        for (text, expected) in [
            ("use a::b;", vec!["a::b as b"]),
            ("pub use a::b as c;", vec!["a::b as c, shown"]),
            (
                "pub(crate) use a::{self, b::C, d::*,};",
                vec!["a as a, shown", "a::b::C as C, shown", "a::d as *, shown"],
            ),
            (
                "fn f() { use super::{x, y as z}; }",
                vec!["super::x as x", "super::y as z"],
            ),
            ("#[cfg(test)]\nuse a::b;\nuse c::d;", vec!["c::d as d"]),
            ("fn f<'a>(x: &'a str) -> impl Fn() + use<'a> { x }", vec![]),
        ] {
            assert_eq!(imports(text), expected, "{text}");
        }
    }

    #[test]
    fn paths_are_found_in_macros_and_not_in_comments_strings_or_tests() {
        let text = r#"
            //! See [`crate::doc::D`].
            fn f() { vec![crate::a::b(1)]; "crate::string::S"; ::std::mem::take(x); y.z::<super::T>() }
            #[cfg(test)]
            mod tests { fn t() { crate::test::t(); } }
            #[test]
            fn u() { crate::test::u(); }
            struct S { #[cfg(test)] field: crate::test::F<u8>, other: self::G }
            pub(in crate::place) fn g() {}
        "#;
        let module = read(text);
        let paths: Vec<String> = module
            .paths
            .iter()
            .map(|path| path.segments.join("::"))
            .collect();
        assert_eq!(paths, ["crate::a::b", "super::T", "self::G"]);
        assert_eq!(module.paths[0].line, 3);
        assert!(module.children.is_empty());
    }

    #[test]
    fn items_have_names_and_say_to_whom_they_are_shown() {
        let text = "
            pub struct A; pub(crate) enum B {} trait C { fn of_trait(&self); } type D = fn(u8);
            pub const E: *const u8 = x; pub static mut F: u8 = 1; pub const fn g<const N: usize>() {}
            macro_rules! h { () => {} }
            impl A { pub async fn i(&self) {} fn j() { struct Inner; } }
            impl<F: for<'a> Fn(&'a u8)> C for F { fn of_trait(&self) {} }
            mod k { pub struct L; }
        ";
        let said = |item: &Item| {
            let shown = if item.public { "pub " } else { "" };
            let place = if item.of_module { "" } else { ", in impl" };
            format!("{shown}{} {}{place}", item.kind, item.name)
        };
        let module = read(text);
        let items: Vec<String> = module.items.iter().map(said).collect();
        let expected = [
            "pub struct A",
            "enum B",
            "trait C",
            "type D",
            "pub const E",
            "pub static F",
            "pub fn g",
            "macro_rules h",
            "pub fn i, in impl",
            "fn j, in impl",
        ];
        assert_eq!(items, expected);
        let (name, inner) = &module.children[0];
        assert_eq!(name, "k");
        assert_eq!(inner.as_ref().unwrap().items[0].name, "L");
    }
}
