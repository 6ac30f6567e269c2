//! Detects that no other node answers this node, and finds the likeliest cause.
//!
//! The input is what arrives and what is refused. The output is text for the log and `status`: after ten seconds without an
//! answer, when the cause changes, and when it is over. No other decision depends on it.

use std::fmt::{self, Display, Formatter};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::envelope::Refused;
use super::keys::KeyId;
use super::stats::DropReason;

/// Without an answer for so long, a node is isolated; another cause is told of at most this often.
const PATIENCE: Duration = Duration::from_secs(10);
/// What was seen longer ago is no evidence.
const EVIDENCE: Duration = Duration::from_secs(30);
/// Between two warnings of datagrams that do not open.
const FOREIGN_APART: Duration = Duration::from_secs(60);
/// Addresses that are named in a text.
const NAMED: usize = 3;

/// What a node knows of its own questions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Situation {
    /// A core member answers; on a core member: any other node is heard.
    pub(super) answered: bool,
    /// A node that answers without being a core member, and that knows no core member that answers.
    pub(super) lead: Option<SocketAddr>,
    /// It has found no address under which others could answer.
    pub(super) no_address: bool,
    /// The configuration names seeds.
    pub(super) seeds_given: bool,
    /// Addresses that the seeds have.
    pub(super) seeds: Vec<SocketAddr>,
    /// The addresses that are asked, never this node's own.
    pub(super) asked: Vec<SocketAddr>,
    /// This node is a core member. A core member without seeds and without known peers is alone, not isolated.
    pub(super) core: bool,
}

/// The cause of an isolation.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Cause {
    NoAddress,
    Unsendable(String),
    OtherKey(SocketAddr, KeyId),
    OtherCluster(SocketAddr, KeyId),
    OtherFormat(SocketAddr),
    NoCore(SocketAddr),
    OneWay(SocketAddr),
    Unresolved,
    OnlyItself,
    NothingToAsk,
    Silence,
}

/// What people are to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// The node is isolated, with the cause.
    Isolated(String),
    /// It is over, after so long.
    Over(Duration),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Isolation {
    /// When the last answer ended; [`None`] while there are answers.
    since: Option<Instant>,
    told: Option<(Instant, Cause, String)>,
    opened: Option<(Instant, SocketAddr)>,
    refused: Option<(Instant, SocketAddr, Refused)>,
    unsendable: Option<(Instant, String)>,
    foreign: Option<Instant>,
}

impl Isolation {
    /// An answer that is older than this is none.
    pub(super) const RECENT_ANSWER: Duration = PATIENCE;

    pub(super) fn new(now: Instant) -> Isolation {
        Isolation { since: Some(now), told: None, opened: None, refused: None, unsendable: None, foreign: None }
    }

    /// Another node's datagram arrived and opened.
    pub(super) fn opened(&mut self, now: Instant, from: SocketAddr) {
        self.opened = Some((now, from));
    }

    /// A datagram arrived and did not open. Once a minute that is worth a warning on a core member.
    pub(super) fn refused(&mut self, now: Instant, from: SocketAddr, refused: Refused) -> Option<String> {
        let cause = foreign(from, refused)?;
        self.refused = Some((now, from, refused));
        if self.foreign.is_some_and(|told| now < told + FOREIGN_APART) {
            return None;
        }
        self.foreign = Some(now);
        Some(cause.to_string())
    }

    /// A datagram could not be sent.
    pub(super) fn unsendable(&mut self, now: Instant, error: &std::io::Error) {
        self.unsendable = Some((now, error.to_string()));
    }

    /// What people are told now of what is seen.
    pub(super) fn look(&mut self, now: Instant, situation: &Situation) -> Option<Told> {
        let alone = situation.core && !situation.seeds_given && situation.asked.is_empty() && !situation.no_address;
        if situation.answered || alone {
            let since = self.since.take();
            self.told.take()?;
            return since.map(|since| Told::Over(now.saturating_duration_since(since)));
        }
        let since = *self.since.get_or_insert(now);
        if now < since + PATIENCE {
            return None;
        }
        let cause = self.cause(now, situation);
        let same = self
            .told
            .as_ref()
            .is_some_and(|(at, told, _)| std::mem::discriminant(told) == std::mem::discriminant(&cause) || now < *at + PATIENCE);
        if same {
            return None;
        }
        let text = format!("no core member answers this node: {cause}{}", asked(&situation.asked));
        self.told = Some((now, cause, text.clone()));
        Some(Told::Isolated(text))
    }

    /// What was told last, while it holds.
    pub(super) fn note(&self) -> Option<&str> {
        self.told.as_ref().map(|(_, _, text)| text.as_str())
    }

    fn cause(&self, now: Instant, situation: &Situation) -> Cause {
        let recent = |at: Instant| now < at + EVIDENCE;
        if situation.no_address {
            return Cause::NoAddress;
        }
        if let Some((at, from, refused)) = self.refused
            && recent(at)
            && let Some(cause) = foreign(from, refused)
        {
            return cause;
        }
        if let Some(lead) = situation.lead {
            return Cause::NoCore(lead);
        }
        if let Some((at, from)) = self.opened
            && recent(at)
        {
            return Cause::OneWay(from);
        }
        if situation.asked.is_empty() {
            return match (situation.seeds_given, situation.seeds.is_empty()) {
                (true, true) => Cause::Unresolved,
                (true, false) => Cause::OnlyItself,
                (false, _) => Cause::NothingToAsk,
            };
        }
        match &self.unsendable {
            Some((at, error)) if recent(*at) => Cause::Unsendable(error.clone()),
            _ => Cause::Silence,
        }
    }
}

/// What a datagram that does not open tells of its sender.
fn foreign(from: SocketAddr, refused: Refused) -> Option<Cause> {
    match (refused.reason, refused.key) {
        (DropReason::UnknownKey, Some(key)) => Some(Cause::OtherKey(from, key)),
        (DropReason::Unauthentic, Some(key)) => Some(Cause::OtherCluster(from, key)),
        (DropReason::Version, _) => Some(Cause::OtherFormat(from)),
        _ => None,
    }
}

fn asked(asked: &[SocketAddr]) -> String {
    if asked.is_empty() {
        return String::new();
    }
    let names: Vec<String> = asked.iter().take(NAMED).map(ToString::to_string).collect();
    let more = asked.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("; asked are {}{more}", names.join(", "))
}

impl Display for Cause {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Cause::NoAddress => {
                f.write_str("it finds no address of its own that others could answer to; give one with --gossip-advertise")
            }
            Cause::Unsendable(error) => write!(f, "its datagrams cannot be sent: {error}"),
            Cause::OtherKey(from, key) => write!(
                f,
                "datagrams from {from} are sealed with the key {key}, which is not in this node's keyring: the keyring here or there is another cluster's, or older"
            ),
            Cause::OtherCluster(from, key) => write!(
                f,
                "datagrams from {from} do not open, though the key {key} is in this node's keyring: the cluster id there is another, or they were changed on the way"
            ),
            Cause::OtherFormat(from) => {
                write!(f, "datagrams from {from} are of another format: another program, or another version of prismesh, sends them")
            }
            Cause::NoCore(lead) => write!(f, "{lead} answers, and knows no core member that does"),
            Cause::OneWay(from) => {
                write!(f, "datagrams from {from} arrive, and what this node sends is not answered: UDP is blocked on that way")
            }
            Cause::Unresolved => f.write_str("no seed has an address; `prismesh status` says which names cannot be resolved"),
            Cause::OnlyItself => f.write_str("the only seed is this node itself; give the address of another node"),
            Cause::NothingToAsk => f.write_str("no seed is given, and no other node is known from before; give --seed"),
            Cause::Silence => f.write_str(
                "nothing arrives: nothing runs at these addresses, UDP to or from them is blocked, or the nodes there have another keyring or cluster id (then they say so in their logs)",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: KeyId = KeyId([1, 2, 3, 4]);

    fn addr(host: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, host], 7447))
    }

    fn asking() -> Situation {
        Situation { seeds_given: true, seeds: vec![addr(1)], asked: vec![addr(1)], ..Situation::default() }
    }

    fn refused(reason: DropReason) -> Refused {
        Refused { reason, key: Some(KEY) }
    }

    /// What is told after ten seconds of this situation, beside what was seen before.
    fn told(isolation: &mut Isolation, from: Instant, situation: &Situation) -> String {
        assert_eq!(isolation.look(from + Duration::from_millis(9_900), situation), None, "not yet");
        match isolation.look(from + PATIENCE, situation) {
            Some(Told::Isolated(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_cause_is_told_by_what_is_seen() {
        let now = Instant::now();
        let soon = now + Duration::from_secs(5);
        let mut seen = Isolation::new(now);
        seen.refused(soon, addr(7), refused(DropReason::UnknownKey));
        let text = told(&mut seen, now, &asking());
        assert!(text.contains("10.0.0.7:7447 are sealed with the key 01020304"), "{text}");
        let mut seen = Isolation::new(now);
        seen.refused(soon, addr(7), refused(DropReason::Unauthentic));
        assert!(told(&mut seen, now, &asking()).contains("the cluster id there is another"));
        let mut seen = Isolation::new(now);
        seen.opened(soon, addr(7));
        assert!(told(&mut seen, now, &asking()).contains("UDP is blocked on that way"));
        let mut seen = Isolation::new(now);
        seen.unsendable(soon, &std::io::ErrorKind::NetworkUnreachable.into());
        assert!(told(&mut seen, now, &asking()).contains("cannot be sent"));
        let text = told(&mut Isolation::new(now), now, &asking());
        assert!(text.contains("nothing arrives") && text.contains("asked are 10.0.0.1:7447"), "{text}");
        let itself = Situation { asked: Vec::new(), ..asking() };
        assert!(told(&mut Isolation::new(now), now, &itself).contains("this node itself"));
        let unresolved = Situation { seeds: Vec::new(), ..itself };
        assert!(told(&mut Isolation::new(now), now, &unresolved).contains("no seed has an address"));
        assert!(told(&mut Isolation::new(now), now, &Situation::default()).contains("give --seed"));
        let worker = Situation { lead: Some(addr(8)), ..asking() };
        assert!(told(&mut Isolation::new(now), now, &worker).contains("10.0.0.8:7447 answers, and knows no core member"));
        let nowhere = Situation { no_address: true, ..asking() };
        assert!(told(&mut Isolation::new(now), now, &nowhere).contains("--gossip-advertise"));
    }

    #[test]
    fn it_is_told_once_for_each_cause_and_when_it_is_over() {
        let now = Instant::now();
        let mut seen = Isolation::new(now);
        told(&mut seen, now, &asking());
        let at = |s: u64| now + Duration::from_secs(s);
        assert_eq!(seen.look(at(60), &asking()), None, "the same cause");
        seen.refused(at(61), addr(7), refused(DropReason::UnknownKey));
        assert!(matches!(seen.look(at(62), &asking()), Some(Told::Isolated(_))), "another cause");
        seen.refused(at(63), addr(8), refused(DropReason::UnknownKey));
        assert_eq!(seen.look(at(63), &asking()), None, "another sender is no other cause");
        assert!(seen.note().is_some());
        let answered = Situation { answered: true, ..asking() };
        assert_eq!(seen.look(at(70), &answered), Some(Told::Over(Duration::from_secs(70))));
        assert_eq!((seen.look(at(71), &answered), seen.note()), (None, None));
        assert_eq!(seen.look(at(80), &asking()), None);
        assert!(matches!(seen.look(at(90), &asking()), Some(Told::Isolated(_))), "ten seconds later it is again");
    }

    #[test]
    fn junk_of_every_kind_causes_one_line_in_ten_seconds_and_one_warning_a_minute() {
        let now = Instant::now();
        let mut seen = Isolation::new(now);
        let (mut lines, mut warnings) = (0, 0);
        for tenth in 0..1_200_u32 {
            let at = now + Duration::from_millis(100) * tenth;
            let reason = if tenth % 2 == 0 { DropReason::UnknownKey } else { DropReason::Unauthentic };
            warnings += u32::from(seen.refused(at, addr(7), refused(reason)).is_some());
            lines += u32::from(seen.look(at, &asking()).is_some());
        }
        assert!(lines <= 12 && warnings == 2, "{lines} lines, {warnings} warnings");
    }

    #[test]
    fn a_core_member_without_known_peers_is_alone_and_not_isolated() {
        let now = Instant::now();
        let mut seen = Isolation::new(now);
        let alone = Situation { core: true, ..Situation::default() };
        assert_eq!(seen.look(now + Duration::from_secs(60), &alone), None);
        let named = Situation { core: true, ..asking() };
        assert_eq!(seen.look(now + Duration::from_secs(61), &named), None);
        assert!(seen.look(now + Duration::from_secs(71), &named).is_some(), "it was told of others");
    }
}
