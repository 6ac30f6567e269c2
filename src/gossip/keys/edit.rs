//! Changes to a keyring file, as text: comments stay where they are.
//!
//! A rotation is three steps, each completed on all nodes before the next: *append* a key (every node opens what it seals,
//! none uses it yet), *promote* it (every node uses it, and still opens what the old key sealed), *remove* the old key.

use super::{Key, KeyId, Keyring, KeyringError, Kind, Lines, MAX_KEYS};

/// The result of an edit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edited {
    /// The whole new file.
    pub text: String,
    /// The key that was added, promoted or removed.
    pub key: KeyId,
    /// The ids of the keys now in the file, the primary's first.
    pub left: Vec<KeyId>,
}

/// Why a keyring file was not edited.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// The file cannot be read as a keyring.
    #[error(transparent)]
    File(#[from] KeyringError),
    /// A key was to be added to a reader keyring, which cannot hold its secret.
    #[error(
        "a reader keyring takes no new key; add the key to the full keyring with `prismesh key add`, and replace this file by what \
         `prismesh key public` then prints"
    )]
    ReaderAppend,
    /// The file has [`MAX_KEYS`] already.
    #[error("{MAX_KEYS} keys are the most; remove old ones first with `prismesh key remove`")]
    Full,
    /// Without its only key the file would be no keyring, and promoting needs a second one.
    #[error("the only key in this file; add another one first with `prismesh key add`")]
    OnlyKey,
    /// No key has this id.
    #[error("no key {id} in this file; it has {}", list(.known))]
    UnknownKey {
        /// The id that was asked for.
        id: KeyId,
        /// The ids of the keys in the file.
        known: Vec<KeyId>,
    },
}

fn list(ids: &[KeyId]) -> String {
    ids.iter().map(KeyId::to_string).collect::<Vec<_>>().join(", ")
}

impl Keyring {
    /// Adds a new random key as the last line. A reader keyring is refused.
    pub fn append(file: &[u8]) -> Result<Edited, EditError> {
        let mut lines = Lines::parse(file)?;
        if lines.keys.iter().any(|(_, key)| key.kind() == Kind::Reader) {
            return Err(EditError::ReaderAppend);
        }
        if lines.keys.len() >= MAX_KEYS {
            return Err(EditError::Full);
        }
        let key = Key::random();
        lines.text.push(key.line());
        lines.edited(key.id())
    }

    /// Moves a key to the front, so that it is the primary: the key `id`, or the last key without one. Promoting the
    /// primary by its id changes nothing.
    pub fn promote(file: &[u8], id: Option<KeyId>) -> Result<Edited, EditError> {
        let mut lines = Lines::parse(file)?;
        let (from, key) = match (id, lines.keys.as_slice()) {
            (Some(id), _) => (lines.index_of(id)?, id),
            (None, [_, .., (last, key)]) => (*last, key.id()),
            (None, _) => return Err(EditError::OnlyKey),
        };
        let to = lines.keys.first().map_or(from, |(first, _)| *first);
        let line = lines.text.remove(from);
        lines.text.insert(to, line);
        lines.edited(key)
    }

    /// Removes the key `id`. The only key is not removed.
    pub fn remove(file: &[u8], id: KeyId) -> Result<Edited, EditError> {
        let mut lines = Lines::parse(file)?;
        let index = lines.index_of(id)?;
        if lines.keys.len() == 1 {
            return Err(EditError::OnlyKey);
        }
        lines.text.remove(index);
        lines.edited(id)
    }
}

impl Lines {
    /// The index of the line with the key `id`.
    fn index_of(&self, id: KeyId) -> Result<usize, EditError> {
        let known = || self.keys.iter().map(|(_, key)| key.id()).collect();
        let found = self.keys.iter().find(|(_, key)| key.id() == id);
        found.map(|(index, _)| *index).ok_or_else(|| EditError::UnknownKey { id, known: known() })
    }

    fn edited(&self, key: KeyId) -> Result<Edited, EditError> {
        let text = self.text.join("\n") + "\n";
        let left = Keyring::parse(text.as_bytes())?.key_ids();
        Ok(Edited { text, key, left })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(text: &str) -> Vec<KeyId> {
        Keyring::parse(text.as_bytes()).unwrap().key_ids()
    }

    /// A full keyring of `count` keys with comments between them, and the ids.
    fn commented(count: usize) -> (String, Vec<KeyId>) {
        let keys: Vec<Key> = (0..count).map(|_| Key::random()).collect();
        let lines = keys.iter().enumerate().map(|(index, key)| format!("# comment {index}\n\n{}\n", key.line()));
        (lines.collect::<String>() + "# end\n", keys.iter().map(Key::id).collect())
    }

    fn comments(text: &str) -> Vec<&str> {
        text.lines().filter(|line| line.starts_with('#') || line.is_empty()).collect()
    }

    #[test]
    fn a_rotation_appends_promotes_and_removes() {
        let start = Keyring::generate();
        let old = ids(&start)[0];
        let added = Keyring::append(start.as_bytes()).unwrap();
        assert_eq!(added.left, [old, added.key]);
        let promoted = Keyring::promote(added.text.as_bytes(), None).unwrap();
        assert_eq!((promoted.key, promoted.left), (added.key, vec![added.key, old]));
        let removed = Keyring::remove(promoted.text.as_bytes(), old).unwrap();
        assert_eq!((removed.key, &removed.left), (old, &vec![added.key]));
        assert_eq!(ids(&removed.text), removed.left);
    }

    #[test]
    fn an_edit_keeps_every_comment_in_its_order() {
        let (text, keys) = commented(3);
        for edited in [
            Keyring::append(text.as_bytes()).unwrap(),
            Keyring::promote(text.as_bytes(), None).unwrap(),
            Keyring::promote(text.as_bytes(), Some(keys[1])).unwrap(),
            Keyring::remove(text.as_bytes(), keys[0]).unwrap(),
        ] {
            assert_eq!(comments(&edited.text), comments(&text));
        }
    }

    #[test]
    fn a_key_is_appended_as_the_last_line_even_without_a_final_line_break() {
        let (text, _) = commented(1);
        let added = Keyring::append(text.trim_end().as_bytes()).unwrap();
        let last = added.text.lines().last().unwrap();
        assert_eq!(ids(last), [added.key]);
        assert!(added.text.starts_with(&text) && added.text.ends_with('\n'));
    }

    #[test]
    fn any_key_is_promoted_by_its_id_and_the_order_of_the_others_stays() {
        let (text, keys) = commented(3);
        let promote = |id| Keyring::promote(text.as_bytes(), Some(id)).unwrap();
        assert_eq!(promote(keys[1]).left, [keys[1], keys[0], keys[2]]);
        assert_eq!(promote(keys[2]).left, [keys[2], keys[0], keys[1]]);
        assert_eq!(promote(keys[0]).text, text, "promoting the primary changes nothing");
    }

    #[test]
    fn any_key_but_the_only_one_is_removed() {
        let (text, keys) = commented(2);
        assert_eq!(Keyring::remove(text.as_bytes(), keys[0]).unwrap().left, [keys[1]]);
        let left = Keyring::remove(text.as_bytes(), keys[1]).unwrap();
        assert_eq!(Keyring::remove(left.text.as_bytes(), keys[0]), Err(EditError::OnlyKey));
        assert_eq!(Keyring::promote(left.text.as_bytes(), None), Err(EditError::OnlyKey));
    }

    #[test]
    fn an_unknown_id_is_answered_with_the_ids_in_the_file() {
        let (text, keys) = commented(2);
        let id = KeyId(keys[0].0.map(|byte| !byte));
        let expected = EditError::UnknownKey { id, known: keys.clone() };
        assert_eq!(Keyring::remove(text.as_bytes(), id), Err(expected.clone()));
        assert_eq!(Keyring::promote(text.as_bytes(), Some(id)), Err(expected.clone()));
        assert_eq!(expected.to_string(), format!("no key {id} in this file; it has {}, {}", keys[0], keys[1]));
    }

    #[test]
    fn a_full_file_takes_no_further_key() {
        let (text, _) = commented(MAX_KEYS);
        assert_eq!(Keyring::append(text.as_bytes()), Err(EditError::Full));
    }

    #[test]
    fn a_reader_keyring_is_promoted_and_removed_from_but_takes_no_new_key() {
        let (text, keys) = commented(2);
        let reader = Keyring::parse(text.as_bytes()).unwrap().reader_text();
        assert_eq!(Keyring::promote(reader.as_bytes(), None).unwrap().left, [keys[1], keys[0]]);
        assert_eq!(Keyring::remove(reader.as_bytes(), keys[0]).unwrap().left, [keys[1]]);
        let refused = Keyring::append(reader.as_bytes()).unwrap_err();
        assert_eq!(refused, EditError::ReaderAppend);
        assert!(refused.to_string().contains("`prismesh key add`") && refused.to_string().contains("`prismesh key public`"));
    }

    #[test]
    fn a_file_that_is_no_keyring_is_not_edited() {
        let error = Keyring::parse(b"\nsecret").unwrap_err();
        assert_eq!(Keyring::append(b"\nsecret"), Err(error.clone().into()));
        assert_eq!(Keyring::promote(b"\nsecret", None), Err(error.clone().into()));
        assert_eq!(Keyring::remove(b"\nsecret", KeyId([0; 4])), Err(error.into()));
    }
}
