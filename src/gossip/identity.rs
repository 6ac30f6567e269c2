//! Which start of this node's gossip this is, and whether somebody else claims to be this node.
//!
//! A generation is written to disk before it is used and is higher each time: a node that came back under the
//! generation it had would be taken for its dead former self for minutes. It is the time of day in milliseconds, or one more than
//! the last, whichever is greater; so a lost disk is made up for by the clock, and a clock behind by the disk. Where
//! both fail, the others still hold our former self at a higher generation, whose heartbeat stands still: then this
//! node goes on above it. If its heartbeat goes on advancing there are two machines with one name. That is for a person to
//! end; a war of ever higher generations would not end it.
//!
//! A former self's heartbeat advances, too, as seen from here: once, when somebody comes back into reach who had heard more
//! of it. So one advance is no proof of life, and none is at our own address, where nobody else can be.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use tokio::time::Instant;
use tracing::warn;

use crate::world::{Store, WallClock};

/// The file of the last generation, in the state directory.
const FILE: &str = "generation";
/// Bytes of it at most.
const FILE_BYTES: usize = 64;
/// A disk that takes longer is as good as none.
pub(super) const DISK: Duration = Duration::from_secs(2);
/// What was already known of a former self may still arrive for so long; what comes later is new. Two advances that are
/// further apart did not come with one message.
const ECHOES: Duration = Duration::from_secs(2);
/// After this a heartbeat that stood still is taken for a former self's.
const STILL: Duration = Duration::from_secs(5);
/// Beats that only somebody alive can have made: several a second are made, an echo brings one or two.
const BEATS: u64 = 4;
/// A conflict is over when the other's heartbeat has stood still for so long.
const OVER: Duration = Duration::from_secs(30);

/// The time of day in milliseconds.
pub(super) fn millis(wall: &dyn WallClock) -> u64 {
    let since = wall.now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Draws generations.
pub(super) struct Generations {
    file: PathBuf,
    last: u64,
    complained: bool,
}

impl Generations {
    pub(super) fn new(state_dir: &Path) -> Generations {
        Generations { file: state_dir.join(FILE), last: 0, complained: false }
    }

    /// A generation higher than any before and than `floor`, already on disk if there is one that works.
    pub(super) async fn next(&mut self, store: &dyn Store, wall: &dyn WallClock, floor: u64) -> u64 {
        let kept = self.read(store).await;
        let above = self.last.max(kept).max(floor).saturating_add(1);
        self.last = above.max(millis(wall));
        let text = format!("{}\n", self.last);
        let write = store.write(&self.file, text.as_bytes());
        match tokio::time::timeout(DISK, write).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(()) => self.complained = false,
            Err(error) => self.complain("cannot write", &error),
        }
        self.last
    }

    async fn read(&mut self, store: &dyn Store) -> u64 {
        let read = store.read(&self.file, FILE_BYTES);
        let bytes = match tokio::time::timeout(DISK, read).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return 0,
            Err(error) => {
                self.complain("cannot read", &error);
                return 0;
            }
        };
        let number = std::str::from_utf8(&bytes).ok().and_then(|text| text.trim().parse().ok());
        number.filter(|number| *number < u64::MAX).unwrap_or_else(|| {
            self.complain("no number in", &io::ErrorKind::InvalidData.into());
            0
        })
    }

    fn complain(&mut self, what: &str, error: &io::Error) {
        if !std::mem::replace(&mut self.complained, true) {
            warn!("{what} {}: {error}; the clock stands in for it", self.file.display());
        }
    }
}

/// Another id of our own name, as gossip's library holds it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Namesake {
    pub(super) generation: u64,
    pub(super) addr: SocketAddr,
    pub(super) heartbeat: u64,
    /// It is an earlier generation of this very process.
    pub(super) ours: bool,
}

/// What follows from what was heard of our name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// Our former self is known at this generation: go on above it.
    ContinueAbove(u64),
    /// Another machine there has our name.
    Conflict(SocketAddr),
    /// That is over.
    ConflictOver,
}

/// Who this node is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ourselves {
    pub(super) generation: u64,
    pub(super) addr: SocketAddr,
}

/// Watches those who have our name.
#[derive(Default)]
pub(super) struct Namesakes {
    seen: BTreeMap<(u64, SocketAddr), Watched>,
    conflict: Option<(SocketAddr, Instant)>,
}

struct Watched {
    since: Instant,
    baseline: Option<u64>,
    /// When its heartbeat advanced for the first time since it last stood still.
    advanced: Option<Instant>,
}

/// What one look at a namesake shows.
#[derive(PartialEq)]
enum Shows {
    Life,
    Nothing,
    Stillness,
}

impl Watched {
    fn new(now: Instant) -> Watched {
        Watched { since: now, baseline: None, advanced: None }
    }

    fn look(&mut self, now: Instant, heartbeat: u64) -> Shows {
        let age = now - self.since;
        if age < ECHOES {
            return Shows::Nothing;
        }
        let baseline = *self.baseline.get_or_insert(heartbeat);
        if heartbeat >= baseline + BEATS {
            self.baseline = Some(heartbeat);
            self.since = now - ECHOES;
            let first = *self.advanced.get_or_insert(now);
            return if now >= first + ECHOES { Shows::Life } else { Shows::Nothing };
        }
        if age < STILL {
            return Shows::Nothing;
        }
        self.advanced = None;
        Shows::Stillness
    }
}

impl Namesakes {
    /// Another life of the library knows nobody yet. A conflict that was told stays told.
    pub(super) fn begin_life(&mut self) {
        self.seen.clear();
    }

    /// Looks at all other ids of our name.
    pub(super) fn look(&mut self, now: Instant, ours: Ourselves, others: &[Namesake]) -> Option<Finding> {
        self.seen.retain(|key, _| others.iter().any(|other| (other.generation, other.addr) == *key));
        let mut former = None;
        for other in others.iter().filter(|other| !other.ours) {
            let watched = self.seen.entry((other.generation, other.addr)).or_insert_with(|| Watched::new(now));
            match watched.look(now, other.heartbeat) {
                Shows::Life if other.addr != ours.addr => {
                    let known = self.conflict.replace((other.addr, now));
                    if known.is_none_or(|(addr, _)| addr != other.addr) {
                        return Some(Finding::Conflict(other.addr));
                    }
                }
                Shows::Life | Shows::Stillness if other.generation > ours.generation => {
                    former = former.max(Some(other.generation));
                }
                _ => {}
            }
        }
        match self.conflict {
            Some((_, last)) if now >= last + OVER => {
                self.conflict = None;
                Some(Finding::ConflictOver)
            }
            Some(_) => None,
            None => former.map(Finding::ContinueAbove),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Ourselves = Ourselves { generation: 50, addr: addr(1) };

    const fn addr(host: u8) -> SocketAddr {
        SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, host)), 7447)
    }

    /// Looks twice a second at one namesake whose heartbeat is what `heartbeat` makes of the half seconds. What was found, and when.
    fn watched(namesake: Namesake, halves: u32, heartbeat: impl Fn(u64) -> u64) -> Vec<(u32, Finding)> {
        let (mut namesakes, began) = (Namesakes::default(), Instant::now());
        let mut look = |half: u32| {
            let other = Namesake { heartbeat: heartbeat(half.into()), ..namesake };
            Some((half, namesakes.look(began + half * Duration::from_millis(500), OURS, &[other])?))
        };
        (0..halves).filter_map(&mut look).collect()
    }

    fn other(generation: u64, host: u8) -> Namesake {
        Namesake { generation, addr: addr(host), heartbeat: 0, ours: false }
    }

    #[test]
    fn a_heartbeat_that_goes_on_advancing_is_another_machine_whichever_generation_is_higher() {
        for generation in [40, 60] {
            let found = watched(other(generation, 2), 60, |half| 100 + 2 * half);
            assert!(matches!(found[..], [(4..=16, Finding::Conflict(theirs))] if theirs == addr(2)), "{found:?}");
        }
    }

    #[test]
    fn a_former_self_whose_last_beats_arrive_when_a_partition_heals_is_no_other_machine() {
        let found = watched(other(40, 2), 200, |half| if half < 20 { 100 } else { 400 });
        assert_eq!(found, []);
    }

    #[test]
    fn partitions_that_heal_one_after_another_make_no_other_machine_of_a_former_self() {
        let found = watched(other(40, 2), 200, |half| 100 + 50 * (half / 30));
        assert_eq!(found, []);
    }

    #[test]
    fn nobody_else_is_at_our_own_address_however_its_heartbeat_advances() {
        assert_eq!(watched(other(40, 1), 60, |half| 100 + 2 * half), []);
        let found = watched(other(60, 1), 60, |half| 100 + 2 * half);
        assert!(found.iter().all(|(_, found)| *found == Finding::ContinueAbove(60)) && !found.is_empty());
    }

    #[test]
    fn what_stands_still_above_us_is_a_former_self() {
        assert_eq!(watched(other(60, 2), 11, |_| 100), [(10, Finding::ContinueAbove(60))]);
    }
}
