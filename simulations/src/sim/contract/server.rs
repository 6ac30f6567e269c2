//! A real TLS server that does what a modelled apiserver does, and a real prober that trusts its CA.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use prismesh::config::{Config, Listen, LogFormat};
use prismesh::probe::{Before, TlsProber, Trust};
use prismesh::world::Clock;
use prismesh::world::real::{Files, RealNet, SystemClock};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;

use crate::lab::ca::{Ca, Pair};
use crate::sim::state::Mode;

/// The server.
pub(super) struct Server {
    pub(super) addr: SocketAddr,
    directory: PathBuf,
    ours: Ca,
    foreign: Ca,
    expired: bool,
    mode: watch::Sender<Mode>,
    serving: JoinSet<()>,
}

impl Server {
    /// One that is ready.
    pub(super) async fn start(directory: &Path) -> Server {
        let ca = |name: &str| Ca::create(directory, name).expect("a CA");
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("binds").local_addr().expect("bound");
        let mut server = Server {
            addr: free,
            directory: directory.to_owned(),
            ours: ca("ours"),
            foreign: ca("foreign"),
            expired: false,
            mode: watch::Sender::new(Mode::Ready),
            serving: JoinSet::new(),
        };
        server.serve().await;
        server
    }

    /// A prober that trusts this server's CA.
    pub(super) async fn prober(&self) -> TlsProber {
        let anywhere = Listen { addr: (Ipv4Addr::LOCALHOST, 0).into(), written: true };
        let config = Config {
            cluster: "test".to_owned(),
            node: "here".to_owned(),
            listen: vec![anywhere],
            admin: anywhere,
            gossip: None,
            apiservers: vec![],
            local_apiserver: None,
            external: vec![],
            endpoints: vec![],
            ca: Some(self.ours.certificate()),
            server_name: "kubernetes".to_owned(),
            probe_credentials: None,
            allow: vec![],
            max_connections: None,
            state_dir: self.directory.clone(),
            log_format: LogFormat::Human,
            log: String::new(),
            file: None,
        };
        let trust = Trust::load(Arc::new(Files), Arc::new(SystemClock), &config, Before::Nothing).await.expect("a CA");
        TlsProber::new(Arc::new(RealNet), Clock::start(), trust)
    }

    /// From now on it does this. Who crashes takes its connections with it.
    pub(super) async fn does(&mut self, mode: Mode) {
        let before = self.mode.send_replace(mode);
        let foreign = |mode| matches!(mode, Mode::WrongCertificate | Mode::NotTls);
        if mode == Mode::Refusing {
            self.serving.shutdown().await;
        } else if before == Mode::Refusing || foreign(before) != foreign(mode) {
            self.serve().await;
        }
    }

    /// From now on its certificate is out of date.
    pub(super) async fn expires(&mut self) {
        self.expired = true;
        self.serve().await;
    }

    async fn serve(&mut self) {
        self.serving.shutdown().await;
        let mode = *self.mode.borrow();
        let own = [self.addr.ip()];
        let pair = match mode {
            Mode::WrongCertificate => self.foreign.server("api", &own),
            _ if self.expired => self.ours.expired_server("api", &own),
            _ => self.ours.server("api", &own),
        };
        let tls = acceptor(&pair.expect("a certificate"));
        let listener = TcpListener::bind(self.addr).await.expect("binds");
        let told = self.mode.subscribe();
        self.serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(connection(stream, tls.clone(), told.clone()));
            }
        });
    }
}

fn acceptor(pair: &Pair) -> TlsAcceptor {
    let chain = CertificateDer::pem_file_iter(&pair.cert).expect("read").collect::<Result<Vec<_>, _>>().expect("PEM");
    let key = PrivateKeyDer::from_pem_file(&pair.key).expect("PEM");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("TLS");
    TlsAcceptor::from(Arc::new(builder.with_no_client_auth().with_single_cert(chain, key).expect("a pair")))
}

/// A process that hangs does nothing until it goes on.
async fn while_hung(mode: &mut watch::Receiver<Mode>) -> Mode {
    mode.wait_for(|mode| *mode != Mode::Hung).await.map_or(Mode::Gone, |mode| *mode)
}

async fn connection(mut stream: TcpStream, tls: TlsAcceptor, mut mode: watch::Receiver<Mode>) {
    let _ = stream.set_nodelay(true);
    if while_hung(&mut mode).await == Mode::NotTls {
        let _ = stream.read(&mut [0; 64]).await;
        let _ = stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n").await;
    } else if let Ok(stream) = tls.accept(stream).await {
        answer(stream, mode).await;
    }
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, mut mode: watch::Receiver<Mode>) {
    let mut request = Vec::new();
    loop {
        while !request.ends_with(b"\r\n\r\n") {
            let Ok(byte) = stream.read_u8().await else { return };
            request.push(byte);
        }
        request.clear();
        let mode = while_hung(&mut mode).await;
        sleep(Duration::from_millis(mode.delay())).await;
        let code = match mode {
            Mode::Draining => 500,
            Mode::Overloaded => 429,
            _ => 200,
        };
        let text = format!("HTTP/1.1 {code} Whatever\r\nContent-Length: 2\r\n\r\nok");
        if stream.write_all(text.as_bytes()).await.is_err() || stream.flush().await.is_err() {
            return;
        }
    }
}
