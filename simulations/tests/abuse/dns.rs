//! Name servers that answer as a test wants, written by hand so that they share no code with what they test, and an /etc of
//! the test's own, in which glibc and the agent read the same files.

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// What a name server answers to one question.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// These addresses, for this many seconds.
    Is(Vec<IpAddr>, u32),
    /// The name exists and has no such address.
    NoData,
    /// There is no such name.
    NxDomain,
    /// This response code, and nothing else.
    Code(u8),
    /// Nothing.
    Silence,
    /// This, some time later.
    After(Duration, Box<Reply>),
    /// These addresses over TCP; over UDP only the first, and that it is not all.
    Truncated(Vec<IpAddr>),
    /// These addresses in a message that announces one record more than it has: none that anybody needs.
    OneTooFew(Vec<IpAddr>),
}

pub(crate) const FORMERR: u8 = 1;
pub(crate) const SERVFAIL: u8 = 2;
pub(crate) const NOTIMP: u8 = 4;
pub(crate) const REFUSED: u8 = 5;

/// A question: the name in lower case without its last dot, and whether an IPv6 address is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) name: String,
    pub(crate) six: bool,
}

/// Over what a name server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// UDP and TCP.
    Both,
    /// UDP; TCP is refused.
    Udp,
    /// TCP; datagrams are swallowed.
    Tcp,
}

type Answer = Arc<dyn Fn(&Question) -> Reply + Send + Sync>;

/// A running name server.
pub(crate) struct NameServer {
    tasks: Vec<JoinHandle<()>>,
}

impl NameServer {
    pub(crate) async fn start(
        at: SocketAddr,
        over: Over,
        answer: impl Fn(&Question) -> Reply + Send + Sync + 'static,
    ) -> Result<NameServer> {
        let answer: Answer = Arc::new(answer);
        let udp = bound(async || UdpSocket::bind(at).await).await.with_context(|| format!("udp {at}"))?;
        let mut tasks = vec![tokio::spawn(datagrams(Arc::new(udp), over, answer.clone()))];
        if over != Over::Udp {
            let tcp = bound(async || TcpListener::bind(at).await).await.with_context(|| format!("tcp {at}"))?;
            tasks.push(tokio::spawn(streams(tcp, answer)));
        }
        Ok(NameServer { tasks })
    }
}

/// The one before may still be about to end.
async fn bound<T>(bind: impl AsyncFn() -> std::io::Result<T>) -> std::io::Result<T> {
    for _ in 0..100 {
        match bind().await {
            Err(error) if error.kind() == ErrorKind::AddrInUse => sleep(Duration::from_millis(20)).await,
            bound => return bound,
        }
    }
    bind().await
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn datagrams(socket: Arc<UdpSocket>, over: Over, answer: Answer) {
    let mut buffer = [0; 1500];
    while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
        let (query, answer, socket) = (buffer[..length].to_vec(), answer.clone(), Arc::downgrade(&socket));
        tokio::spawn(async move {
            let reply = reply(&query, &answer, false).await.filter(|_| over != Over::Tcp)?;
            socket.upgrade()?.send_to(&reply, from).await.ok()
        });
    }
}

async fn streams(listener: TcpListener, answer: Answer) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(stream_of_questions(stream, answer.clone()));
    }
}

async fn stream_of_questions(mut stream: TcpStream, answer: Answer) -> Option<()> {
    loop {
        let mut query = vec![0; usize::from(stream.read_u16().await.ok()?)];
        stream.read_exact(&mut query).await.ok()?;
        let Some(reply) = reply(&query, &answer, true).await else { continue };
        stream.write_u16(u16::try_from(reply.len()).ok()?).await.ok()?;
        stream.write_all(&reply).await.ok()?;
    }
}

/// The message that answers this one (RFC 1035, section 4.1); none to what is no question, or where silence is the answer.
async fn reply(query: &[u8], answer: &Answer, tcp: bool) -> Option<Vec<u8>> {
    let (mut labels, mut place) = (Vec::new(), 12);
    loop {
        let length = usize::from(*query.get(place)?);
        place += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(query.get(place..place + length)?).to_lowercase());
        place += length;
    }
    let question = query.get(12..place + 4)?;
    let six = match query.get(place + 1)? {
        1 => false,
        28 => true,
        _ => return None,
    };
    let mut reply = answer(&Question { name: labels.join("."), six });
    while let Reply::After(wait, then) = reply {
        sleep(wait).await;
        reply = *then;
    }
    let additional = u8::from(matches!(reply, Reply::OneTooFew(_)));
    let (code, truncated, addresses, ttl) = match reply {
        Reply::Is(addresses, ttl) => (0, false, addresses, ttl),
        Reply::NoData => (0, false, Vec::new(), 0),
        Reply::NxDomain => (3, false, Vec::new(), 0),
        Reply::Code(code) => (code, false, Vec::new(), 0),
        Reply::Silence | Reply::After(..) => return None,
        Reply::OneTooFew(addresses) => (0, false, addresses, 60),
        Reply::Truncated(addresses) if tcp => (0, false, addresses, 60),
        Reply::Truncated(addresses) => (0, true, addresses.into_iter().take(1).collect(), 60),
    };
    let addresses: Vec<IpAddr> = addresses.into_iter().filter(|address| address.is_ipv6() == six).collect();
    let count = u8::try_from(addresses.len()).ok()?;
    // A response, recursion desired and available.
    let flags = [0x81 | if truncated { 2 } else { 0 }, 0x80 | code];
    let mut message = [&query[..2], &flags, &[0, 1, 0, count, 0, 0, 0, additional], question].concat();
    for address in addresses {
        // The name is the question's, by a pointer to it.
        message.extend([0xc0, 12, 0, if six { 28 } else { 1 }, 0, 1]);
        message.extend(ttl.to_be_bytes());
        match address {
            IpAddr::V4(four) => message.extend([&[0, 4], &four.octets()[..]].concat()),
            IpAddr::V6(six) => message.extend([&[0, 16], &six.octets()[..]].concat()),
        }
    }
    Some(message)
}

/// An /etc of the test's own. Only in a network (and so a view of the files) of its own.
pub(crate) struct Etc(PathBuf);

impl Etc {
    pub(crate) fn new(dir: &Path) -> Result<Etc> {
        let etc = dir.join("etc");
        fs::create_dir(&etc)?;
        fs::write(etc.join("nsswitch.conf"), "hosts: files dns\n")?;
        fs::write(etc.join("host.conf"), "multi on\n")?;
        fs::write(etc.join("hosts"), "127.0.0.1 localhost\n")?;
        let mounted = Command::new("mount").arg("--bind").arg(&etc).arg("/etc").status()?;
        ensure!(mounted.success(), "mount: {mounted}");
        Ok(Etc(etc))
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<()> {
        // As programs replace these files, so that nobody reads half of one.
        let draft = self.0.join("draft");
        fs::write(&draft, content)?;
        Ok(fs::rename(draft, self.0.join(name))?)
    }

    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        Ok(fs::remove_file(self.0.join(name))?)
    }
}

/// What glibc makes of a name with the same files, and how long that took.
pub(crate) async fn glibc(name: &str, within: Duration) -> Result<(Vec<IpAddr>, Duration)> {
    let begin = Instant::now();
    let getent = tokio::process::Command::new("getent").args(["ahosts", name]).kill_on_drop(true).output();
    let Ok(output) = tokio::time::timeout(within, getent).await else { return Ok((Vec::new(), begin.elapsed())) };
    let output = output.context("cannot run getent")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let words = text.lines().filter_map(|line| line.split(' ').next()?.parse().ok());
    let mut addresses: Vec<IpAddr> = words.map(|ip: IpAddr| ip.to_canonical()).collect();
    addresses.sort();
    addresses.dedup();
    Ok((addresses, begin.elapsed()))
}
