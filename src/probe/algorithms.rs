//! Names for the signature algorithms that this build cannot verify, so that a person learns which one it is.
//!
//! A certificate that cannot be verified is not one that was found wrong. That the cluster's CA has a key of a kind that the TLS
//! library does not know says nothing about the server, and clients may know it.

use rustls::pki_types::CertificateDer;
use rustls::{CertificateError, Error, SignatureScheme};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::{AlgorithmIdentifier, SubjectPublicKeyInfo};

/// RSA keys that are verified, in bits.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// Asked for beside what can be verified, so that a server that has nothing else shows its certificate, instead of ending the handshake
/// with an alert that does not say why.
pub(super) const NOT_VERIFIED: [SignatureScheme; 4] = [
    // rsa_pss_pss_sha256, _sha384 and _sha512 (RFC 8446, section 4.2.3).
    SignatureScheme::Unknown(0x0809),
    SignatureScheme::Unknown(0x080a),
    SignatureScheme::Unknown(0x080b),
    SignatureScheme::ED448,
];

/// The algorithm for want of which a chain or a handshake could not be verified; [`None`] if it was verified and is wrong.
/// `shown`: what takes part of the server's, its own first; `authorities`: all that may vouch for it, or none where that was judged before.
pub(super) fn unsupported<'c>(
    error: &Error,
    shown: impl Iterator<Item = &'c CertificateDer<'c>>,
    authorities: &[CertificateDer<'_>],
) -> Option<String> {
    let shown: Vec<&CertificateDer<'_>> = shown.collect();
    if let Error::InvalidCertificate(error) = error
        && let Some(unknown) = form(error, &shown, authorities)
    {
        return Some(unknown);
    }
    #[expect(deprecated, reason = "what the verification of signatures still returns")]
    let Error::InvalidCertificate(
        kind @ (CertificateError::UnsupportedSignatureAlgorithm
        | CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. }
        | CertificateError::BadSignature),
    ) = error
    else {
        return None;
    };
    let named = shown.iter().copied().chain(authorities).find_map(of_certificate);
    match kind {
        // With a key that is too short or too long no signature is right.
        CertificateError::BadSignature => named,
        _ => named.or_else(|| signature(shown.first()?)).or_else(|| Some("an unknown algorithm".to_owned())),
    }
}

/// What of a certificate's form the TLS library refuses to look at, and other clients accept.
fn form(error: &CertificateError, shown: &[&CertificateDer<'_>], authorities: &[CertificateDer<'_>]) -> Option<String> {
    if !authorities.is_empty() && !name_their_issuer(shown, authorities) {
        return None;
    }
    match error {
        CertificateError::Other(other) => match other.to_string().as_str() {
            "UnsupportedCriticalExtension" => {
                let oid = shown.iter().find_map(|certificate| critical(certificate));
                Some(oid.map_or_else(|| "a critical extension".to_owned(), |oid| format!("the critical extension {oid}")))
            }
            "CaUsedAsEndEntity" => Some("a server's certificate that may sign others (CA:TRUE)".to_owned()),
            _ => None,
        },
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            let (_, own) = X509Certificate::from_der(shown.first()?).ok()?;
            let any = own.extended_key_usage().is_ok_and(|usage| usage.is_some_and(|usage| usage.value.any));
            any.then(|| "the purpose \"any\" (anyExtendedKeyUsage)".to_owned())
        }
        _ => None,
    }
}

/// Whether one of those that were shown names one of the authorities as its issuer, and is not that one itself.
fn name_their_issuer(shown: &[&CertificateDer<'_>], authorities: &[CertificateDer<'_>]) -> bool {
    let subjects: Vec<Vec<u8>> = authorities.iter().filter_map(|one| Some(named(one)?.1)).collect();
    let theirs = |(issuer, subject): (Vec<u8>, Vec<u8>)| issuer != subject && subjects.contains(&issuer);
    shown.iter().filter_map(|one| named(one)).any(theirs)
}

/// A certificate's issuer and subject.
fn named(certificate: &CertificateDer<'_>) -> Option<(Vec<u8>, Vec<u8>)> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    Some((certificate.issuer().as_raw().to_vec(), certificate.subject().as_raw().to_vec()))
}

/// The first critical extension of a certificate that the TLS library does not know.
fn critical(certificate: &CertificateDer<'_>) -> Option<String> {
    // Key usage, subject alternative name, basic constraints, name constraints, CRL distribution points, extended key usage, SCTs.
    const KNOWN: [&str; 7] =
        ["2.5.29.15", "2.5.29.17", "2.5.29.19", "2.5.29.30", "2.5.29.31", "2.5.29.37", "1.3.6.1.4.1.11129.2.4.2"];
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let unknown =
        certificate.extensions().iter().filter(|extension| extension.critical).map(|extension| extension.oid.to_id_string());
    unknown.into_iter().find(|oid| !KNOWN.contains(&oid.as_str()))
}

/// What of a certificate cannot be verified, if something cannot.
fn of_certificate(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    of_key(certificate.public_key()).or_else(|| of_signature(&certificate.signature_algorithm))
}

/// What of a certificate's own key cannot be checked, if something cannot.
pub(super) fn of_key_in(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    of_key(certificate.public_key())
}

/// The algorithm with which a certificate was signed.
fn signature(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    Some(name(&certificate.signature_algorithm.algorithm.to_id_string()))
}

fn of_key(key: &SubjectPublicKeyInfo<'_>) -> Option<String> {
    match key.algorithm.algorithm.to_id_string().as_str() {
        "1.2.840.113549.1.1.1" => match key.parsed() {
            Ok(PublicKey::RSA(rsa)) if !RSA_BITS.contains(&rsa.key_size()) => Some(format!("RSA, {} bits", rsa.key_size())),
            _ => None,
        },
        "1.2.840.10045.2.1" => {
            let curve = key.algorithm.parameters.as_ref()?.as_oid().ok()?.to_id_string();
            // P-256, P-384 and P-521.
            let known = ["1.2.840.10045.3.1.7", "1.3.132.0.34", "1.3.132.0.35"];
            (!known.contains(&curve.as_str())).then(|| format!("ECDSA on {}", name(&curve)))
        }
        "1.3.101.112" => None,
        other => Some(name(other)),
    }
}

fn of_signature(algorithm: &AlgorithmIdentifier<'_>) -> Option<String> {
    let known = [
        "1.2.840.113549.1.1.10",
        "1.2.840.113549.1.1.11",
        "1.2.840.113549.1.1.12",
        "1.2.840.113549.1.1.13",
        "1.2.840.10045.4.3.2",
        "1.2.840.10045.4.3.3",
        "1.2.840.10045.4.3.4",
        "1.3.101.112",
    ];
    let id = algorithm.algorithm.to_id_string();
    (!known.contains(&id.as_str())).then(|| name(&id))
}

/// The name of an object identifier, or the identifier itself.
fn name(id: &str) -> String {
    const NAMES: [(&str, &str); 16] = [
        ("1.2.840.113549.1.1.4", "RSA with MD5"),
        ("1.2.840.113549.1.1.5", "RSA with SHA-1"),
        ("1.2.840.113549.1.1.10", "RSASSA-PSS"),
        ("1.2.840.10045.4.1", "ECDSA with SHA-1"),
        ("1.2.840.10040.4.1", "DSA"),
        ("1.2.840.10040.4.3", "DSA with SHA-1"),
        ("2.16.840.1.101.3.4.3.2", "DSA with SHA-256"),
        ("1.3.101.113", "Ed448"),
        ("1.3.132.0.10", "secp256k1"),
        ("1.3.132.0.33", "P-224"),
        ("1.3.36.3.3.2.8.1.1.7", "brainpoolP256r1"),
        ("1.3.36.3.3.2.8.1.1.11", "brainpoolP384r1"),
        ("1.3.36.3.3.2.8.1.1.13", "brainpoolP512r1"),
        ("2.16.840.1.101.3.4.3.17", "ML-DSA-44"),
        ("2.16.840.1.101.3.4.3.18", "ML-DSA-65"),
        ("2.16.840.1.101.3.4.3.19", "ML-DSA-87"),
    ];
    NAMES.iter().find(|(known, _)| *known == id).map_or_else(|| format!("algorithm {id}"), |(_, name)| (*name).to_owned())
}
