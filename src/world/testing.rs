//! Stand-ins for seams, for the tests of those who need a whole [`World`](super::World) and use a part of it.

use std::any::Any;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    BoxFuture, Carried, Datagram, DatagramSocket, Found, Listener, Meter, Net, Prober, ResolveError, Resolver, Store, Stream,
    WallClock,
};
use crate::engine::event::{ProbeOrder, Probed};

/// A seam that is not used: it refuses, or never comes back.
pub(crate) struct Nothing;

fn refused<'a, T: Send + 'a>() -> BoxFuture<'a, io::Result<T>> {
    Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
}

impl Datagram for Nothing {
    fn bind(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn DatagramSocket>>> {
        refused()
    }

    fn source_towards(&self, _: SocketAddr) -> io::Result<IpAddr> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl Net for Nothing {
    fn listen(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        refused()
    }

    fn connect(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Stream>>> {
        refused()
    }

    fn carry(&self, _: Box<dyn Stream>, _: Box<dyn Stream>, _: Arc<Meter>) -> BoxFuture<'static, Carried> {
        Box::pin(std::future::ready(Carried::Ended))
    }
}

impl Prober for Nothing {
    fn probe(&self, _: ProbeOrder) -> BoxFuture<'_, Probed> {
        Box::pin(std::future::pending())
    }
}

impl Resolver for Nothing {
    fn lookup<'a>(&'a self, _: &'a str, _: Found<'a>) -> BoxFuture<'a, Result<(), ResolveError>> {
        Box::pin(std::future::pending())
    }
}

impl Store for Nothing {
    fn read<'a>(&'a self, _: &'a Path, _: usize) -> BoxFuture<'a, io::Result<Vec<u8>>> {
        refused()
    }

    fn write<'a>(&'a self, _: &'a Path, _: &'a [u8]) -> BoxFuture<'a, io::Result<()>> {
        refused()
    }

    fn mode<'a>(&'a self, _: &'a Path) -> BoxFuture<'a, io::Result<u32>> {
        Box::pin(async move { Err(io::ErrorKind::Unsupported.into()) })
    }
}

impl WallClock for Nothing {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH
    }
}

/// Any byte stream as a [`Stream`] that is only ever closed.
pub(crate) struct Plain<S>(pub(crate) S);

impl<S: AsyncRead + Unpin> AsyncRead for Plain<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Plain<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin + Any> Stream for Plain<S> {
    fn reset_on_drop(&mut self) {}

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}
