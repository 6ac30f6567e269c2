//! The only user of bincode, which is unmaintained: whoever replaces it changes this file.
//!
//! What is encoded is told apart by a format version of our own in front of it, never by bincode.

use bincode::config::{self, Configuration, Limit, LittleEndian, Varint};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes that a decoder takes into its hands at most, whatever lengths the input claims. The largest thing decoded is
/// a peer cache.
pub(crate) const LIMIT: usize = 64 * 1024;

const fn configuration() -> Configuration<LittleEndian, Varint, Limit<LIMIT>> {
    config::standard().with_limit::<LIMIT>()
}

/// Encodes. [`None`] for what is larger than [`LIMIT`].
pub(crate) fn encode<T: Serialize>(value: &T) -> Option<Vec<u8>> {
    bincode::serde::encode_to_vec(value, configuration()).ok()
}

/// Decodes from the front of `bytes`. What follows is ignored, so that a later build may append fields.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    bincode::serde::decode_from_slice(bytes, configuration()).ok().map(|(value, _)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claimed_length_is_not_believed() {
        let huge = [253, 255, 255, 255, 255, 255, 255, 255, 127];
        assert_eq!(decode::<Vec<u64>>(&huge), None);
        assert_eq!(decode::<String>(&huge), None);
    }

    #[test]
    fn what_follows_is_ignored() {
        let mut bytes = encode(&(7_u32, "x")).unwrap();
        bytes.extend([1, 2, 3]);
        assert_eq!(decode::<(u32, String)>(&bytes), Some((7, "x".to_owned())));
    }
}
