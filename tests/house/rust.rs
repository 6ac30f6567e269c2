//! Just enough of a reader of Rust: code without its comments and strings, as words and signs.

use std::collections::BTreeSet;

use super::tree;

/// A source file.
pub(crate) struct Source {
    /// From the root of the repository.
    pub(crate) path: String,
    text: String,
    /// Its words and signs, comments and strings left out.
    tokens: Vec<String>,
}

/// All Rust files below a directory.
pub(crate) fn sources(below: &str) -> Vec<Source> {
    let rust = tree::files(below).into_iter().filter(|path| path.ends_with(".rs"));
    rust.map(|path| {
        let text = tree::read(&path);
        Source { tokens: tokens(&bare(&text)), path, text }
    })
    .collect()
}

impl Source {
    /// The library's module that it belongs to; none for its root and the binary's.
    pub(crate) fn module(&self) -> Option<&str> {
        let first = self.path.strip_prefix("src/")?.split('/').next()?;
        let name = first.strip_suffix(".rs").unwrap_or(first);
        (!matches!(name, "lib" | "main")).then_some(name)
    }

    /// Whether the whole file is a test.
    pub(crate) fn is_test(&self) -> bool {
        let parts = self.path.strip_prefix("src/").unwrap_or(&self.path).split('/');
        parts.into_iter().any(|part| matches!(part, "tests.rs" | "tests") || part.ends_with("_tests.rs"))
    }

    pub(crate) fn lines_before_tests(&self) -> usize {
        self.text.lines().take_while(|line| line.trim() != "#[cfg(test)]" || line.starts_with(' ')).count()
    }

    /// Whether a word, or a path of words, is in the code before its tests.
    pub(crate) fn has(&self, path: &str) -> bool {
        let wanted = tokens(path);
        self.tokens_before_tests().windows(wanted.len()).any(|here| here == wanted)
    }

    /// Whether a word is in the code, its tests included.
    pub(crate) fn has_anywhere(&self, word: &str) -> bool {
        self.tokens.iter().any(|token| token == word)
    }

    fn tokens_before_tests(&self) -> &[String] {
        let tests = ["#", "[", "cfg", "(", "test", ")", "]", "mod"];
        let end = self.tokens.windows(tests.len()).enumerate().find(|(place, here)| {
            // `mod tests;` names another file, and code may follow it.
            *here == tests && self.tokens.get(place + tests.len() + 1).is_some_and(|next| next == "{")
        });
        let end = end.map_or(self.tokens.len(), |(place, _)| place);
        self.tokens.get(..end).unwrap_or_default()
    }

    /// What the code, tests included, names directly below the crate's root: by `crate::`, or by enough `super::`.
    pub(crate) fn imports(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut place = 0;
        while place < self.tokens.len() {
            let supers = self.tokens[place..].chunks(2).take_while(|pair| *pair == ["super", "::"]).count();
            let at_root = self.word(place) == "crate" && self.word(place + 1) == "::";
            if at_root {
                found.extend(self.heads(place + 2));
            } else if supers >= self.depth() && supers > 0 {
                found.extend(self.heads(place + 2 * supers));
            }
            place += (2 * supers).max(1);
        }
        found
    }

    /// How many modules it is below the crate's root.
    fn depth(&self) -> usize {
        let inside = self.path.strip_prefix("src/").unwrap_or(&self.path);
        inside.split('/').filter(|part| !matches!(*part, "mod.rs" | "lib.rs" | "main.rs")).count()
    }

    /// The first words of what stands here: one path, or a group in braces.
    fn heads(&self, place: usize) -> Vec<String> {
        if self.word(place) != "{" {
            return vec![self.word(place).to_owned()];
        }
        let mut heads = Vec::new();
        let mut depth = 0_usize;
        for (before, here) in self.tokens[place..].iter().zip(self.tokens[place + 1..].iter()) {
            match before.as_str() {
                "{" => depth += 1,
                "}" => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                break;
            }
            if depth == 1 && matches!(before.as_str(), "{" | ",") {
                heads.push(here.clone());
            }
        }
        heads
    }

    fn word(&self, place: usize) -> &str {
        self.tokens.get(place).map_or("", String::as_str)
    }

    /// Pages of `docs` that its comments name.
    pub(crate) fn documents(&self) -> Vec<String> {
        let wordy = |character: char| character.is_ascii_alphanumeric() || "/._-".contains(character);
        let words = self.text.split(|character| !wordy(character));
        words.filter(|word| word.starts_with("docs/") && word.ends_with(".md")).map(str::to_owned).collect()
    }
}

/// Words, and signs; `::` is one sign.
fn tokens(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = code;
    while let Some(first) = rest.chars().next() {
        let wordy = |character: char| character.is_alphanumeric() || character == '_';
        let length = if wordy(first) {
            rest.find(|character| !wordy(character)).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        let (token, after) = rest.split_at(length);
        if !token.trim().is_empty() {
            found.push(token.to_owned());
        }
        rest = after;
    }
    found
}

/// Code without comments, and with empty strings.
fn bare(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = skipped(rest, code.chars().next_back());
        if skipped > 0 {
            code.push(' ');
            rest = &rest[skipped..];
        } else {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    code
}

/// How much of the beginning is a comment, a string or a character; `before` is the last sign of code before it.
fn skipped(rest: &str, before: Option<char>) -> usize {
    let in_word = before.is_some_and(|sign| sign.is_alphanumeric() || sign == '_');
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return block_comment(rest);
    }
    if rest.starts_with('"') {
        return quoted(rest, '"');
    }
    if rest.starts_with('\'') {
        // A lifetime has no second quote after one character.
        let inside = rest.get(1..).unwrap_or_default();
        let escaped = inside.starts_with('\\');
        let closed = inside.chars().nth(1) == Some('\'');
        return if escaped || closed { quoted(rest, '\'') } else { 0 };
    }
    let raw = ["r#", "r\"", "br#", "br\""].iter().any(|start| rest.starts_with(start));
    if raw && !in_word { raw_string(rest) } else { 0 }
}

fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (place, sign) in rest.char_indices().skip(1) {
        if escaped {
            escaped = false;
        } else if sign == '\\' {
            escaped = true;
        } else if sign == quote {
            return place + 1;
        }
    }
    rest.len()
}

fn raw_string(rest: &str) -> usize {
    let start = rest.find('r').map_or(0, |place| place + 1);
    let hashes = rest[start..].chars().take_while(|sign| *sign == '#').count();
    let inside = start + hashes;
    if !rest[inside..].starts_with('"') {
        return 0; // r#word
    }
    let end = format!("\"{}", "#".repeat(hashes));
    rest[inside + 1..].find(&end).map_or(rest.len(), |place| inside + 1 + place + end.len())
}

fn block_comment(rest: &str) -> usize {
    let mut depth = 0_usize;
    let mut place = 0;
    while place < rest.len() {
        let here = &rest[place..];
        if here.starts_with("/*") {
            depth += 1;
            place += 2;
        } else if here.starts_with("*/") {
            depth -= 1;
            place += 2;
        } else {
            place += here.chars().next().map_or(1, char::len_utf8);
        }
        if depth == 0 {
            return place;
        }
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source { path: path.to_owned(), text: text.to_owned(), tokens: tokens(&bare(text)) }
    }

    fn imports(path: &str, text: &str) -> Vec<String> {
        source(path, text).imports().into_iter().collect()
    }

    #[test]
    fn comments_and_strings_are_no_code() {
        let text = "a /* b /* c */ d */ e // f\n\"g \\\" h\" r#\"i \" j\"# 'k' '\\'' &'l m";
        assert_eq!(tokens(&bare(text)), ["a", "e", "&", "'", "l", "m"]);
    }

    #[test]
    fn imports_are_seen_however_they_are_written() {
        assert_eq!(
            imports("src/proxy/mod.rs", "use crate::{gossip::Gossip, world::{Net, real}, probe};"),
            ["gossip", "probe", "world"]
        );
        assert_eq!(imports("src/proxy/dial.rs", "fn f() -> crate::gossip::Gossip {}"), ["gossip"]);
        assert_eq!(imports("src/proxy/dial.rs", "use super::super::{gossip, admin as a};"), ["admin", "gossip"]);
        assert_eq!(imports("src/config.rs", "use super::gossip::Gossip;"), ["gossip"]);
        assert_eq!(imports("src/proxy/dial.rs", "use super::gossip;"), [""; 0]);
    }

    #[test]
    fn tests_at_the_end_of_a_file_are_no_code() {
        let source = source("src/engine/a.rs", "use a::b;\n\n#[cfg(test)]\nmod tests {\n use std::fs; }\n");
        assert!(source.has("a::b") && !source.has("std::fs"));
        assert_eq!(source.lines_before_tests(), 2);
    }

    #[test]
    fn code_after_the_mention_of_a_test_file_is_code() {
        let source = source("src/engine/mod.rs", "#[cfg(test)]\nmod tests;\nuse std::fs;\n");
        assert!(source.has("std::fs"));
    }
}
