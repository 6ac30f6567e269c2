//! Lets a trial's faults happen, and writes down when they really began and ended.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::draw::{Break, Fault};
use super::exempt::{Harm, What};
use super::stage::Servers;
use crate::lab::children::Process;
use crate::lab::netns::{Loss, Way};

/// Between two looks whether a process that was told to stop has ended.
const LOOK: Duration = Duration::from_millis(10);

/// A process that stops in good order ends its connections so long before it ends itself.
const FAREWELL: Duration = Duration::from_secs(1);

/// What was done to the apiservers so far.
#[derive(Clone, Default)]
pub(super) struct Record(Arc<Mutex<Vec<Harm>>>);

impl Record {
    /// A copy.
    pub(super) fn harms(&self) -> Vec<Harm> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Harm>)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn begins(&self, apiserver: usize, what: What, from: Duration) {
        self.change(|harms| harms.push(Harm { apiserver, what, from, to: None }));
    }

    fn ends(&self, apiserver: usize, what: What, to: Duration) {
        self.change(|harms| {
            // Two of one kind do not overlap on one apiserver, but for losses, where the oldest may end for the other.
            let open = harms.iter_mut().find(|harm| harm.apiserver == apiserver && harm.what == what && harm.to.is_none());
            if let Some(harm) = open {
                harm.to = Some(to);
            }
        });
    }
}

/// Lets all of them happen, and waits for processes that were told to stop until `done`.
pub(super) async fn play(
    faults: &[Fault],
    servers: &mut Servers,
    began: Instant,
    record: &Record,
    done: &CancellationToken,
) -> Result<()> {
    let mut moves: Vec<(Duration, usize, bool)> = Vec::new();
    for (index, fault) in faults.iter().enumerate() {
        moves.push((fault.begins, index, true));
        moves.push((fault.begins + fault.lasts, index, false));
    }
    moves.sort();
    let losses = faults.iter().map(|_| Vec::new()).collect();
    let mut scene = Scene { servers, record, began, losses, stopping: Vec::new() };
    for (at, index, begins) in moves {
        let mut due = pin!(sleep_until(began + at));
        while timeout(LOOK, &mut due).await.is_err() {
            scene.look_after_those_that_stop()?;
        }
        let fault = &faults[index];
        for apiserver in fault.on.iter().copied() {
            let moved = if begins { scene.begin(index, fault, apiserver) } else { scene.end(index, fault, apiserver) };
            moved.with_context(|| format!("{fault}"))?;
        }
    }
    while !scene.stopping.is_empty() && timeout(LOOK, done.cancelled()).await.is_err() {
        scene.look_after_those_that_stop()?;
    }
    Ok(())
}

/// An apiserver that was told to stop.
struct Stopping {
    apiserver: usize,
    ended: bool,
    /// The fault is over: once it has ended it is started again.
    comes_back: bool,
}

struct Scene<'a> {
    servers: &'a mut Servers,
    record: &'a Record,
    began: Instant,
    /// Packets that each fault drops.
    losses: Vec<Vec<(usize, Loss)>>,
    stopping: Vec<Stopping>,
}

impl Scene<'_> {
    fn look_after_those_that_stop(&mut self) -> Result<()> {
        let now = self.began.elapsed();
        for stopping in &mut self.stopping {
            let server = self.servers.all.get_mut(stopping.apiserver).context("no such apiserver")?;
            if !stopping.ended && server.process.as_mut().is_none_or(|process| process.ended().is_some()) {
                stopping.ended = true;
                self.record.begins(stopping.apiserver, What::Dead, now.saturating_sub(FAREWELL));
            }
            if stopping.ended && stopping.comes_back {
                server.start()?;
                self.record.ends(stopping.apiserver, What::Dead, now);
            }
        }
        self.stopping.retain(|stopping| !(stopping.ended && stopping.comes_back));
        Ok(())
    }

    fn begin(&mut self, index: usize, fault: &Fault, apiserver: usize) -> Result<()> {
        let now = self.began.elapsed();
        let server = self.servers.all.get_mut(apiserver).context("no such apiserver")?;
        let ip = server.addr.ip();
        let mut drop_packets = |ways: &[Way]| {
            self.record.begins(apiserver, What::Silent, now);
            for way in ways {
                self.losses[index].push((apiserver, Loss::of(ip, *way)?));
            }
            anyhow::Ok(())
        };
        match fault.what {
            Break::Drop(way) => drop_packets(&[way])?,
            Break::DropBoth => drop_packets(&[Way::Towards, Way::From])?,
            Break::Stop => {
                // One that has ended because it was told to has nothing to stop.
                if server.process.as_mut().is_some_and(|process| process.stop().is_ok()) {
                    self.record.begins(apiserver, What::Stopped, now);
                }
            }
            Break::Kill => {
                self.record.begins(apiserver, What::Dead, now);
                self.stopping.retain(|stopping| stopping.apiserver != apiserver);
                server.process.as_mut().context("it is not running")?.kill();
            }
            Break::Graceful => {
                server.tell_to_stop();
                self.stopping.push(Stopping { apiserver, ended: false, comes_back: false });
            }
            Break::ReadyzLate(by) => server.be(|mood| mood.readyz_delay_ms = whole_ms(by))?,
            Break::AnswersLate(by) => server.be(|mood| mood.answer_delay_ms = whole_ms(by))?,
            Break::PortClosed => server.be(|mood| mood.port_closed = true)?,
            Break::ReadsNothing => server.be(|mood| mood.reads_nothing = true)?,
            Break::EtcdFrozen => self.servers.etcd.as_mut().context("there is no etcd")?.stop()?,
        }
        Ok(())
    }

    fn end(&mut self, index: usize, fault: &Fault, apiserver: usize) -> Result<()> {
        let server = self.servers.all.get_mut(apiserver).context("no such apiserver")?;
        match fault.what {
            Break::Drop(_) | Break::DropBoth => {
                self.losses[index].retain(|(of, _)| *of != apiserver);
                self.record.ends(apiserver, What::Silent, self.began.elapsed());
            }
            Break::Stop => {
                let _ = server.process.as_mut().map(Process::go_on);
                self.record.ends(apiserver, What::Stopped, self.began.elapsed());
            }
            Break::Kill => {
                server.start()?;
                self.record.ends(apiserver, What::Dead, self.began.elapsed());
            }
            Break::Graceful => {
                let told = self.stopping.iter_mut().filter(|stopping| stopping.apiserver == apiserver);
                told.for_each(|stopping| stopping.comes_back = true);
            }
            Break::ReadyzLate(_) => server.be(|mood| mood.readyz_delay_ms = 0)?,
            Break::AnswersLate(_) => server.be(|mood| mood.answer_delay_ms = 0)?,
            Break::PortClosed => server.be(|mood| mood.port_closed = false)?,
            Break::ReadsNothing => server.be(|mood| mood.reads_nothing = false)?,
            Break::EtcdFrozen => self.servers.etcd.as_mut().context("there is no etcd")?.go_on()?,
        }
        Ok(())
    }
}

fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
