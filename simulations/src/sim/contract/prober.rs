//! Probes: the real prober asks a TLS server, the modelled one a modelled apiserver, and both must say the same.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prismesh::engine::Endpoint;
use prismesh::engine::event::{Outcome, ProbeLimits, ProbeOrder, Probed};
use prismesh::world::{Clock, Prober};
use tokio::time::{Instant, sleep};

use super::server::Server;
use crate::sim::core::Sim;
use crate::sim::director::set_mode;
use crate::sim::prober::SimProber;
use crate::sim::state::Mode;
use crate::sim::testing;

/// A probe that may take its time.
const PATIENT: Duration = Duration::from_secs(2);
/// One that shall not be answered.
const SHORT: Duration = Duration::from_millis(400);

/// A prober and one apiserver, real or modelled.
struct Bench {
    prober: Arc<dyn Prober>,
    apiserver: Apiserver,
}

enum Apiserver {
    Real(Box<Server>),
    Modelled(Sim),
}

impl Bench {
    fn endpoint(&self) -> Endpoint {
        let addr: SocketAddr = match &self.apiserver {
            Apiserver::Real(server) => server.addr,
            Apiserver::Modelled(_) => testing::api(1),
        };
        addr.into()
    }

    fn order(&self) -> ProbeOrder {
        ProbeOrder {
            id: 7,
            endpoint: self.endpoint(),
            server_name: None,
            fresh: false,
            keep: true,
            limits: ProbeLimits::of(PATIENT),
        }
    }

    /// From now on the apiserver does this.
    async fn does(&mut self, mode: Mode) {
        match &mut self.apiserver {
            Apiserver::Real(server) => server.does(mode).await,
            Apiserver::Modelled(sim) => sim.change(|state| {
                if let Some(site) = state.sites.get_mut(&testing::api(1)) {
                    set_mode(site, mode);
                }
            }),
        }
        // Whatever ends by this has ended.
        sleep(Duration::from_millis(50)).await;
    }

    /// Its certificate is outside its validity from now on.
    async fn expires(&mut self) {
        match &mut self.apiserver {
            Apiserver::Real(server) => server.expires().await,
            Apiserver::Modelled(sim) => sim.change(|state| state.sites.values_mut().for_each(|site| site.expired = true)),
        }
    }

    async fn probe(&self, order: ProbeOrder) -> Probed {
        let probed = self.prober.probe(order.clone()).await;
        assert_eq!((probed.id, probed.endpoint), (order.id, order.endpoint));
        probed
    }

    /// What an ordinary probe finds: whether on a new connection, and what.
    async fn finds(&self) -> (bool, Outcome) {
        let probed = self.probe(self.order()).await;
        (probed.fresh, probed.outcome)
    }
}

fn real(contract: impl AsyncFnOnce(Bench)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let directory = tempfile::tempdir().expect("a directory");
    runtime.block_on(async {
        let server = Server::start(directory.path()).await;
        let prober = Arc::new(server.prober().await);
        contract(Bench { prober, apiserver: Apiserver::Real(Box::new(server)) }).await;
    });
}

fn modelled(contract: impl AsyncFnOnce(Bench)) {
    testing::in_virtual_time(testing::with_apiserver(testing::state(2), 1), async |sim| {
        let prober = SimProber::new(testing::host(&sim, 0), Clock::start(), Some([0].into()));
        contract(Bench { prober, apiserver: Apiserver::Modelled(sim) }).await;
    });
}

macro_rules! holds_for_both {
    ($($name:ident)*) => {
        mod the_real_prober {
            $(#[test] fn $name() { super::real(super::$name); })*
        }
        mod the_modelled_prober {
            $(#[test] fn $name() { super::modelled(super::$name); })*
        }
    };
}

holds_for_both! {
    one_connection_serves_many_probes
    what_the_apiserver_says_is_told
    a_closed_port_is_refused
    what_does_not_speak_tls_is_told_so
    a_certificate_of_another_ca_is_not_trusted
    an_expired_certificate_is_told_beside_the_answer
    who_hangs_costs_the_whole_time_out_and_the_kept_connection
    an_answer_that_comes_too_late_is_none
    a_new_connections_round_trip_is_its_dials_and_a_kept_ones_is_its_answers
    a_kept_connection_that_ended_is_no_evidence_and_the_next_probe_is_fresh
    a_fresh_probe_drops_the_kept_connection_and_leaves_its_own
    what_is_not_to_be_kept_is_not
    what_is_forgotten_is_dialled_anew
    a_kept_connection_is_not_used_for_another_name
}

fn answered(code: u16) -> Outcome {
    Outcome::Status { code, expired: false }
}

async fn one_connection_serves_many_probes(bench: Bench) {
    assert_eq!(bench.finds().await, (true, answered(200)));
    for _ in 0..5 {
        assert_eq!(bench.finds().await, (false, answered(200)));
    }
}

async fn what_the_apiserver_says_is_told(mut bench: Bench) {
    assert_eq!(bench.finds().await, (true, answered(200)));
    for (mode, code) in [(Mode::Draining, 500), (Mode::Overloaded, 429), (Mode::Ready, 200)] {
        bench.does(mode).await;
        assert_eq!(bench.finds().await, (false, answered(code)));
    }
}

async fn a_closed_port_is_refused(mut bench: Bench) {
    bench.does(Mode::Refusing).await;
    let probed = bench.probe(bench.order()).await;
    assert_eq!((probed.fresh, probed.outcome, probed.rtt), (true, Outcome::Refused, None));
    bench.does(Mode::Ready).await;
    assert_eq!(bench.finds().await, (true, answered(200)));
}

async fn what_does_not_speak_tls_is_told_so(mut bench: Bench) {
    bench.does(Mode::NotTls).await;
    assert_eq!(bench.finds().await, (true, Outcome::NotTls));
    assert_eq!(bench.finds().await, (true, Outcome::NotTls), "such a connection is not kept");
}

async fn a_certificate_of_another_ca_is_not_trusted(mut bench: Bench) {
    bench.does(Mode::WrongCertificate).await;
    for _ in 0..2 {
        let (fresh, outcome) = bench.finds().await;
        assert!(fresh && matches!(outcome, Outcome::Untrusted(_)), "{outcome:?}");
    }
}

async fn an_expired_certificate_is_told_beside_the_answer(mut bench: Bench) {
    bench.expires().await;
    assert_eq!(bench.finds().await, (true, Outcome::Status { code: 200, expired: true }));
    assert_eq!(bench.finds().await, (false, Outcome::Status { code: 200, expired: true }));
}

async fn who_hangs_costs_the_whole_time_out_and_the_kept_connection(mut bench: Bench) {
    assert_eq!(bench.finds().await, (true, answered(200)));
    bench.does(Mode::Hung).await;
    for fresh in [false, true, true] {
        let begun = Instant::now();
        let probed = bench.probe(ProbeOrder { limits: ProbeLimits::of(SHORT), ..bench.order() }).await;
        let outcome = if fresh { Outcome::HandshakeTimedOut { hung: true } } else { Outcome::AnswerTimedOut };
        assert_eq!((probed.fresh, probed.outcome), (fresh, outcome));
        assert!((SHORT..SHORT * 2).contains(&begun.elapsed()));
    }
    bench.does(Mode::Ready).await;
    assert_eq!(bench.finds().await, (true, answered(200)));
}

async fn an_answer_that_comes_too_late_is_none(mut bench: Bench) {
    assert_eq!(bench.finds().await, (true, answered(200)));
    bench.does(Mode::Slow(600)).await;
    let probed = bench.probe(ProbeOrder { limits: ProbeLimits::of(SHORT), ..bench.order() }).await;
    assert_eq!((probed.fresh, probed.outcome, probed.rtt), (false, Outcome::AnswerTimedOut, None));
    bench.does(Mode::Ready).await;
    assert_eq!(bench.finds().await, (true, answered(200)), "the answer that was late is nobody's");
}

async fn a_new_connections_round_trip_is_its_dials_and_a_kept_ones_is_its_answers(mut bench: Bench) {
    let slow = Duration::from_millis(200);
    bench.does(Mode::Slow(200)).await;
    let dialled = bench.probe(bench.order()).await;
    assert_eq!((dialled.fresh, dialled.outcome), (true, answered(200)));
    assert!(dialled.rtt.expect("measured") < slow, "{:?}", dialled.rtt);
    let kept = bench.probe(bench.order()).await;
    assert_eq!((kept.fresh, kept.outcome), (false, answered(200)));
    assert!((slow..slow * 2).contains(&kept.rtt.expect("measured")), "{:?}", kept.rtt);
}

async fn a_kept_connection_that_ended_is_no_evidence_and_the_next_probe_is_fresh(mut bench: Bench) {
    assert_eq!(bench.finds().await, (true, answered(200)));
    bench.does(Mode::Refusing).await;
    bench.does(Mode::Ready).await;
    let probed = bench.probe(bench.order()).await;
    assert_eq!((probed.fresh, probed.outcome, probed.rtt), (false, Outcome::Stale, None));
    assert_eq!(bench.finds().await, (true, answered(200)));
}

async fn a_fresh_probe_drops_the_kept_connection_and_leaves_its_own(bench: Bench) {
    assert_eq!(bench.finds().await, (true, answered(200)));
    let probed = bench.probe(ProbeOrder { fresh: true, ..bench.order() }).await;
    assert_eq!((probed.fresh, probed.outcome), (true, answered(200)));
    assert_eq!(bench.finds().await, (false, answered(200)));
}

async fn what_is_not_to_be_kept_is_not(bench: Bench) {
    for fresh in [true, true] {
        let probed = bench.probe(ProbeOrder { keep: false, ..bench.order() }).await;
        assert_eq!((probed.fresh, probed.outcome), (fresh, answered(200)));
    }
}

async fn what_is_forgotten_is_dialled_anew(bench: Bench) {
    assert_eq!(bench.finds().await, (true, answered(200)));
    bench.prober.forget(bench.endpoint());
    assert_eq!(bench.finds().await, (true, answered(200)));
}

async fn a_kept_connection_is_not_used_for_another_name(bench: Bench) {
    assert_eq!(bench.finds().await, (true, answered(200)));
    let other = ProbeOrder { server_name: Some("kubernetes.default".to_owned()), ..bench.order() };
    let probed = bench.probe(other.clone()).await;
    assert_eq!((probed.fresh, probed.outcome), (true, answered(200)));
    let probed = bench.probe(other).await;
    assert_eq!((probed.fresh, probed.outcome), (false, answered(200)));
}
