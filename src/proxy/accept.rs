//! The accept loops: nothing that happens to a client or to this node ends one, but for the stop of the proxy.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::clients::{Admission, Place};
use super::stats::TurnedAway;
use super::{Shared, session};
use crate::supervise::caught;
use crate::world::{Listener, Stream};

/// After an error (no descriptors, no memory) this long passes until the next try: short enough that relief is seen at once,
/// long enough that waiting costs no core.
const PAUSE: Duration = Duration::from_millis(5);

/// Connections taken from the backlog at most once the drain is over: as many as the kernel keeps there.
const LAST_ONES: usize = 4096;

/// A question whether the loop turns.
pub(super) type Beat = oneshot::Sender<()>;

/// Panics in a row, without a client accepted between them, after which the loop ends: the process has to be started again.
const MAX_PANICS: u32 = 10;

/// Accepts clients until `closing`. A panic is counted, and the loop goes on, unless nothing else happens any more.
pub(super) async fn accept(
    shared: Arc<Shared>,
    listener: Box<dyn Listener>,
    mut beats: mpsc::Receiver<Beat>,
    closing: CancellationToken,
) {
    let mut door = Door { shared, listener, failing: false, panics: 0 };
    while let Err(reason) = caught(door.turn(&mut beats, &closing)).await {
        door.shared.stats.count(|counts| counts.panics += 1);
        door.panics += 1;
        if door.panics == 1 {
            tracing::error!(reason, "accepting a client panicked; the accept loop goes on");
        }
        if door.panics >= MAX_PANICS {
            // The process is told by the end of this task.
            std::panic::resume_unwind(Box::new(reason));
        }
        tokio::time::sleep(PAUSE).await;
    }
    // Closed, never shut down: an inherited socket goes on listening for its owner.
}

struct Door {
    shared: Arc<Shared>,
    listener: Box<dyn Listener>,
    failing: bool,
    /// Panics since a client was last accepted.
    panics: u32,
}

impl Door {
    async fn turn(&mut self, beats: &mut mpsc::Receiver<Beat>, closing: &CancellationToken) {
        loop {
            let accepted = tokio::select! {
                biased;
                Some(beat) = beats.recv() => {
                    let _ = beat.send(());
                    continue;
                }
                () = closing.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            if !self.accepted(accepted.map(|(client, _)| client)) {
                tokio::time::sleep(PAUSE).await;
            }
        }
        self.last_ones().await;
    }

    /// Takes in the connections that the kernel has completed already: closing the listener would reset them. The kernel is
    /// asked itself. Polling [`Listener::accept`] would not do: it is pending also when this task's turn is over, or when the
    /// runtime has not heard yet that there is a connection.
    async fn last_ones(&mut self) {
        for _ in 0..LAST_ONES {
            let Some(accepted) = self.listener.accept_now().transpose() else { break };
            if !self.accepted(accepted.map(|(client, _)| client)) {
                break;
            }
            // The connections that were accepted so far are served meanwhile.
            tokio::task::coop::consume_budget().await;
        }
    }

    /// False if it is better to wait a little.
    fn accepted(&mut self, accepted: io::Result<Box<dyn Stream>>) -> bool {
        match accepted {
            Ok(client) => {
                (self.failing, self.panics) = (false, 0);
                admit(&self.shared, client);
                true
            }
            Err(error) => {
                self.shared.stats.count(|counts| counts.accept_errors += 1);
                // A client that went away in the queue is its own affair.
                let of_this_node = !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset);
                if of_this_node && !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(%error, "cannot accept connections; trying again until it works");
                }
                !of_this_node
            }
        }
    }
}

fn admit(shared: &Arc<Shared>, mut client: Box<dyn Stream>) {
    shared.stats.count(|counts| counts.accepted += 1);
    match shared.clients.admit() {
        Admission::Full => {
            shared.stats.turned_away(TurnedAway::Full);
            client.reset_on_drop();
        }
        Admission::Admitted(place) => {
            tokio::spawn(serve(shared.clone(), client, place));
        }
    }
}

async fn serve(shared: Arc<Shared>, client: Box<dyn Stream>, place: Place) {
    let _panics = CountPanic(shared.clone());
    session::serve(shared, client, place).await;
}

/// Counts a panic that unwinds through it.
struct CountPanic(Arc<Shared>);

impl Drop for CountPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stats.count(|counts| counts.panics += 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Scene, pair};
    use super::*;

    /// What an idle connection costs beside its sockets, its meter and its place in the table.
    const TASK_MOST: usize = 2048;

    #[tokio::test]
    async fn the_task_of_a_carried_connection_is_small() {
        let shared = Scene::of(&[]).proxy.shared;
        let Admission::Admitted(place) = shared.clients.admit() else { panic!("there is room") };
        let task = serve(shared, Box::new(pair().0), place);
        let size = size_of_val(&task);
        assert!(size <= TASK_MOST, "it has {size} bytes");
    }
}
