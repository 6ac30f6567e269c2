//! Files on a file system that hangs: a FUSE mount whose server never answers.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::Signal;
use simulations::lab::netns::DEMANDED;
use tokio::net::UnixDatagram;
use tokio::time::{Instant, sleep, timeout};

use crate::gossip::make_keyring;
use crate::rig::{Rig, SOON, START, millis, secs, until, wide};

/// More than the agent's own limit for one file, so that what waits for a file shows.
const HANGS_FOR: std::time::Duration = secs(6);

/// A directory in which every access hangs until this is dropped.
struct Hanging {
    at: PathBuf,
    /// Whoever holds it open is the server.
    _server: File,
}

impl Hanging {
    /// [`None`] where this machine or user may not mount.
    #[expect(clippy::print_stderr, reason = "a test that was skipped says so")]
    fn mount(at: &Path) -> Result<Option<Hanging>> {
        std::fs::create_dir_all(at)?;
        let mounted = || -> Result<Hanging> {
            let server = File::options().read(true).write(true).open("/dev/fuse")?;
            let options = CString::new(format!("fd={},rootmode=40000,user_id=0,group_id=0", server.as_raw_fd()))?;
            mount("hanging", at, "fuse", MountFlags::NOSUID | MountFlags::NODEV, Some(options.as_c_str()))?;
            Ok(Hanging { at: at.to_owned(), _server: server })
        };
        match mounted() {
            Ok(hanging) => Ok(Some(hanging)),
            Err(why) => {
                ensure!(std::env::var_os(DEMANDED).is_none_or(|set| set != "1"), "{DEMANDED}=1, but {why:#}");
                eprintln!("SKIPPED: this machine mounts no FUSE file system: {why:#}");
                Ok(None)
            }
        }
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        let _ = unmount(&self.at, UnmountFlags::DETACH);
    }
}

/// Points a link to another file, at once.
fn point(link: &Path, to: &Path) -> Result<()> {
    let draft = link.with_extension("draft");
    symlink(to, &draft)?;
    Ok(std::fs::rename(&draft, link)?)
}

fn threads(pid: u32) -> Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{pid}/task"))?.count())
}

#[tokio::test]
async fn a_ca_and_a_configuration_file_that_hang_stop_neither_watchdog_nor_signals_nor_clients() -> Result<()> {
    let rig = Rig::new().await?;
    let Some(_hanging) = Hanging::mount(&rig.dir().join("mount"))? else { return Ok(()) };
    for (round, hangs) in ["trusted.crt", "agent.yaml"].into_iter().enumerate() {
        let _apiserver = rig.apiserver(11).await?;
        let _ = std::fs::remove_file(rig.dir().join("kept-keyring"));
        make_keyring(&rig.dir().join("kept-keyring"))?;
        std::fs::copy(rig.ca.certificate(), rig.dir().join("kept-trusted.crt"))?;
        std::fs::write(rig.dir().join("kept-agent.yaml"), format!("endpoint:\n  - {}\n", rig.endpoint(11)))?;
        for name in ["trusted.crt", "agent.yaml", "keyring"] {
            point(&rig.dir().join(name), &rig.dir().join(format!("kept-{name}")))?;
        }
        let path = rig.dir().join(format!("notify-{round}"));
        let manager = UnixDatagram::bind(&path)?;
        let environment = format!("export NOTIFY_SOCKET={} WATCHDOG_USEC=1000000 WATCHDOG_PID=$$", path.display());
        let mut plan = rig.agent().after(&environment).flag("--config", rig.dir().join("agent.yaml"));
        plan = plan.instead("--ca", rig.dir().join("trusted.crt")).flag("--keyring", rig.dir().join("keyring"));
        plan = plan.instead("--gossip-listen", rig.subnet.at(31, 7447).to_string());
        plan.name = format!("hangs-{round}");
        let mut agent = plan.ready(&[11]).await?;
        let before = threads(agent.process.pid())?;
        point(&rig.dir().join(hangs), &rig.dir().join("mount").join(hangs))?;

        let (begun, mut beats, mut buffer) = (Instant::now(), 0, [0; 256]);
        while begun.elapsed() < HANGS_FOR {
            agent.process.signal(Signal::HUP)?;
            let told = timeout(secs(2), manager.recv(&mut buffer)).await.context("the watchdog is fed")??;
            beats += usize::from(buffer[..told].starts_with(b"WATCHDOG=1"));
            let answer = rig.client(&agent, "/")?.get(SOON).await;
            ensure!(answer.is_ok(), "{answer:?}");
        }
        ensure!(beats >= 10, "one beat each half second: {beats} in {HANGS_FOR:?}");
        ensure!(threads(agent.process.pid())? <= before + 8, "threads do not pile up: {before} before");
        ensure!(agent.status().await?["upstreams"][0]["verdict"] == "ready");
        let begun = Instant::now();
        agent.process.terminate()?;
        let status = agent.process.end(SOON).await?;
        ensure!(status.success() && begun.elapsed() < wide(secs(1)), "{hangs}: {status} after {:?}", begun.elapsed());
    }
    Ok(())
}

#[tokio::test]
async fn a_file_that_hangs_at_the_start_is_waited_for_and_what_it_says_is_taken_up_later() -> Result<()> {
    let rig = Rig::new().await?;
    let Some(hanging) = Hanging::mount(&rig.dir().join("mount"))? else { return Ok(()) };
    let _apiserver = rig.apiserver(11).await?;
    let keyring = rig.dir().join("keyring");
    point(&keyring, &rig.dir().join("mount/keyring"))?;
    let gossip = rig.subnet.at(31, 7447).to_string();
    let plan = rig.agent().endpoint(11).instead("--gossip-listen", gossip).flag("--keyring", &keyring);
    let mut agent = plan.ready(&[11]).await?;
    agent.says(&["WARN", "gossip waits for its keyring", "has not answered within"], SOON).await?;
    std::fs::remove_file(&keyring)?;
    make_keyring(&keyring)?;
    agent.says(&["gossip runs as"], START).await?;
    agent.process.terminate()?;
    agent.process.end(SOON).await?;
    // A configuration file that hangs: nothing can be served, and it ends when it is told to.
    let mut plan = rig.agent().flag("--config", rig.dir().join("mount/agent.yaml"));
    plan.name = "waits".to_owned();
    let mut agent = plan.launch()?;
    agent.says(&["WARN", "agent.yaml", "waiting for it"], START).await?;
    sleep(millis(200)).await;
    agent.process.terminate()?;
    let begun = Instant::now();
    agent.process.end(SOON).await?;
    ensure!(begun.elapsed() < wide(secs(1)), "{:?}", begun.elapsed());
    drop(hanging);
    Ok(())
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_loaded_is_loaded_again() -> Result<()> {
    let rig = Rig::new().await?;
    let _apiserver = rig.apiserver(11).await?;
    let file = rig.dir().join("agent.yaml");
    let text = |number: usize| format!("endpoint:\n  - {}\nmax-connections: {}\n", rig.endpoint(11), 100 + number);
    std::fs::write(&file, text(0))?;
    let mut agent = rig.agent().flag("--config", &file).ready(&[11]).await?;
    // Written all the time while it is loaded all the time; the last content has an endpoint more.
    for number in 1..300 {
        std::fs::write(&file, text(number))?;
        agent.process.signal(Signal::HUP)?;
    }
    let last = rig.subnet.at(12, 6443);
    std::fs::write(&file, text(300).replacen("endpoint:\n", &format!("endpoint:\n  - {last}\n"), 1))?;
    let known = async || agent.upstream(last).await.is_ok_and(|upstream| upstream.is_some());
    until("what was written last is in force", SOON, known).await?;
    Ok(())
}
