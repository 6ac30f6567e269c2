//! Verification of an apiserver's certificate that tells a wrong clock from a wrong certificate.
//!
//! A node whose clock lost its battery sees every certificate outside its validity. To refuse them all would take the cluster
//! away from that node; to skip verification would let anybody in. So a chain that fails for its validity alone is verified once
//! more at a time when it was valid: signatures, purposes and names are held to as strictly as ever, and the probe tells
//! the engine that the certificate has expired.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Intermediates whose validity is tried. Cluster PKIs have none or one.
const INTERMEDIATES: usize = 4;

/// What verification saw of one connection's certificate.
#[derive(Debug, Default)]
pub(super) struct Seen {
    expired: AtomicBool,
    not_after: AtomicI64,
}

impl Seen {
    /// The chain is right but outside its validity.
    pub(super) fn expired(&self) -> bool {
        self.expired.load(Ordering::Relaxed)
    }

    /// When the certificate ends, in seconds since 1970.
    pub(super) fn not_after(&self) -> Option<i64> {
        Some(self.not_after.load(Ordering::Relaxed)).filter(|at| *at != 0)
    }
}

/// The verifier of one connection.
#[derive(Debug)]
pub(super) struct Verifier {
    /// [`None`]: there is no CA, and any certificate will do whose key signed the handshake.
    pub(super) chain: Option<Arc<WebPkiServerVerifier>>,
    pub(super) provider: Arc<CryptoProvider>,
    pub(super) seen: Arc<Seen>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let validity = validity(end_entity);
        let outside = match &self.chain {
            None => validity.as_ref().is_some_and(|validity| !validity.covers(now)),
            Some(chain) => {
                let at = |time| chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, time).map(drop);
                verify_but_for_validity(at, now, validity.as_ref(), intermediates)?
            }
        };
        self.seen.expired.store(outside, Ordering::Relaxed);
        self.seen.not_after.store(validity.map_or(0, |validity| validity.not_after), Ordering::Relaxed);
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Verifies with `at`, now and, where the validity alone is wrong, at another time. Tells whether that was needed.
///
/// If the validities of a path's certificates overlap at all, the overlap ends where one of them ends; so it is enough to try
/// the end of each. The error is what is wrong beside the validity, if something is.
fn verify_but_for_validity(
    at: impl Fn(UnixTime) -> Result<(), Error>,
    now: UnixTime,
    own: Option<&Validity>,
    intermediates: &[CertificateDer<'_>],
) -> Result<bool, Error> {
    let mut wrong = match at(now) {
        Err(error) if is_about_validity(&error) => error,
        verified => return verified.map(|()| false),
    };
    let others = intermediates.iter().take(INTERMEDIATES).filter_map(validity);
    for ends in own.map(|own| own.not_after).into_iter().chain(others.map(|other| other.not_after)) {
        let Ok(ends) = u64::try_from(ends) else { continue };
        match at(UnixTime::since_unix_epoch(Duration::from_secs(ends))) {
            Ok(()) => return Ok(true),
            Err(error) if is_about_validity(&wrong) => wrong = error,
            Err(_) => {}
        }
    }
    Err(wrong)
}

fn is_about_validity(error: &Error) -> bool {
    matches!(
        error,
        Error::InvalidCertificate(
            CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. }
        )
    )
}

/// Seconds since 1970, both inclusive.
struct Validity {
    not_before: i64,
    not_after: i64,
}

impl Validity {
    fn covers(&self, now: UnixTime) -> bool {
        i64::try_from(now.as_secs()).is_ok_and(|now| (self.not_before..=self.not_after).contains(&now))
    }
}

/// [`None`] if it cannot be read; whether it is good for anything is not decided here.
fn validity(certificate: &CertificateDer<'_>) -> Option<Validity> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let validity = parsed.validity();
    Some(Validity { not_before: validity.not_before.timestamp(), not_after: validity.not_after.timestamp() })
}
