//! Clients that speak raw HTTP over TLS, so that they can be quiet, and notice when their connection is reset.

use anyhow::{Context, Result, ensure};
use simulations::lab::client::{FirstByte, Noting};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::rig::{Agent, Rig};

/// One client's connection through the agent.
pub(crate) struct Quiet(pub(crate) TlsStream<Noting<TcpStream>>);

impl Quiet {
    /// Connects and asks once, so that the connection is carried.
    pub(crate) async fn open(rig: &Rig, agent: &Agent) -> Result<Quiet> {
        let mut quiet = Quiet(rig.client(agent, "/")?.connect(&FirstByte::default()).await?);
        quiet.ask("/hello").await.context("its first request")?;
        Ok(quiet)
    }

    pub(crate) async fn ask(&mut self, path: &str) -> Result<String> {
        self.0.write_all(format!("GET {path} HTTP/1.1\r\nhost: kubernetes\r\n\r\n").as_bytes()).await?;
        self.0.flush().await?;
        self.answer().await
    }

    /// Sends so many bytes to an apiserver that begins to read them after so long, and returns its answer.
    pub(crate) async fn upload(&mut self, bytes: usize, pause_ms: u64) -> Result<String> {
        const PART: usize = 50_000;
        let head = format!("POST /upload?pause_ms={pause_ms} HTTP/1.1\r\nhost: kubernetes\r\ncontent-length: {bytes}\r\n\r\n");
        self.0.write_all(head.as_bytes()).await?;
        for _ in 0..bytes / PART {
            self.0.write_all(&[7; PART]).await.context("the upload")?;
        }
        // What TLS still holds when the window closes leaves with this, and not with the reading that follows.
        self.0.flush().await.context("the upload's end")?;
        self.answer().await
    }

    /// The body of an answer whose head tells its length.
    pub(crate) async fn answer(&mut self) -> Result<String> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.0.read_u8().await.context("the answer's head")?);
        }
        let head = String::from_utf8_lossy(&head).to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).context("a length")?;
        let mut body = vec![0; length.trim().parse()?];
        self.0.read_exact(&mut body).await?;
        Ok(String::from_utf8(body)?)
    }
}

pub(crate) async fn several(rig: &Rig, agent: &Agent) -> Result<Vec<Quiet>> {
    let mut clients = Vec::new();
    for _ in 0..9 {
        clients.push(Quiet::open(rig, agent).await?);
    }
    Ok(clients)
}

pub(crate) async fn all_go_on(clients: &mut [Quiet]) -> Result<()> {
    for (number, client) in clients.iter_mut().enumerate() {
        client.ask("/still-there").await.with_context(|| format!("client {number} was quiet, and its connection is gone"))?;
    }
    Ok(())
}

pub(crate) async fn no_resets(agent: &Agent) -> Result<()> {
    let resets = agent.metric("prismesh_upstream_resets_total").await?;
    ensure!(resets == 0.0, "{resets} connections were reset:\n{}", agent.process.output());
    agent.is_sound().await
}
