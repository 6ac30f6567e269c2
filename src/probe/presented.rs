//! The certificates that endpoints have shown last, and what they are worth when what is trusted changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use super::trust::Trust;
use super::verify::{Chain, Judged, Seen};
use super::{CERTIFICATE_REMEMBERED, TlsProber};
use crate::engine::Endpoint;
use crate::engine::event::{Outcome, ProbeOrder, Reverified};
use crate::engine::policy;
use crate::world::Net;

/// What an endpoint has shown last. A chain has at most 64 KiB, as much as the TLS library takes.
#[derive(Clone)]
pub(super) struct Certificate {
    chain: Chain,
    /// The name that it had to cover, where it was not the cluster's ordinary one.
    server_name: Option<String>,
    /// In seconds since 1970.
    pub(super) not_after: Option<i64>,
    seen: Instant,
}

impl TlsProber {
    /// Believes this from now on, and tells what the certificate that each endpoint showed last is worth to it; [`None`] if nothing
    /// has changed in whom it believes. Connections made under the old trust are dropped.
    ///
    /// Certificates are verified without I/O. Only where one is rejected the server is asked, within
    /// [`policy::REJECTED_LOOK`], whether it shows another one by now: servers read theirs again when it is renewed, and connections
    /// that were made before show nothing of it.
    pub async fn replace(&self, trust: Trust) -> Option<BTreeMap<Endpoint, Reverified>> {
        let trust = Arc::new(trust);
        let (before, mut shown) = {
            let state = self.state();
            (state.trust.clone(), state.certificates.clone())
        };
        let worth = if trust.believes_as(&before) { None } else { Some(self.worth(&trust, &mut shown).await) };
        let dropped = {
            let mut state = self.state();
            state.trust = trust;
            for (endpoint, certificate) in shown {
                state.certificates.entry(endpoint).and_modify(|known| {
                    if known.seen < certificate.seen {
                        *known = certificate;
                    }
                });
            }
            std::mem::take(&mut state.kept)
        };
        drop(dropped);
        worth
    }

    async fn worth(&self, trust: &Arc<Trust>, shown: &mut BTreeMap<Endpoint, Certificate>) -> BTreeMap<Endpoint, Reverified> {
        let of = |certificate: &Certificate| reverified(trust.judge(&certificate.chain, certificate.server_name.as_deref()));
        let mut worth: BTreeMap<_, _> = shown.iter().map(|(endpoint, certificate)| (*endpoint, of(certificate))).collect();
        let mut looks = JoinSet::new();
        for (endpoint, certificate) in shown.iter().filter(|(endpoint, _)| matches!(worth[*endpoint], Reverified::Rejected(_))) {
            looks.spawn(look(self.net.clone(), *endpoint, certificate.server_name.clone(), trust.clone()));
        }
        while let Some(looked) = looks.join_next().await {
            let Ok((endpoint, Some(seen))) = looked else { continue };
            worth.insert(endpoint, if seen.lack().is_none() { Reverified::Verified } else { Reverified::Unverified });
            if let Some(certificate) = shown.get_mut(&endpoint) {
                let server_name = certificate.server_name.take();
                *certificate = Certificate::of(&seen, server_name);
            }
        }
        worth
    }

    /// A probe that was under way when the trust changed tells what its answer is worth to the one of now.
    pub(super) fn as_trusted_now(&self, outcome: Outcome, order: &ProbeOrder, under: &Arc<Trust>, seen: &Seen) -> Outcome {
        let trust = self.state().trust.clone();
        let Outcome::Status { code, .. } = outcome else { return outcome };
        if Arc::ptr_eq(&trust, under) {
            return outcome;
        }
        match trust.judge(&seen.chain(), order.server_name.as_deref()) {
            Ok(Judged::Right { expired }) => Outcome::Status { code, expired },
            Ok(Judged::Unverified(lack)) => Outcome::Unverified { code, lack },
            Err(rejected) => rejected,
        }
    }

    pub(super) fn note_certificate(&self, order: &ProbeOrder, seen: &Seen) {
        let certificate = Certificate::of(seen, order.server_name.clone());
        let now = certificate.seen;
        let mut state = self.state();
        state.certificates.retain(|_, shown| now.saturating_duration_since(shown.seen) < CERTIFICATE_REMEMBERED);
        state.certificates.insert(order.endpoint, certificate);
    }
}

impl Certificate {
    fn of(seen: &Seen, server_name: Option<String>) -> Certificate {
        Certificate { chain: seen.chain(), server_name, not_after: seen.not_after(), seen: Instant::now() }
    }
}

fn reverified(judged: Result<Judged, Outcome>) -> Reverified {
    match judged {
        Ok(Judged::Right { .. }) => Reverified::Verified,
        Ok(Judged::Unverified(_)) => Reverified::Unverified,
        Err(Outcome::Untrusted(why) | Outcome::WrongName(why)) => Reverified::Rejected(why),
        Err(_) => Reverified::Unverified,
    }
}

/// What a server shows now; [`None`] if that is rejected too, or does not come in time.
async fn look(net: Arc<dyn Net>, endpoint: Endpoint, own: Option<String>, trust: Arc<Trust>) -> (Endpoint, Option<Arc<Seen>>) {
    let shakes_hands = async {
        let name = trust.name(own.as_deref())?;
        let stream = net.connect(endpoint.addr()).await.ok()?;
        let (tls, seen) = trust.tls();
        TlsConnector::from(tls).connect(name, stream).await.ok()?;
        Some(seen)
    };
    (endpoint, timeout(policy::REJECTED_LOOK, shakes_hands).await.ok().flatten())
}
