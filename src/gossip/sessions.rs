//! Who is spoken to: sessions, and what was already seen of each.
//!
//! A process draws a random session when it starts. What is addressed to that session was sealed after this process
//! started, for it and nobody else: that, and a window over each sender's counter, is all the protection against
//! replays there is, and no clock is involved. The price is one round trip before the first message to a new peer:
//!
//! 1. A peer whose session is not known is addressed as session 0, with the first datagram of a message only: it will be refused.
//! 2. Whoever opens a datagram that is not addressed to its current session answers with a small *hello*: "this is my
//!    session", echoing which datagram it answers. It hands nothing on and remembers nothing.
//! 3. The hello is taken only as the answer to something sent in the last two seconds, and once. Then what was refused is sent
//!    again, under the session just learnt.
//!
//! A hello is told by the top bit of its counter, so that a process can answer a session of which it keeps nothing and
//! still never use a nonce twice.
//!
//! The table of peers' sessions is bounded. When it is full, all of it is forgotten, and a new own session drawn with
//! it: windows that stopped replays are gone, so what they had seen must not be acceptable any more. The other
//! members notice nothing but one round trip; and whoever wants to bring that about must hold the key and
//! invent thousands of sessions each time.
//!
//! A member can also speak in another's session and move its window far ahead, with one datagram; whatever the genuine one
//! says then looks like a replay, and would for as long as both live. So a sender that goes on counting below its window is a
//! reason for a new own session too, though a rare one: whoever repeats what he has recorded looks the same.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::packet::{Echo, HELLO_BYTES, Packet};
use super::recent::{Recent, Sent};
use super::seal::{Cipher, HEADER, Header, TAG};
use super::stats::{DropReason, Stats};

/// Sessions of peers that are kept, and addresses at which they were met.
pub(crate) const SESSIONS: usize = 4_096;
/// Counters below the highest seen that may still arrive.
pub(crate) const WINDOW: u64 = 1_024;
/// Between two hellos to one address. A fragmented message to a forgotten session asks for dozens at once.
const HELLO_GAP: Duration = Duration::from_millis(20);
/// So many datagrams of one sender in a row, each counted higher than the one before and all below its window, are no echo.
const LEFT_BEHIND: u32 = 8;
/// Between two sessions that are drawn because of that.
const MENDED: Duration = Duration::from_secs(10);
/// Addresses that had a hello within that gap, at most: 50,000 hellos a second.
const HELLO_ADDRESSES: usize = 1_000;

const UNKNOWN: u64 = 0;
const HELLO: u64 = 1 << 63;

/// The datagrams that carry one message, kept for the case that the peer asks for it again.
pub(crate) type Parts = Arc<[Vec<u8>]>;

/// What came of an authentic datagram.
#[derive(Debug)]
pub(crate) enum Opened {
    /// It was addressed to this process and is new.
    Plaintext {
        /// The sender's session.
        session: u64,
        /// What it says.
        plaintext: Vec<u8>,
    },
    /// It was not addressed to this process as it is now: answer with this, if anything.
    Stranger(Option<Vec<u8>>),
    /// A peer has told its session: send these again.
    Resend(SocketAddr, Vec<Vec<u8>>),
}

/// Seals what goes out and opens what comes in.
pub(crate) struct Sessions {
    cipher: Cipher,
    own: u64,
    peers: HashMap<u64, Peer>,
    routes: HashMap<SocketAddr, u64>,
    recent: Recent,
    /// Counts what is sent without a peer's session: to strangers, and hellos.
    loose: u64,
    greeted: HashMap<SocketAddr, Instant>,
    mended: Option<Instant>,
    stats: Arc<Stats>,
}

#[derive(Default)]
struct Peer {
    sent: u64,
    seen: Window,
    behind: Behind,
}

/// What came in a row from below a window.
#[derive(Default)]
struct Behind {
    highest: u64,
    count: u32,
}

impl Peer {
    /// Whether this counter is new.
    fn accept(&mut self, counter: u64) -> bool {
        let new = self.seen.accept(counter);
        if new {
            self.behind = Behind::default();
        } else if self.seen.is_past(counter) && counter > self.behind.highest {
            self.behind = Behind { highest: counter, count: self.behind.count.saturating_add(1) };
        }
        new
    }
}

impl Sessions {
    pub(crate) fn new(cipher: Cipher, stats: Arc<Stats>) -> Sessions {
        stats.sessions.add(1);
        Sessions {
            cipher,
            own: draw(),
            peers: HashMap::new(),
            routes: HashMap::new(),
            recent: Recent::default(),
            loose: 0,
            greeted: HashMap::new(),
            mended: None,
            stats,
        }
    }

    /// Takes other keys. Sessions stay: they are not bound to a key.
    pub(crate) fn rekey(&mut self, cipher: Cipher) {
        self.cipher = cipher;
    }

    /// Seals a message's datagrams for whoever is at an address, and keeps it for a while in case it is asked for again.
    pub(crate) fn seal(&mut self, now: Instant, to: SocketAddr, parts: &Parts) -> Vec<Vec<u8>> {
        let kept = Arc::clone(parts);
        self.seal_keeping(now, to, parts, kept)
    }

    /// Seals what makes no sense later, and so is not sent again.
    pub(crate) fn seal_once(&mut self, now: Instant, to: SocketAddr, parts: &[Vec<u8>]) -> Vec<Vec<u8>> {
        self.seal_keeping(now, to, parts, Parts::default())
    }

    fn seal_keeping(&mut self, now: Instant, to: SocketAddr, parts: &[Vec<u8>], kept: Parts) -> Vec<Vec<u8>> {
        let route = self.routes.get(&to).and_then(|session| Some((*session, self.peers.get_mut(session)?)));
        let (receiver, counter, parts) = match route {
            Some((session, peer)) => (session, &mut peer.sent, parts),
            None => (UNKNOWN, &mut self.loose, parts.get(..1).unwrap_or_default()),
        };
        let count = parts.len() as u64;
        let first = *counter + 1;
        *counter += count;
        self.recent.push(Sent { to, receiver, first, count, parts: kept, at: now });
        (first..).zip(parts.iter()).map(|(counter, part)| self.cipher.seal(self.own, receiver, counter, part)).collect()
    }

    /// Opens a datagram.
    pub(crate) fn open(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) -> Result<Opened, DropReason> {
        let (header, plaintext) = self.cipher.open(datagram)?;
        if header.sender == self.own || header.sender == UNKNOWN {
            return Err(DropReason::Own);
        }
        if header.counter & HELLO != 0 {
            return self.greeting(now, from, header, &plaintext);
        }
        if header.receiver != self.own {
            return Ok(Opened::Stranger(self.hello(now, from, header, datagram.len())));
        }
        if !self.peers.contains_key(&header.sender) && self.peers.len() >= SESSIONS {
            self.start_over();
            return Ok(Opened::Stranger(self.hello(now, from, header, datagram.len())));
        }
        let peer = self.peers.entry(header.sender).or_default();
        if !peer.accept(header.counter) {
            if peer.behind.count < LEFT_BEHIND || self.mended.is_some_and(|last| now < last + MENDED) {
                return Err(DropReason::Replayed);
            }
            self.mended = Some(now);
            self.start_over();
            return Ok(Opened::Stranger(self.hello(now, from, header, datagram.len())));
        }
        self.meet(from, header.sender);
        Ok(Opened::Plaintext { session: header.sender, plaintext })
    }

    /// A hello came: the answer to which of our datagrams?
    fn greeting(&mut self, now: Instant, from: SocketAddr, header: Header, plaintext: &[u8]) -> Result<Opened, DropReason> {
        if header.receiver != self.own {
            return Err(DropReason::UnaskedHello);
        }
        let Some(Packet::Hello(Echo { receiver, counter })) = Packet::decode(plaintext) else {
            return Err(DropReason::Malformed);
        };
        let sent = self.recent.take(now, receiver, counter).ok_or(DropReason::UnaskedHello)?;
        if !self.peers.contains_key(&header.sender) && self.peers.len() >= SESSIONS {
            self.start_over();
        }
        self.peers.entry(header.sender).or_default();
        // A machine with several addresses may answer from another one than it was asked at: both lead to it.
        self.meet(from, header.sender);
        self.meet(sent.to, header.sender);
        let again = self.seal_once(now, sent.to, &sent.parts);
        Ok(Opened::Resend(sent.to, again))
    }

    /// The hello that answers a datagram, unless it would be longer than that or there were many just now.
    fn hello(&mut self, now: Instant, from: SocketAddr, header: Header, received: usize) -> Option<Vec<u8>> {
        if received < HEADER + HELLO_BYTES + TAG || self.greeted.get(&from).is_some_and(|last| now < *last + HELLO_GAP) {
            return None;
        }
        if self.greeted.len() >= HELLO_ADDRESSES {
            self.greeted.retain(|_, last| now < *last + HELLO_GAP);
        }
        if self.greeted.len() >= HELLO_ADDRESSES {
            return None;
        }
        self.greeted.insert(from, now);
        self.stats.hellos.add(1);
        self.loose += 1;
        let plaintext = Packet::Hello(Echo { receiver: header.receiver, counter: header.counter }).encode();
        Some(self.cipher.seal(self.own, header.sender, HELLO | self.loose, &plaintext))
    }

    fn meet(&mut self, at: SocketAddr, session: u64) {
        if self.routes.len() >= SESSIONS && !self.routes.contains_key(&at) {
            // Costs whoever is still there a hello.
            self.routes.clear();
        }
        self.routes.insert(at, session);
    }

    fn start_over(&mut self) {
        self.stats.sessions.add(1);
        self.own = draw();
        self.peers.clear();
        self.routes.clear();
        self.recent.clear();
    }

    #[cfg(test)]
    pub(crate) fn own(&self) -> u64 {
        self.own
    }
}

fn draw() -> u64 {
    loop {
        let session = rand::random();
        if session != UNKNOWN {
            return session;
        }
    }
}

/// Which of the last [`WINDOW`] counters have been seen.
#[derive(Default)]
struct Window {
    highest: u64,
    seen: [u64; WORDS],
}

const WORDS: usize = 16;
const _: () = assert!(WORDS as u64 * 64 == WINDOW);

impl Window {
    /// Whether this counter is new; then it is not any more.
    fn accept(&mut self, counter: u64) -> bool {
        if counter == 0 || self.is_past(counter) {
            return false;
        }
        if counter > self.highest {
            let skipped = (counter - self.highest - 1).min(WINDOW);
            for unseen in counter - skipped..counter {
                self.set(unseen, false);
            }
            self.highest = counter;
            self.set(counter, true);
            return true;
        }
        !self.set(counter, true)
    }

    /// Whether this counter is too low to tell whether it was seen.
    fn is_past(&self, counter: u64) -> bool {
        counter + WINDOW <= self.highest
    }

    /// Writes a counter's bit; what it was.
    fn set(&mut self, counter: u64, seen: bool) -> bool {
        let place = counter % WINDOW;
        let bit = 1 << (place % 64);
        let word = usize::try_from(place / 64).ok().and_then(|word| self.seen.get_mut(word));
        word.is_some_and(|word| {
            let was = *word & bit != 0;
            *word = if seen { *word | bit } else { *word & !bit };
            was
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::keyring::Keyring;
    use super::super::seal::DATAGRAM;
    use super::*;

    struct Node {
        at: SocketAddr,
        sessions: Sessions,
    }

    fn node(ring: &Keyring, port: u16) -> Node {
        let sessions = Sessions::new(Cipher::for_gossip(ring, "c"), Arc::default());
        Node { at: SocketAddr::from(([10, 0, 0, 1], port)), sessions }
    }

    fn parts(text: &str) -> Parts {
        Arc::from(vec![Packet::Whole(format!("{text:<40}").as_bytes()).encode()])
    }

    fn text(opened: &Opened) -> &str {
        match opened {
            Opened::Plaintext { plaintext, .. } => std::str::from_utf8(&plaintext[1..]).unwrap().trim_end(),
            other => panic!("not for us: {other:?}"),
        }
    }

    impl Node {
        fn seal(&mut self, to: &Node, said: &str) -> Vec<u8> {
            self.sessions.seal(Instant::now(), to.at, &parts(said)).remove(0)
        }

        fn open(&mut self, from: &Node, datagram: &[u8]) -> Result<Opened, DropReason> {
            self.sessions.open(Instant::now(), from.at, datagram)
        }

        fn hello(&mut self, from: &Node, datagram: &[u8]) -> Option<Vec<u8>> {
            match self.open(from, datagram).unwrap() {
                Opened::Stranger(hello) => hello,
                other => panic!("taken: {other:?}"),
            }
        }

        /// What is sent again when this hello arrives.
        fn resend(&mut self, from: &Node, hello: &[u8]) -> Vec<Vec<u8>> {
            match self.open(from, hello).unwrap() {
                Opened::Resend(_, datagrams) => datagrams,
                other => panic!("no hello: {other:?}"),
            }
        }
    }

    /// Two nodes that know each other's session.
    fn acquainted() -> (Node, Node) {
        let ring = Keyring::random();
        let (mut one, mut two) = (node(&ring, 1), node(&ring, 2));
        let first = one.seal(&two, "first");
        let hello = two.hello(&one, &first).unwrap();
        let again = one.resend(&two, &hello);
        assert_eq!(text(&two.open(&one, &again[0]).unwrap()), "first");
        (one, two)
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_message_to_a_new_peer_costs_one_round_trip_and_arrives_once() {
        let (mut one, mut two) = acquainted();
        let second = two.seal(&one, "second");
        assert_eq!(text(&one.open(&two, &second).unwrap()), "second");
    }

    #[tokio::test(start_paused = true)]
    async fn of_a_long_message_a_stranger_gets_one_datagram_and_all_once_its_session_is_known() {
        let ring = Keyring::random();
        let (mut one, mut two) = (node(&ring, 1), node(&ring, 2));
        let long: Parts = (0..7).map(|part| vec![part; 1_000]).collect();
        let first = one.sessions.seal(Instant::now(), two.at, &long);
        assert_eq!(first.len(), 1);
        let hello = two.hello(&one, &first[0]).unwrap();
        let again = one.resend(&two, &hello);
        let taken = again.iter().map(|datagram| match two.open(&one, datagram).unwrap() {
            Opened::Plaintext { plaintext, .. } => plaintext,
            other => panic!("not for us: {other:?}"),
        });
        assert_eq!(taken.collect::<Parts>(), long);
        assert_eq!(one.sessions.seal(Instant::now(), two.at, &long).len(), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn a_replay_is_refused_by_the_receiver_the_sender_a_third_and_a_restarted_receiver() {
        let ring = Keyring::random();
        let (mut one, mut two, mut three) = (node(&ring, 1), node(&ring, 2), node(&ring, 3));
        let first = one.seal(&two, "x");
        let hello = two.hello(&one, &first).unwrap();
        let again = one.resend(&two, &hello).remove(0);
        two.open(&one, &again).unwrap();
        assert_eq!(two.open(&one, &again).unwrap_err(), DropReason::Replayed);
        assert_eq!(one.open(&two, &again).unwrap_err(), DropReason::Own);
        three.hello(&one, &again);
        let mut restarted = node(&ring, 2);
        restarted.hello(&one, &again);
        assert_eq!(one.open(&two, &hello).unwrap_err(), DropReason::UnaskedHello, "a hello counts once");
    }

    #[tokio::test(start_paused = true)]
    async fn a_restarted_peer_gets_what_was_sent_to_its_former_self() {
        let (mut one, two) = acquainted();
        let mut restarted = Node { at: two.at, sessions: Sessions::new(two.sessions.cipher, Arc::default()) };
        let stale = one.seal(&restarted, "stale");
        let hello = restarted.hello(&one, &stale).unwrap();
        let again = one.resend(&restarted, &hello);
        assert_eq!(text(&restarted.open(&one, &again[0]).unwrap()), "stale");
    }

    #[tokio::test(start_paused = true)]
    async fn a_hello_is_never_longer_than_what_it_answers_and_rare() {
        let ring = Keyring::random();
        let (mut one, mut two) = (node(&ring, 1), node(&ring, 2));
        let short: Parts = Arc::from(vec![vec![1, 2, 3]]);
        let short = one.sessions.seal(Instant::now(), two.at, &short).remove(0);
        assert_eq!(two.hello(&one, &short), None);
        let long = one.seal(&two, "long enough");
        assert!(two.hello(&one, &long).unwrap().len() <= long.len());
        let another = one.seal(&two, "another one");
        assert_eq!(two.hello(&one, &another), None, "within the gap");
        tokio::time::advance(HELLO_GAP).await;
        let later = one.seal(&two, "later");
        assert!(two.hello(&one, &later).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_hello_after_two_seconds_is_nobodys_answer() {
        let ring = Keyring::random();
        let (mut one, mut two) = (node(&ring, 1), node(&ring, 2));
        let first = one.seal(&two, "x");
        let hello = two.hello(&one, &first).unwrap();
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(one.open(&two, &hello).unwrap_err(), DropReason::UnaskedHello);
    }

    #[tokio::test(start_paused = true)]
    async fn reordered_datagrams_are_taken_and_ancient_ones_are_not() {
        let (mut one, mut two) = acquainted();
        let mut sent: Vec<_> = (0..WINDOW + 50).map(|n| one.seal(&two, &n.to_string())).collect();
        let newest = sent.pop().unwrap();
        two.open(&one, &newest).unwrap();
        assert_eq!(two.open(&one, &sent[0]).unwrap_err(), DropReason::Replayed);
        for datagram in sent.iter().rev().take(1_000) {
            two.open(&one, datagram).unwrap();
            assert_eq!(two.open(&one, datagram).unwrap_err(), DropReason::Replayed);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_forged_counter_does_not_move_the_window() {
        let (mut one, mut two) = acquainted();
        let datagram = one.seal(&two, "x");
        let mut forged = datagram.clone();
        forged[22] = 1;
        assert_eq!(two.open(&one, &forged).unwrap_err(), DropReason::Unauthentic);
        assert_eq!(text(&two.open(&one, &datagram).unwrap()), "x");
    }

    #[tokio::test(start_paused = true)]
    async fn when_the_table_is_full_it_starts_over_under_a_new_session() {
        let (mut one, mut two) = acquainted();
        let before = two.sessions.own();
        let old = one.seal(&two, "sealed before");
        for session in 0..SESSIONS as u64 {
            let invented = two.sessions.cipher.seal(1 + session, before, 1, &[0; 40]);
            let _ = two.open(&one, &invented);
            assert!(two.sessions.peers.len() <= SESSIONS && two.sessions.routes.len() <= SESSIONS);
        }
        assert_ne!(two.sessions.own(), before);
        // What had been seen is forgotten, and so is the session under which it could come again.
        tokio::time::advance(HELLO_GAP).await;
        let hello = two.hello(&one, &old).unwrap();
        let again = one.resend(&two, &hello);
        assert_eq!(text(&two.open(&one, &again[0]).unwrap()), "sealed before");
    }

    #[tokio::test(start_paused = true)]
    async fn a_member_that_forges_anothers_counter_deafens_nobody_for_longer_than_it_goes_on() {
        let (mut one, mut two) = acquainted();
        for _ in 0..3 {
            tokio::time::advance(MENDED).await;
            let forged = two.sessions.cipher.seal(one.sessions.own(), two.sessions.own(), 1 << 62, &parts("forged")[0]);
            two.open(&one, &forged).unwrap();
            let mut refused = 0;
            let hello = loop {
                let datagram = one.seal(&two, "genuine");
                match two.open(&one, &datagram) {
                    Err(DropReason::Replayed) => refused += 1,
                    Ok(Opened::Stranger(Some(hello))) => break hello,
                    other => panic!("{other:?}"),
                }
            };
            assert_eq!(refused, LEFT_BEHIND - 1);
            let again = one.resend(&two, &hello).remove(0);
            assert_eq!(text(&two.open(&one, &again).unwrap()), "genuine");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_repeats_what_he_recorded_brings_about_a_new_session_once_in_ten_seconds_at_most() {
        let (mut one, mut two) = acquainted();
        let mut before = two.sessions.own();
        let recorded: Vec<_> = (0..WINDOW + 100).map(|n| one.seal(&two, &n.to_string())).collect();
        for datagram in &recorded {
            two.open(&one, datagram).unwrap();
        }
        let mut drawn = 0;
        for _ in 0..50 {
            for datagram in &recorded {
                assert!(!matches!(two.open(&one, datagram), Ok(Opened::Plaintext { .. })), "nothing gets in twice");
            }
            drawn += u32::from(std::mem::replace(&mut before, two.sessions.own()) != two.sessions.own());
        }
        assert_eq!(drawn, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_rotation_keeps_the_sessions() {
        let (old, new) = (Keyring::random().to_text(), Keyring::random().to_text());
        let rings = [format!("{old}{new}"), format!("{new}{old}"), new].map(|text| Keyring::parse(text.as_bytes()).unwrap());
        let ring = Keyring::parse(old.as_bytes()).unwrap();
        let (mut one, mut two) = (node(&ring, 1), node(&ring, 2));
        let first = one.seal(&two, "x");
        let hello = two.hello(&one, &first).unwrap();
        one.resend(&two, &hello);
        for ring in &rings {
            one.sessions.rekey(Cipher::for_gossip(ring, "c"));
            let to_old = one.seal(&two, "rotated");
            assert_eq!(text(&two.open(&one, &to_old).unwrap()), "rotated");
            two.sessions.rekey(Cipher::for_gossip(ring, "c"));
            let from_new = two.seal(&one, "rotated");
            assert_eq!(text(&one.open(&two, &from_new).unwrap()), "rotated");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn junk_is_dropped_by_reason_and_leaves_nothing_behind() {
        let ring = Keyring::random();
        let (mut one, two) = (node(&ring, 1), node(&ring, 2));
        let key = ring.primary().id().0;
        let mut datagram = vec![0_u8; DATAGRAM];
        for n in 0..1_000_000_u32 {
            let len = 1 + n as usize % DATAGRAM;
            datagram[..4].copy_from_slice(&n.to_le_bytes());
            assert!(one.open(&two, &datagram[..len]).is_err());
        }
        datagram[0] = super::super::seal::FORMAT;
        datagram[1..5].copy_from_slice(&key);
        for _ in 0..1_000 {
            assert_eq!(one.open(&two, &datagram).unwrap_err(), DropReason::Unauthentic);
        }
        assert!(one.sessions.peers.is_empty() && one.sessions.routes.is_empty() && one.sessions.greeted.is_empty());
    }
}
