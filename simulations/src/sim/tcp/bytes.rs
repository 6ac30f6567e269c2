//! How bytes travel on a connection, are lost, and are sent again.

use super::*;

/// Bytes.
impl Core {
    /// Hands bytes to the network. The caller has seen that there is room.
    pub(in crate::sim) fn send(&mut self, id: ConnId, from: usize, piece: Piece) {
        let Some(conn) = self.tcp.conns.get_mut(&id) else { return };
        if let Piece::Data(bytes) = &piece {
            conn.flows[from].full += bytes.len();
        }
        if piece == Piece::Fin {
            conn.ends[from].finished = true;
        }
        if conn.flows[from].retry.is_some() {
            conn.flows[from].queue.push_back(piece);
            return;
        }
        let (there, back) = (way(&self.state, conn, from), way(&self.state, conn, 1 - from));
        let swallowed = self.swallowed(id, there, &piece);
        let lost = there.open && self.lost(there);
        if there.open && !lost && !swallowed {
            self.deliver(id, from, [piece], there);
        } else if let Some(conn) = self.tcp.conns.get_mut(&id) {
            conn.flows[from].queue.push_back(piece);
        }
        if lost || swallowed || !there.open || !back.open {
            self.retry_after(id, from, RETRY_FIRST, lost);
        }
        self.watch(id);
    }

    /// Whether a way swallows a piece because of its length, each time it is sent. What is longer than a segment has a full one in it.
    fn swallowed(&mut self, id: ConnId, way: Way, piece: &Piece) -> bool {
        let swallowed = matches!(piece, Piece::Data(bytes) if bytes.len() > way.segment);
        if swallowed {
            self.log.swallowed.entry(id).or_insert(self.now);
        }
        swallowed
    }

    pub(super) fn deliver(&mut self, id: ConnId, from: usize, pieces: impl IntoIterator<Item = Piece>, way: Way) {
        let delay = self.delay(way.delay, way.jitter);
        let Some(conn) = self.tcp.conns.get_mut(&id) else { return };
        let flow = &mut conn.flows[from];
        flow.last = flow.last.max(self.now + delay);
        let at = flow.last;
        for piece in pieces {
            if let (Piece::Data(bytes), Some(conn)) = (&piece, self.tcp.conns.get_mut(&id)) {
                conn.flows[from].delivered += bytes.len() as u64;
            }
            self.at(at, Due::Piece { conn: id, from, piece });
        }
    }

    /// Nothing more is sent before this wait is over: what went last was `lost`, or no acknowledgement of it can come.
    pub(super) fn retry_after(&mut self, id: ConnId, from: usize, wait: Ms, lost: bool) {
        let Some(conn) = self.tcp.conns.get_mut(&id) else { return };
        conn.flows[from].retry = Some(wait);
        conn.flows[from].stuck.get_or_insert(self.now);
        if lost {
            self.note_retry(id, wait);
        }
        self.at(self.now + wait, Due::Retry { conn: id, from });
    }

    pub(in crate::sim) fn send_again(&mut self, id: ConnId, from: usize) {
        let Some(conn) = self.tcp.conns.get_mut(&id) else { return };
        let Some(wait) = conn.flows[from].retry.take() else { return };
        let (there, back) = (way(&self.state, conn, from), way(&self.state, conn, 1 - from));
        let swallowed = conn.flows[from].queue.front().is_some_and(|piece| piece.bytes() > there.segment);
        let lost = there.open && self.lost(there);
        if there.open && back.open && !lost && !swallowed {
            let Some(conn) = self.tcp.conns.get_mut(&id) else { return };
            conn.flows[from].stuck = None;
            let pass = conn.flows[from].queue.iter().take_while(|piece| piece.bytes() <= there.segment).count();
            let rest = conn.flows[from].queue.split_off(pass);
            let pieces = std::mem::replace(&mut conn.flows[from].queue, rest);
            self.deliver(id, from, pieces, there);
            if self.tcp.conns.get(&id).is_some_and(|conn| !conn.flows[from].queue.is_empty()) {
                self.retry_after(id, from, RETRY_FIRST, false);
            }
            return;
        }
        let Some(conn) = self.tcp.conns.get_mut(&id) else { return };
        let since = conn.flows[from].stuck.unwrap_or(self.now);
        if self.now >= since + PATIENCE {
            conn.flows[from].queue.clear();
            self.give_up(id, from);
        } else {
            self.retry_after(id, from, (wait * 2).min(RETRY_MOST), lost);
        }
    }

    /// A kernel has waited long enough.
    pub(super) fn give_up(&mut self, id: ConnId, end: usize) {
        let Some(conn) = self.tcp.conns.get_mut(&id) else { return };
        conn.ends[end].fail(io::ErrorKind::TimedOut);
        if conn.ends[end].owner == Owner::Apiserver {
            self.apiserver_lost(id);
            self.let_go(id, end);
        }
        self.bury(id);
    }

    pub(in crate::sim) fn piece_arrives(&mut self, id: ConnId, from: usize, piece: Piece) {
        let Some(conn) = self.tcp.conns.get_mut(&id) else { return };
        let to = 1 - from;
        let end = &mut conn.ends[to];
        if !self.state.machines.get(end.machine).is_some_and(|machine| machine.up) {
            self.not_acknowledged(id, from, piece);
            return;
        }
        end.heard = self.now;
        end.peer_sent |= matches!(piece, Piece::Data(_));
        if piece == Piece::Reset {
            let apiserver = end.owner == Owner::Apiserver;
            end.fail(io::ErrorKind::ConnectionReset);
            if apiserver {
                self.apiserver_lost(id);
                self.let_go(id, to);
            }
            self.bury(id);
            return;
        }
        if !end.held {
            // The process is gone or has closed: its kernel says so, once.
            if let Piece::Data(_) = piece {
                self.send_reset(id, to);
            }
            end_of_flow(&mut self.tcp, id, from, &piece);
            self.bury(id);
            return;
        }
        let owner = end.owner;
        match piece {
            Piece::Data(bytes) if owner == Owner::Apiserver => self.apiserver_hears(id, &bytes),
            Piece::Data(bytes) => {
                end.got.extend(bytes);
                if let Some(waker) = end.reader.take() {
                    waker.wake();
                }
                if to == 0 {
                    self.log.heard(self.now, id);
                }
            }
            Piece::Fin if owner == Owner::Apiserver => {
                self.apiserver_lost(id);
                self.send(id, to, Piece::Fin);
                self.let_go(id, to);
            }
            Piece::Fin => {
                end.eof = true;
                if let Some(waker) = end.reader.take() {
                    waker.wake();
                }
            }
            Piece::Reset => {}
        }
        self.bury(id);
    }

    /// An apiserver has taken so many bytes from its kernel.
    pub(in crate::sim) fn apiserver_took(&mut self, id: ConnId, bytes: usize) {
        let Some(conn) = self.tcp.conns.get_mut(&id) else { return };
        let flow = &mut conn.flows[0];
        flow.full = flow.full.saturating_sub(bytes);
        if flow.full < WINDOW {
            flow.closed = None;
            if let Some(waker) = conn.ends[0].writer.take() {
                waker.wake();
            }
        }
    }

    /// What arrives at a machine without power is sent again, until somebody answers.
    pub(super) fn not_acknowledged(&mut self, id: ConnId, from: usize, piece: Piece) {
        let Some(conn) = self.tcp.conns.get_mut(&id).filter(|_| piece != Piece::Reset) else { return };
        if conn.ends[from].held && conn.ends[from].error.is_none() {
            conn.flows[from].queue.push_back(piece);
            if conn.flows[from].retry.is_none() {
                self.retry_after(id, from, RETRY_FIRST, false);
            }
        }
    }

    /// A reset is tried once: whoever does not get it finds out when it sends.
    pub(super) fn send_reset(&mut self, id: ConnId, from: usize) {
        let Some(conn) = self.tcp.conns.get_mut(&id) else { return };
        conn.flows[from].queue.clear();
        conn.flows[from].retry = None;
        let way = way(&self.state, conn, from);
        if way.open && !self.lost(way) {
            self.deliver(id, from, [Piece::Reset], way);
        }
    }

    /// Ends a connection from one end, at once.
    pub(in crate::sim) fn abort(&mut self, id: ConnId, end: usize) {
        self.send_reset(id, end);
        if let Some(conn) = self.tcp.conns.get_mut(&id) {
            conn.ends[end].error = Some(io::ErrorKind::ConnectionReset);
        }
        self.let_go(id, end);
        self.bury(id);
    }

    pub(super) fn let_go(&mut self, id: ConnId, end: usize) {
        if let Some(conn) = self.tcp.conns.get_mut(&id) {
            conn.ends[end].held = false;
            conn.ends[end].got = VecDeque::new();
        }
    }

    /// Forgets a connection that nobody holds and on which nothing is under way.
    pub(super) fn bury(&mut self, id: ConnId) {
        let over = self.tcp.conns.get(&id).is_some_and(|conn| {
            conn.ends.iter().all(|end| !end.held) || (!conn.ends[0].held && conn.ends[1].owner == Owner::Nobody)
        });
        if over {
            self.tcp.conns.remove(&id);
        } else {
            self.ask_later(id);
        }
    }

    /// The end that is held although the other one is gone: what should have told it may have been lost.
    pub(super) fn half_open(&self, id: ConnId) -> Option<usize> {
        let conn = self.tcp.conns.get(&id)?;
        (0..2).find(|end| {
            let (here, there) = (&conn.ends[*end], &conn.ends[1 - end]);
            here.held && here.error.is_none() && !there.held && there.owner != Owner::Nobody
        })
    }

    pub(super) fn ask_later(&mut self, id: ConnId) {
        let Some(end) = self.half_open(id) else { return };
        let Some(conn) = self.tcp.conns.get_mut(&id) else { return };
        if !std::mem::replace(&mut conn.asked, true) {
            let wait = if conn.ends[end].upstream_side { KEEPALIVE_UPSTREAM } else { KEEPALIVE };
            self.at(self.now + wait, Due::Keepalive { conn: id });
        }
    }

    /// A kernel asks whether the other side is still there, and is told that it is not.
    pub(in crate::sim) fn keepalive(&mut self, id: ConnId) {
        if let Some(conn) = self.tcp.conns.get_mut(&id) {
            conn.asked = false;
        }
        if let Some(end) = self.half_open(id) {
            let Some(conn) = self.tcp.conns.get(&id) else { return };
            let there = way(&self.state, conn, end);
            if there.open && !self.lost(there) {
                self.send_reset(id, 1 - end);
            }
            self.ask_later(id);
        }
    }
}

/// What was under way to an end that is gone is under way no more.
pub(super) fn end_of_flow(tcp: &mut Tcp, id: ConnId, from: usize, piece: &Piece) {
    if let (Some(conn), Piece::Data(bytes)) = (tcp.conns.get_mut(&id), piece) {
        conn.flows[from].full = conn.flows[from].full.saturating_sub(bytes.len());
    }
}
