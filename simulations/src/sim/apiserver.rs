//! Modelled apiservers: each address answers as its [`Mode`] says.
//!
//! They live in the world's own lock and are driven by what arrives, without tasks of their own. What an apiserver needs for an
//! answer is time; what it cannot do while it hangs it does afterwards, since a paused process loses nothing.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::core::{Core, Due};
use super::state::{Mode, Ms, State};
use super::tcp::{ConnId, Owner, Piece};
use super::wire::{self, Frame, Shown, Verb};

/// How long an apiserver takes to answer a ClientHello: a signature and some scheduling.
pub(super) const HELLO_TAKES: Ms = 2;
/// How long it takes for a small request.
pub(super) const REQUEST_TAKES: Ms = 1;
/// Each watch is told something this often.
const WATCH_EVENT: Ms = 2_000;

/// What all apiservers have open.
#[derive(Debug, Default)]
pub(super) struct Apiservers {
    served: BTreeMap<ConnId, Served>,
    beating: bool,
    /// Requests that nobody is left to answer, because their process hung; answered when it goes on.
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
}

/// An answer that is being prepared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Answer {
    conn: ConnId,
    site: SocketAddr,
    incarnation: u64,
    bytes: Vec<u8>,
}

impl Core {
    pub(super) fn apiserver_accepts(&mut self, site: SocketAddr, conn: ConnId) {
        let served = Served { site, read: Vec::new(), greeted: false, spoke: false, watches: Vec::new() };
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
        if let Some(site) = self.state.sites.get(&served.site) {
            self.log.arrived(conn, site.incarnation);
        }
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
                    let ca = if site.mode == Mode::WrongCertificate { wire::NOBODYS } else { site.ca };
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
        let status = match (frame.verb, mode) {
            (Verb::Readyz, Mode::Draining) => 500,
            (Verb::Readyz, Mode::Overloaded) => 429,
            _ => 200,
        };
        if frame.verb == Verb::Watch
            && let Some(served) = self.apiservers.served.get_mut(&conn)
        {
            served.watches.push(frame.stream);
        }
        self.prepare(conn, REQUEST_TAKES + mode.delay(), Frame { status, ..frame }.encode());
    }

    fn prepare(&mut self, conn: ConnId, takes: Ms, bytes: Vec<u8>) {
        let Some(site) = self.apiservers.served.get(&conn).map(|served| served.site) else { return };
        let incarnation = self.state.sites.get(&site).map_or(0, |site| site.incarnation);
        self.at(self.now + takes, Due::Answer(Answer { conn, site, incarnation, bytes }));
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
            let serves = self.state.sites.get(&site).is_some_and(|site| !matches!(site.mode, Mode::Hung));
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
            } else if was.mode == Mode::Hung && site.mode != Mode::Hung {
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
            self.serve(conn);
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
