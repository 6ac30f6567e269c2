//! One client, from its accepted connection to its end.

use std::pin::pin;
use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout_at};

use super::Shared;
use super::clients::{Leave, Place};
use super::echoes::Echo;
use super::race::{End, Race, Runner, Winner};
use super::said::Said;
use super::stats::TurnedAway;
use crate::engine::event::ResetReason;
use crate::engine::policy;
use crate::world::{Carried, Meter, Stream};

/// How the time before an upstream's first byte ended.
enum Outcome {
    /// An upstream serves the client, which has said more than that upstream was sent.
    Carry(Winner, Said),
    /// The client's connection is closed in an orderly way.
    Close,
    /// It is reset.
    Reset,
}

/// Serves one client.
pub(super) async fn serve(shared: Arc<Shared>, mut client: Box<dyn Stream>, place: Place) {
    // In a box of its own: what is needed before the first byte is given back before the carrying, which lasts.
    let served = Box::pin(before_first_byte(&shared, &mut client, &place));
    let outcome = tokio::select! {
        biased;
        leave = place.leave() => {
            shared.stats.turned_away(if leave == Leave::Evicted { TurnedAway::Evicted } else { TurnedAway::Stopped });
            Outcome::Reset
        }
        outcome = served => outcome,
    };
    match outcome {
        Outcome::Carry(winner, said) => {
            place.asked();
            carry(&shared, client, winner, said, &place).await;
        }
        Outcome::Reset => client.reset_on_drop(),
        Outcome::Close => {}
    }
}

async fn before_first_byte(shared: &Arc<Shared>, client: &mut Box<dyn Stream>, place: &Place) -> Outcome {
    let silent_until = place.opened() + policy::CLIENT_HELLO;
    let mut said = Said::default();
    while said.is_partial() {
        match timeout_at(silent_until, said.more(client)).await {
            Ok(Ok(true)) => {}
            Ok(_) => return Outcome::Close,
            Err(_) => return turn_away(shared, TurnedAway::Silent, Outcome::Close),
        }
    }
    shared.bucket.refill();
    let asked = said.is_hello();
    let patience = Instant::now() + policy::HOLD;
    let race = race_and_hold(shared, Runner { client, said, replays: 0, patience, echo: None });
    if asked {
        place.asked();
        return race.await;
    }
    // Any byte can begin what is not TLS, so it buys nothing: until it is answered such a client is as good as silent.
    match timeout_at(silent_until, race).await {
        Ok(outcome) => outcome,
        Err(_) => turn_away(shared, TurnedAway::Silent, Outcome::Close),
    }
}

/// Races until an upstream answers, held in between.
async fn race_and_hold(shared: &Arc<Shared>, mut runner: Runner<'_>) -> Outcome {
    let mut seat = None;
    loop {
        let releases = shared.hold.releases();
        runner.echo = match enter(shared, &mut runner).await {
            Ok(echo) => echo,
            Err(outcome) => return outcome,
        };
        match Race::new(shared, &mut runner).run().await {
            End::Answered(winner) => return Outcome::Carry(winner, runner.said),
            End::Gone | End::Closed => return Outcome::Close,
            End::Reset => return Outcome::Reset,
            End::Nothing => {}
        }
        runner.echo = None;
        if seat.is_none() {
            seat = shared.hold.seat();
        }
        let Some(seat) = &seat else { return turn_away(shared, TurnedAway::HoldFull, Outcome::Reset) };
        shared.stats.count(|counts| counts.holds += 1);
        let patience = runner.patience;
        tokio::select! {
            biased;
            () = gone(&mut runner) => return Outcome::Close,
            () = tokio::time::sleep_until(patience) => return turn_away(shared, TurnedAway::HoldOver, Outcome::Reset),
            () = seat.released(releases) => {}
        }
    }
}

/// Enters a race with a whole hello among those that are run with the same one.
async fn enter(shared: &Arc<Shared>, runner: &mut Runner<'_>) -> Result<Option<Echo>, Outcome> {
    if !runner.said.is_hello() {
        return Ok(None);
    }
    let (mut echo, came_back) = shared.echoes.enter(runner.said.hello());
    if came_back {
        shared.echoes.tell();
        shared.stats.count(|counts| counts.repeated_hellos += 1);
    }
    let patience = runner.patience;
    tokio::select! {
        biased;
        () = echo.turn() => Ok(Some(echo)),
        () = gone(runner) => Err(Outcome::Close),
        () = tokio::time::sleep_until(patience) => Err(turn_away(shared, TurnedAway::HoldOver, Outcome::Reset)),
    }
}

/// Completes when a held client goes away. What it says meanwhile is kept.
async fn gone(runner: &mut Runner<'_>) {
    if runner.said.ended() {
        return;
    }
    while let Ok(true) = runner.said.more(runner.client).await {}
}

fn turn_away(shared: &Shared, why: TurnedAway, how: Outcome) -> Outcome {
    shared.stats.turned_away(why);
    how
}

/// Carries bytes both ways until the end.
async fn carry(shared: &Shared, mut client: Box<dyn Stream>, winner: Winner, said: Said, place: &Place) {
    let Winner { endpoint, mut stream, head, forwarded } = winner;
    let meter = Arc::new(Meter::new(shared.clock));
    let carrying = place.carry(endpoint, meter.clone());
    shared.upstream(endpoint, |counts| counts.opened += 1);
    if shared.distrusts(endpoint) {
        meter.end(Some(ResetReason::TrustWithdrawn));
    }
    let carried = async {
        let caught_up = catch_up(&mut client, &mut stream, &meter, head, (said, forwarded)).await;
        match caught_up {
            None => shared.net.carry(client, stream, meter.clone()).await,
            Some(failed) => {
                client.reset_on_drop();
                stream.reset_on_drop();
                failed
            }
        }
    };
    let mut carried = pin!(carried);
    tokio::select! {
        biased;
        ended = &mut carried => if let (Carried::Ended, Some(Some(reason))) = (ended, meter.end_reason()) {
            shared.upstream(endpoint, |counts| *counts.resets.entry(reason).or_default() += 1);
        },
        _ = place.leave() => {
            shared.stats.turned_away(TurnedAway::Stopped);
            meter.end(None);
            carried.await;
        }
    }
    drop(carrying);
}

/// Passes on what was read before the carrying: the upstream's first bytes, and what the client said that the upstream was not
/// sent yet. [`None`]: done.
async fn catch_up(
    client: &mut Box<dyn Stream>,
    upstream: &mut Box<dyn Stream>,
    meter: &Meter,
    head: Vec<u8>,
    (said, forwarded): (Said, usize),
) -> Option<Carried> {
    let rest = said.after(forwarded);
    meter.count_to_client(head.len());
    meter.count_to_upstream(forwarded + rest.len());
    // An upstream that takes no more may still have said something; the carrying finds out what became of it.
    let both = async { tokio::join!(client.write_all(&head), upstream.write_all(rest)).0 };
    tokio::select! {
        biased;
        () = meter.ended() => Some(Carried::Ended),
        told = both => told.is_err().then_some(Carried::ClientFailed),
    }
}
