//! The first bytes of a client. What they are does not depend on the pieces in which they come.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prismesh::proxy::hello::Hello;

fuzz_target!(|bytes: &[u8]| {
    let Some((piece, all)) = bytes.split_first() else { return };
    let mut whole = Hello::default();
    whole.follow(all, all.len());

    let mut pieces = Hello::default();
    let mut seen = 0;
    for part in all.chunks(usize::from(*piece) + 1) {
        seen += part.len();
        pieces.follow(&all[..seen], part.len());
    }
    assert_eq!(pieces.shape(), whole.shape());
});
