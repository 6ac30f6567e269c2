//! From errors to what they say about an endpoint. Whose fault an error of the kernel's is, [`Fault`] says for all.

use std::error::Error as _;
use std::io;

use rustls::{AlertDescription, CertificateError};

use crate::engine::event::Outcome;
use crate::world::fault::Fault;

/// What an error of the kernel's says, at a dial or later.
pub(super) fn of_dial(error: &io::Error) -> Outcome {
    match Fault::of(error) {
        Fault::Refused => Outcome::Refused,
        Fault::TimedOut => Outcome::DialTimedOut,
        Fault::Unreachable(why) => Outcome::Unreachable(why),
        Fault::Local(why) => Outcome::LocalError(why),
    }
}

/// What a connection that ended says: of the handshake, and later.
pub(super) fn of_stream(error: &io::Error) -> Outcome {
    match tls_error(error) {
        Some(error) => of_tls(error),
        None if error.raw_os_error().is_some() || error.kind() == io::ErrorKind::TimedOut => of_dial(error),
        None => Outcome::Refused,
    }
}

/// What TLS says went wrong.
pub(super) fn of_tls(error: &rustls::Error) -> Outcome {
    match error {
        rustls::Error::InvalidMessage(_) => Outcome::NotTls,
        rustls::Error::InvalidCertificate(error) => of_certificate(error),
        // It speaks TLS, and something that is not HTTP through it.
        rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol) | rustls::Error::NoApplicationProtocol => {
            Outcome::NotHttp
        }
        // It speaks TLS and does not want to, or not as we do: a failure, and no proof that it is not an apiserver of ours.
        _ => Outcome::Refused,
    }
}

fn of_certificate(error: &CertificateError) -> Outcome {
    match error {
        CertificateError::NotValidForName => Outcome::WrongName("the certificate does not cover the name".to_owned()),
        CertificateError::NotValidForNameContext { .. } => Outcome::WrongName(bounded(error)),
        CertificateError::UnknownIssuer => Outcome::Untrusted("not signed by the cluster's CA".to_owned()),
        // What is left behind when a cluster is set up anew: its CA is another, and is called the same.
        CertificateError::BadSignature => Outcome::Untrusted("not signed by the cluster's CA but by one of its name".to_owned()),
        _ => Outcome::Untrusted(bounded(error)),
    }
}

/// A certificate may hold hundreds of names; a log line should not.
fn bounded(error: &CertificateError) -> String {
    const MOST: usize = 300;
    let text = error.to_string();
    if text.chars().count() <= MOST { text } else { text.chars().take(MOST).chain(['…']).collect() }
}

/// What a failed exchange of HTTP/1.1 says, or the end of its connection.
pub(super) fn of_http1(error: &hyper::Error) -> Outcome {
    if let Some(io) = error.source().and_then(|source| source.downcast_ref::<io::Error>()) {
        return of_stream(io);
    }
    if error.is_incomplete_message() || error.is_canceled() || error.is_closed() || error.is_shutdown() {
        return Outcome::Refused;
    }
    // What is left is an answer that cannot be parsed, is too large, or came unasked.
    Outcome::NotHttp
}

/// What a failed exchange of HTTP/2 says, or the end of its connection.
pub(super) fn of_http2(error: &h2::Error) -> Outcome {
    match error.get_io() {
        Some(io) => of_stream(io),
        // What our side found wrong with it.
        None if error.is_library() => Outcome::NotHttp,
        // It answers no more, and says so: with a farewell or a reset of the stream.
        None => Outcome::Refused,
    }
}

fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}
