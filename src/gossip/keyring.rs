//! The keyring: a text file with one key a line. The first key seals, any of them opens.
//!
//! That asymmetry is what makes rotation three harmless steps, each done on all nodes before the next: *add* a key at
//! the end (everybody can open it, nobody uses it yet), *promote* it to the front (everybody uses it, the old one still
//! opens), *retire* the one that is now last. The edits here work on the file's text and keep its comments, so that
//! what a person wrote beside a key stays beside it.
//!
//! Nothing is ever sealed with a key itself: gossip and the cache each derive their own from it, bound to the cluster.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hkdf::Hkdf;
use sha2::{Digest, Sha256};

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;
/// Keys in a ring. Rotation needs two; a forgotten retirement or two must not end it.
pub const MOST_KEYS: usize = 8;

const HEADING: &str = "# prismesh keyring, one key a line: the first seals, any opens. Keep it secret: who has it is a member.\n";

/// A key's public name: a hash of it, written in front of whatever it seals.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 4]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One secret key. Shows its id only.
#[derive(Clone, PartialEq, Eq)]
pub struct Key([u8; KEY_BYTES]);

impl Key {
    /// A new random key.
    pub fn random() -> Key {
        Key(rand::random())
    }

    /// Its public name.
    pub fn id(&self) -> KeyId {
        let hash = Sha256::new().chain_update(b"prismesh key id\0").chain_update(self.0).finalize();
        KeyId([hash[0], hash[1], hash[2], hash[3]])
    }

    /// The key for one purpose in one cluster.
    pub(crate) fn derive(&self, purpose: &str, cluster: &str) -> [u8; KEY_BYTES] {
        let mut derived = [0; KEY_BYTES];
        let info: [&[u8]; 3] = [purpose.as_bytes(), b"\0", cluster.as_bytes()];
        Hkdf::<Sha256>::new(Some(b"prismesh"), &self.0)
            .expand_multi_info(&info, &mut derived)
            .expect("HKDF gives up to 8,160 bytes, and 32 are asked for");
        derived
    }

    fn line(&self) -> String {
        STANDARD.encode(self.0)
    }

    fn parse(line: &str) -> Result<Key, Problem> {
        let bytes = STANDARD.decode(line).map_err(|_| Problem::NotAKey)?;
        let secret: [u8; KEY_BYTES] = bytes.as_slice().try_into().map_err(|_| Problem::Length(bytes.len()))?;
        if secret.iter().all(|byte| *byte == secret[0]) {
            return Err(Problem::Weak);
        }
        Ok(Key(secret))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.id())
    }
}

/// At least one key, the sealing one first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keyring(Vec<Key>);

/// Why a keyring cannot be used. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct KeyringError {
    /// The line in the file, from 1.
    pub line: usize,
    /// What is wrong there, and what would be right.
    pub problem: Problem,
}

/// What is wrong with a line of a keyring.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Not UTF-8.
    #[error("not text; a keyring has one key in base64 a line")]
    NotText,
    /// Not base64.
    #[error("not a key; expected 32 bytes in base64, as `prismesh keygen` prints them")]
    NotAKey,
    /// Base64 of another length.
    #[error("a key of {0} bytes; expected 32 bytes in base64, as `prismesh keygen` prints them")]
    Length(usize),
    /// The same byte over and over.
    #[error("a key that anyone can guess; make one with `prismesh keygen`")]
    Weak,
    /// The same key twice.
    #[error("the key of line {0} again; remove one of them")]
    Twice(usize),
    /// More than [`MOST_KEYS`].
    #[error("more than {MOST_KEYS} keys; retire old ones")]
    TooMany,
    /// No key at all.
    #[error("no key in this file; make one with `prismesh keygen`")]
    Empty,
    /// Promoting or retiring needs a second key.
    #[error("only one key in this file; add another one first with `prismesh key add`")]
    OnlyOne,
}

/// A keyring's text after an edit, and the key that the edit was about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edited {
    /// The whole new file.
    pub text: String,
    /// The key that was added, promoted or retired.
    pub key: KeyId,
}

impl Keyring {
    /// Reads a keyring file. Blank lines and lines that start with `#` are passed over.
    pub fn parse(file: &[u8]) -> Result<Keyring, KeyringError> {
        Ok(Keyring(Lines::parse(file)?.keys.into_iter().map(|(_, key)| key).collect()))
    }

    /// A ring of one new random key.
    pub fn random() -> Keyring {
        Keyring(vec![Key::random()])
    }

    /// The text of a new keyring file with one new key.
    pub fn generate() -> String {
        format!("{HEADING}{}\n", Key::random().line())
    }

    /// Adds a new key at the end: from now on it is opened, not yet used.
    pub fn append(file: &[u8]) -> Result<Edited, KeyringError> {
        let mut lines = Lines::parse(file)?;
        if lines.keys.len() >= MOST_KEYS {
            return Err(KeyringError { line: lines.text.len(), problem: Problem::TooMany });
        }
        let key = Key::random();
        lines.text.push(key.line());
        Ok(lines.edited(&key))
    }

    /// Moves the last key to the front: from now on it seals.
    pub fn promote(file: &[u8]) -> Result<Edited, KeyringError> {
        let mut lines = Lines::parse(file)?;
        let (from, key) = lines.last_of_several()?;
        let to = lines.keys.first().map_or(0, |(place, _)| *place);
        let line = lines.text.remove(from);
        lines.text.insert(to, line);
        Ok(lines.edited(&key))
    }

    /// Drops the last key: from now on it opens nothing.
    pub fn retire(file: &[u8]) -> Result<Edited, KeyringError> {
        let mut lines = Lines::parse(file)?;
        let (place, key) = lines.last_of_several()?;
        lines.text.remove(place);
        Ok(lines.edited(&key))
    }

    /// The key that seals.
    pub fn primary(&self) -> &Key {
        self.0.first().expect("a ring has at least one key")
    }

    /// All keys, the sealing one first.
    pub fn keys(&self) -> &[Key] {
        &self.0
    }

    /// The keys' public names, the sealing one's first.
    pub fn key_ids(&self) -> Vec<KeyId> {
        self.0.iter().map(Key::id).collect()
    }

    /// The ring as a file's text.
    pub fn to_text(&self) -> String {
        self.0.iter().fold(HEADING.to_owned(), |text, key| text + &key.line() + "\n")
    }
}

/// A keyring file line by line, with the place of each key.
struct Lines {
    text: Vec<String>,
    keys: Vec<(usize, Key)>,
}

impl Lines {
    fn parse(file: &[u8]) -> Result<Lines, KeyringError> {
        let text = std::str::from_utf8(file).map_err(|error| {
            let line = 1 + file.iter().take(error.valid_up_to()).filter(|byte| **byte == b'\n').count();
            KeyringError { line, problem: Problem::NotText }
        })?;
        let mut lines = Lines { text: text.lines().map(str::to_owned).collect(), keys: Vec::new() };
        for (place, line) in text.lines().enumerate() {
            let line = line.trim();
            if !line.is_empty() && !line.starts_with('#') {
                let key = lines.another(line).map_err(|problem| KeyringError { line: place + 1, problem })?;
                lines.keys.push((place, key));
            }
        }
        if lines.keys.is_empty() {
            return Err(KeyringError { line: 1, problem: Problem::Empty });
        }
        Ok(lines)
    }

    fn another(&self, line: &str) -> Result<Key, Problem> {
        let key = Key::parse(line)?;
        if let Some((first, _)) = self.keys.iter().find(|(_, known)| *known == key) {
            return Err(Problem::Twice(first + 1));
        }
        if self.keys.len() >= MOST_KEYS { Err(Problem::TooMany) } else { Ok(key) }
    }

    fn last_of_several(&self) -> Result<(usize, Key), KeyringError> {
        match self.keys.as_slice() {
            [_, .., (place, key)] => Ok((*place, key.clone())),
            _ => Err(KeyringError { line: self.keys.first().map_or(1, |(place, _)| place + 1), problem: Problem::OnlyOne }),
        }
    }

    fn edited(self, key: &Key) -> Edited {
        Edited { text: self.text.join("\n") + "\n", key: key.id() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(text: &str) -> Vec<KeyId> {
        Keyring::parse(text.as_bytes()).unwrap().key_ids()
    }

    #[test]
    fn a_generated_file_is_a_ring_of_one_key() {
        let text = Keyring::generate();
        assert_eq!(ids(&text).len(), 1);
        assert_ne!(ids(&text), ids(&Keyring::generate()));
    }

    #[test]
    fn rotation_is_add_then_promote_then_retire() {
        let start = Keyring::generate();
        let old = ids(&start)[0];
        let added = Keyring::append(start.as_bytes()).unwrap();
        assert_eq!(ids(&added.text), [old, added.key]);
        let promoted = Keyring::promote(added.text.as_bytes()).unwrap();
        assert_eq!(promoted.key, added.key);
        assert_eq!(ids(&promoted.text), [added.key, old]);
        let retired = Keyring::retire(promoted.text.as_bytes()).unwrap();
        assert_eq!(retired.key, old);
        assert_eq!(ids(&retired.text), [added.key]);
    }

    #[test]
    fn an_edit_keeps_the_comments() {
        let text = format!("# ours\n\n{}# end\n", Keyring::generate());
        let added = Keyring::append(text.as_bytes()).unwrap();
        let promoted = Keyring::promote(added.text.as_bytes()).unwrap();
        assert!(promoted.text.starts_with("# ours\n\n# prismesh keyring"));
        assert!(promoted.text.ends_with("# end\n"), "{}", promoted.text);
    }

    #[test]
    fn the_only_key_is_neither_promoted_nor_retired() {
        let text = Keyring::generate();
        assert_eq!(Keyring::promote(text.as_bytes()).unwrap_err().problem, Problem::OnlyOne);
        assert_eq!(Keyring::retire(text.as_bytes()).unwrap_err().problem, Problem::OnlyOne);
    }

    #[test]
    fn a_bad_file_names_its_line_and_says_what_would_be_right() {
        let error = |text: &[u8]| Keyring::parse(text).unwrap_err();
        let good = Key::random().line();
        assert_eq!(error(b""), KeyringError { line: 1, problem: Problem::Empty });
        assert_eq!(error(b"# nothing\n"), KeyringError { line: 1, problem: Problem::Empty });
        assert_eq!(error(b"\nsecret!\n"), KeyringError { line: 2, problem: Problem::NotAKey });
        assert_eq!(error(b"c2hvcnQ=\n"), KeyringError { line: 1, problem: Problem::Length(5) });
        assert_eq!(error(b"# x\n\xff\xfe\n"), KeyringError { line: 2, problem: Problem::NotText });
        let weak = STANDARD.encode([0; KEY_BYTES]);
        assert_eq!(error(weak.as_bytes()), KeyringError { line: 1, problem: Problem::Weak });
        let twice = format!("{good}\n{good}\n");
        assert_eq!(error(twice.as_bytes()), KeyringError { line: 2, problem: Problem::Twice(1) });
        let many: String = (0..=MOST_KEYS).map(|_| Key::random().line() + "\n").collect();
        assert_eq!(error(many.as_bytes()), KeyringError { line: MOST_KEYS + 1, problem: Problem::TooMany });
        assert!(error(b"x").to_string().contains("prismesh keygen"));
    }

    #[test]
    fn a_key_shows_its_id_and_never_itself() {
        let key = Key::random();
        assert_eq!(format!("{key:?}"), format!("Key({})", key.id()));
    }

    #[test]
    fn keys_for_another_purpose_or_cluster_are_other_keys() {
        let key = Key::random();
        assert_ne!(key.derive("gossip", "a"), key.derive("cache", "a"));
        assert_ne!(key.derive("gossip", "a"), key.derive("gossip", "b"));
    }
}
