//! Messages larger than a datagram: compressed, split, and put together again within bounds.
//!
//! A fragment is kept only once its own seal was opened, so only a member can make this process hold anything; and
//! since a member may be hostile, what is held is bounded four times: a message's bytes, its time, a session's
//! messages, and all of it together.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use zstd::bulk::{Compressor, Decompressor};

use super::envelope::PLAINTEXT;
use super::packet::{PART_HEAD, Packet, Part};
use super::stats::DropReason;

/// Bytes of a message at most, compressed or not. Gossip's library makes none of more than 65,510.
pub(crate) const MESSAGE: usize = 64 * 1024;
/// A message's fragments must all come within this.
pub(crate) const WITHIN: Duration = Duration::from_secs(2);
/// Unfinished messages of one session.
pub(crate) const A_SESSION: usize = 4;
/// Bytes of all unfinished messages together.
pub(crate) const IN_ALL: usize = 8 * 1024 * 1024;

const PART_BYTES: usize = PLAINTEXT - PART_HEAD;
const MOST_PARTS: usize = MESSAGE.div_ceil(PART_BYTES);
/// What an unfinished message costs beside its bytes, roughly: its table of fragments.
const OVERHEAD: usize = 2 * 1024;
/// Shorter messages are sent as they are: a digest of fewer than about seven nodes, which compression makes hardly shorter.
const COMPRESSED_FROM: usize = 384;
/// The fastest level that still halves a digest (measured at 50 and 200 nodes).
const LEVEL: i32 = 1;

/// Compresses and splits.
pub(crate) struct Splitter {
    compressor: Option<Compressor<'static>>,
    next: u32,
}

impl Splitter {
    pub(crate) fn new() -> Splitter {
        Splitter { compressor: None, next: rand::random() }
    }

    /// The plaintexts of the datagrams that carry a message; [`None`] if it is too large.
    pub(crate) fn split(&mut self, message: &[u8]) -> Option<Vec<Vec<u8>>> {
        if message.len() < COMPRESSED_FROM {
            return Some(vec![Packet::Whole(message).encode()]);
        }
        if message.len() > MESSAGE {
            return None;
        }
        let compressed = self.compress(message)?;
        if compressed.len() + PART_HEAD >= message.len() && message.len() < PLAINTEXT {
            return Some(vec![Packet::Whole(message).encode()]);
        }
        let parts = compressed.chunks(PART_BYTES);
        let count = u8::try_from(parts.len()).ok().filter(|count| usize::from(*count) <= MOST_PARTS)?;
        self.next = self.next.wrapping_add(1);
        let message = self.next;
        Some((0..count).zip(parts).map(|(place, bytes)| Packet::Part(Part { message, place, count, bytes }).encode()).collect())
    }

    fn compress(&mut self, message: &[u8]) -> Option<Vec<u8>> {
        // Made when first needed: the smallest clusters never need it, and it holds some hundred KiB.
        if self.compressor.is_none() {
            self.compressor = Compressor::new(LEVEL).ok();
        }
        self.compressor.as_mut()?.compress(message).ok()
    }
}

/// Puts fragments together.
pub(crate) struct Assembler {
    decompressor: Option<Decompressor<'static>>,
    waiting: BTreeMap<(u64, u32), Waiting>,
    held: usize,
}

struct Waiting {
    parts: Vec<Option<Box<[u8]>>>,
    missing: usize,
    bytes: usize,
    since: Instant,
}

impl Assembler {
    pub(crate) fn new() -> Assembler {
        Assembler { decompressor: None, waiting: BTreeMap::new(), held: 0 }
    }

    /// Takes one fragment of a session; the whole message once it is the last one missing.
    pub(crate) fn take(&mut self, now: Instant, session: u64, part: Part<'_>) -> Result<Option<Vec<u8>>, DropReason> {
        let count = usize::from(part.count);
        if count > MOST_PARTS || part.place >= part.count || part.bytes.is_empty() {
            return Err(DropReason::Malformed);
        }
        if count == 1 {
            return self.decompress(part.bytes).map(Some);
        }
        let key = (session, part.message);
        self.make_room(key, part.bytes.len())?;
        let waiting = self.waiting.entry(key).or_insert_with(|| Waiting::new(count, now));
        if waiting.parts.len() != count {
            return Err(DropReason::Malformed);
        }
        if let Some(place @ None) = waiting.parts.get_mut(usize::from(part.place)) {
            *place = Some(part.bytes.into());
            waiting.missing -= 1;
            waiting.bytes += part.bytes.len();
            self.held += part.bytes.len();
        }
        if waiting.missing > 0 {
            return Ok(None);
        }
        let whole = self.remove(key).map(Waiting::whole).unwrap_or_default();
        self.decompress(&whole).map(Some)
    }

    /// Forgets messages that have waited too long; how many those were.
    pub(crate) fn sweep(&mut self, now: Instant) -> usize {
        let late: Vec<_> = self.waiting.iter().filter(|(_, waiting)| now > waiting.since + WITHIN).map(|(key, _)| *key).collect();
        for key in &late {
            self.remove(*key);
        }
        late.len()
    }

    fn make_room(&mut self, key: (u64, u32), bytes: usize) -> Result<(), DropReason> {
        if self.waiting.contains_key(&key) {
            return if self.held + bytes > IN_ALL { Err(DropReason::Reassembly) } else { Ok(()) };
        }
        let of_session = |assembler: &Assembler| {
            let (from, to) = ((key.0, 0), (key.0, u32::MAX));
            let oldest = assembler.waiting.range(from..=to).min_by_key(|(_, waiting)| waiting.since).map(|(key, _)| *key);
            (assembler.waiting.range(from..=to).count(), oldest)
        };
        if let (A_SESSION.., Some(oldest)) = of_session(self) {
            self.remove(oldest);
        }
        if self.held + OVERHEAD + bytes > IN_ALL {
            return Err(DropReason::Reassembly);
        }
        self.held += OVERHEAD;
        Ok(())
    }

    fn remove(&mut self, key: (u64, u32)) -> Option<Waiting> {
        let waiting = self.waiting.remove(&key)?;
        self.held -= waiting.bytes + OVERHEAD;
        Some(waiting)
    }

    fn decompress(&mut self, bytes: &[u8]) -> Result<Vec<u8>, DropReason> {
        if self.decompressor.is_none() {
            self.decompressor = Decompressor::new().ok();
        }
        // zstd stops when the buffer that it was given is full: a bomb costs no more than a message.
        let claimed = zstd::zstd_safe::get_frame_content_size(bytes).ok().flatten().unwrap_or(MESSAGE as u64);
        let most = usize::try_from(claimed).ok().filter(|most| *most <= MESSAGE).ok_or(DropReason::Malformed)?;
        let decompressor = self.decompressor.as_mut().ok_or(DropReason::Malformed)?;
        decompressor.decompress(bytes, most).map_err(|_| DropReason::Malformed)
    }

    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.held
    }
}

impl Waiting {
    fn new(count: usize, since: Instant) -> Waiting {
        Waiting { parts: vec![None; count], missing: count, bytes: 0, since }
    }

    fn whole(self) -> Vec<u8> {
        self.parts.into_iter().flatten().flat_map(Vec::from).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn part(bytes: &[u8]) -> Part<'_> {
        match Packet::decode(bytes) {
            Some(Packet::Part(part)) => part,
            other => panic!("not a part: {other:?}"),
        }
    }

    fn noise(bytes: usize) -> Vec<u8> {
        (0..bytes).map(|_| rand::random()).collect()
    }

    fn put_together(parts: &[Vec<u8>]) -> Option<Vec<u8>> {
        let mut assembler = Assembler::new();
        let now = Instant::now();
        let mut whole = None;
        for bytes in parts {
            whole = whole.or(assembler.take(now, 1, part(bytes)).unwrap());
        }
        assert_eq!(assembler.held(), 0);
        whole
    }

    #[test]
    fn a_small_message_stays_whole_and_uncompressed() {
        let parts = Splitter::new().split(b"small").unwrap();
        assert_eq!(Packet::decode(&parts[0]), Some(Packet::Whole(b"small")));
        assert_eq!(parts.len(), 1);
    }

    #[test]
    fn a_message_that_fits_a_datagram_is_compressed_where_that_makes_it_shorter() {
        let digest = b"a node, its address and its heartbeat; ".repeat(20);
        let parts = Splitter::new().split(&digest).unwrap();
        assert!(parts.len() == 1 && parts[0].len() < digest.len() / 2, "{} bytes", parts[0].len());
        assert_eq!(put_together(&parts), Some(digest));
        let noise = noise(800);
        assert_eq!(Packet::decode(&Splitter::new().split(&noise).unwrap()[0]), Some(Packet::Whole(&noise)));
    }

    #[test]
    fn the_largest_message_comes_through_in_any_order() {
        let message = noise(MESSAGE);
        let mut parts = Splitter::new().split(&message).unwrap();
        assert!(parts.iter().all(|part| part.len() <= PLAINTEXT));
        parts.reverse();
        assert_eq!(put_together(&parts), Some(message));
        assert_eq!(Splitter::new().split(&noise(MESSAGE + 1)), None);
    }

    #[test]
    fn a_bomb_is_not_inflated() {
        let mut assembler = Assembler::new();
        let bomb = zstd::bulk::compress(&vec![0; 64 * MESSAGE], 1).unwrap();
        let one = Part { message: 1, place: 0, count: 1, bytes: &bomb[..bomb.len().min(PART_BYTES)] };
        assert_eq!(assembler.take(Instant::now(), 1, one), Err(DropReason::Malformed));
    }

    #[test]
    fn a_session_has_four_unfinished_messages_and_the_oldest_gives_way() {
        let mut assembler = Assembler::new();
        for message in 0..100 {
            let first = Part { message, place: 0, count: 2, bytes: b"x" };
            assert_eq!(assembler.take(Instant::now(), 1, first), Ok(None));
        }
        assert_eq!(assembler.waiting.len(), A_SESSION);
    }

    #[test]
    fn all_unfinished_messages_together_stay_within_their_bound() {
        let mut assembler = Assembler::new();
        let now = Instant::now();
        let bytes = [7; PART_BYTES];
        let mut refused = 0;
        for session in 0..5_000 {
            for message in 0..4 {
                let one = Part { message, place: 1, count: 58, bytes: &bytes };
                refused += u32::from(assembler.take(now, session, one) == Err(DropReason::Reassembly));
            }
        }
        assert!(refused > 0 && assembler.held() <= IN_ALL, "{} bytes held, {refused} refused", assembler.held());
        assert!(assembler.sweep(now + WITHIN + Duration::from_millis(1)) > 0);
        assert_eq!(assembler.held(), 0);
    }

    #[test]
    fn nonsense_is_refused() {
        let mut assembler = Assembler::new();
        let now = Instant::now();
        for (place, count, bytes) in [(2, 2, "x"), (0, 0, "x"), (0, 255, "x"), (0, 2, "")] {
            let one = Part { message: 1, place, count, bytes: bytes.as_bytes() };
            assert_eq!(assembler.take(now, 1, one), Err(DropReason::Malformed), "{place} of {count}");
        }
        assert_eq!(assembler.take(now, 1, Part { message: 1, place: 0, count: 2, bytes: b"x" }), Ok(None));
        let other = Part { message: 1, place: 2, count: 3, bytes: b"x" };
        assert_eq!(assembler.take(now, 1, other), Err(DropReason::Malformed));
    }

    proptest! {
        #[test]
        fn any_message_comes_back(len in 1_200_usize..20_000, byte in any::<u8>()) {
            let mut message = vec![byte; len];
            message.extend(noise(3_000));
            prop_assert_eq!(put_together(&Splitter::new().split(&message).unwrap()), Some(message));
        }

        #[test]
        fn any_fragments_are_taken_or_refused(
            parts in proptest::collection::vec((0_u32..3, any::<u8>(), 0_u8..70, proptest::collection::vec(any::<u8>(), 0..50)), 0..60),
        ) {
            let mut assembler = Assembler::new();
            for (message, place, count, bytes) in &parts {
                let _ = assembler.take(Instant::now(), 1, Part { message: *message, place: *place, count: *count, bytes });
            }
            prop_assert!(assembler.waiting.len() <= A_SESSION);
        }
    }
}
