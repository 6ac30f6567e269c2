//! Queues and places: the backlog when an agent stops, clients that wait, and clients that only take up a place.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::Acceptor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::LazyConfigAcceptor;

use crate::rig::{Agent, Rig, SOON, client_hello, hello_for, millis, secs, until};

/// What an upstream in this process does.
struct Upstream {
    tls: Arc<rustls::ServerConfig>,
    /// Probes are answered with 200; otherwise closed.
    answers: AtomicBool,
    /// How many probes were answered.
    answered: AtomicUsize,
    /// How many hellos of clients it got.
    hellos: AtomicUsize,
}

/// This name asks for the first bytes of an answer.
const SERVED: &str = "served";
/// This one for a close.
const CLOSED: &str = "closed";
/// This one for a close after [`LATE`].
const CLOSED_LATE: &str = "closed-late";
const LATE: std::time::Duration = millis(2_500);

impl Upstream {
    async fn listen(rig: &Rig, at: SocketAddr) -> Result<Arc<Upstream>> {
        let pair = rig.ca.server("upstream", &[at.ip()])?;
        let certs = CertificateDer::pem_file_iter(&pair.cert)?.collect::<Result<Vec<_>, _>>()?;
        let config = rustls::ServerConfig::builder().with_no_client_auth();
        let tls = Arc::new(config.with_single_cert(certs, PrivateKeyDer::from_pem_file(&pair.key)?)?);
        let (answered, hellos) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let upstream = Arc::new(Upstream { tls, answers: AtomicBool::new(false), answered, hellos });
        let listener = socket2::Socket::new(socket2::Domain::for_address(at), socket2::Type::STREAM, None)?;
        listener.set_reuse_address(true)?;
        listener.bind(&at.into())?;
        listener.listen(4096)?;
        listener.set_nonblocking(true)?;
        let (listener, serving) = (TcpListener::from_std(listener.into())?, upstream.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serving.clone().serve(stream));
            }
        });
        Ok(upstream)
    }

    async fn serve(self: Arc<Upstream>, stream: TcpStream) -> Result<()> {
        let mut hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let name = hello.client_hello().server_name().unwrap_or_default().to_owned();
        if name == "kubernetes" {
            return self.probed(hello).await;
        }
        self.hellos.fetch_add(1, Ordering::SeqCst);
        match name.as_str() {
            SERVED => {
                hello.io.write_all(&[22, 3, 3, 0, 1, 2]).await?;
                while hello.io.read(&mut [0; 64]).await? > 0 {}
            }
            CLOSED_LATE => sleep(LATE).await,
            _ => {}
        }
        Ok(())
    }

    async fn probed(&self, hello: tokio_rustls::StartHandshake<TcpStream>) -> Result<()> {
        if !self.answers.load(Ordering::SeqCst) {
            return Ok(());
        }
        let mut stream = hello.into_stream(self.tls.clone()).await?;
        while stream.read(&mut [0; 4096]).await? > 0 {
            if !self.answers.load(Ordering::SeqCst) {
                return Ok(());
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await?;
            stream.flush().await?;
            self.answered.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    }
}

async fn hello(to: SocketAddr, name: &'static str) -> Result<TcpStream> {
    let mut client = TcpStream::connect(to).await?;
    client.write_all(&hello_for(name)?).await?;
    Ok(client)
}

/// An agent is stopped 200 ms before its drain ends, and goes on when 600 clients are in the backlog.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_in_the_backlog_when_a_drain_ends_is_answered() -> Result<()> {
    const BACKLOG: usize = 600;
    let rig = Rig::alone().await?;
    let upstream = Upstream::listen(&rig, rig.endpoint(11)).await?;
    upstream.answers.store(true, Ordering::SeqCst);
    let mut agent = rig.agent().endpoint(11).ready(&[11]).await?;
    // For its sake the drain lasts.
    let mut served = hello(agent.proxy, SERVED).await?;
    served.read_exact(&mut [0; 6]).await?;
    agent.process.terminate()?;
    sleep(millis(4_800)).await;
    agent.process.stop()?;
    let mut clients = Vec::new();
    for _ in 0..BACKLOG {
        clients.push(hello(agent.proxy, SERVED).await?);
    }
    sleep(millis(500)).await;
    agent.process.go_on()?;
    let mut answered = 0;
    for client in &mut clients {
        let read = timeout(SOON, client.read(&mut [0; 6])).await.context("answered or reset")?;
        answered += usize::from(read.is_ok_and(|bytes| bytes > 0));
    }
    ensure!(agent.process.end(SOON).await?.success());
    ensure!(answered == BACKLOG, "{answered} of {BACKLOG} were answered");
    Ok(())
}

/// 200 clients wait; 21 more race meanwhile, and find nothing after something has answered once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_finds_nothing_late_makes_no_other_client_dial() -> Result<()> {
    const WAITING: usize = 200;
    const LATE_ONES: usize = 21;
    let rig = Rig::alone().await?;
    let upstream = Upstream::listen(&rig, rig.endpoint(11)).await?;
    let agent = rig.agent().endpoint(11).start().await?;
    let mut clients = Vec::new();
    for _ in 0..WAITING {
        clients.push(hello(agent.proxy, CLOSED).await?);
    }
    let waiting = async || agent.metric("prismesh_clients_held").await.is_ok_and(|held| held == WAITING as f64);
    until("all wait", SOON, waiting).await?;
    for _ in 0..LATE_ONES {
        clients.push(hello(agent.proxy, CLOSED_LATE).await?);
        sleep(millis(30)).await;
    }
    let begun = Instant::now();
    upstream.answers.store(true, Ordering::SeqCst);
    until("a probe is answered", secs(2), async || upstream.answered.load(Ordering::SeqCst) > 0).await?;
    upstream.answers.store(false, Ordering::SeqCst);
    // Who was released has dialled again, and none of the late ones is done.
    sleep(millis(300)).await;
    ensure!(begun.elapsed() < LATE - millis(800), "the machine is too slow for this test: {:?}", begun.elapsed());
    let before = upstream.hellos.load(Ordering::SeqCst);
    sleep(LATE).await;
    let dialled = upstream.hellos.load(Ordering::SeqCst) - before;
    ensure!(dialled <= 2 * LATE_ONES, "{dialled} dials because of {LATE_ONES} late clients");
    agent.is_sound().await
}

/// As many places as there are clients that begin a hello and leave it at that.
#[tokio::test]
async fn half_a_hello_keeps_nobody_out() -> Result<()> {
    const PLACES: usize = 60;
    let rig = Rig::new().await?;
    let _apiserver = rig.apiserver(11).await?;
    let agent = rig.agent().endpoint(11).flag("--max-connections", PLACES.to_string()).ready(&[11]).await?;
    let client = rig.client(&agent, "/")?;
    let half = client_hello()?[..25].to_vec();
    for said in [half.as_slice(), b"\x16", b"\x16\x03\x01\x02"] {
        let mut idle = Vec::new();
        for _ in 0..PLACES {
            let mut client = TcpStream::connect(agent.proxy).await?;
            client.write_all(said).await?;
            idle.push(client);
        }
        sleep(millis(200)).await;
        for _ in 0..5 {
            let answer = client.get(SOON).await;
            ensure!(answer.is_ok(), "with {PLACES} clients that say {said:?}: {answer:?}");
        }
    }
    agent.blames_nobody().await
}

/// 10 s are granted for the whole hello, not for each byte of it.
#[tokio::test]
async fn a_client_that_drips_its_hello_is_closed_after_ten_seconds() -> Result<()> {
    let rig = Rig::new().await?;
    let _apiserver = rig.apiserver(11).await?;
    let agent = rig.agent().endpoint(11).ready(&[11]).await?;
    let hello = client_hello()?;
    let mut clients = JoinSet::new();
    for _ in 0..20 {
        let (hello, to) = (hello.clone(), agent.proxy);
        clients.spawn(async move {
            let mut client = TcpStream::connect(to).await?;
            let begun = Instant::now();
            for byte in hello {
                client.write_all(&[byte]).await?;
                if timeout(secs(1), client.read(&mut [0; 64])).await.is_ok() {
                    return Ok(begun.elapsed());
                }
            }
            anyhow::bail!("it may go on for as long as it likes")
        });
    }
    while let Some(closed) = timeout(secs(15), clients.join_next()).await.context("they are closed within 15 s")? {
        let after = closed??;
        ensure!(after > millis(9_500) && after < millis(11_500), "closed after {after:?}");
    }
    agent.blames_nobody().await
}

/// Whoever only looks at one client sees that what was not TLS is carried as before.
#[tokio::test]
async fn a_client_that_speaks_plain_http_is_answered_by_the_apiserver() -> Result<()> {
    let rig = Rig::new().await?;
    let mut options = rig.options(11)?;
    options.manner = simulations::lab::apiserver::Manner::Plain;
    let _apiserver = rig.serve(&options).await?;
    let agent: Agent = rig.agent().endpoint(11).start().await?;
    let mut client = TcpStream::connect(agent.proxy).await?;
    client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    timeout(SOON, client.read_to_string(&mut answer)).await.context("it is answered")??;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    agent.is_sound().await
}
