//! Which signature algorithms a probe can verify, and how large its ClientHello is.

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

use super::bench::*;
use crate::world::Prober as _;

/// What `tests/certificates/make.sh` made of one kind: the CA, and a server's certificate and key.
struct Kind {
    ca: String,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

fn kind(name: &str) -> Kind {
    let path = format!("{}/tests/certificates/{name}.pem", env!("CARGO_MANIFEST_DIR"));
    let pem = std::fs::read_to_string(path).unwrap();
    let all: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().unwrap();
    const END: &str = "-----END CERTIFICATE-----\n";
    let ca = pem[..pem.find(END).unwrap() + END.len()].to_owned();
    Kind { ca, chain: all[1..].to_vec(), key: PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap() }
}

#[tokio::test]
async fn certificates_that_go_accepts_are_verified() {
    for name in ["p256-sha512", "p384-sha512", "p521-sha512"] {
        let Kind { ca, chain, key } = kind(name);
        let tls = builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
        let server = Server::tls(tls, Does::Answers(status(200))).await;
        let mut bench = Bench::without_ca();
        bench.config.ca = Some(bench.file("ca.crt", ca));
        assert_eq!(bench.outcome(server.endpoint).await, answered(200), "{name}");
    }
}

/// client-go's has about 1.7 KB since Go 1.24. A path that loses large packets must lose the probe's as well.
#[tokio::test]
async fn the_hello_of_a_probe_is_as_large_as_that_of_client_go() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let prober = Bench::without_ca().prober().await;
    let endpoint = listener.local_addr().unwrap().into();
    let hello = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut header = [0; 5];
        stream.read_exact(&mut header).await.unwrap();
        u16::from_be_bytes([header[3], header[4]])
    };
    let (_, bytes) = tokio::join!(prober.probe(impatient(endpoint)), hello);
    assert!((1_400..2_000).contains(&bytes), "{bytes} bytes");
}
