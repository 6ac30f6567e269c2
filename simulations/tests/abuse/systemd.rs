//! What a service manager is told, and what it hands over.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use tokio::net::UnixDatagram;
use tokio::time::{Instant, timeout};

use crate::rig::{Rig, SOON, START, millis, program, secs, until, wide};

/// The next state that the service manager is told.
async fn told(manager: &UnixDatagram) -> Result<String> {
    let mut buffer = [0; 256];
    let length = timeout(SOON, manager.recv(&mut buffer)).await.context("it is told nothing")??;
    Ok(String::from_utf8_lossy(&buffer[..length]).trim_end().to_owned())
}

#[tokio::test]
async fn it_is_ready_once_it_listens_though_there_is_no_upstream_then_alive_then_stopping() -> Result<()> {
    let rig = Rig::new().await?;
    let path = rig.dir().join("notify");
    let manager = UnixDatagram::bind(&path)?;
    let environment = format!("export NOTIFY_SOCKET={} WATCHDOG_USEC=1000000 WATCHDOG_PID=$$", path.display());
    let begin = Instant::now();
    let mut agent = rig.agent().endpoint(11).after(&environment).launch()?;
    ensure!(timeout(START, told(&manager)).await?? == "READY=1");
    let ready = begin.elapsed();
    std::net::TcpStream::connect(agent.proxy).context("clients can connect")?;
    std::net::TcpStream::connect(agent.admin).context("and so can scrapes")?;
    ensure!(ready < wide(secs(1)), "no upstream is waited for: {ready:?}");
    for _ in 0..3 {
        let begin = Instant::now();
        ensure!(told(&manager).await? == "WATCHDOG=1");
        ensure!(begin.elapsed() < millis(900), "in time: {:?}", begin.elapsed());
    }
    agent.process.signal(rustix::process::Signal::HUP)?;
    let mut states = Vec::new();
    while states.last().is_none_or(|last| last != "READY=1") {
        states.push(told(&manager).await?);
    }
    ensure!(states.iter().any(|state| state.starts_with("RELOADING=1\nMONOTONIC_USEC=")), "{states:?}");
    agent.process.terminate()?;
    while told(&manager).await? != "STOPPING=1" {}
    ensure!(agent.process.end(SOON).await?.success());
    Ok(())
}

#[tokio::test]
async fn a_service_manager_that_is_behind_is_told_later_that_it_is_ready() -> Result<()> {
    let rig = Rig::new().await?;
    let path = rig.dir().join("notify");
    let manager = UnixDatagram::bind(&path)?;
    let others = std::os::unix::net::UnixDatagram::unbound()?;
    others.set_nonblocking(true)?;
    others.connect(&path)?;
    while others.send(b"STATUS=of another service").is_ok() {}
    let agent = rig.agent().endpoint(11).after(&format!("export NOTIFY_SOCKET={}", path.display())).launch()?;
    agent.says(&["WARN", "cannot reach the service manager"], START).await?;
    while told(&manager).await? != "READY=1" {}
    Ok(())
}

#[tokio::test]
async fn an_agent_that_hangs_does_not_tell_the_watchdog_that_it_is_alive() -> Result<()> {
    let rig = Rig::new().await?;
    let path = rig.dir().join("notify");
    let manager = UnixDatagram::bind(&path)?;
    let environment = format!("export NOTIFY_SOCKET={} WATCHDOG_USEC=400000 WATCHDOG_PID=$$", path.display());
    let mut agent = rig.agent().after(&environment).launch()?;
    while told(&manager).await? != "WATCHDOG=1" {}
    agent.process.stop()?;
    while timeout(millis(100), told(&manager)).await.is_ok() {}
    ensure!(timeout(secs(1), told(&manager)).await.is_err(), "not a word");
    agent.process.go_on()?;
    while told(&manager).await? != "WATCHDOG=1" {}
    Ok(())
}

/// Passes one socket that nothing names.
const PASS_ANOTHER: &str = r#"exec 3>&1 >/dev/null; export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=other.socket; exec "$@""#;

#[tokio::test]
async fn a_socket_that_is_handed_over_and_that_nothing_names_is_told_and_closed() -> Result<()> {
    let rig = Rig::new().await?;
    let socket = TcpListener::bind(rig.subnet.at(33, 0))?;
    let addr = socket.local_addr()?;
    let log = rig.dir().join("log");
    let mut command = Command::new("sh");
    command.arg("-c").arg(PASS_ANOTHER).arg("sh").arg(program()).args(rig.agent().endpoint(11).args());
    command.stdin(Stdio::piped()).stdout(OwnedFd::from(socket)).stderr(std::fs::File::create(&log)?);
    let _agent = Ends(command.process_group(0).spawn()?);
    // It holds the socket as well.
    drop(command);
    let logged =
        async || std::fs::read_to_string(&log).is_ok_and(|log| log.contains(&format!("inherited listening socket {addr}")));
    until("it says so", START, logged).await.with_context(|| std::fs::read_to_string(&log).unwrap_or_default())?;
    let refused = async || std::net::TcpStream::connect(addr).is_err();
    until("nobody waits there for ever", START, refused).await?;
    Ok(())
}

/// Passes standard output on as descriptor 3 and standard error as 4, as systemd would pass two sockets.
const PASS_SOCKETS: &str = r#"log="$0"; exec 3>&1 4>&2 >>"$log" 2>&1
export LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=admin:proxy; exec "$@""#;

/// A child that ends with the test.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn sockets_that_are_handed_over_are_taken_by_name_and_outlive_the_agent() -> Result<()> {
    let rig = Rig::new().await?;
    let _apiserver = rig.apiserver(11).await?;
    // Neither is where the configuration would listen.
    let (admin, proxy) = (TcpListener::bind(rig.subnet.at(33, 0))?, TcpListener::bind(rig.subnet.at(33, 0))?);
    let (admin_addr, proxy_addr) = (admin.local_addr()?, proxy.local_addr()?);
    for generation in 1..=2 {
        let log = rig.dir().join(format!("generation-{generation}"));
        let mut command = Command::new("sh");
        command.arg("-c").arg(PASS_SOCKETS).arg(&log).arg(program()).args(rig.agent().endpoint(11).args());
        command.stdin(Stdio::piped()).stdout(OwnedFd::from(admin.try_clone()?)).stderr(OwnedFd::from(proxy.try_clone()?));
        let mut agent = Ends(command.process_group(0).spawn()?);
        let asked = async || simulations::lab::status::Status::of(admin_addr).await;
        let ready = async || asked().await.is_ok_and(|status| status.verdict(rig.endpoint(11)) == Some("ready"));
        until("it serves where it was told", START, ready)
            .await
            .with_context(|| std::fs::read_to_string(&log).unwrap_or_default())?;
        let client = simulations::lab::client::Target::new(proxy_addr, "/", &rig.ca.certificate(), None)?;
        client.get(SOON).await.map_err(|failure| anyhow::anyhow!(failure.why))?;
        ensure!(std::net::TcpStream::connect(rig.agent().proxy).is_err(), "and nowhere else");
        let pid = rustix::process::Pid::from_child(&agent.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let mut ended = false;
        for _ in 0..100 {
            ended = ended || agent.0.try_wait()?.is_some();
            tokio::time::sleep(millis(if ended { 0 } else { 50 })).await;
        }
        ensure!(ended, "it ends when told");
        std::net::TcpStream::connect(proxy_addr).context("the socket listens on")?;
    }
    Ok(())
}
