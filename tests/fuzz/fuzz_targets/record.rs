//! A signed item: bytes that anybody may send, and what a holder of the signing key may sign. What is signed verifies, and says the same.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use prismesh::gossip::fuzz;
use prismesh::gossip::item::SignedItem;
use prismesh::gossip::keys::Keyring;

/// The same key in each run, so that a finding can be repeated: 32 bytes of digits and letters.
const KEY: &[u8] = b"prismesh-full-1:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n";

static KEYRING: LazyLock<Keyring> = LazyLock::new(|| Keyring::parse(KEY).expect("a keyring of one key"));

fuzz_target!(|bytes: &[u8]| {
    assert!(SignedItem::verify(bytes, &KEYRING, "fuzz").is_err(), "who has no signing key cannot sign");
    let Some((kind, body)) = bytes.split_first() else { return };
    let Some(item) = fuzz::item(*kind, body) else { return };
    let Some(signed) = item.clone().sign(&KEYRING, "fuzz") else { return };
    let again = SignedItem::verify(&signed.bytes, &KEYRING, "fuzz").expect("what is signed verifies");
    assert_eq!(again.item.node(), item.node());
});
