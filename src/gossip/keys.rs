//! Full and reader keyrings: text files with one key a line. The first key seals and signs, any key opens and verifies.
//!
//! A *full* key is one 32-byte secret. HKDF-SHA256 derives everything else from the secret, so that rotating a line rotates
//! every key that depends on it:
//!
//! ```text
//! secret ──┬── core secret      traffic between core members
//!          ├── signing seed     Ed25519; its verifying key ──┐
//!          └── group secret     datagrams, peer cache ───────┴── reader part (64 bytes)
//! ```
//!
//! A *reader* key is the reader part alone. Its holder can exchange datagrams with the cluster and verify signatures, but can
//! neither sign nor read core traffic. The key id is a hash of the reader part, so a key has the same id in both files.
//! One file holds keys of one kind: a full keyring with a reader line could not sign with every key that it promotes.
//!
//! Nothing is sealed with a secret itself. [`Key::derive`] and [`Key::derive_core`] bind each cipher's key to a purpose and a
//! cluster. Secrets are zeroised when the last clone of their key is dropped; the text of a keyring file is not.

mod edit;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{SigningKey, VerifyingKey};
use hkdf::Hkdf;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

pub use self::edit::{EditError, Edited};

/// Maximum number of keys in a keyring. A rotation needs two; the rest allows for removals that were forgotten.
pub const MAX_KEYS: usize = 8;

const SECRET_BYTES: usize = 32;
/// The HKDF salt of all derivations from a full key's secret.
const FULL_SALT: &[u8] = b"prismesh-full-1";
/// The HKDF salt of all derivations from a group or core secret.
const PURPOSE_SALT: &[u8] = b"prismesh";
/// The first input of the hash that is a key's id.
const KEY_ID_DOMAIN: &[u8] = b"prismesh-reader-1 key id\0";

/// The public name of a key: a hash of its reader part. Everything that a key seals or signs names it by this id.
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

/// A text is not a key id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a key id; expected 8 hexadecimal digits")]
pub struct KeyIdError;

impl FromStr for KeyId {
    type Err = KeyIdError;

    /// Reads what `Display` writes; upper case is accepted.
    fn from_str(text: &str) -> Result<KeyId, KeyIdError> {
        // `from_str_radix` alone would accept a sign.
        if text.len() != 8 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(KeyIdError);
        }
        u32::from_str_radix(text, 16).map(|number| KeyId(number.to_be_bytes())).map_err(|_| KeyIdError)
    }
}

/// What the keys of a keyring can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Seals, opens, verifies, signs, and reads core traffic.
    Full,
    /// Seals, opens and verifies.
    Reader,
}

impl Kind {
    const ALL: [Kind; 2] = [Kind::Full, Kind::Reader];

    /// The start of each key line.
    const fn prefix(self) -> &'static str {
        match self {
            Kind::Full => "prismesh-full-1:",
            Kind::Reader => "prismesh-reader-1:",
        }
    }

    /// Bytes of a key line once decoded.
    const fn bytes(self) -> usize {
        match self {
            Kind::Full => SECRET_BYTES,
            Kind::Reader => 2 * SECRET_BYTES,
        }
    }

    /// The command that writes such lines.
    const fn command(self) -> &'static str {
        match self {
            Kind::Full => "prismesh keygen",
            Kind::Reader => "prismesh key public",
        }
    }

    /// The comment at the top of a new file.
    const fn heading(self) -> &'static str {
        match self {
            Kind::Full => {
                "# prismesh full keyring, one key a line: the first seals and signs, any opens and verifies.\n\
                 # Keep it secret and on core members only: its holder can sign for every control plane.\n\
                 # All other nodes need what `prismesh key public` prints.\n"
            }
            Kind::Reader => {
                "# prismesh reader keyring, one key a line: the first seals, any opens and verifies.\n\
                 # Keep it secret: its holder can read gossip and take part in it as a worker.\n"
            }
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Full => "full",
            Kind::Reader => "reader",
        })
    }
}

/// One key of a keyring. A clone shares the secrets instead of copying them. `Debug` shows the id only.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(Arc<Secrets>);

#[derive(PartialEq, Eq)]
struct Secrets {
    id: KeyId,
    group: Zeroizing<[u8; SECRET_BYTES]>,
    verifying: VerifyingKey,
    full: Option<FullSecrets>,
}

/// What a full key has beyond its reader part.
#[derive(PartialEq, Eq)]
struct FullSecrets {
    secret: Zeroizing<[u8; SECRET_BYTES]>,
    core: Zeroizing<[u8; SECRET_BYTES]>,
    signing: SigningKey,
}

impl Key {
    /// A new random full key.
    fn random() -> Key {
        Key::full(&Zeroizing::new(rand::random()))
    }

    fn full(secret: &Zeroizing<[u8; SECRET_BYTES]>) -> Key {
        let signing = SigningKey::from_bytes(&expand(FULL_SALT, secret, &[b"signing"]));
        let full = FullSecrets { secret: secret.clone(), core: expand(FULL_SALT, secret, &[b"core"]), signing };
        Key::new(expand(FULL_SALT, secret, &[b"group"]), full.signing.verifying_key(), Some(full))
    }

    fn new(group: Zeroizing<[u8; SECRET_BYTES]>, verifying: VerifyingKey, full: Option<FullSecrets>) -> Key {
        let hash = Sha256::new().chain_update(KEY_ID_DOMAIN).chain_update(*group).chain_update(verifying.as_bytes()).finalize();
        let id = KeyId([hash[0], hash[1], hash[2], hash[3]]);
        Key(Arc::new(Secrets { id, group, verifying, full }))
    }

    /// The key's public name, the same for a full key and its reader part.
    pub fn id(&self) -> KeyId {
        self.0.id
    }

    /// Full keys sign, reader keys do not.
    pub fn kind(&self) -> Kind {
        if self.0.full.is_some() { Kind::Full } else { Kind::Reader }
    }

    /// The key for one purpose in one cluster, derived from the group secret: equal for a full key and its reader part.
    /// `purpose` is a constant of the caller without a NUL byte.
    pub fn derive(&self, purpose: &str, cluster: &str) -> [u8; 32] {
        derive(&self.0.group, purpose, cluster)
    }

    /// The key for one purpose in one cluster, derived from the core secret. [`None`] for a reader key.
    /// `purpose` is a constant of the caller without a NUL byte.
    pub fn derive_core(&self, purpose: &str, cluster: &str) -> Option<[u8; 32]> {
        self.0.full.as_ref().map(|full| derive(&full.core, purpose, cluster))
    }

    /// Verifies what this key signed. It is never a weak key.
    pub fn verifying(&self) -> &VerifyingKey {
        &self.0.verifying
    }

    /// Signs. [`None`] for a reader key.
    pub fn signing(&self) -> Option<&SigningKey> {
        self.0.full.as_ref().map(|full| &full.signing)
    }

    /// The key's line in a keyring of its own kind, without a line break.
    fn line(&self) -> String {
        match &self.0.full {
            Some(full) => Kind::Full.prefix().to_owned() + &STANDARD.encode(*full.secret),
            None => self.reader_line(),
        }
    }

    /// The line of the key's reader part, without a line break.
    fn reader_line(&self) -> String {
        let mut part = Zeroizing::new([0; Kind::Reader.bytes()]);
        part[..SECRET_BYTES].copy_from_slice(&*self.0.group);
        part[SECRET_BYTES..].copy_from_slice(self.0.verifying.as_bytes());
        Kind::Reader.prefix().to_owned() + &STANDARD.encode(*part)
    }

    fn parse(line: &str) -> Result<Key, Problem> {
        let prefixed = Kind::ALL.iter().find_map(|kind| Some((*kind, line.strip_prefix(kind.prefix())?)));
        let Some((kind, encoded)) = prefixed else {
            // A line of the former format is 32 bytes in base64 without a prefix.
            let former = STANDARD.decode(line).is_ok_and(|bytes| Zeroizing::new(bytes).len() == SECRET_BYTES);
            return Err(if former { Problem::FormerFormat } else { Problem::NotAKey });
        };
        let bytes = Zeroizing::new(STANDARD.decode(encoded).map_err(|_| Problem::NotAKey)?);
        let wrong_length = || Problem::Length { kind, bytes: bytes.len() };
        match kind {
            Kind::Full => {
                let secret = Zeroizing::new(<[u8; SECRET_BYTES]>::try_from(bytes.as_slice()).map_err(|_| wrong_length())?);
                if guessable(&secret) { Err(Problem::Weak) } else { Ok(Key::full(&secret)) }
            }
            Kind::Reader => {
                let (group, verifying) = bytes.split_first_chunk().ok_or_else(wrong_length)?;
                let verifying = verifying.try_into().map_err(|_| wrong_length())?;
                if guessable(group) {
                    return Err(Problem::Weak);
                }
                let verifying = VerifyingKey::from_bytes(verifying).map_err(|_| Problem::VerifyingKey)?;
                if verifying.is_weak() {
                    return Err(Problem::VerifyingKey);
                }
                Ok(Key::new(Zeroizing::new(*group), verifying, None))
            }
        }
    }
}

/// Whether a secret is one byte repeated, as in a placeholder that was never replaced.
fn guessable(secret: &[u8; SECRET_BYTES]) -> bool {
    secret.iter().all(|byte| *byte == secret[0])
}

fn derive(secret: &[u8; SECRET_BYTES], purpose: &str, cluster: &str) -> [u8; 32] {
    *expand(PURPOSE_SALT, secret, &[purpose.as_bytes(), b"\0", cluster.as_bytes()])
}

fn expand(salt: &[u8], secret: &[u8; SECRET_BYTES], info: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let mut derived = Zeroizing::new([0; 32]);
    Hkdf::<Sha256>::new(Some(salt), secret)
        .expand_multi_info(info, &mut *derived)
        .expect("HKDF-SHA256 yields up to 8,160 bytes, and 32 are requested");
    derived
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.id())
    }
}

/// At least one key, all of one kind and with different ids. The first key seals and signs. A clone shares the keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keyring {
    keys: Vec<Key>,
}

impl Keyring {
    /// Reads a keyring file. Blank lines and lines that start with `#` are skipped.
    pub fn parse(file: &[u8]) -> Result<Keyring, KeyringError> {
        Ok(Keyring { keys: Lines::parse(file)?.keys.into_iter().map(|(_, key)| key).collect() })
    }

    /// Reads the keyring file of one node. A core member signs what it says of itself, so a reader keyring is of no use to it.
    pub fn parse_for(file: &[u8], core: bool) -> Result<Keyring, KeyringError> {
        let keyring = Keyring::parse(file)?;
        if core && !keyring.is_full() {
            return Err(KeyringError { line: 1, problem: Problem::ReaderOnly });
        }
        Ok(keyring)
    }

    /// The text of a new full keyring with one random key.
    pub fn generate() -> String {
        Keyring::random().to_text()
    }

    /// A full keyring with one random key.
    pub fn random() -> Keyring {
        Keyring { keys: vec![Key::random()] }
    }

    /// Whether this keyring signs: all of its keys are full keys.
    pub fn is_full(&self) -> bool {
        self.primary().kind() == Kind::Full
    }

    /// The key that seals and, in a full keyring, signs.
    pub fn primary(&self) -> &Key {
        self.keys.first().expect("a keyring has at least one key")
    }

    /// All keys, the primary first.
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// The ids of all keys, the primary's first.
    pub fn key_ids(&self) -> Vec<KeyId> {
        self.keys.iter().map(Key::id).collect()
    }

    /// The text of the reader keyring with the same keys in the same order.
    pub fn reader_text(&self) -> String {
        file_text(Kind::Reader, self.keys.iter().map(Key::reader_line))
    }

    /// The text of a file with exactly these keys.
    pub fn to_text(&self) -> String {
        file_text(self.primary().kind(), self.keys.iter().map(Key::line))
    }
}

fn file_text(kind: Kind, lines: impl Iterator<Item = String>) -> String {
    lines.fold(kind.heading().to_owned(), |text, line| text + &line + "\n")
}

/// Why a keyring file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct KeyringError {
    /// The line in the file, from 1.
    pub line: usize,
    /// What is wrong there, and what would be right.
    pub problem: Problem,
}

/// What is wrong with a line of a keyring file. No variant contains any of the line's text, which may be secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Not UTF-8.
    #[error("not text; a keyring has one key a line, as `prismesh keygen` writes it")]
    NotText,
    /// No known prefix, or no base64 after it.
    #[error(
        "not a key; expected `{}` or `{}` and base64, as `prismesh keygen` and `prismesh key public` write them",
        Kind::Full.prefix(),
        Kind::Reader.prefix()
    )]
    NotAKey,
    /// A key of the format without prefix, which this version does not read.
    #[error("a key of a former format; make a new keyring with `prismesh keygen`")]
    FormerFormat,
    /// Base64 of another length.
    #[error("a {kind} key of {bytes} bytes; expected {} bytes in base64, as `{}` writes them", .kind.bytes(), .kind.command())]
    Length {
        /// The kind of key that the prefix names.
        kind: Kind,
        /// The length found, in bytes.
        bytes: usize,
    },
    /// The secret is one byte repeated.
    #[error("a key that anyone can guess; make a new keyring with `prismesh keygen`")]
    Weak,
    /// The second half of a reader key is no point of the curve, or one for which signatures can be forged.
    #[error("a reader key whose last 32 bytes are not a safe Ed25519 verifying key; copy what `prismesh key public` printed")]
    VerifyingKey,
    /// A key of another kind than the keys before it.
    #[error("a {found} key, but line {first} holds a key of the other kind; keep full and reader keys in separate files")]
    Mixed {
        /// The kind of this line.
        found: Kind,
        /// The line of the first key, which is of the other kind.
        first: usize,
    },
    /// A reader keyring where a full one is needed.
    #[error(
        "a reader keyring, and this node has `apiservers`: a control plane signs what it announces and needs the full keyring"
    )]
    ReaderOnly,
    /// The same key twice.
    #[error("the same key as in line {0}; remove one of the two lines")]
    Twice(usize),
    /// More than [`MAX_KEYS`].
    #[error("more than {MAX_KEYS} keys; remove old ones with `prismesh key remove`")]
    TooMany,
    /// No key at all.
    #[error("no key in this file; make a keyring with `prismesh keygen`")]
    Empty,
}

/// A keyring file line by line, with the index of each key's line.
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
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if !line.is_empty() && !line.starts_with('#') {
                let key = lines.parse_next(line).map_err(|problem| KeyringError { line: index + 1, problem })?;
                lines.keys.push((index, key));
            }
        }
        if lines.keys.is_empty() {
            return Err(KeyringError { line: 1, problem: Problem::Empty });
        }
        Ok(lines)
    }

    /// Reads one more key and compares it with those before it.
    fn parse_next(&self, line: &str) -> Result<Key, Problem> {
        let key = Key::parse(line)?;
        if let Some((first, _)) = self.keys.first().filter(|(_, known)| known.kind() != key.kind()) {
            return Err(Problem::Mixed { found: key.kind(), first: first + 1 });
        }
        if let Some((first, _)) = self.keys.iter().find(|(_, known)| known.id() == key.id()) {
            return Err(Problem::Twice(first + 1));
        }
        if self.keys.len() >= MAX_KEYS { Err(Problem::TooMany) } else { Ok(key) }
    }
}

#[cfg(test)]
mod tests;
