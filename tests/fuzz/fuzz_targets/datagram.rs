//! A datagram: as anybody may send it, and as a member with the key may, whose seals open.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use prismesh::gossip::envelope::{Envelopes, Kind, PLAINTEXT};
use prismesh::gossip::fuzz::Receiver;
use prismesh::gossip::keys::Keyring;

/// The same key in each run, so that a finding can be repeated: 32 bytes of digits and letters.
const KEY: &[u8] = b"prismesh-full-1:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n";

static ENVELOPES: LazyLock<Envelopes> = LazyLock::new(|| {
    let keyring = Keyring::parse(KEY).expect("a keyring of one key");
    Envelopes::new(&keyring, "fuzz")
});

fuzz_target!(|bytes: &[u8]| {
    assert!(ENVELOPES.open(bytes).is_err(), "who has no key cannot seal");

    let mut receiver = Receiver::default();
    for plaintext in plaintexts(bytes) {
        let sealed = ENVELOPES.seal(Kind::Report, plaintext).expect("it fits");
        let opened = ENVELOPES.open(&sealed).expect("what is sealed with a key of the ring opens");
        assert_eq!(opened.plaintext, plaintext);
        receiver.take(plaintext);
    }
});

/// Cuts the input into what several datagrams hold, each after its length in two bytes.
fn plaintexts(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, after) = rest.split_first_chunk::<2>()?;
        let length = usize::from(u16::from_be_bytes(*length)).min(after.len()).min(PLAINTEXT);
        let (one, others) = after.split_at(length);
        rest = others;
        Some(one)
    })
}
