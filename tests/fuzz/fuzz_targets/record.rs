//! A member's record, in bytes and as gossip's text. What is decoded can be encoded, and says the same again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prismesh::gossip::record::{RECORD_BYTES, Record};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Record::decode_text(text);
    }
    let Ok(record) = Record::decode(bytes) else { return };
    let Some(encoded) = record.encode() else { return };
    assert!(encoded.len() <= RECORD_BYTES, "{record:?}");
    let again = Record::decode(&encoded).expect("what was encoded can be decoded");
    assert_eq!((again.node(), &again.endpoints), (record.node(), &record.endpoints));
    assert!(record.report.observations.starts_with(&again.report.observations), "{record:?}\n{again:?}");
});
