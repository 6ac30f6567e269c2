//! The effective configuration as text: a configuration file that would say the same, with each value's origin beside it.

use std::fmt::Write as _;

use super::layer::{Entry, Layer};
use super::setting::Setting;

/// Origins begin in this column unless the value is longer.
const COLUMN: usize = 44;

impl Layer {
    /// This layer as YAML with origins in comments. Settings that are not set stand in comments too.
    pub fn to_yaml(&self) -> String {
        let mut text = String::new();
        for setting in Setting::ALL {
            match self.get(setting) {
                Some(entry) => show(&mut text, setting, entry),
                None => line(&mut text, &format!("# {setting}:"), "not set"),
            }
        }
        text
    }
}

fn show(text: &mut String, setting: Setting, entry: &Entry) {
    if !setting.about().many {
        for written in &entry.values {
            line(text, &format!("{setting}: {}", scalar(&written.text)), &written.origin.to_string());
        }
    } else if entry.values.is_empty() {
        line(text, &format!("{setting}: []"), &entry.origin.to_string());
    } else {
        let _ = writeln!(text, "{setting}:");
        for written in &entry.values {
            line(text, &format!("  - {}", scalar(&written.text)), &written.origin.to_string());
        }
    }
}

fn line(text: &mut String, value: &str, comment: &str) {
    let comment = comment.replace(|character: char| character.is_control(), " ");
    let _ = writeln!(text, "{value:COLUMN$} # {comment}");
}

/// A YAML scalar: plain where that is safe, else in double quotes with everything unusual escaped.
fn scalar(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'/' | b'_' | b'-' | b':');
    let safe = text.bytes().all(plain)
        && text.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '/')
        && !text.ends_with(':')
        && !text.eq_ignore_ascii_case("null");
    if safe { text.to_owned() } else { double_quoted(text) }
}

fn double_quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            ' '..='~' => quoted.push(character),
            _ if character.is_alphanumeric() => quoted.push(character),
            _ => {
                let _ = write!(quoted, "\\U{:08x}", u32::from(character));
            }
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::super::layer::Origin;
    use super::*;

    fn texts(layer: &Layer) -> Vec<(Setting, Vec<String>)> {
        let values = |setting| layer.values(setting).iter().map(|written| written.text.clone()).collect();
        Setting::ALL
            .into_iter()
            .filter(|setting| layer.get(*setting).is_some())
            .map(|setting| (setting, values(setting)))
            .collect()
    }

    proptest! {
        #[test]
        fn what_is_shown_is_a_file_that_says_the_same(
            node in ".{1,40}", log in "null|~|true|0x1|[a-z:#' -]{1,20}", seeds in proptest::collection::vec(".{0,30}", 0..4)
        ) {
            let mut layer = Layer::default();
            layer.put(Setting::Node, &Origin::Default, [node]);
            layer.put(Setting::Log, &Origin::Flag(Setting::Log), [log]);
            layer.put(Setting::Seed, &Origin::Environment(Setting::Seed), seeds);
            let shown = layer.to_yaml();
            let again = Layer::from_yaml(Path::new("p"), shown.as_bytes()).map_err(|error| TestCaseError::fail(format!("{error}\n{shown}")))?;
            prop_assert_eq!(texts(&again), texts(&layer), "{}", shown);
        }
    }
}
