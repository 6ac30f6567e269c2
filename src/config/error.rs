//! What is wrong with a configuration, said so that the person who wrote it can mend it.

use std::fmt;

/// A configuration that cannot be used. Nothing was bound, written or started.
///
/// Shown as one line: where, what, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Where it was written: file and line, environment variable, or flag.
    pub place: String,
    /// What is wrong there.
    pub what: String,
    /// What would be right.
    pub right: String,
    /// A file is missing or cannot be read for now: waiting may mend it.
    pub missing: bool,
}

impl ConfigError {
    /// This error, as one that waiting may mend.
    #[must_use]
    pub(crate) fn missing(self, missing: bool) -> ConfigError {
        ConfigError { missing, ..self }
    }

    /// An error at a place.
    pub(crate) fn new(place: impl fmt::Display, what: impl Into<String>, right: impl Into<String>) -> ConfigError {
        ConfigError {
            place: one_line(&place.to_string()),
            what: one_line(&what.into()),
            right: one_line(&right.into()),
            missing: false,
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.place, self.what, self.right)
    }
}

impl std::error::Error for ConfigError {}

/// What a value's parser says; the place is added by who knows it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}; {right}")]
pub struct Wrong {
    /// What is wrong.
    pub what: String,
    /// What would be right.
    pub right: String,
}

impl Wrong {
    pub(crate) fn new(what: impl Into<String>, right: impl Into<String>) -> Wrong {
        Wrong { what: what.into(), right: right.into() }
    }

    pub(crate) fn at(self, place: impl fmt::Display) -> ConfigError {
        ConfigError::new(place, self.what, self.right)
    }
}

/// What a person or a file gave, quoted for a message: control characters escaped, long text shortened.
pub(crate) fn quoted(text: &str) -> String {
    const MOST: usize = 100;
    let shown: String = text.chars().take(MOST).collect();
    let more = if shown.len() < text.len() { "..." } else { "" };
    format!("\"{}{more}\"", one_line(&shown))
}

/// One line whatever is in it: line breaks and other control characters are escaped.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::{ConfigError, quoted};

    #[test]
    fn an_error_is_one_line_whatever_was_written() {
        let error = ConfigError::new("a\nb", quoted("c\r\nd\u{7}"), "e");
        assert_eq!(error.to_string(), r#"a\nb: "c\r\nd\u{7}"; e"#);
    }

    #[test]
    fn a_long_value_is_shortened() {
        assert!(quoted(&"x".repeat(10_000)).len() < 120);
    }
}
