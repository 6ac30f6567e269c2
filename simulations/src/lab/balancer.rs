//! The external load balancer, as people run HAProxy before a control plane: TCP round robin, a TCP check each 2 s, out
//! after three failures, in after two successes, another backend when a dial is refused.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Result;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{interval, sleep, timeout};

use super::apiserver::tell;

/// HAProxy's `inter`.
const CHECK_PERIOD: Duration = Duration::from_secs(2);
/// HAProxy's `fall`.
const FALL: u32 = 3;
/// HAProxy's `rise`.
const RISE: u32 = 2;
/// HAProxy's `timeout connect` as usually written.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What the hidden subcommand takes.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Where it listens.
    #[arg(long)]
    pub listen: SocketAddr,
    /// The apiservers behind it.
    #[arg(long = "backend")]
    pub backends: Vec<SocketAddr>,
}

impl Options {
    /// The command line that gives these options.
    pub fn args(&self) -> Vec<OsString> {
        let mut args: Vec<OsString> = vec!["balancer".into(), "--listen".into(), self.listen.to_string().into()];
        for backend in &self.backends {
            args.extend(["--backend".into(), backend.to_string().into()]);
        }
        args
    }
}

struct Backend {
    addr: SocketAddr,
    up: AtomicBool,
}

struct Balancer {
    backends: Vec<Backend>,
    next: AtomicUsize,
}

/// Serves for ever.
pub async fn serve(options: Options) -> Result<()> {
    let backends = options.backends.into_iter().map(|addr| Backend { addr, up: AtomicBool::new(true) }).collect();
    let balancer = Arc::new(Balancer { backends, next: AtomicUsize::new(0) });
    for place in 0..balancer.backends.len() {
        drop(tokio::spawn(Arc::clone(&balancer).check(place)));
    }
    let listener = TcpListener::bind(options.listen).await?;
    tell(&serde_json::json!({ "ready": "balancer", "listen": options.listen }));
    loop {
        match listener.accept().await {
            Ok((client, _)) => drop(tokio::spawn(Arc::clone(&balancer).carry(client))),
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    }
}

impl Balancer {
    async fn check(self: Arc<Self>, place: usize) {
        let Some(backend) = self.backends.get(place) else { return };
        let mut against = 0;
        let mut ticks = interval(CHECK_PERIOD);
        loop {
            ticks.tick().await;
            let up = backend.up.load(Ordering::Relaxed);
            let connects = matches!(timeout(CHECK_PERIOD, TcpStream::connect(backend.addr)).await, Ok(Ok(_)));
            against = if connects == up { 0 } else { against + 1 };
            if against >= if up { FALL } else { RISE } {
                backend.up.store(!up, Ordering::Relaxed);
                against = 0;
            }
        }
    }

    async fn carry(self: Arc<Self>, mut client: TcpStream) {
        let _ = client.set_nodelay(true);
        if let Some(mut upstream) = self.connect().await {
            let _ = upstream.set_nodelay(true);
            let _ = copy_bidirectional(&mut client, &mut upstream).await;
        }
    }

    /// Each backend that is up, once, beginning with the next in turn.
    async fn connect(&self) -> Option<TcpStream> {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        for turn in 0..self.backends.len() {
            let backend = self.backends.get((first + turn) % self.backends.len())?;
            if !backend.up.load(Ordering::Relaxed) {
                continue;
            }
            if let Ok(Ok(stream)) = timeout(CONNECT_TIMEOUT, TcpStream::connect(backend.addr)).await {
                return Some(stream);
            }
        }
        None
    }
}
