//! Which signature algorithms a probe can verify, and how large its ClientHello is.

use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{Signer, SigningKey, SingleCertAndKey};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

use super::bench::*;
use crate::engine::event::{Lack, Outcome};
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

#[tokio::test]
async fn what_cannot_be_verified_is_no_stranger_and_its_algorithm_is_named() {
    let named = [
        ("pss-ca", "RSASSA-PSS"),
        ("ed448-ca", "Ed448"),
        ("brainpool-ca", "ECDSA on brainpoolP256r1"),
        ("rsa1024-ca", "RSA, 1024 bits"),
    ];
    for (name, algorithm) in named {
        let Kind { ca, chain, key } = kind(name);
        let tls = builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
        let server = Server::tls(tls, Does::Answers(status(200))).await;
        let mut bench = Bench::without_ca().with_token("secret");
        bench.config.ca = Some(bench.file("ca.crt", ca));
        let expected = Outcome::Unverified { code: 200, lack: Lack::Algorithm(algorithm.to_owned()) };
        assert_eq!(bench.outcome(server.endpoint).await, expected, "{name}");
        assert!(!server.requests()[0].contains("authorization"), "{name}: no token");
        // Of another CA it is a stranger all the same.
        let outcome = Bench::with_ca(&Authority::named("another")).outcome(server.endpoint).await;
        assert!(matches!(outcome, Outcome::Untrusted(_)), "{name}: {outcome:?}");
    }
}

/// Signs handshakes with a scheme that nobody here can check, so that any bytes will do.
#[derive(Debug)]
struct Uncheckable(SignatureScheme);

impl SigningKey for Uncheckable {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.contains(&self.0).then(|| Box::new(Uncheckable(self.0)) as Box<dyn Signer>)
    }

    fn algorithm(&self) -> rustls::SignatureAlgorithm {
        rustls::SignatureAlgorithm::RSA
    }
}

impl Signer for Uncheckable {
    fn sign(&self, _: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        Ok(vec![7; 256])
    }

    fn scheme(&self) -> SignatureScheme {
        self.0
    }
}

#[tokio::test]
async fn a_key_that_can_be_checked_is_checked_whatever_the_signature_is_called() {
    let Kind { ca, chain, .. } = kind("p256-sha512");
    let key = rustls::sign::CertifiedKey::new(chain, Arc::new(Uncheckable(SignatureScheme::ED448)));
    let tls = builder().with_no_client_auth().with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
    let server = Server::tls(tls, Does::Answers(status(200))).await;
    let mut bench = Bench::without_ca();
    bench.config.ca = Some(bench.file("ca.crt", ca));
    assert_eq!(bench.outcome(server.endpoint).await, Outcome::Refused);
    assert_eq!(server.requests(), [""; 0]);
}

#[tokio::test]
async fn a_handshake_that_is_signed_with_what_cannot_be_verified_is_told_by_the_algorithms_name() {
    let signed = [("pss-leaf", SignatureScheme::Unknown(0x0809), "RSASSA-PSS"), ("ed448-leaf", SignatureScheme::ED448, "Ed448")];
    for (name, scheme, algorithm) in signed {
        let Kind { ca, chain, .. } = kind(name);
        let key = rustls::sign::CertifiedKey::new(chain, Arc::new(Uncheckable(scheme)));
        let tls = builder().with_no_client_auth().with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
        let server = Server::tls(tls, Does::Answers(status(200))).await;
        let mut bench = Bench::without_ca();
        bench.config.ca = Some(bench.file("ca.crt", ca));
        let expected = Outcome::Unverified { code: 200, lack: Lack::Algorithm(algorithm.to_owned()) };
        assert_eq!(bench.outcome(server.endpoint).await, expected, "{name}");
    }
}
