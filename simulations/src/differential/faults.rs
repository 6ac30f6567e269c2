//! Lets a trial's faults happen, and writes down when they really began and ended.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::{Instant, sleep_until};

use super::draw::{Break, Fault};
use super::exempt::{Harm, What};
use super::stage::Servers;
use crate::lab::netns::{Loss, Way};

/// Between two looks whether a process that was told to stop has ended.
const LOOK: Duration = Duration::from_millis(10);

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

/// Lets all of them happen; everything is mended when it returns.
pub(super) async fn play(faults: &[Fault], servers: &mut Servers, began: Instant, record: &Record) -> Result<()> {
    let mut moves: Vec<(Duration, usize, bool)> = Vec::new();
    for (index, fault) in faults.iter().enumerate() {
        moves.push((fault.begins, index, true));
        moves.push((fault.begins + fault.lasts, index, false));
    }
    moves.sort();
    let mut scene = Scene { servers, record, began, losses: faults.iter().map(|_| Vec::new()).collect() };
    for (at, index, begins) in moves {
        sleep_until(began + at).await;
        let fault = &faults[index];
        for apiserver in fault.on.iter().copied() {
            let moved = if begins { scene.begin(index, fault, apiserver) } else { scene.end(index, fault, apiserver).await };
            moved.with_context(|| format!("{fault}"))?;
        }
    }
    Ok(())
}

struct Scene<'a> {
    servers: &'a mut Servers,
    record: &'a Record,
    began: Instant,
    /// Packets that each fault drops.
    losses: Vec<Vec<(usize, Loss)>>,
}

impl Scene<'_> {
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
                self.record.begins(apiserver, What::Stopped, now);
                server.process.as_mut().context("it is not running")?.stop()?;
            }
            Break::Kill => {
                self.record.begins(apiserver, What::Dead, now);
                server.process.as_mut().context("it is not running")?.kill();
            }
            Break::Graceful => server.process.as_mut().context("it is not running")?.terminate()?,
            Break::ReadyzLate(by) => server.be(|mood| mood.readyz_delay_ms = whole_ms(by))?,
            Break::AnswersLate(by) => server.be(|mood| mood.answer_delay_ms = whole_ms(by))?,
            Break::PortClosed => server.be(|mood| mood.port_closed = true)?,
            Break::ReadsNothing => server.be(|mood| mood.reads_nothing = true)?,
            Break::EtcdFrozen => {}
        }
        Ok(())
    }

    async fn end(&mut self, index: usize, fault: &Fault, apiserver: usize) -> Result<()> {
        let server = self.servers.all.get_mut(apiserver).context("no such apiserver")?;
        match fault.what {
            Break::Drop(_) | Break::DropBoth => {
                self.losses[index].retain(|(of, _)| *of != apiserver);
                self.record.ends(apiserver, What::Silent, self.began.elapsed());
            }
            Break::Stop => {
                server.process.as_mut().context("it is not running")?.go_on()?;
                self.record.ends(apiserver, What::Stopped, self.began.elapsed());
            }
            Break::Kill => {
                server.start()?;
                self.record.ends(apiserver, What::Dead, self.began.elapsed());
            }
            Break::Graceful => {
                let process = server.process.as_mut().context("it is not running")?;
                while process.ended().is_none() {
                    tokio::time::sleep(LOOK).await;
                }
                self.record.begins(apiserver, What::Dead, self.began.elapsed());
                server.start()?;
                self.record.ends(apiserver, What::Dead, self.began.elapsed());
            }
            Break::ReadyzLate(_) => server.be(|mood| mood.readyz_delay_ms = 0)?,
            Break::AnswersLate(_) => server.be(|mood| mood.answer_delay_ms = 0)?,
            Break::PortClosed => server.be(|mood| mood.port_closed = false)?,
            Break::ReadsNothing => server.be(|mood| mood.reads_nothing = false)?,
            Break::EtcdFrozen => {}
        }
        Ok(())
    }
}

fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
