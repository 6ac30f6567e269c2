//! TCP as the kernel gives it.
//!
//! Every socket option of the data path is set here and nowhere else. The two sides differ on purpose: a dead upstream must be
//! noticed even where no probe watches it, so its side has a short keepalive. Neither side has a user time-out
//! (`TCP_USER_TIMEOUT`): it takes a closed window for death, and both a client (`kubectl logs | less`) and an apiserver may stop
//! reading for as long as they like. What a peer leaves unacknowledged is judged by
//! [`liveness`](crate::engine::liveness) instead.
//!
//! Sockets that were inherited come in through [`RealListener::from_std`]. They are only ever dropped, never shut down: the
//! one who handed them over may listen on.

use std::any::Any;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::carry::carry;
use super::tcp_info::peer_state;
use crate::engine::liveness::PeerState;
use crate::engine::policy::{
    CLIENT_KEEPALIVE, CLIENT_KEEPALIVE_INTERVAL, CLIENT_KEEPALIVE_PROBES, MAX_UPSTREAM_KEEPALIVES, UPSTREAM_KEEPALIVE,
    UPSTREAM_KEEPALIVE_INTERVAL,
};
use crate::world::{BoxFuture, Carried, Listener, Meter, Net, Stream};

/// Connections that the kernel completes while we are busy. The kernel lowers it to `net.core.somaxconn` (4096 since Linux 5.4).
const BACKLOG: i32 = 4096;

/// TCP.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealNet;

impl Net for RealNet {
    fn listen_ahead(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move { Ok(Box::new(RealListener::listen(addr, true)?) as Box<dyn Listener>) })
    }

    fn listen(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move { Ok(Box::new(RealListener::bind(addr)?) as Box<dyn Listener>) })
    }

    fn connect(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Stream>>> {
        Box::pin(async move { Ok(Box::new(dial(to).await?) as Box<dyn Stream>) })
    }

    fn carry(&self, client: Box<dyn Stream>, upstream: Box<dyn Stream>, meter: Arc<Meter>) -> BoxFuture<'static, Carried> {
        Box::pin(carry(client, upstream, meter))
    }
}

async fn dial(to: SocketAddr) -> io::Result<RealStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_nodelay(true)?;
    let options = SockRef::from(&socket);
    let keepalive = TcpKeepalive::new()
        .with_time(UPSTREAM_KEEPALIVE)
        .with_interval(UPSTREAM_KEEPALIVE_INTERVAL)
        .with_retries(MAX_UPSTREAM_KEEPALIVES);
    options.set_tcp_keepalive(&keepalive)?;
    let stream = socket.connect(to).await?;
    // A dial to a free port of the ephemeral range on this machine can be given that very port as its source, and then
    // connects to itself.
    if to.ip().is_loopback() && stream.local_addr()? == stream.peer_addr()? {
        return Err(io::Error::new(io::ErrorKind::ConnectionRefused, "nobody listens there: the dial met itself"));
    }
    Ok(RealStream(stream))
}

/// Lets a socket be bound to an address that this machine does not have, or not yet.
pub(super) fn bind_anywhere(socket: &Socket, addr: SocketAddr) -> io::Result<()> {
    if addr.is_ipv6() { socket.set_freebind_v6(true) } else { socket.set_freebind_v4(true) }
}

/// A listening socket of the kernel's.
#[derive(Debug)]
pub struct RealListener(TcpListener);

impl RealListener {
    /// Binds and listens. An IPv6 address takes IPv6 connections only, so that both families can be listened on apart.
    ///
    /// # Errors
    /// The kernel's, such as [`io::ErrorKind::AddrInUse`].
    pub fn bind(addr: SocketAddr) -> io::Result<RealListener> {
        RealListener::listen(addr, false)
    }

    /// `ahead`: whether this machine has the address or not.
    fn listen(addr: SocketAddr, ahead: bool) -> io::Result<RealListener> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        if ahead {
            bind_anywhere(&socket, addr)?;
        }
        if addr.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_address(true)?;
        socket.bind(&addr.into())?;
        socket.listen(BACKLOG)?;
        RealListener::from_std(socket.into())
    }

    /// Takes over a socket that already listens, for instance an inherited one.
    ///
    /// # Errors
    /// The socket cannot be made non-blocking or registered with the runtime.
    pub fn from_std(listener: std::net::TcpListener) -> io::Result<RealListener> {
        listener.set_nonblocking(true)?;
        Ok(RealListener(TcpListener::from_std(listener)?))
    }
}

impl Listener for RealListener {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    fn takes_both_families(&self) -> bool {
        let wildcard = self.0.local_addr().is_ok_and(|addr| addr.is_ipv6() && addr.ip().is_unspecified());
        // Ours take IPv6 only; one that was inherited may take both.
        wildcard && !SockRef::from(&self.0).only_v6().unwrap_or(false)
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<(Box<dyn Stream>, SocketAddr)>> {
        Box::pin(async move {
            let (stream, from) = self.0.accept().await?;
            Ok((accepted(stream), from))
        })
    }

    fn accept_now(&self) -> io::Result<Option<(Box<dyn Stream>, SocketAddr)>> {
        let (stream, from) = match SockRef::from(&self.0).accept() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            accepted => accepted?,
        };
        stream.set_nonblocking(true)?;
        let from = from.as_socket().ok_or(io::ErrorKind::ConnectionAborted)?;
        Ok(Some((accepted(TcpStream::from_std(stream.into())?), from)))
    }
}

/// A client's connection with its options.
fn accepted(stream: TcpStream) -> Box<dyn Stream> {
    // Failing options are a connection that is gone already; reading from it will tell.
    let _ = stream.set_nodelay(true);
    let keepalive = TcpKeepalive::new()
        .with_time(CLIENT_KEEPALIVE)
        .with_interval(CLIENT_KEEPALIVE_INTERVAL)
        .with_retries(CLIENT_KEEPALIVE_PROBES);
    let _ = SockRef::from(&stream).set_tcp_keepalive(&keepalive);
    Box::new(RealStream(stream))
}

/// A TCP connection.
#[derive(Debug)]
pub(super) struct RealStream(TcpStream);

impl AsyncRead for RealStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for RealStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl Stream for RealStream {
    fn reset_on_drop(&mut self) {
        // Fails only on a socket that is gone.
        let _ = self.0.set_zero_linger();
    }

    fn peer(&self) -> Option<PeerState> {
        peer_state(&self.0).ok()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const ANY: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

    /// `TCP_NODELAY`, a linger, keepalive's time and interval, the user time-out.
    fn options(stream: &RealStream) -> (bool, bool, Duration, Duration, Duration) {
        let socket = SockRef::from(&stream.0);
        assert!(socket.keepalive().expect("read"));
        let (time, interval) = (socket.tcp_keepalive_time().expect("read"), socket.tcp_keepalive_interval().expect("read"));
        let timeout = socket.tcp_user_timeout().expect("read").unwrap_or_default();
        (socket.tcp_nodelay().expect("read"), socket.linger().expect("read").is_some(), time, interval, timeout)
    }

    fn real(stream: Box<dyn Stream>) -> Box<RealStream> {
        stream.into_any().downcast().expect("a real stream")
    }

    #[tokio::test]
    async fn both_sides_are_without_delay_and_have_a_keepalive_and_no_user_timeout() {
        let listener = RealNet.listen(ANY.into()).await.expect("listens");
        let upstream = RealNet.connect(listener.local_addr().expect("bound")).await.expect("connects");
        let (client, _) = listener.accept().await.expect("accepts");
        let (upstream, client) = (real(upstream), real(client));
        assert_eq!(options(&upstream), (true, false, UPSTREAM_KEEPALIVE, UPSTREAM_KEEPALIVE_INTERVAL, Duration::ZERO));
        assert_eq!(options(&client), (true, false, CLIENT_KEEPALIVE, CLIENT_KEEPALIVE_INTERVAL, Duration::ZERO));
    }

    #[tokio::test]
    async fn a_client_that_vanishes_without_a_word_is_given_up_within_a_minute() {
        let listener = RealNet.listen(ANY.into()).await.expect("listens");
        let _client = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("connects");
        let client = real(listener.accept().await.expect("accepts").0);
        let socket = SockRef::from(&client.0);
        let interval = socket.tcp_keepalive_interval().expect("read");
        let given_up = socket.tcp_keepalive_time().expect("read") + interval * socket.tcp_keepalive_retries().expect("read");
        assert_eq!(given_up, Duration::from_secs(60));
    }

    #[tokio::test]
    async fn dropping_closes_in_order_unless_a_reset_was_asked_for() {
        let listener = RealNet.listen(ANY.into()).await.expect("listens");
        for reset in [false, true] {
            let mut dialled = RealNet.connect(listener.local_addr().expect("bound")).await.expect("connects");
            let (mut accepted, _) = listener.accept().await.expect("accepts");
            if reset {
                dialled.reset_on_drop();
            }
            drop(dialled);
            assert_eq!(accepted.read(&mut [0; 1]).await.is_err(), reset);
        }
    }

    #[tokio::test]
    async fn nobody_there_is_a_refusal() {
        let listener = RealListener::bind(ANY.into()).expect("listens");
        let addr = listener.local_addr().expect("bound");
        drop(listener);
        let error = RealNet.connect(addr).await.map(drop).expect_err("nobody listens");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn a_taken_port_is_said_to_be_taken() {
        let first = RealListener::bind(ANY.into()).expect("listens");
        let error = RealListener::bind(first.local_addr().expect("bound")).expect_err("it is taken");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[tokio::test]
    async fn both_families_can_be_listened_on_at_one_port() {
        let Ok(v6) = RealListener::bind((Ipv6Addr::UNSPECIFIED, 0).into()) else { return };
        let port = v6.local_addr().expect("bound").port();
        RealListener::bind((Ipv4Addr::UNSPECIFIED, port).into()).expect("the other family is free");
    }

    #[tokio::test]
    async fn an_inherited_listener_goes_on_listening_when_ours_is_dropped() {
        let theirs = std::net::TcpListener::bind(ANY).expect("listens");
        let ours = RealListener::from_std(theirs.try_clone().expect("cloned")).expect("taken over");
        let addr = ours.local_addr().expect("bound");
        let mut first = RealNet.connect(addr).await.expect("connects");
        first.write_all(b"first").await.expect("written");
        ours.accept().await.expect("accepts");
        drop(ours);
        RealNet.connect(addr).await.expect("queued for the next one");
        let again = RealListener::from_std(theirs).expect("taken over");
        again.accept().await.expect("the queued one");
    }
}
