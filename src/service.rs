//! What a service manager and the kernel grant a service: readiness, watchdog, inherited sockets, descriptors.
//!
//! Where no service manager asks for it, each of these does nothing.

use std::env;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{self as unix, UnixDatagram};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use listenfd::ListenFd;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sd_notify::NotifyState;

/// Inherited sockets beyond this are not taken: the proxy's, admin's and gossip's in both families are six.
const INHERITED: usize = 64;

/// What the service manager has not taken yet is told again this often.
const TELL_AGAIN: Duration = Duration::from_secs(1);

/// The last state and the last text that the service manager has not taken: its queue was full, say.
static UNTOLD: Mutex<[Option<String>; 2]> = Mutex::new([None, None]);
const STATE: usize = 0;
const TEXT: usize = 1;

/// The listeners are bound: what depends on this service may start. Never waits for an upstream.
pub fn ready() {
    tell(STATE, &[NotifyState::Ready]);
}

/// The service is about to stop.
pub fn stopping() {
    tell(STATE, &[NotifyState::Stopping]);
}

/// Tells again what the service manager has not taken. Never ends.
pub async fn keep_telling() {
    loop {
        tokio::time::sleep(TELL_AGAIN).await;
        let mut untold = UNTOLD.lock().unwrap_or_else(PoisonError::into_inner);
        for message in untold.iter_mut() {
            message.take_if(|message| send(message).is_ok());
        }
    }
}

/// The configuration is being read again; [`ready`] ends it.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(STATE, &[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "cannot tell the service manager of the reload"),
    }
}

/// What `systemctl status` shows: what the service waits for.
pub fn status(text: &str) {
    tell(TEXT, &[NotifyState::Status(&text.replace('\n', " "))]);
}

/// The service is alive. To be told only after a round trip through what has to be alive.
pub fn alive() {
    // The next one comes in time.
    let _ = send(&message(&[NotifyState::Watchdog]));
}

/// How often [`alive`] is to be told: half of what the service manager allows. [`None`]: it does not ask.
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|allowed| allowed / 2).filter(|interval| !interval.is_zero())
}

fn tell(kind: usize, states: &[NotifyState<'_>]) {
    let message = message(states);
    let failed = send(&message).err();
    if let Some(error) = &failed {
        tracing::warn!(%error, "cannot reach the service manager; it is told again");
    }
    let mut untold = UNTOLD.lock().unwrap_or_else(PoisonError::into_inner);
    untold[kind] = failed.map(|_| message);
}

fn message(states: &[NotifyState<'_>]) -> String {
    states.iter().map(|state| format!("{state}\n")).collect()
}

/// Never waits for a service manager that does not read: `sd_notify::notify` would.
fn send(message: &str) -> io::Result<()> {
    let Some(path) = env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    match path.as_encoded_bytes().strip_prefix(b"@") {
        Some(name) => socket.connect_addr(&unix::SocketAddr::from_abstract_name(name)?)?,
        None => socket.connect(&path)?,
    }
    socket.send(message.as_bytes()).map(drop)
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
    /// What of them is of no use, for whoever has a log by then.
    pub warnings: Vec<String>,
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
            inherited.warnings.push(format!("inherited descriptor {place} is of no use: {error}"));
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

    /// Takes out those that nobody has taken: what each is.
    pub fn take_rest(&mut self) -> Vec<String> {
        let what = |kind: &str, name: Option<String>, addr: io::Result<SocketAddr>| {
            let addr = addr.map_or_else(|error| error.to_string(), |addr| addr.to_string());
            format!("{kind} {addr}{}", name.map_or_else(String::new, |name| format!(" ({name})")))
        };
        let tcp = self.tcp.drain(..).map(|(name, socket)| what("listening socket", name, socket.local_addr()));
        let udp = self.udp.drain(..).map(|(name, socket)| what("datagram socket", name, socket.local_addr()));
        tcp.chain(udp).collect()
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
    use std::os::fd::OwnedFd;
    use std::process::Command;

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

    /// This very test in a process of its own, as a service manager would start it: with these sockets from descriptor 3 on, and
    /// this said before `exec`. Tells what the process printed.
    fn started(listener: &TcpListener, datagrams: &UdpSocket, environment: &str) -> String {
        let script = format!("exec 3<&0 4<&2 2>/dev/null; export {environment}; exec \"$0\" \"$@\"");
        let output = Command::new("sh")
            .args(["-c", &script, env::current_exe().unwrap().to_str().unwrap()])
            .args(["--exact", "service::tests::as_a_child", "--nocapture", "--include-ignored"])
            .stdin(OwnedFd::from(listener.try_clone().unwrap()))
            .stderr(OwnedFd::from(datagrams.try_clone().unwrap()))
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    #[ignore = "what the tests below start"]
    fn as_a_child() {
        let inherited = inherited();
        for (name, socket) in &inherited.tcp {
            println!("tcp {name:?} {}", socket.local_addr().unwrap());
        }
        for (name, socket) in &inherited.udp {
            println!("udp {name:?} {}", socket.local_addr().unwrap());
        }
        println!("watchdog {:?}", watchdog());
        ready();
        reloading();
        alive();
        stopping();
    }

    fn sockets() -> (TcpListener, UdpSocket) {
        (listener(), UdpSocket::bind("127.0.0.1:0").unwrap())
    }

    #[test]
    fn sockets_of_the_service_manager_are_taken_with_their_names() {
        let (listener, datagrams) = sockets();
        let told = started(&listener, &datagrams, "LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=proxy:gossip");
        assert!(told.contains(&format!("tcp Some(\"proxy\") {}\n", listener.local_addr().unwrap())), "{told}");
        assert!(told.contains(&format!("udp Some(\"gossip\") {}\n", datagrams.local_addr().unwrap())), "{told}");
        let told = started(&listener, &datagrams, "LISTEN_PID=$$ LISTEN_FDS=2");
        assert!(told.contains("tcp None ") && told.contains("udp None "), "{told}");
    }

    #[test]
    fn sockets_that_were_meant_for_another_process_are_left_alone() {
        let (listener, datagrams) = sockets();
        for environment in
            ["LISTEN_PID=1 LISTEN_FDS=2", "LISTEN_FDS=2", "LISTEN_PID=$$ LISTEN_FDS=many", "LISTEN_PID=$$ LISTEN_FDS=9999999999"]
        {
            let told = started(&listener, &datagrams, environment);
            assert!(!told.contains("tcp ") && !told.contains("udp "), "{environment}: {told}");
        }
    }

    #[test]
    fn what_is_not_a_listening_socket_is_left_out() {
        let (listener, datagrams) = sockets();
        let told = started(&listener, &datagrams, "LISTEN_PID=$$ LISTEN_FDS=4 LISTEN_FDNAMES=proxy:gossip:admin:");
        assert_eq!(told.matches("tcp ").count() + told.matches("udp ").count(), 2, "{told}");
    }

    #[test]
    fn the_service_manager_is_told_of_each_state() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let (listener, datagrams) = sockets();
        let environment = format!("NOTIFY_SOCKET={} WATCHDOG_USEC=3000000 WATCHDOG_PID=$$", path.display());
        assert!(started(&listener, &datagrams, &environment).contains("watchdog Some(1.5s)\n"));
        let states: Vec<String> = (0..4).map(|_| received(&manager)).collect();
        assert_eq!((&*states[0], &*states[2], &*states[3]), ("READY=1\n", "WATCHDOG=1\n", "STOPPING=1\n"));
        assert!(states[1].starts_with("RELOADING=1\nMONOTONIC_USEC="), "{}", states[1]);
    }

    fn received(manager: &UnixDatagram) -> String {
        let mut buffer = [0; 256];
        let length = manager.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_owned()).unwrap()
    }

    #[test]
    fn without_a_service_manager_nothing_is_asked_for() {
        let (listener, datagrams) = sockets();
        assert!(started(&listener, &datagrams, "LISTEN_FDS=").contains("watchdog None\n"));
    }
}
