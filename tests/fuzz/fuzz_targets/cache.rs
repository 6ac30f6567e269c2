//! The peer cache: a file as a disk may give it back, and what is in it once it is open.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use prismesh::gossip::cache::Cache;
use prismesh::gossip::keys::Keyring;

/// The same key in each run, so that a finding can be repeated: 32 bytes of digits and letters.
const KEY: &[u8] = b"prismesh-full-1:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n";

static KEYRING: LazyLock<Keyring> = LazyLock::new(|| Keyring::parse(KEY).expect("a keyring of one key"));

fuzz_target!(|bytes: &[u8]| {
    assert!(Cache::open(bytes, &KEYRING, "fuzz").is_err(), "who has no key cannot seal");

    let _ = prismesh::gossip::fuzz::cache(bytes);

    // A good file with one byte changed is none.
    if let [place, change, ..] = *bytes
        && change != 0
    {
        let mut file = Cache::default().seal(&KEYRING, "fuzz");
        assert!(Cache::open(&file, &KEYRING, "fuzz").is_ok());
        let place = usize::from(place) % file.len();
        file[place] ^= change;
        assert!(Cache::open(&file, &KEYRING, "fuzz").is_err(), "byte {place} may not be changed");
    }
});
