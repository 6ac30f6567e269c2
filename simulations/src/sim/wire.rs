//! What modelled clients, probes and apiservers say to one another: TLS records by their shape, and inside them one-byte verbs.
//!
//! The shapes are real, because the proxy looks at them (a whole ClientHello may be sent again, only a handshake record is an
//! answer); what is in them is not encrypted, since nobody in the model could read it anyway.

/// TLS record types.
pub(super) const HANDSHAKE: u8 = 22;
/// Application data.
pub(super) const DATA: u8 = 23;

const HEADER: usize = 5;
const MESSAGE_HEADER: usize = 4;
const EXTENSION_HEADER: usize = 4;
const EXTENSIONS_HEADER: usize = 2 + EXTENSION_HEADER;
/// The padding extension (RFC 7685).
const PADDING: u16 = 21;
/// A ClientHello is as long as client-go's, with its post-quantum key share: more than one segment.
pub(super) const CLIENT_HELLO_BYTES: usize = 1_700;
const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;

/// A record.
pub(super) fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap_or(u16::MAX);
    let mut bytes = Vec::with_capacity(HEADER + content.len());
    bytes.extend([kind, 3, 3]);
    bytes.extend(length.to_be_bytes());
    bytes.extend(content);
    bytes
}

/// Takes the first whole record off the front: its type and content.
pub(super) fn take_record(bytes: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
    let length = usize::from(u16::from_be_bytes([*bytes.get(3)?, *bytes.get(4)?]));
    if bytes.len() < HEADER + length {
        return None;
    }
    let rest = bytes.split_off(HEADER + length);
    let whole = std::mem::replace(bytes, rest);
    Some((whole[0], whole[HEADER..].to_vec()))
}

/// A ClientHello. Its random ends in a number, so that no two are the same.
pub(super) fn client_hello(connection: u64) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([0; 24]);
    body.extend(connection.to_be_bytes());
    // No session id, one cipher suite, no compression, and of extensions only padding, in place of all that makes real ones long.
    body.extend([0, 0, 2, 0x13, 0x01, 1, 0]);
    let padding = CLIENT_HELLO_BYTES - HEADER - MESSAGE_HEADER - body.len() - EXTENSIONS_HEADER;
    let length = |bytes: usize| u16::try_from(bytes).unwrap_or(u16::MAX).to_be_bytes();
    body.extend(length(padding + EXTENSION_HEADER));
    body.extend(PADDING.to_be_bytes());
    body.extend(length(padding));
    body.resize(body.len() + padding, 0);
    record(HANDSHAKE, &message(CLIENT_HELLO, &body))
}

/// What a server shows of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    /// On which of the world's connections it answers.
    pub(super) conn: u64,
    /// Which process answers.
    pub(super) incarnation: u64,
    /// Whose certificate.
    pub(super) ca: u32,
    /// It is outside its validity.
    pub(super) expired: bool,
}

/// A ServerHello with certificate and all.
pub(super) fn server_hello(shown: Shown) -> Vec<u8> {
    let mut body = Vec::with_capacity(21);
    body.extend(shown.conn.to_be_bytes());
    body.extend(shown.incarnation.to_be_bytes());
    body.extend(shown.ca.to_be_bytes());
    body.push(shown.expired.into());
    record(HANDSHAKE, &message(SERVER_HELLO, &body))
}

/// The CA that nobody has in a file.
pub(super) const NOBODYS: u32 = u32::MAX;
/// The cluster's CA, by an algorithm that agents cannot check.
pub(super) const UNSUPPORTED: u32 = u32::MAX - 1;

/// What the server showed.
pub(super) fn shown(content: &[u8]) -> Option<Shown> {
    let body = content.get(4..)?;
    Some(Shown {
        conn: u64::from_be_bytes(body.get(..8)?.try_into().ok()?),
        incarnation: u64::from_be_bytes(body.get(8..16)?.try_into().ok()?),
        ca: u32::from_be_bytes(body.get(16..20)?.try_into().ok()?),
        expired: *body.get(20)? == 1,
    })
}

/// A request or an answer on one of a connection's streams, as HTTP/2 has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) verb: Verb,
    pub(super) stream: u32,
    /// The HTTP status of an answer; 0 of a request.
    pub(super) status: u16,
}

/// What is asked, or told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    /// `GET /readyz`.
    Readyz,
    /// `GET` of some object.
    Get,
    /// Renew a lease.
    Lease,
    /// Open a watch.
    Watch,
    /// Open a watch of something that never changes.
    QuietWatch,
    /// A request that takes long.
    Long,
    /// A part of an upload, which is not answered by itself.
    Part,
    /// HTTP/2 PING.
    Ping,
    /// A watch's event.
    Event,
    /// HTTP/2 GOAWAY, and the end.
    GoAway,
    /// HTTP/2 GOAWAY, while what is under way goes on.
    NoMore,
}

const VERBS: [(u8, Verb); 11] = [
    (b'R', Verb::Readyz),
    (b'G', Verb::Get),
    (b'L', Verb::Lease),
    (b'W', Verb::Watch),
    (b'Q', Verb::QuietWatch),
    (b'T', Verb::Long),
    (b'U', Verb::Part),
    (b'P', Verb::Ping),
    (b'E', Verb::Event),
    (b'A', Verb::GoAway),
    (b'N', Verb::NoMore),
];

impl Frame {
    /// A request.
    pub(super) fn ask(verb: Verb, stream: u32) -> Frame {
        Frame { verb, stream, status: 0 }
    }

    /// As a record.
    pub(super) fn encode(self) -> Vec<u8> {
        self.encode_with(0)
    }

    /// As a record, followed by so many bytes that mean nothing.
    pub(super) fn encode_with(self, padding: usize) -> Vec<u8> {
        let verb = VERBS.iter().find(|(_, verb)| *verb == self.verb).map_or(b'?', |(letter, _)| *letter);
        let mut content = vec![verb];
        content.extend(self.stream.to_be_bytes());
        content.extend(self.status.to_be_bytes());
        content.resize(content.len() + padding, 0);
        record(DATA, &content)
    }

    /// From a record's content.
    pub(super) fn decode(content: &[u8]) -> Option<Frame> {
        let (_, verb) = *VERBS.iter().find(|(letter, _)| Some(letter) == content.first())?;
        let stream = u32::from_be_bytes(content.get(1..5)?.try_into().ok()?);
        let status = u16::from_be_bytes(content.get(5..7)?.try_into().ok()?);
        Some(Frame { verb, stream, status })
    }
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap_or_default().to_be_bytes();
    [&[kind, length[1], length[2], length[3]], body].concat()
}

#[cfg(test)]
mod tests {
    use prismesh::proxy::hello::{Hello, Shape};

    use super::*;

    #[test]
    fn the_proxy_takes_a_modelled_hello_for_a_whole_one() {
        let bytes = client_hello(77);
        let mut hello = Hello::default();
        hello.follow(&bytes, bytes.len());
        assert_eq!(hello.shape(), Shape::Complete { early_data: false });
        let (kind, _) = take_record(&mut bytes.clone()).expect("whole");
        assert_eq!(kind, HANDSHAKE);
        assert_eq!(bytes.len(), CLIENT_HELLO_BYTES);
    }

    #[test]
    fn frames_and_what_a_server_shows_come_out_as_they_went_in() {
        let frame = Frame { verb: Verb::Lease, stream: 9, status: 200 };
        let mut bytes = frame.encode();
        bytes.extend(Frame::ask(Verb::Ping, 1).encode());
        let (_, content) = take_record(&mut bytes).expect("whole");
        assert_eq!(Frame::decode(&content), Some(frame));
        assert!(!bytes.is_empty(), "the second one is left");
        let of = Shown { conn: 3, incarnation: 4, ca: 2, expired: true };
        let (_, content) = take_record(&mut server_hello(of)).expect("whole");
        assert_eq!(shown(&content), Some(of));
    }
}
