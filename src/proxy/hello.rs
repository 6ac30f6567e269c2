//! Tells what a client has begun with: part of a TLS ClientHello, exactly one whole, or something else.
//!
//! It decides whether what the client has sent may be sent again to another upstream. That is so for a ClientHello, which has
//! no effect until it is answered, and for nothing else. So whatever is doubtful here is [`Shape::Other`], which is carried
//! but never sent twice.
//!
//! The bytes are looked at once, as they come, in any pieces; only the finished hello is put together for a look at its
//! extensions. Early data (extension 42) is application data that follows the hello unasked, so its announcement counts
//! against sending again, too.

/// What the bytes so far are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Nothing, or the beginning of a ClientHello.
    Partial,
    /// Exactly one ClientHello.
    Complete {
        /// It announces early data.
        early_data: bool,
    },
    /// A ClientHello and something after it.
    More,
    /// Not a ClientHello.
    Other,
}

/// A TLS record's type: handshake.
pub(super) const HANDSHAKE: u8 = 22;
/// And an alert.
pub(super) const ALERT: u8 = 21;
const RECORD_HEADER: usize = 5;
/// A plaintext record's content at most (RFC 8446, 5.1).
const RECORD_MOST: usize = 1 << 14;
const MESSAGE_HEADER: usize = 4;
const CLIENT_HELLO: u8 = 1;
const EARLY_DATA: u16 = 42;

/// Follows a client's bytes until it is clear what they are.
#[derive(Clone, Debug)]
pub struct Hello {
    shape: Shape,
    /// The header of the record that is being read.
    header: [u8; RECORD_HEADER],
    in_header: usize,
    /// What the record still has.
    record_left: usize,
    message_header: [u8; MESSAGE_HEADER],
    in_message_header: usize,
    /// What the message still lacks after its header.
    message_left: usize,
    /// How long the whole hello is, record headers included.
    length: usize,
}

impl Default for Hello {
    fn default() -> Hello {
        Hello {
            shape: Shape::Partial,
            header: [0; RECORD_HEADER],
            in_header: 0,
            record_left: 0,
            message_header: [0; MESSAGE_HEADER],
            in_message_header: 0,
            message_left: 0,
            length: 0,
        }
    }
}

impl Hello {
    /// What the bytes so far are.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// How many bytes the whole ClientHello has, once it is whole; 0 before.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Takes note of more bytes: `all` is everything since the beginning, the last `new` of which were not seen before.
    pub fn follow(&mut self, all: &[u8], new: usize) {
        let mut rest = all.get(all.len().saturating_sub(new)..).unwrap_or_default();
        while !rest.is_empty() {
            match self.shape {
                Shape::Partial => {
                    rest = self.advance(rest);
                    if matches!(self.shape, Shape::Complete { .. } | Shape::More) {
                        self.length = all.len() - rest.len();
                    }
                }
                Shape::Complete { .. } => self.shape = Shape::More,
                Shape::More | Shape::Other => return,
            }
            if matches!(self.shape, Shape::Complete { .. }) {
                let body = message_body(all.get(..all.len() - rest.len()).unwrap_or_default());
                self.shape =
                    body.and_then(|body| early_data(&body)).map_or(Shape::Other, |early_data| Shape::Complete { early_data });
            }
        }
    }

    /// Consumes at least one byte, or decides.
    fn advance<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        if self.in_header < RECORD_HEADER {
            let rest = fill(&mut self.header, &mut self.in_header, bytes);
            self.check_record();
            return rest;
        }
        let within = bytes.len().min(self.record_left);
        let (content, after) = bytes.split_at(within);
        let left = if self.in_message_header < MESSAGE_HEADER {
            let left = fill(&mut self.message_header, &mut self.in_message_header, content);
            self.check_message();
            left
        } else {
            let taken = content.len().min(self.message_left);
            self.message_left -= taken;
            content.split_at(taken).1
        };
        self.record_left -= content.len() - left.len();
        let finished = self.in_message_header == MESSAGE_HEADER && self.message_left == 0;
        if finished && self.shape == Shape::Partial {
            self.shape = if self.record_left > 0 { Shape::More } else { Shape::Complete { early_data: false } };
        }
        if self.record_left == 0 {
            self.in_header = 0;
        }
        bytes.split_at(bytes.len() - after.len() - left.len()).1
    }

    /// Judges a record's header as far as it is there.
    fn check_record(&mut self) {
        let [kind, major, _, high, low] = self.header;
        let wrong = kind != HANDSHAKE || (self.in_header > 1 && major != 3);
        let length = usize::from(u16::from_be_bytes([high, low]));
        if wrong || (self.in_header == RECORD_HEADER && !(1..=RECORD_MOST).contains(&length)) {
            self.shape = Shape::Other;
        }
        self.record_left = length;
    }

    /// Judges the message's header as far as it is there.
    fn check_message(&mut self) {
        let [kind, high, middle, low] = self.message_header;
        let length = u32::from_be_bytes([0, high, middle, low]) as usize;
        if kind != CLIENT_HELLO || (self.in_message_header == MESSAGE_HEADER && length == 0) {
            self.shape = Shape::Other;
        }
        self.message_left = length;
    }
}

/// Copies into what is missing of `header`; the rest of `bytes`.
fn fill<'b, const N: usize>(header: &mut [u8; N], have: &mut usize, bytes: &'b [u8]) -> &'b [u8] {
    let (now, rest) = bytes.split_at(bytes.len().min(N - *have));
    for (place, byte) in header.iter_mut().skip(*have).zip(now) {
        *place = *byte;
    }
    *have += now.len();
    rest
}

/// The body of the one handshake message in these records.
fn message_body(mut records: &[u8]) -> Option<Vec<u8>> {
    let mut message = Vec::with_capacity(records.len());
    while let Some((header, rest)) = records.split_first_chunk::<RECORD_HEADER>() {
        let (content, after) = rest.split_at_checked(usize::from(u16::from_be_bytes([header[3], header[4]])))?;
        message.extend_from_slice(content);
        records = after;
    }
    (message.len() > MESSAGE_HEADER).then(|| message.split_off(MESSAGE_HEADER))
}

/// Whether a ClientHello announces early data; [`None`] if it is malformed.
fn early_data(body: &[u8]) -> Option<bool> {
    const VERSION_AND_RANDOM: usize = 2 + 32;
    let mut rest = body.get(VERSION_AND_RANDOM..)?;
    take_u8_block(&mut rest)?; // session id
    take_u16_block(&mut rest)?; // cipher suites
    take_u8_block(&mut rest)?; // compression methods
    if rest.is_empty() {
        return Some(false); // a hello without extensions, as TLS 1.2 allows
    }
    let mut extensions = take_u16_block(&mut rest)?;
    if !rest.is_empty() {
        return None;
    }
    let mut found = false;
    while !extensions.is_empty() {
        found |= take_u16(&mut extensions)? == EARLY_DATA;
        take_u16_block(&mut extensions)?;
    }
    Some(found)
}

fn take_u16(rest: &mut &[u8]) -> Option<u16> {
    let (number, after) = rest.split_first_chunk::<2>()?;
    *rest = after;
    Some(u16::from_be_bytes(*number))
}

fn take_u8_block<'b>(rest: &mut &'b [u8]) -> Option<&'b [u8]> {
    let (length, after) = rest.split_first()?;
    take(rest, after, usize::from(*length))
}

fn take_u16_block<'b>(rest: &mut &'b [u8]) -> Option<&'b [u8]> {
    let length = take_u16(rest)?;
    let after = *rest;
    take(rest, after, usize::from(length))
}

fn take<'b>(rest: &mut &'b [u8], from: &'b [u8], length: usize) -> Option<&'b [u8]> {
    let (block, after) = from.split_at_checked(length)?;
    *rest = after;
    Some(block)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::testing::{hello, hello_with};
    use super::*;

    fn shape_of(bytes: &[u8], cuts: &[usize]) -> Shape {
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).chain([bytes.len()]).collect();
        ends.sort_unstable();
        let (mut hello, mut before) = (Hello::default(), 0);
        for end in ends {
            hello.follow(&bytes[..end], end - before);
            before = end;
        }
        hello.shape()
    }

    /// The same message in records of other sizes.
    fn reframed(hello: &[u8], sizes: &[usize]) -> Vec<u8> {
        let mut message = hello[RECORD_HEADER..].to_vec();
        let mut out = Vec::new();
        for size in sizes.iter().copied().chain([RECORD_MOST]) {
            let content: Vec<u8> = message.drain(..size.clamp(1, RECORD_MOST).min(message.len())).collect();
            if !content.is_empty() {
                out.extend([HANDSHAKE, 3, 1]);
                out.extend(u16::try_from(content.len()).expect("short").to_be_bytes());
                out.extend(content);
            }
        }
        out
    }

    /// What a real TLS client begins with.
    fn real_hello() -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let mut client =
            rustls::ClientConnection::new(Arc::new(config), "kubernetes".try_into().expect("a name")).expect("a client");
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).expect("written");
        bytes
    }

    #[test]
    fn a_real_clients_hello_is_whole_with_its_last_byte_and_not_before() {
        for hello in [real_hello(), hello()] {
            assert_eq!(shape_of(&hello, &[]), Shape::Complete { early_data: false });
            for end in 0..hello.len() {
                assert_eq!(shape_of(&hello[..end], &[]), Shape::Partial, "after {end} bytes");
            }
        }
    }

    #[test]
    fn early_data_is_seen_wherever_its_extension_stands() {
        assert_eq!(shape_of(&hello_with(&[42]), &[]), Shape::Complete { early_data: true });
        assert_eq!(shape_of(&hello_with(&[0, 43, 42, 51]), &[]), Shape::Complete { early_data: true });
        assert_eq!(shape_of(&hello_with(&[]), &[]), Shape::Complete { early_data: false });
    }

    #[test]
    fn anything_after_a_hello_is_more_than_a_hello() {
        let more = [hello(), vec![20]].concat();
        assert_eq!(shape_of(&more, &[]), Shape::More);
        let mut seen = Hello::default();
        seen.follow(&more, more.len());
        assert_eq!(seen.length(), hello().len(), "what follows is none of its bytes");
        let mut same_record = hello();
        same_record.push(0);
        same_record[4] += 1;
        assert_eq!(shape_of(&same_record, &[]), Shape::More);
        assert_eq!(shape_of(&same_record[..same_record.len() - 1], &[]), Shape::More, "its record announces more");
    }

    #[test]
    fn what_is_not_a_hello_is_told_as_early_as_it_shows() {
        let mut server_hello = hello();
        server_hello[5] = 2;
        let mut cut_short = hello();
        let length = cut_short.len() - 1;
        cut_short.truncate(length);
        cut_short[4] -= 1;
        cut_short[8] -= 1;
        let wrong: [&[u8]; 8] = [
            b"G",
            b"\x15",
            b"\x16\x02",
            b"\x16\x03\x01\0\0",
            b"\x16\x03\x01\x40\x01",
            &server_hello,
            &cut_short,
            b"\x80\x2e\x01\x03",
        ];
        for bytes in wrong {
            assert_eq!(shape_of(bytes, &[]), Shape::Other, "{bytes:x?}");
        }
        assert_eq!(shape_of(b"\x16\x03\x01\0\x04\x01\0\0\0", &[]), Shape::Other, "an empty hello");
    }

    proptest! {
        #[test]
        fn records_and_segments_make_no_difference(
            sizes in prop::collection::vec(1_usize..300, 0..20),
            cuts in prop::collection::vec(any::<usize>(), 0..20),
            extensions in prop::collection::vec(any::<u16>(), 0..30),
        ) {
            let bytes = reframed(&hello_with(&extensions), &sizes);
            let early_data = extensions.contains(&EARLY_DATA);
            prop_assert_eq!(shape_of(&bytes, &cuts), Shape::Complete { early_data });
            prop_assert_eq!(shape_of(&bytes[..bytes.len() - 1], &cuts), Shape::Partial);
        }

        #[test]
        fn no_bytes_confuse_it_however_they_are_cut(
            begin in 0_usize..90,
            noise in prop::collection::vec(any::<u8>(), 0..600),
            cuts in prop::collection::vec(any::<usize>(), 0..20),
        ) {
            let mut bytes = hello();
            bytes.truncate(begin);
            bytes.extend(noise);
            prop_assert_eq!(shape_of(&bytes, &cuts), shape_of(&bytes, &[]));
        }

        #[test]
        fn one_wrong_byte_does_not_make_it_panic(place in any::<prop::sample::Index>(), byte in any::<u8>(), cuts in prop::collection::vec(any::<usize>(), 0..5)) {
            let mut bytes = hello_with(&[0, 42, 43]);
            let place = place.index(bytes.len());
            bytes[place] = byte;
            prop_assert_eq!(shape_of(&bytes, &cuts), shape_of(&bytes, &[]));
        }
    }
}
