//! The configuration file: YAML, one mapping of settings to values, each value with its line.
//!
//! Read setting by setting instead of into a derived struct, because then a wrong type can be told in the setting's own
//! words ("is a list") and every value keeps its line for the checks that come later. Values are taken as the text that stands in
//! the file, so that `node: 007` and `cluster: no` mean what they say.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_saphyr::Spanned;

use super::error::{ConfigError, quoted};
use super::layer::{Entry, Layer, Origin, Written};
use super::setting::Setting;

/// A configuration file is at most this long, in bytes: a thousand times what one needs.
pub(super) const FILE_MOST: usize = 1024 * 1024;

impl Layer {
    /// What the text of a configuration file says. `path` is for messages and origins only.
    ///
    /// # Errors
    ///
    /// The text is no YAML, or not of the shape of a configuration. Values have not been looked at.
    pub fn from_yaml(path: &Path, bytes: &[u8]) -> Result<Layer, ConfigError> {
        parse(path, bytes)
    }
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Layer, ConfigError> {
    let path: Arc<Path> = path.into();
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = bytes.iter().take(error.valid_up_to()).filter(|byte| **byte == b'\n').count() as u64 + 1;
        ConfigError::new(Origin::File { path: path.clone(), line }, "not UTF-8 text", "write the configuration as YAML in UTF-8")
    })?;
    if is_blank(text) {
        return Ok(Layer::default());
    }
    let mut reading = Reading { path: path.clone(), layer: Layer::default(), at: None, fault: None };
    let options = serde_saphyr::options! { with_snippet: false };
    let read =
        serde_saphyr::with_deserializer_from_str_with_options(text, options, |deserializer| reading.deserialize(deserializer));
    match read {
        Ok(()) => Ok(reading.layer),
        Err(error) => Err(reading.fault.take().unwrap_or_else(|| explain(&reading, text, &error))),
    }
}

/// Nothing but white space and comments.
fn is_blank(text: &str) -> bool {
    text.trim_start_matches('\u{feff}').lines().map(str::trim).all(|line| line.is_empty() || line.starts_with('#'))
}

/// Turns the YAML library's complaint into ours.
fn explain(reading: &Reading, text: &str, error: &serde_saphyr::Error) -> ConfigError {
    let line = error.location().map_or(1, |location| location.line()).max(1);
    let origin = Origin::File { path: reading.path.clone(), line };
    let written = usize::try_from(line).ok().and_then(|line| text.lines().nth(line - 1)).unwrap_or_default();
    let brackets = written.contains('[') && written.contains("]:");
    let (what, right) = match reading.at.filter(|_| is_about_types(error)) {
        Some(setting) if setting.about().many => (
            format!("{setting} is a list of texts"),
            format!("write {setting}: [\"{}\"], or an item a line, each after a dash", setting.about().value),
        ),
        Some(setting) => (format!("{setting} is a single text"), format!("write {setting}: {}", setting.about().value)),
        None => (format!("not valid YAML: {}", plain(error)), "write one setting a line, such as cluster: NAME".to_owned()),
    };
    let right = if brackets { "put quotes around an address in brackets, such as \"[::1]:7445\"".to_owned() } else { right };
    ConfigError::new(origin, what, right)
}

/// The text is YAML, but not of the shape that was asked for.
fn is_about_types(error: &serde_saphyr::Error) -> bool {
    use serde_saphyr::Error;
    !matches!(
        error.without_snippet(),
        Error::ExternalMessage { .. } | Error::Eof { .. } | Error::Budget { .. } | Error::UnknownAnchor { .. }
    )
}

/// The library's message without the place that it appends, which we name in our own way.
fn plain(error: &serde_saphyr::Error) -> String {
    let message = error.without_snippet().render_with_formatter(&serde_saphyr::UserMessageFormatter);
    message.split(" at line ").next().unwrap_or_default().to_owned()
}

/// What has been read so far, and what is being read.
struct Reading {
    path: Arc<Path>,
    layer: Layer,
    /// The setting whose value is being read: a complaint that comes now is about its type.
    at: Option<Setting>,
    fault: Option<ConfigError>,
}

impl Reading {
    fn origin<T>(&self, place: &Spanned<T>) -> Origin {
        Origin::File { path: self.path.clone(), line: place.referenced.line() }
    }

    fn unknown(&self, key: &Spanned<String>) -> ConfigError {
        let right = match nearest(&key.value) {
            Some(setting) => format!("did you mean {setting}?"),
            None => format!("known are {}", Setting::ALL.map(Setting::name).join(", ")),
        };
        ConfigError::new(self.origin(key), format!("unknown setting {}", quoted(&key.value)), right)
    }

    fn entry<'de, M: MapAccess<'de>>(&self, setting: Setting, map: &mut M) -> Result<Entry, M::Error> {
        if setting.about().many {
            let list: Spanned<Vec<Spanned<String>>> = map.next_value()?;
            let origin = self.origin(&list);
            let values = list.value.into_iter().map(|item| Written { origin: self.origin(&item), text: item.value });
            return Ok(Entry { origin, values: values.collect() });
        }
        let value: Spanned<String> = map.next_value()?;
        let origin = self.origin(&value);
        Ok(Entry { origin: origin.clone(), values: vec![Written { text: value.value, origin }] })
    }
}

impl<'de> DeserializeSeed<'de> for &mut Reading {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for &mut Reading {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("settings and their values")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let Some(setting) = Setting::named(&key.value) else {
                self.fault = Some(self.unknown(&key));
                map.next_value::<IgnoredAny>()?;
                return Err(M::Error::custom("unknown setting"));
            };
            self.at = Some(setting);
            let entry = self.entry(setting, &mut map)?;
            self.at = None;
            self.layer.set(setting, entry);
        }
        Ok(())
    }
}

/// The setting that a misspelt key most likely means: plural, underscores, or at most two letters off.
fn nearest(key: &str) -> Option<Setting> {
    const TYPOS: usize = 2;
    const LONGEST_KEY: usize = 40;
    if key.len() > LONGEST_KEY {
        return None;
    }
    let key = key.to_ascii_lowercase().replace('_', "-");
    let distance = |setting: &Setting| edits(&key, setting.name());
    Setting::ALL.into_iter().min_by_key(distance).filter(|setting| distance(setting) <= TYPOS.min(setting.name().len() / 2))
}

/// Letters to insert, remove or replace to make one word of the other (Levenshtein's distance).
fn edits(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (place, letter) in one.chars().enumerate() {
        let mut next = vec![place + 1];
        for (column, (theirs, cells)) in other.iter().zip(row.windows(2)).enumerate() {
            let replaced = cells.first().copied().unwrap_or_default() + usize::from(letter != *theirs);
            let removed = cells.last().copied().unwrap_or_default() + 1;
            let inserted = next.get(column).copied().unwrap_or_default() + 1;
            next.push(replaced.min(removed).min(inserted));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Layer, String> {
        parse(Path::new("p.yaml"), text.as_bytes()).map_err(|error| error.to_string())
    }

    fn refused(text: &str) -> String {
        read(text).expect_err(text)
    }

    #[test]
    fn each_value_knows_its_line() {
        let layer = read("# a comment\ncluster: prod\nseed:\n  - a:1\n\n  - \"[::1]:2\"\n").unwrap();
        let seeds: Vec<String> =
            layer.values(Setting::Seed).iter().map(|seed| format!("{} {}", seed.origin, seed.text)).collect();
        assert_eq!(seeds, ["p.yaml:4 a:1", "p.yaml:6 [::1]:2"]);
        assert_eq!(layer.value(Setting::Cluster).unwrap().origin.to_string(), "p.yaml:2");
    }

    #[test]
    fn a_value_is_the_text_that_stands_there() {
        let layer = read("node: 007\ncluster: no\nlog: 1.50\n").unwrap();
        let texts: Vec<&str> =
            [Setting::Node, Setting::Cluster, Setting::Log].map(|setting| layer.value(setting).unwrap().text.as_str()).to_vec();
        assert_eq!(texts, ["007", "no", "1.50"]);
    }

    #[test]
    fn an_empty_file_says_nothing() {
        for text in ["", "\n \n", "# only\n# comments", "\u{feff}"] {
            assert_eq!(read(text).unwrap(), Layer::default(), "{text:?}");
        }
    }

    #[test]
    fn an_empty_list_is_a_list() {
        assert_eq!(read("seed: []\n").unwrap().get(Setting::Seed).unwrap().values, []);
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line_and_the_likely_one() {
        assert_eq!(refused("cluster: a\nseeds: [a:1]\n"), "p.yaml:2: unknown setting \"seeds\"; did you mean seed?");
        assert_eq!(refused("state_dir: /x\n"), "p.yaml:1: unknown setting \"state_dir\"; did you mean state-dir?");
        assert!(refused("colour: red\n").contains("known are cluster, node, "));
    }

    #[test]
    fn a_wrong_type_is_refused_in_the_settings_own_words() {
        assert_eq!(refused("cluster: [a]\n"), "p.yaml:1: cluster is a single text; write cluster: ID");
        assert_eq!(
            refused("\nseed: a:1\n"),
            "p.yaml:2: seed is a list of texts; write seed: [\"HOST:PORT\"], or an item a line, each after a dash"
        );
        assert_eq!(refused("cluster: {a: b}\n"), "p.yaml:1: cluster is a single text; write cluster: ID");
        assert!(refused("seed:\n- [a]\n").starts_with("p.yaml:2: seed is a list"));
        assert!(refused("cluster:\n").starts_with("p.yaml:1: cluster is a single text"));
        assert!(refused("node: a\nseed:\n").contains("seed is a list"));
    }

    #[test]
    fn what_is_no_yaml_is_refused_with_its_line() {
        for text in ["cluster: a\nnode: \"x\n", "cluster: a\n\tnode: b\n", "- cluster\n", "cluster\n", "cluster: a\ncluster: b\n"]
        {
            let error = refused(text);
            assert!(error.starts_with("p.yaml:"), "{error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
        assert!(refused("cluster: a\ncluster: b\n").starts_with("p.yaml:2: "));
        assert!(refused("a: b\n---\nc: d\n").starts_with("p.yaml:1: "));
    }

    #[test]
    fn brackets_without_quotes_are_explained() {
        assert!(refused("listen:\n  - [::1]:7445\n").contains("quotes"), "{}", refused("listen:\n  - [::1]:7445\n"));
    }

    #[test]
    fn bytes_that_are_not_utf8_are_refused_with_their_line() {
        let error = parse(Path::new("p.yaml"), b"cluster: a\nnode: \xff\n").unwrap_err();
        assert!(error.to_string().starts_with("p.yaml:2: not UTF-8"), "{error}");
    }

    #[test]
    fn an_alias_bomb_ends_in_an_error() {
        let mut text = String::from("seed: &a [x, x]\n");
        for depth in 0..30 {
            text.push_str(&format!("k{depth}: &b{depth} [*a, *a]\n"));
        }
        refused(&text);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse(Path::new("p"), &bytes);
        }

        #[test]
        fn nothing_that_looks_like_a_configuration_makes_it_panic(
            text in "((cluster|seed|listen|node|<<|\\? ): ?([\\[\\]{}&*!|>'\"%@`#,:a-z0-9 -]{0,20})\n|  - [&*a-z:0-9\\[\\]\"]{0,9}\n|---\n){0,12}"
        ) {
            if let Err(error) = read(&text) {
                prop_assert_eq!(error.lines().count(), 1);
            }
        }
    }
}
