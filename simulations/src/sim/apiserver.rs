//! Modelled apiservers: each address answers as its [`Mode`] says.
//!
//! They live in the world's own lock and are driven by what arrives, without tasks of their own. What an apiserver needs for an
//! answer is time; what it cannot do while it hangs it does afterwards, since a paused process loses nothing.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use rand::RngExt;

use super::core::{Core, Due};
use super::state::{Mode, Ms, State};
use super::tcp::{ConnId, Owner, Piece};
use super::wire::{self, Frame, Shown, Verb};

/// How long an apiserver takes to answer a ClientHello: a signature and some scheduling.
pub(super) const HELLO_TAKES: Ms = 2;
/// How long it takes for a small request.
pub(super) const REQUEST_TAKES: Ms = 1;
/// Without etcd `/readyz` says 500 after between so much and so much, as measured of real ones ...
pub(super) const READYZ_WITHOUT_ETCD: (Ms, Ms) = (500, 4_100);
/// ... and this often only after the whole time, which is two checks of 2 s each.
const READYZ_WITHOUT_ETCD_LATEST: f64 = 0.5;
/// So many of the late answers of [`Mode::LateReadyz`] are 500.
const LATE_AND_NOT_READY: f64 = 0.3;
/// Each watch is told something this often.
const WATCH_EVENT: Ms = 2_000;
/// A long request takes so long.
const LONG: Ms = 20_000;

/// What all apiservers have open.
#[derive(Debug, Default)]
pub(super) struct Apiservers {
    served: BTreeMap<ConnId, Served>,
    beating: bool,
    /// Answers that cannot be given, because their process hangs or its etcd does not answer; given when it goes on.
    late: Vec<Answer>,
}

#[derive(Debug)]
struct Served {
    site: SocketAddr,
    /// What was read and is no whole record yet.
    read: Vec<u8>,
    greeted: bool,
    /// The server has said something, its handshake first.
    spoke: bool,
    watches: Vec<u32>,
    /// It is watched on, be it that nothing ever happens there.
    watched: bool,
    /// Until when a long request is under way.
    busy_until: Ms,
    /// Something is uploaded on it.
    uploads: bool,
    /// Bytes that have arrived and that its process has not taken from its kernel.
    unread: usize,
}

/// What arrives is left until it goes on.
fn waits(mode: Mode) -> bool {
    matches!(mode, Mode::Hung | Mode::EtcdFrozen | Mode::NotReading | Mode::NoDescriptors)
}

/// An answer that is being prepared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Answer {
    conn: ConnId,
    site: SocketAddr,
    incarnation: u64,
    bytes: Vec<u8>,
}

impl Answer {
    /// On which connection.
    pub(super) fn conn(&self) -> ConnId {
        self.conn
    }
}

impl Core {
    pub(super) fn apiserver_accepts(&mut self, site: SocketAddr, conn: ConnId) {
        let served = Served {
            site,
            read: Vec::new(),
            greeted: false,
            spoke: false,
            watches: Vec::new(),
            watched: false,
            busy_until: 0,
            uploads: false,
            unread: 0,
        };
        self.apiservers.served.insert(conn, served);
        if !std::mem::replace(&mut self.apiservers.beating, true) {
            self.at(self.now + WATCH_EVENT, Due::Watches);
        }
    }

    /// Its connection is gone.
    pub(super) fn apiserver_lost(&mut self, conn: ConnId) {
        self.apiservers.served.remove(&conn);
    }

    /// Connections that apiservers hold now.
    pub(super) fn apiserver_connections(&self) -> usize {
        self.apiservers.served.len()
    }

    pub(super) fn apiserver_hears(&mut self, conn: ConnId, bytes: &[u8]) {
        let Some(served) = self.apiservers.served.get_mut(&conn) else { return };
        served.read.extend(bytes);
        served.unread += bytes.len();
        if let Some(site) = self.state.sites.get(&served.site) {
            self.log.arrived(conn, site.incarnation);
        }
        self.reads(conn);
    }

    /// Takes from its kernel what has arrived, unless the process does not read.
    fn reads(&mut self, conn: ConnId) {
        let Some(served) = self.apiservers.served.get_mut(&conn) else { return };
        let leaves = match self.state.sites.get(&served.site).map(|site| site.mode) {
            Some(Mode::Hung) => true,
            Some(Mode::NotReading) => served.uploads,
            Some(Mode::NoDescriptors) => !served.spoke,
            _ => false,
        };
        if leaves {
            return;
        }
        let taken = std::mem::take(&mut served.unread);
        self.apiserver_took(conn, taken);
        self.serve(conn);
    }

    /// Does what can be done of what was read.
    fn serve(&mut self, conn: ConnId) {
        loop {
            let Some(served) = self.apiservers.served.get_mut(&conn) else { return };
            let Some(site) = self.state.sites.get(&served.site).cloned() else { return };
            if site.mode == Mode::Hung {
                return;
            }
            if site.mode == Mode::NotTls && !served.read.is_empty() {
                served.read.clear();
                self.prepare(conn, REQUEST_TAKES, b"HTTP/1.0 400 Bad Request\r\n\r\n".to_vec());
                return;
            }
            let Some((kind, content)) = wire::take_record(&mut served.read) else { return };
            match kind {
                wire::HANDSHAKE if !served.greeted => {
                    served.greeted = true;
                    let ca = match site.mode {
                        Mode::WrongCertificate => wire::NOBODYS,
                        Mode::UnsupportedCertificate => wire::UNSUPPORTED,
                        _ => site.ca,
                    };
                    let shown = Shown { conn, incarnation: site.incarnation, ca, expired: site.expired };
                    self.prepare(conn, HELLO_TAKES + site.mode.delay(), wire::server_hello(shown));
                }
                wire::DATA => {
                    if let Some(frame) = Frame::decode(&content) {
                        self.request(conn, frame, site.mode);
                    }
                }
                _ => {}
            }
        }
    }

    fn request(&mut self, conn: ConnId, frame: Frame, mode: Mode) {
        let (status, later) = if frame.verb == Verb::Readyz { self.readyz(mode) } else { (200, mode.delay()) };
        if frame.verb == Verb::Watch
            && let Some(served) = self.apiservers.served.get_mut(&conn)
        {
            served.watches.push(frame.stream);
        }
        if frame.verb == Verb::Part {
            if let Some(served) = self.apiservers.served.get_mut(&conn) {
                served.uploads = true;
            }
            return;
        }
        let later = if frame.verb == Verb::Long { later + LONG } else { later };
        if let Some(served) = self.apiservers.served.get_mut(&conn) {
            served.busy_until = served.busy_until.max(self.now + later);
            served.watched |= matches!(frame.verb, Verb::Watch | Verb::QuietWatch);
            // The request that ends an upload.
            served.uploads &= frame.verb != Verb::Get;
        }
        let needs_etcd = matches!(frame.verb, Verb::Get | Verb::Lease | Verb::Watch | Verb::QuietWatch);
        let bytes = Frame { status, ..frame }.encode();
        if needs_etcd && mode == Mode::EtcdFrozen {
            self.apiservers.late.extend(self.answer(conn, bytes));
        } else {
            self.prepare(conn, REQUEST_TAKES + later, bytes);
        }
    }

    /// The status of `/readyz`, and how much later than usual it comes.
    fn readyz(&mut self, mode: Mode) -> (u16, Ms) {
        match mode {
            Mode::Draining => (500, mode.delay()),
            Mode::Overloaded => (429, mode.delay()),
            Mode::EtcdFrozen => {
                let (least, most) = READYZ_WITHOUT_ETCD;
                let latest = self.chance.random_bool(READYZ_WITHOUT_ETCD_LATEST);
                (500, if latest { most } else { self.chance.random_range(least..=most) })
            }
            Mode::LateReadyz(least, most) => {
                let status = if self.chance.random_bool(LATE_AND_NOT_READY) { 500 } else { 200 };
                (status, self.chance.random_range(least.into()..=most.into()))
            }
            _ => (200, mode.delay()),
        }
    }

    fn prepare(&mut self, conn: ConnId, takes: Ms, bytes: Vec<u8>) {
        if let Some(answer) = self.answer(conn, bytes) {
            self.at(self.now + takes, Due::Answer(answer));
        }
    }

    fn answer(&self, conn: ConnId, bytes: Vec<u8>) -> Option<Answer> {
        let site = self.apiservers.served.get(&conn)?.site;
        let incarnation = self.state.sites.get(&site).map_or(0, |site| site.incarnation);
        Some(Answer { conn, site, incarnation, bytes })
    }

    pub(super) fn answer_due(&mut self, answer: Answer) {
        let Some(site) = self.state.sites.get(&answer.site) else { return };
        if site.incarnation != answer.incarnation {
            return;
        }
        match site.mode {
            Mode::Hung => self.apiservers.late.push(answer),
            Mode::Refusing | Mode::Gone => {}
            _ => {
                let held = self
                    .tcp
                    .conns
                    .get(&answer.conn)
                    .is_some_and(|conn| conn.ends[1].owner == Owner::Apiserver && conn.ends[1].held);
                if held {
                    let not_tls = site.mode == Mode::NotTls;
                    if let Some(served) = self.apiservers.served.get_mut(&answer.conn) {
                        served.spoke = true;
                    }
                    self.send(answer.conn, 1, Piece::Data(answer.bytes));
                    if not_tls {
                        self.send(answer.conn, 1, Piece::Fin);
                    }
                }
            }
        }
    }

    /// Watches hear something every now and then, as those of a busy cluster do.
    pub(super) fn tell_watches(&mut self) {
        let told: Vec<(ConnId, u32, SocketAddr)> = self
            .apiservers
            .served
            .iter()
            .flat_map(|(conn, served)| served.watches.iter().map(|stream| (*conn, *stream, served.site)))
            .collect();
        for (conn, stream, site) in told {
            let serves = self.state.sites.get(&site).is_some_and(|site| !matches!(site.mode, Mode::Hung | Mode::EtcdFrozen));
            if serves && self.tcp.conns.contains_key(&conn) {
                self.send(conn, 1, Piece::Data(Frame { verb: Verb::Event, stream, status: 200 }.encode()));
            }
        }
        self.apiservers.beating = !self.apiservers.served.is_empty();
        if self.apiservers.beating {
            self.at(self.now + WATCH_EVENT, Due::Watches);
        }
    }

    /// Sites whose process ended lose their connections, sites that go on do what they could not.
    pub(super) fn sites_changed(&mut self, before: &State) {
        let after = self.state.clone();
        for (addr, site) in &after.sites {
            let Some(was) = before.sites.get(addr) else { continue };
            let ended = was.incarnation != site.incarnation
                || (matches!(site.mode, Mode::Refusing | Mode::Gone) && was.mode != site.mode);
            if ended {
                self.site_ended(*addr);
            } else if waits(was.mode) && was.mode != site.mode {
                self.goes_on(*addr);
            }
        }
        for addr in before.sites.keys().filter(|addr| !after.sites.contains_key(*addr)) {
            self.site_ended(*addr);
        }
    }

    fn goes_on(&mut self, site: SocketAddr) {
        let (late, others): (Vec<Answer>, Vec<Answer>) =
            std::mem::take(&mut self.apiservers.late).into_iter().partition(|answer| answer.site == site);
        self.apiservers.late = others;
        for answer in late {
            self.answer_due(answer);
        }
        let waiting: Vec<ConnId> =
            self.apiservers.served.iter().filter(|(_, served)| served.site == site).map(|(conn, _)| *conn).collect();
        for conn in waiting {
            self.reads(conn);
        }
    }

    /// An apiserver that closes its port closes what is idle as well, and says on the others that it takes no new requests, while what is
    /// under way goes on.
    pub(super) fn say_no_more(&mut self, site: SocketAddr) {
        let open: Vec<(ConnId, bool)> = self
            .apiservers
            .served
            .iter()
            .filter(|(_, served)| served.site == site && served.spoke)
            .map(|(conn, served)| (*conn, served.watched || served.uploads || served.busy_until > self.now))
            .collect();
        for (conn, under_way) in open {
            self.send(conn, 1, Piece::Data(Frame { verb: Verb::NoMore, stream: 0, status: 0 }.encode()));
            if !under_way {
                self.send(conn, 1, Piece::Fin);
            }
        }
    }

    /// An apiserver that stops in an orderly way tells its clients, closes its connections, and is gone.
    pub(super) fn say_go_away(&mut self, site: SocketAddr) {
        let open = self.apiservers.served.iter().filter(|(_, served)| served.site == site);
        let open: Vec<(ConnId, bool)> = open.map(|(conn, served)| (*conn, served.spoke)).collect();
        for (conn, spoke) in open {
            // Before its handshake a connection is just closed.
            if spoke {
                self.send(conn, 1, Piece::Data(Frame { verb: Verb::GoAway, stream: 0, status: 0 }.encode()));
            }
            self.send(conn, 1, Piece::Fin);
        }
    }
}
