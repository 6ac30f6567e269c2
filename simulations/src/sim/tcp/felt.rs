//! What tasks see of a connection's end, and what befalls connections from outside.

use std::time::Duration;

use super::*;

/// What a task sees of its end.
impl Core {
    pub(in crate::sim) fn read(
        &mut self,
        id: ConnId,
        end: usize,
        cx: &mut Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(conn) = self.tcp.conns.get_mut(&id) else { return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())) };
        let it = &mut conn.ends[end];
        if it.got.is_empty() {
            if it.eof || (it.told && it.error.is_some()) {
                return Poll::Ready(Ok(()));
            }
            if let Some(error) = it.tell() {
                return Poll::Ready(Err(error.into()));
            }
            it.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let (front, _) = it.got.as_slices();
        let count = front.len().min(buffer.remaining());
        buffer.put_slice(&front[..count]);
        it.got.drain(..count);
        let flow = &mut conn.flows[1 - end];
        let was_full = flow.full >= WINDOW;
        flow.full = flow.full.saturating_sub(count);
        if flow.full < WINDOW {
            flow.closed = None;
        }
        if was_full
            && flow.full < WINDOW
            && let Some(waker) = conn.ends[1 - end].writer.take()
        {
            waker.wake();
        }
        Poll::Ready(Ok(()))
    }

    pub(in crate::sim) fn write(
        &mut self,
        id: ConnId,
        end: usize,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Some(conn) = self.tcp.conns.get_mut(&id) else { return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())) };
        let it = &mut conn.ends[end];
        if let Some(error) = it.tell() {
            return Poll::Ready(Err(error.into()));
        }
        if it.finished {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = WINDOW.saturating_sub(conn.flows[end].full);
        if room == 0 {
            conn.flows[end].closed.get_or_insert(self.now);
            it.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = bytes.len().min(room);
        self.agent_sends(id, end);
        self.send(id, end, Piece::Data(bytes[..count].to_vec()));
        Poll::Ready(Ok(count))
    }

    pub(in crate::sim) fn shut(&mut self, id: ConnId, end: usize) {
        let finished = self.tcp.conns.get(&id).is_none_or(|conn| conn.ends[end].finished || conn.ends[end].error.is_some());
        if !finished {
            self.send(id, end, Piece::Fin);
        }
    }

    /// The other side has ended it.
    pub(in crate::sim) fn ended(&self, id: ConnId, end: usize) -> bool {
        self.tcp.conns.get(&id).is_none_or(|conn| conn.ends[end].eof || conn.ends[end].error.is_some())
    }

    /// What a kernel knows of the peer: `TCP_INFO` of the real one. Keepalives are not lost by chance here, only with the way.
    pub(in crate::sim) fn peer(&self, id: ConnId, end: usize) -> Option<PeerState> {
        let conn = self.tcp.conns.get(&id)?;
        let (this, flow) = (&conn.ends[end], &conn.flows[end]);
        let data = flow.retry.is_some();
        if let Some(closed) = flow.closed.filter(|_| !data) {
            return Some(self.behind_a_closed_window(conn, end, closed));
        }
        // On an idle connection keepalives have been acknowledged until the way broke.
        let until = conn.broken.unwrap_or(self.now);
        let idle = until.saturating_sub(this.heard) / KEEPALIVE_UPSTREAM * KEEPALIVE_UPSTREAM;
        let acknowledged = if data { this.heard.max(flow.stuck.unwrap_or(0).min(until)) } else { this.heard + idle };
        let acknowledged = acknowledged.max(this.heard);
        let silent = self.now.saturating_sub(acknowledged);
        let unanswered = match data {
            true if flow.retry == Some(RETRY_FIRST) => Unanswered::FreshData,
            true => Unanswered::Data,
            false if silent >= KEEPALIVE_UPSTREAM && conn.broken.is_some() => Unanswered::Keepalives,
            false => Unanswered::Nothing,
        };
        Some(PeerState {
            unanswered,
            since_acknowledged: Duration::from_millis(silent),
            acknowledged_bytes: flow.delivered,
            has_sent: this.peer_sent,
            round_trip: self.round_trip(conn),
        })
    }

    /// The same while the window is closed: the kernel asks at growing gaps whether it still is, which a peer that lives acknowledges.
    fn behind_a_closed_window(&self, conn: &Conn, end: usize, closed: Ms) -> PeerState {
        let (mut at, mut gap) = (closed, WINDOW_PROBE_FIRST);
        let (mut acknowledged, mut unanswered) = (conn.ends[end].heard.max(closed), 0);
        while at + gap <= self.now {
            at += gap;
            gap = (gap * 2).min(RETRY_MOST);
            if conn.broken.is_some_and(|since| at >= since) {
                unanswered += 1;
            } else {
                acknowledged = acknowledged.max(at);
            }
        }
        if self.closed_windows_are_silent {
            acknowledged = closed;
        }
        PeerState {
            unanswered: if self.closed_windows_are_silent {
                Unanswered::Data
            } else if unanswered > 0 {
                Unanswered::WindowProbes(unanswered)
            } else {
                Unanswered::Nothing
            },
            since_acknowledged: Duration::from_millis(self.now.saturating_sub(acknowledged)),
            acknowledged_bytes: conn.flows[end].delivered,
            has_sent: conn.ends[end].peer_sent,
            round_trip: self.round_trip(conn),
        }
    }

    fn round_trip(&self, conn: &Conn) -> Duration {
        let [one, other] = [0, 1].map(|end| self.state.way(conn.ends[end].machine, conn.ends[1 - end].machine, Class::Api).delay);
        Duration::from_millis(u64::from(one) + u64::from(other))
    }

    pub(in crate::sim) fn reset_on_drop(&mut self, id: ConnId, end: usize) {
        if let Some(conn) = self.tcp.conns.get_mut(&id) {
            conn.ends[end].reset_on_drop = true;
        }
    }

    /// An end is dropped by whoever held it.
    pub(in crate::sim) fn drop_end(&mut self, id: ConnId, end: usize) {
        self.agent_drops(id, end);
        let Some(conn) = self.tcp.conns.get(&id) else { return };
        let it = &conn.ends[end];
        if conn.stage == Stage::Dialling || it.error.is_some() {
            self.let_go(id, end);
        } else if it.reset_on_drop || !it.got.is_empty() {
            self.abort(id, end);
        } else {
            self.shut(id, end);
            self.let_go(id, end);
        }
        self.bury(id);
    }
}

/// What the judge wants to know.
impl Core {
    /// Something of a proxy's connection to an upstream was lost, either way.
    pub(super) fn note_retry(&mut self, id: ConnId, wait: Ms) {
        let Some(conn) = self.tcp.conns.get(&id) else { return };
        if let Owner::Agent(_) = conn.ends[0].owner {
            self.log.retries.entry(conn.ends[0].machine).or_default().push((self.now, id, wait));
        }
    }

    /// The first of a client's bytes towards an upstream.
    pub(super) fn agent_sends(&mut self, id: ConnId, end: usize) {
        let Some(conn) = self.tcp.conns.get(&id) else { return };
        if let (0, Owner::Agent(run)) = (end, conn.ends[end].owner) {
            let machine = conn.ends[0].machine;
            self.log.client_bytes(self.now, id, (machine, run), conn.to);
        }
    }

    /// An agent lets go of an end: did the other side end it before?
    pub(super) fn agent_drops(&mut self, id: ConnId, end: usize) {
        let Some(conn) = self.tcp.conns.get(&id) else { return };
        let it = &conn.ends[end];
        if let Owner::Agent(_) = it.owner {
            let peer_first = it.eof || it.error.is_some();
            self.log.agent_ended(self.now, id, peer_first);
        }
    }
}

/// What befalls connections from outside.
impl Core {
    /// A broken way ends connections in the end.
    pub(super) fn watch(&mut self, id: ConnId) {
        let Some(conn) = self.tcp.conns.get_mut(&id) else { return };
        let broken = conn.stage == Stage::Open && !(way(&self.state, conn, 0).open && way(&self.state, conn, 1).open);
        // As after a reboot, or a reset that was lost.
        let dead = |end: usize| !conn.ends[end].held && conn.ends[end].error.is_some();
        let waits = |end: usize| conn.ends[end].held && conn.ends[end].error.is_none();
        let orphan = conn.stage == Stage::Open && !broken && ((dead(0) && waits(1)) || (dead(1) && waits(0)));
        conn.broken = broken.then(|| conn.broken.unwrap_or(self.now));
        conn.orphan = orphan.then(|| conn.orphan.unwrap_or(self.now));
        if !broken && !orphan {
            return;
        }
        if !std::mem::replace(&mut conn.watched, true) {
            self.at(self.now + CHECK, Due::Check { conn: id });
        }
    }

    pub(in crate::sim) fn check_broken(&mut self, id: ConnId) {
        let Some(conn) = self.tcp.conns.get_mut(&id) else { return };
        conn.watched = false;
        self.watch(id);
        let Some(conn) = self.tcp.conns.get(&id) else { return };
        if conn.orphan.is_some_and(|since| self.now >= since + KEEPALIVE) {
            let dead = usize::from(conn.ends[0].held);
            self.send_reset(id, dead);
            return;
        }
        let Some(since) = conn.broken else { return };
        for end in 0..2 {
            let patience = match self.tcp.conns.get(&id) {
                // With data under way the kernel goes on sending it; see `send_again`.
                Some(Conn { ends, flows, .. })
                    if ends[end].upstream_side && ends[end].held && flows[end].stuck.is_none() && flows[end].closed.is_none() =>
                {
                    KEEPALIVE_PATIENCE
                }
                Some(_) => PATIENCE,
                None => return,
            };
            if self.now >= since + patience {
                self.give_up(id, end);
            }
        }
        // Nobody is left who could wait for the other end.
        let forgotten = self
            .tcp
            .conns
            .get(&id)
            .is_some_and(|conn| self.now >= since + PATIENCE || conn.ends.iter().all(|end| !end.held || end.error.is_some()));
        if forgotten {
            self.bury(id);
        }
    }

    pub(in crate::sim) fn ways_changed(&mut self) {
        for id in self.tcp.conns.keys().copied().collect::<Vec<_>>() {
            self.watch(id);
        }
    }

    /// A machine has lost its power: what it held is gone without a word.
    pub(in crate::sim) fn machine_lost(&mut self, machine: MachineId) {
        let runs: Vec<RunId> =
            self.runs.iter().filter(|(_, run)| run.machine == machine && run.alive).map(|(id, _)| *id).collect();
        for id in self.tcp.conns.keys().copied().collect::<Vec<_>>() {
            let mut apiserver = false;
            if let Some(conn) = self.tcp.conns.get_mut(&id) {
                for end in conn.ends.iter_mut().filter(|end| end.machine == machine) {
                    apiserver |= end.owner == Owner::Apiserver;
                    end.fail(io::ErrorKind::ConnectionReset);
                    end.got.clear();
                    end.held = false;
                }
                for end in 0..2 {
                    if conn.ends[end].machine == machine {
                        conn.flows[end].queue.clear();
                        conn.flows[end].retry = None;
                    }
                }
            }
            if apiserver {
                self.apiserver_lost(id);
            }
            self.bury(id);
        }
        self.tcp.listeners.retain(|(at, _), _| *at != machine);
        for run in runs {
            self.end_run(run);
        }
    }

    /// A process is gone: its kernel resets what it held.
    pub(in crate::sim) fn tcp_run_ended(&mut self, run: RunId) {
        for id in self.tcp.conns.keys().copied().collect::<Vec<_>>() {
            for end in 0..2 {
                let owned =
                    self.tcp.conns.get(&id).is_some_and(|conn| conn.ends[end].owner.run() == Some(run) && conn.ends[end].held);
                if owned {
                    self.agent_drops(id, end);
                    if let Some(conn) = self.tcp.conns.get_mut(&id) {
                        conn.ends[end].fail(io::ErrorKind::ConnectionReset);
                        conn.ends[end].got.clear();
                    }
                    self.abort(id, end);
                }
            }
        }
        let closed: Vec<(MachineId, u16)> =
            self.tcp.listeners.iter().filter(|(_, listening)| listening.run == Some(run)).map(|(at, _)| *at).collect();
        for (machine, port) in closed {
            self.unlisten(machine, port);
        }
    }

    /// The process of an apiserver or of the balancer is gone: its kernel resets what it held.
    pub(in crate::sim) fn site_ended(&mut self, site: SocketAddr) {
        for id in self.tcp.conns.keys().copied().collect::<Vec<_>>() {
            let owned = self.tcp.conns.get(&id).is_some_and(|conn| {
                conn.to == site && matches!(conn.ends[1].owner, Owner::Apiserver | Owner::Task) && conn.ends[1].held
            });
            if owned {
                self.apiserver_lost(id);
                if let Some(conn) = self.tcp.conns.get_mut(&id) {
                    conn.ends[1].fail(io::ErrorKind::ConnectionReset);
                }
                self.abort(id, 1);
            }
        }
    }
}
