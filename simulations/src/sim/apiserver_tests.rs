//! What modelled apiservers do in each mode, as whoever is connected sees it.

use std::io;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep, timeout};

use super::client::{self, Session};
use super::core::Sim;
use super::log::ClientKind;
use super::prober::next_record;
use super::state::{Mode, State};
use super::tcp::Owner;
use super::testing::{api, host, in_virtual_time, state, with_apiserver};
use super::wire::{Frame, Verb};

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn there() -> State {
    with_apiserver(state(2), 1)
}

fn becomes(sim: &Sim, mode: Mode) {
    sim.change(|state| state.sites.values_mut().for_each(|site| site.mode = mode));
}

async fn connected(sim: &Sim) -> Session {
    client::open(&host(sim, 0), api(1), ClientKind::Exchange).await.expect("connected")
}

async fn dialled(sim: &Sim) -> Result<(), io::ErrorKind> {
    let host = host(sim, 0);
    let dialling = timeout(ms(900), host.dial(api(1), Owner::Task));
    dialling.await.map_err(|_| io::ErrorKind::TimedOut)?.map(drop).map_err(|error| error.kind())
}

async fn takes(session: &mut Session, verb: Verb) -> Duration {
    let begun = Instant::now();
    session.ask(verb, 1).await.expect("answered");
    begun.elapsed()
}

#[test]
fn a_late_readyz_is_late_each_time_anew_and_nothing_else_is() {
    in_virtual_time(there(), async |sim| {
        becomes(&sim, Mode::LateReadyz(300, 4_000));
        let mut session = connected(&sim).await;
        let mut seen = Vec::new();
        for _ in 0..50 {
            seen.push(takes(&mut session, Verb::Readyz).await);
            assert_eq!(takes(&mut session, Verb::Get).await, ms(3));
        }
        seen.sort_unstable();
        assert!(seen[0] >= ms(300) && seen[49] <= ms(4_010), "{seen:?}");
        assert!(seen[0] < ms(1_000) && seen[49] > ms(3_000), "{seen:?}");
    });
}

#[test]
fn without_etcd_requests_wait_watches_are_quiet_and_pings_are_answered() {
    in_virtual_time(there(), async |sim| {
        let (mut one, mut watching) = (connected(&sim).await, connected(&sim).await);
        watching.ask(Verb::Watch, 1).await.expect("opened");
        becomes(&sim, Mode::EtcdFrozen);
        assert_eq!(takes(&mut one, Verb::Ping).await, ms(3));
        timeout(ms(20_000), one.ask(Verb::Get, 2)).await.expect_err("nothing comes");
        let told = next_record(&mut watching.stream, &mut watching.read);
        timeout(ms(20_000), told).await.map(drop).expect_err("nothing happens");
        becomes(&sim, Mode::Ready);
        one.ask(Verb::Get, 2).await.expect("answered now");
    });
}

#[test]
fn a_closed_port_refuses_and_a_full_queue_drops_and_both_serve_what_is_open() {
    for (mode, refused) in [(Mode::Closed, io::ErrorKind::ConnectionRefused), (Mode::QueueFull, io::ErrorKind::TimedOut)] {
        in_virtual_time(there(), async |sim| {
            let mut session = connected(&sim).await;
            becomes(&sim, mode);
            assert_eq!(dialled(&sim).await, Err(refused));
            assert_eq!(takes(&mut session, Verb::Get).await, ms(3));
            becomes(&sim, Mode::Ready);
            assert_eq!(dialled(&sim).await, Ok(()));
        });
    }
}

#[test]
fn who_has_no_descriptors_accepts_answers_no_newcomer_and_serves_what_is_open() {
    in_virtual_time(there(), async |sim| {
        let mut session = connected(&sim).await;
        becomes(&sim, Mode::NoDescriptors);
        assert_eq!(dialled(&sim).await, Ok(()));
        assert_eq!(takes(&mut session, Verb::Get).await, ms(3));
        let mut newcomer = std::pin::pin!(connected(&sim));
        timeout(ms(5_000), &mut newcomer).await.map(drop).expect_err("nobody answers");
        becomes(&sim, Mode::Ready);
        newcomer.await;
    });
}

#[test]
fn who_does_not_read_closes_the_window_and_loses_nothing() {
    in_virtual_time(there(), async |sim| {
        let mut session = connected(&sim).await;
        session.stream.write_all(&Frame::ask(Verb::Part, 1).encode()).await.expect("read");
        sleep(ms(10)).await;
        becomes(&sim, Mode::NotReading);
        let mut other = connected(&sim).await;
        assert_eq!(takes(&mut other, Verb::Get).await, ms(3), "whoever uploads nothing is served");
        let part = Frame::ask(Verb::Part, 1).encode_with(60_000);
        let upload = async {
            for _ in 0..10 {
                session.stream.write_all(&part).await?;
            }
            session.ask(Verb::Get, 1).await
        };
        let mut upload = std::pin::pin!(upload);
        timeout(ms(20_000), &mut upload).await.expect_err("there is no room");
        becomes(&sim, Mode::Ready);
        upload.await.expect("all of it arrived");
    });
}
