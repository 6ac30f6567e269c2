//! What a service manager and the kernel grant a service: readiness, watchdog, inherited sockets, descriptors.
//!
//! Where no service manager asks for it, each of these does nothing.

use std::env;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use listenfd::ListenFd;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sd_notify::NotifyState;

/// Inherited sockets beyond this are not taken: the proxy's, admin's and gossip's in both families are six.
const INHERITED: usize = 64;

/// The listeners are bound: what depends on this service may start. Never waits for an upstream.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The service is about to stop.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// The configuration is being read again; [`ready`] ends it.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "cannot tell the service manager of the reload"),
    }
}

/// The service is alive. To be told only after a round trip through what has to be alive.
pub fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// How often [`alive`] is to be told: half of what the service manager allows. [`None`]: it does not ask.
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|allowed| allowed / 2).filter(|interval| !interval.is_zero())
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "cannot reach the service manager");
    }
}

/// Sockets that the service manager has bound for us, each with its name from `LISTEN_FDNAMES` if it has one.
///
/// They outlive this process: no connection is refused while the service restarts. So they are closed, never shut down.
#[derive(Debug, Default)]
pub struct Inherited {
    /// Listening stream sockets.
    pub tcp: Vec<(Option<String>, TcpListener)>,
    /// Datagram sockets.
    pub udp: Vec<(Option<String>, UdpSocket)>,
}

/// Takes the sockets that were passed to this very process (`LISTEN_PID`). All are non-blocking and closed on exec.
///
/// To be called once, first thing in `main`, before other threads exist: the environment's variables are removed.
pub fn inherited() -> Inherited {
    let mut inherited = Inherited::default();
    let count = env::var("LISTEN_FDS").ok().and_then(|count| count.parse::<usize>().ok()).unwrap_or(0);
    // Without LISTEN_PID they were meant for some parent that passed its environment on.
    if count == 0 || count > INHERITED || env::var("LISTEN_PID").map_or(true, |pid| pid.is_empty()) {
        return inherited;
    }
    let names: Vec<String> = env::var("LISTEN_FDNAMES").unwrap_or_default().split(':').map(str::to_owned).collect();
    let mut passed = ListenFd::from_env();
    for place in 0..passed.len() {
        let name = names.get(place).filter(|name| !name.is_empty() && *name != "unknown").cloned();
        if let Err(error) = inherited.take(&mut passed, place, name) {
            tracing::warn!(place, %error, "an inherited descriptor is of no use and left alone");
        }
    }
    inherited
}

impl Inherited {
    fn take(&mut self, passed: &mut ListenFd, place: usize, name: Option<String>) -> io::Result<()> {
        if let Ok(Some(socket)) = passed.take_udp_socket(place) {
            socket.set_nonblocking(true)?;
            self.udp.push((name, socket));
            return Ok(());
        }
        let Some(listener) = passed.take_tcp_listener(place)? else { return Ok(()) };
        if !rustix::net::sockopt::socket_acceptconn(&listener)? {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a stream socket that does not listen"));
        }
        listener.set_nonblocking(true)?;
        self.tcp.push((name, listener));
        Ok(())
    }

    /// Takes out a listener: one of this name, else a nameless one bound to one of these addresses.
    pub fn take_tcp(&mut self, name: &str, addrs: &[SocketAddr]) -> Vec<TcpListener> {
        take(&mut self.tcp, name, addrs, TcpListener::local_addr)
    }

    /// Takes out a datagram socket, as [`Inherited::take_tcp`] does.
    pub fn take_udp(&mut self, name: &str, addrs: &[SocketAddr]) -> Vec<UdpSocket> {
        take(&mut self.udp, name, addrs, UdpSocket::local_addr)
    }
}

/// The names that mean something to us; a socket of another name is matched by its address.
const NAMES: [&str; 3] = ["proxy", "admin", "gossip"];

fn take<S>(
    sockets: &mut Vec<(Option<String>, S)>,
    name: &str,
    addrs: &[SocketAddr],
    local: impl Fn(&S) -> io::Result<SocketAddr>,
) -> Vec<S> {
    sockets
        .extract_if(.., |(own, socket)| match own.as_deref() {
            Some(own) if NAMES.contains(&own) => own == name,
            _ => local(socket).is_ok_and(|local| addrs.contains(&local)),
        })
        .map(|(_, socket)| socket)
        .collect()
}

/// Raises the soft limit of open descriptors to the hard one. Tells the limit that holds now.
pub fn raise_descriptor_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "cannot raise the limit of open descriptors");
    }
    // No limit at all is told as the largest one.
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_descriptors_is_raised_to_the_hard_one() {
        let raised = raise_descriptor_limit();
        assert_eq!(Some(raised), getrlimit(Resource::Nofile).maximum.or(Some(u64::MAX)));
    }

    fn listener() -> TcpListener {
        TcpListener::bind("127.0.0.1:0").unwrap()
    }

    #[test]
    fn inherited_sockets_are_matched_by_name_else_by_address() {
        let (by_address, stranger) = (listener(), listener());
        let (address, other) = (by_address.local_addr().unwrap(), stranger.local_addr().unwrap());
        let mut inherited = Inherited::default();
        inherited.tcp.push((Some("admin".to_owned()), listener()));
        inherited.tcp.push((Some("proxy".to_owned()), listener()));
        inherited.tcp.push((Some("prismesh.socket".to_owned()), by_address));
        inherited.tcp.push((None, stranger));
        let proxies = inherited.take_tcp("proxy", &[address]);
        assert_eq!(proxies.len(), 2);
        assert_eq!(inherited.take_tcp("admin", &[address]).len(), 1);
        assert_eq!(inherited.tcp[0].1.local_addr().unwrap(), other, "nobody asked for this one");
    }
}
