//! One question to one name server.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Edns, Header, Message, MessageType, Metadata, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable as _, BinDecoder};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{sleep, timeout};

use super::conf::{Conf, Server};
use crate::world::Family;

/// A datagram may be lost: the question is sent again after each of these.
const SEND_AGAIN: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(2)];
/// A name server that has said nothing over UDP for so long is asked over TCP as well.
const TCP_AFTER: Duration = Duration::from_secs(3);
/// The rest of a truncated answer is waited for so long; then what there is has to do.
const REST: Duration = Duration::from_secs(3);
/// What we take in one datagram where `edns0` is set: no fragments (DNS flag day 2020).
const EDNS_BYTES: u16 = 1232;
/// A datagram of another length is no answer.
const DATAGRAM_BYTES: usize = 4096;
/// Aliases of aliases.
const CHAIN: usize = 16;

/// An answer that settles the question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The name has these addresses.
    Addresses(Vec<IpAddr>, Duration),
    /// The name exists, and has no address of this family.
    NoData,
    /// There is no such name, in whatever family.
    NoName,
}

/// Asks once, with what repetition the network may need. Ends only when there is an answer, or what went wrong is known: bounded by
/// whoever asks.
///
/// # Errors
/// What the name server answered instead, or why it cannot be asked.
pub(super) async fn ask(server: &Server, conf: &Conf, name: &Name, family: Family) -> Result<Answer, String> {
    let question = Question::new(name, family);
    let told = |error: String| format!("{server}: {error}");
    let at = server.address().map_err(told)?;
    match over_any(at, conf, &question, conf.edns0).await {
        // Old servers answer so to whatever they do not know.
        Err(Failure::Code(ResponseCode::FormErr | ResponseCode::NotImp)) if conf.edns0 => {
            over_any(at, conf, &question, false).await
        }
        answer => answer,
    }
    .map_err(|failure| told(failure.to_string()))
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("answers {0}")]
    Code(ResponseCode),
    #[error("{0}")]
    Message(String),
}

struct Question {
    query: Query,
    family: Family,
}

/// What of a name server's answer is looked at.
struct Reply {
    metadata: Metadata,
    queries: Vec<Query>,
    answers: Vec<Record>,
    /// Answers follow that cannot be read.
    cut: bool,
}

impl Reply {
    /// Reads what can be read: like glibc, header, question and answers, whatever may be wrong with the rest.
    fn parse(bytes: &[u8]) -> Option<Reply> {
        if let Ok(Message { metadata, queries, answers, .. }) = Message::from_vec(bytes) {
            return Some(Reply { metadata, queries, answers, cut: false });
        }
        let mut decoder = BinDecoder::new(bytes);
        let Header { metadata, counts } = Header::read(&mut decoder).ok()?;
        let queries: Vec<Query> = (0..counts.queries).map_while(|_| Query::read(&mut decoder).ok()).collect();
        let answers: Vec<Record> = (0..counts.answers).map_while(|_| Record::read(&mut decoder).ok()).collect();
        let cut = answers.len() < usize::from(counts.answers);
        Some(Reply { metadata, queries, answers, cut })
    }
}

impl Question {
    fn new(name: &Name, family: Family) -> Question {
        let kind = match family {
            Family::V4 => RecordType::A,
            Family::V6 => RecordType::AAAA,
        };
        Question { query: Query::query(name.clone(), kind), family }
    }

    fn message(&self, edns: bool) -> Result<(u16, Vec<u8>), Failure> {
        let mut message = Message::query();
        message.metadata.id = rand::random();
        message.metadata.recursion_desired = true;
        message.add_query(self.query.clone());
        if edns {
            let mut edns = Edns::new();
            edns.set_max_payload(EDNS_BYTES);
            message.set_edns(edns);
        }
        let bytes = message.to_vec().map_err(|error| Failure::Message(error.to_string()))?;
        Ok((message.metadata.id, bytes))
    }

    /// The message, if it is an answer to this question.
    fn answered(&self, id: u16, bytes: &[u8]) -> Option<Reply> {
        let message = Reply::parse(bytes)?;
        let ours = message.metadata.id == id && message.metadata.message_type == MessageType::Response;
        // Whoever does not understand a question need not repeat it.
        let complains = matches!(message.metadata.response_code, ResponseCode::FormErr | ResponseCode::NotImp);
        let repeats = message.queries == [self.query.clone()] || (complains && message.queries.is_empty());
        (ours && repeats).then_some(message)
    }

    fn read(&self, message: &Reply) -> Result<Answer, Failure> {
        match message.metadata.response_code {
            ResponseCode::NXDomain => return Ok(Answer::NoName),
            ResponseCode::NoError => {}
            code => return Err(Failure::Code(code)),
        }
        let (addrs, ttl) = self.addresses(message);
        if !addrs.is_empty() {
            return Ok(Answer::Addresses(addrs, ttl));
        }
        if message.cut {
            return Err(Failure::Message("its answer cannot be read".to_owned()));
        }
        let metadata = &message.metadata;
        if message.answers.is_empty() && !metadata.authoritative && !metadata.recursion_available {
            return Err(Failure::Message("does not resolve names for us".to_owned()));
        }
        Ok(Answer::NoData)
    }

    /// The addresses of the name, or of the one that it is an alias of, and the lowest TTL on the way.
    fn addresses(&self, message: &Reply) -> (Vec<IpAddr>, Duration) {
        let mut names = BTreeSet::from([self.query.name().to_lowercase()]);
        let mut ttl = u32::MAX;
        for _ in 0..CHAIN {
            let before = names.len();
            for record in &message.answers {
                if let RData::CNAME(alias) = &record.data
                    && names.contains(&record.name.to_lowercase())
                {
                    names.insert(alias.0.to_lowercase());
                    ttl = ttl.min(record.ttl);
                }
            }
            if names.len() == before {
                break;
            }
        }
        let mut addrs = Vec::new();
        for record in &message.answers {
            let addr = record.data.ip_addr().filter(|ip| Family::of(*ip) == self.family);
            // What cannot be dialled is how name servers block a name.
            let addr = addr.filter(|ip| !ip.is_unspecified() && !ip.is_multicast());
            if let Some(addr) = addr.filter(|_| names.contains(&record.name.to_lowercase())) {
                addrs.push(addr);
                ttl = ttl.min(record.ttl);
            }
        }
        (addrs, Duration::from_secs(ttl.into()))
    }
}

async fn over_any(at: SocketAddr, conf: &Conf, question: &Question, edns: bool) -> Result<Answer, Failure> {
    if conf.use_vc {
        return over_tcp(at, question, edns).await;
    }
    let mut datagrams = std::pin::pin!(over_udp(at, question, edns));
    let stream = async {
        sleep(TCP_AFTER).await;
        over_tcp(at, question, edns).await
    };
    tokio::select! {
        answer = &mut datagrams => answer,
        Ok(answer) = stream => Ok(answer),
        else => datagrams.await,
    }
}

async fn over_udp(at: SocketAddr, question: &Question, edns: bool) -> Result<Answer, Failure> {
    let (id, bytes) = question.message(edns)?;
    let any: SocketAddr = if at.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    // Connected, so that the kernel takes answers from there only, and tells when the port is closed.
    socket.connect(at).await?;
    socket.send(&bytes).await?;
    let mut again = SEND_AGAIN.iter();
    let mut buffer = [0; DATAGRAM_BYTES];
    let message = loop {
        let length = match again.as_slice().first() {
            None => socket.recv(&mut buffer).await?,
            Some(wait) => match timeout(*wait, socket.recv(&mut buffer)).await {
                Ok(received) => received?,
                Err(_) => {
                    again.next();
                    socket.send(&bytes).await?;
                    continue;
                }
            },
        };
        if let Some(message) = buffer.get(..length).and_then(|bytes| question.answered(id, bytes)) {
            break message;
        }
    };
    if !message.metadata.truncation {
        return question.read(&message);
    }
    match timeout(REST, over_tcp(at, question, edns)).await {
        Ok(Ok(answer)) => Ok(answer),
        // Some of the addresses are better than none.
        _ => match question.read(&message)? {
            answer @ Answer::Addresses(..) => Ok(answer),
            _ => Err(Failure::Message("its answer is truncated, and there is none over TCP".to_owned())),
        },
    }
}

async fn over_tcp(at: SocketAddr, question: &Question, edns: bool) -> Result<Answer, Failure> {
    let (id, bytes) = question.message(edns)?;
    let length = u16::try_from(bytes.len()).map_err(|_| Failure::Message("the question is too long".to_owned()))?;
    let mut stream = TcpStream::connect(at).await?;
    stream.write_all(&[&length.to_be_bytes()[..], &bytes].concat()).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    let message = question.answered(id, &answer);
    question.read(&message.ok_or_else(|| Failure::Message("its answer over TCP is to no question of ours".to_owned()))?)
}
