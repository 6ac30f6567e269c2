//! Verification of an apiserver's certificate that tells a wrong clock from a wrong certificate.
//!
//! A node whose clock lost its battery sees every certificate outside its validity. To refuse them all would take the cluster
//! away from that node; to skip verification would let anybody in. So a chain that fails for its validity alone is verified once
//! more at a time when it was valid: signatures, purposes and names are held to as strictly as ever, and the probe tells
//! the engine that the certificate has expired.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::algorithms;
use crate::engine::event::Lack;

/// Intermediates whose validity is tried. Cluster PKIs have none or one.
const INTERMEDIATES: usize = 4;

/// Whom a probe believes.
#[derive(Clone, Debug)]
pub(super) enum Authority {
    /// There never was a CA, and any certificate will do whose key signed the handshake.
    Anybody,
    /// The CA that is in force.
    Known(Arc<Authorities>),
    /// There is a CA, or was one, and it cannot be read; the text says why. Nothing can be verified.
    Missing(String),
}

/// The certificates of a CA bundle.
#[derive(Debug)]
pub(super) struct Authorities {
    pub(super) chain: Arc<WebPkiServerVerifier>,
    pub(super) certificates: Vec<CertificateDer<'static>>,
    pub(super) provider: Arc<CryptoProvider>,
}

impl Authorities {
    /// Those that are within their validity, which the TLS library does not look at; [`None`]: all are.
    fn in_time(&self, now: UnixTime) -> Option<Vec<&CertificateDer<'static>>> {
        let covers = |certificate: &&CertificateDer<'static>| validity(certificate).is_none_or(|validity| validity.covers(now));
        let those: Vec<_> = self.certificates.iter().filter(covers).collect();
        (those.len() < self.certificates.len()).then_some(those)
    }

    /// Whether one of those that are within their validity vouches for it, now.
    fn vouches_in_time(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        now: UnixTime,
    ) -> bool {
        let Some(those) = self.in_time(now) else { return true };
        if those.contains(&end_entity) {
            return true;
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(those.into_iter().cloned());
        let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone()).build();
        chain.is_ok_and(|chain| chain.verify_server_cert(end_entity, intermediates, server_name, &[], now).is_ok())
    }
}

/// The certificates that a server has shown, its own first.
pub(super) type Chain = Vec<CertificateDer<'static>>;

/// What verification saw of one connection's certificate.
#[derive(Debug, Default)]
pub(super) struct Seen(Mutex<Sight>);

#[derive(Clone, Debug, Default)]
struct Sight {
    chain: Chain,
    expired: bool,
    not_after: Option<i64>,
    lack: Option<Lack>,
}

impl Seen {
    /// The chain is right but outside its validity.
    pub(super) fn expired(&self) -> bool {
        self.sight().expired
    }

    /// When the certificate ends, in seconds since 1970.
    pub(super) fn not_after(&self) -> Option<i64> {
        self.sight().not_after
    }

    /// For want of what it could not be verified, if it could not.
    pub(super) fn lack(&self) -> Option<Lack> {
        self.sight().lack.clone()
    }

    /// What the server has shown.
    pub(super) fn chain(&self) -> Chain {
        self.sight().chain.clone()
    }

    fn sight(&self) -> MutexGuard<'_, Sight> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The verifier of one connection.
#[derive(Debug)]
pub(super) struct Verifier {
    pub(super) authority: Authority,
    pub(super) provider: Arc<CryptoProvider>,
    pub(super) seen: Arc<Seen>,
}

impl Verifier {
    /// The handshake's signature; where this build cannot check it, that is noted, and what came over the connection is as good as
    /// unverified.
    fn signed(
        &self,
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
        verified: Result<HandshakeSignatureValid, Error>,
    ) -> Result<HandshakeSignatureValid, Error> {
        let unsupported = match &verified {
            Ok(_) => None,
            // Only a key that cannot be checked excuses a signature that cannot.
            Err(_) if algorithms::NOT_VERIFIED.contains(&dss.scheme) => algorithms::of_key_in(cert),
            Err(error) => algorithms::unsupported(error, std::iter::once(cert), &[]),
        };
        let Some(name) = unsupported else { return verified };
        self.seen.sight().lack.get_or_insert(Lack::Algorithm(name));
        Ok(HandshakeSignatureValid::assertion())
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let judged = judge(&self.authority, end_entity, intermediates, server_name, now)?;
        let own = validity(end_entity);
        let not_after = own.as_ref().map(|validity| validity.not_after);
        let (expired, lack) = match judged {
            Judged::Right { expired } => (expired, None),
            Judged::Unverified(lack) => (own.is_some_and(|validity| !validity.covers(now)), Some(lack)),
        };
        let chain = std::iter::once(end_entity).chain(intermediates).map(|shown| shown.clone().into_owned()).collect();
        *self.seen.sight() = Sight { chain, expired, not_after, lack };
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        self.signed(cert, dss, verify_tls12_signature(message, cert, dss, algorithms))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        self.signed(cert, dss, verify_tls13_signature(message, cert, dss, algorithms))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let verified = self.provider.signature_verification_algorithms.supported_schemes();
        verified.into_iter().chain(algorithms::NOT_VERIFIED).collect()
    }
}

/// What a chain is worth.
pub(super) enum Judged {
    /// It is signed as it should be.
    Right {
        /// But outside its validity.
        expired: bool,
    },
    /// It could not be verified, and was not found wrong either.
    Unverified(Lack),
}

/// Verifies a chain. Does no I/O.
pub(super) fn judge(
    authority: &Authority,
    end_entity: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    server_name: &ServerName<'_>,
    now: UnixTime,
) -> Result<Judged, Error> {
    let own = validity(end_entity);
    let authorities = match authority {
        Authority::Anybody => return Ok(Judged::Right { expired: own.is_some_and(|validity| !validity.covers(now)) }),
        Authority::Missing(why) => return Ok(Judged::Unverified(Lack::Ca(why.clone()))),
        Authority::Known(authorities) => authorities,
    };
    let at = |time| match authorities.certificates.iter().any(|known| known == end_entity) {
        true => verify_itself(end_entity, server_name, time),
        false => authorities.chain.verify_server_cert(end_entity, intermediates, server_name, &[], time).map(drop),
    };
    let right =
        |expired| Judged::Right { expired: expired || !authorities.vouches_in_time(end_entity, intermediates, server_name, now) };
    verify_but_for_validity(at, now, own.as_ref(), intermediates).map(right).or_else(|error| {
        let shown = std::iter::once(end_entity).chain(intermediates);
        algorithms::unsupported(&error, shown, &authorities.certificates)
            .map(|name| Judged::Unverified(Lack::Algorithm(name)))
            .ok_or(error)
    })
}

/// Verifies a certificate that stands in the bundle itself, as one that signed itself does: nobody has to vouch for it. The TLS library
/// takes none for a server's that may sign others.
fn verify_itself(certificate: &CertificateDer<'_>, server_name: &ServerName<'_>, time: UnixTime) -> Result<(), Error> {
    verify_server_name(&ParsedCertificate::try_from(certificate)?, server_name)?;
    let validity = validity(certificate).ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
    if validity.covers(time) { Ok(()) } else { Err(Error::InvalidCertificate(CertificateError::Expired)) }
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
