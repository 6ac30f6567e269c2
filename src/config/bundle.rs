//! A CA bundle: as many authorities as can be read.
//!
//! One certificate that cannot be parsed must not take the others with it: a bundle is often put together by scripts, and a node
//! that believes nobody is out of the cluster. What is left out is named, so that it can be told.

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::{Error, PemObject};

const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// The authorities of a bundle.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// Those that can be used, at least one.
    pub roots: RootCertStore,
    /// Those same certificates, in the order of the file.
    pub certificates: Vec<CertificateDer<'static>>,
    /// A line for each that cannot: which one it is, and why.
    pub left_out: Vec<String>,
}

impl Bundle {
    /// Reads a PEM file.
    ///
    /// # Errors
    /// There is no certificate in it, or none that can be used; the text says which.
    pub fn parse(pem: &[u8]) -> Result<Bundle, String> {
        let mut bundle = Bundle { roots: RootCertStore::empty(), certificates: Vec::new(), left_out: Vec::new() };
        let blocks = blocks(pem);
        for (place, block) in (1..).zip(&blocks) {
            match usable(block, &mut bundle.roots) {
                Ok(certificate) => bundle.certificates.push(certificate),
                Err(why) => bundle.left_out.push(format!("certificate {place} of {} cannot be used: {why}", blocks.len())),
            }
        }
        match bundle.left_out.first() {
            _ if !bundle.certificates.is_empty() => Ok(bundle),
            Some(first) => Err(first.clone()),
            None => Err("holds no certificate in PEM".to_owned()),
        }
    }
}

/// Whether there is a certificate in a PEM file at all, whatever it is good for.
pub(super) fn holds_a_certificate(pem: &[u8]) -> bool {
    blocks(pem).into_iter().any(|block| CertificateDer::from_pem_slice(block).is_ok())
}

/// The file, split where certificates begin. One that lost its end ends where the next begins.
fn blocks(pem: &[u8]) -> Vec<&[u8]> {
    let begins: Vec<usize> = (0..pem.len()).filter(|at| pem[*at..].starts_with(BEGIN)).collect();
    let ends = begins.iter().skip(1).copied().chain([pem.len()]);
    begins.iter().zip(ends).map(|(begin, end)| &pem[*begin..end]).collect()
}

fn usable(block: &[u8], roots: &mut RootCertStore) -> Result<CertificateDer<'static>, String> {
    let certificate = CertificateDer::from_pem_slice(block).map_err(|error| in_words(&error))?;
    roots.add(certificate.clone()).map_err(|error| error.to_string())?;
    Ok(certificate)
}

/// Without the bytes that were found or missed.
fn in_words(error: &Error) -> String {
    match error {
        Error::MissingSectionEnd { .. } => "it has no end".to_owned(),
        Error::Base64Decode(_) => "it is not base64".to_owned(),
        Error::IllegalSectionStart { .. } | Error::NoItemsFound => "it does not begin as a certificate in PEM does".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ca() -> String {
        rcgen::generate_simple_self_signed(["ca".to_owned()]).unwrap().cert.pem()
    }

    #[test]
    fn what_cannot_be_parsed_is_named_and_the_others_count() {
        let (one, other) = (ca(), ca());
        let not_der = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let not_base64 = "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n";
        let without_end = "-----BEGIN CERTIFICATE-----\nAAAA\n";
        for bad in [not_der, not_base64, without_end] {
            let bundle = Bundle::parse(format!("# old\n{one}{bad}{other}").as_bytes()).unwrap();
            assert_eq!((bundle.roots.len(), bundle.certificates.len(), bundle.left_out.len()), (2, 2, 1), "{bad}");
            assert!(bundle.left_out[0].starts_with("certificate 2 of 3 cannot be used: "), "{:?}", bundle.left_out);
        }
    }

    #[test]
    fn a_file_without_any_certificate_that_can_be_used_is_an_error() {
        assert_eq!(Bundle::parse(b"hello").unwrap_err(), "holds no certificate in PEM");
        let cut_off = &ca()[..200];
        assert!(Bundle::parse(cut_off.as_bytes()).unwrap_err().starts_with("certificate 1 of 1 cannot be used: "));
    }
}
