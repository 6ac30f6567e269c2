//! One question to all name servers, in their order of preference.
//!
//! They may know different things: the first may be the company's, which knows the name, and the second the provider's, which says that
//! it does not exist, or has another address for the world outside. So they are not all asked at once with the first answer taken. The
//! next one is asked when the one before fails, or has said nothing for [`NEXT_AFTER`]. What it says is believed once those before have
//! failed, or had [`EARLIER_WAIT`] to say something else, or [`ADDRESS_WAIT`] where it has an address. One that was silent is not waited for in
//! the next minute.

use std::sync::Arc;
use std::time::Duration;

use hickory_proto::rr::Name;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::conf::Conf;
use super::exchange::{Answer, ask};
use crate::world::Family;

/// A name server that says nothing for so long gets company: what is cached comes sooner. glibc waits for 5 s.
const NEXT_AFTER: Duration = Duration::from_millis(300);
/// How long a name server's word counts more than that of those after it.
const EARLIER_WAIT: Duration = Duration::from_secs(2);
/// The same where a later one has an address: mostly the first one is away then.
const ADDRESS_WAIT: Duration = Duration::from_millis(600);
/// A question that is not answered by then is not.
const PATIENCE: Duration = Duration::from_secs(10);

/// One name server's part.
#[derive(Debug)]
enum Asked {
    Since(Instant),
    Settled(Result<Answer, String>),
}

/// The answer to one question.
///
/// # Errors
/// What each name server did instead of answering.
pub(super) async fn ask_all(conf: Arc<Conf>, name: Name, family: Family) -> Result<Answer, String> {
    let mut race = Race { conf, name, family, asked: Vec::new(), under_way: JoinSet::new() };
    match timeout(PATIENCE, race.run()).await {
        Ok(answer) => answer,
        Err(_) => Err(race.reasons()),
    }
}

struct Race {
    conf: Arc<Conf>,
    name: Name,
    family: Family,
    asked: Vec<Asked>,
    under_way: JoinSet<(usize, Result<Answer, String>)>,
}

impl Race {
    async fn run(&mut self) -> Result<Answer, String> {
        self.next_server();
        loop {
            self.note_silence();
            if let Some(answer) = self.settled() {
                return answer;
            }
            let wake = self.wake();
            tokio::select! {
                Some(done) = self.under_way.join_next() => match done {
                    Ok((server, answer)) => {
                        let failed = answer.is_err();
                        self.conf.servers[server].answers(self.family, true);
                        self.asked[server] = Asked::Settled(answer);
                        if failed {
                            self.next_server();
                        }
                    }
                    // Its place stays as if it were silent.
                    Err(error) => tracing::debug!(%error, "asking a name server has panicked"),
                },
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {
                    if self.next_due().is_some_and(|due| due <= Instant::now()) {
                        self.next_server();
                    }
                }
            }
        }
    }

    /// Asks one more, if there is one more.
    fn next_server(&mut self) {
        let place = self.asked.len();
        if place >= self.conf.servers.len() {
            return;
        }
        let (conf, name, family) = (self.conf.clone(), self.name.clone(), self.family);
        self.under_way.spawn(async move { (place, ask(&conf.servers[place], &conf, &name, family).await) });
        self.asked.push(Asked::Since(Instant::now()));
        if self.conf.servers[place].is_silent(self.family) {
            self.next_server();
        }
    }

    /// Whether it was waited for long enough.
    fn is_late(&self, server: usize, since: Instant) -> bool {
        let has_address = |asked: &Asked| matches!(asked, Asked::Settled(Ok(Answer::Addresses(..))));
        let wait = if self.asked.iter().any(has_address) { ADDRESS_WAIT } else { EARLIER_WAIT };
        self.conf.servers[server].is_silent(self.family) || since.elapsed() >= wait
    }

    fn note_silence(&self) {
        for (asked, server) in self.asked.iter().zip(&self.conf.servers) {
            if matches!(asked, Asked::Since(since) if since.elapsed() >= EARLIER_WAIT) && !server.is_silent(self.family) {
                server.answers(self.family, false);
            }
        }
    }

    /// When the next one is asked, however it goes with those before.
    fn next_due(&self) -> Option<Instant> {
        match self.asked.last() {
            Some(Asked::Since(since)) if self.asked.len() < self.conf.servers.len() => Some(*since + NEXT_AFTER),
            _ => None,
        }
    }

    fn wake(&self) -> Option<Instant> {
        let believed = self.asked.iter().flat_map(|asked| match asked {
            Asked::Since(since) => vec![*since + ADDRESS_WAIT, *since + EARLIER_WAIT],
            Asked::Settled(_) => Vec::new(),
        });
        self.next_due().into_iter().chain(believed.filter(|at| *at > Instant::now())).min()
    }

    /// The answer, once it is certain which.
    fn settled(&self) -> Option<Result<Answer, String>> {
        for (server, asked) in self.asked.iter().enumerate() {
            match asked {
                Asked::Settled(Ok(answer)) => return Some(Ok(answer.clone())),
                Asked::Settled(Err(_)) => {}
                Asked::Since(since) if self.is_late(server, *since) => {}
                Asked::Since(_) => return None,
            }
        }
        let all = self.asked.len() == self.conf.servers.len();
        let failed = self.asked.iter().all(|asked| matches!(asked, Asked::Settled(Err(_))));
        (all && failed).then(|| Err(self.reasons()))
    }

    fn reasons(&self) -> String {
        let each = self.asked.iter().zip(&self.conf.servers).map(|(asked, server)| match asked {
            Asked::Settled(Err(reason)) => reason.clone(),
            Asked::Settled(Ok(_)) | Asked::Since(_) => format!("{server}: no answer"),
        });
        each.collect::<Vec<_>>().join("; ")
    }
}
