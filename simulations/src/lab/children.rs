//! Child processes that never outlive the lab: always reaped, gone when their parent is gone.
//!
//! A child watches its standard input, the reading end of a pipe that only the parent holds open: when it ends, so does the
//! child ([`end_with_stdin`]). Each is a process group of its own, so that Ctrl-C reaches the parent alone, and so that
//! the kernel wakes and ends a stopped one when the parent is killed (POSIX: a group that becomes orphaned while a
//! member is stopped gets SIGHUP and SIGCONT).

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

/// Between two looks at a child.
const LOOK: Duration = Duration::from_millis(10);

/// What to start.
#[derive(Debug)]
pub struct Launch {
    /// A name for files and messages.
    pub name: String,
    /// The executable.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Where its output goes, as NAME.out and NAME.err.
    pub dir: PathBuf,
    /// A listening socket for it to inherit, as systemd passes one: descriptor 3, named `proxy`.
    pub socket: Option<OwnedFd>,
}

/// A running child.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    expected_to_end: bool,
}

/// Passes the socket that it finds as standard output on as descriptor 3, and says so as systemd would.
const PASS_SOCKET: &str = r#"exec 3>&1 >>"$0"; export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=proxy; exec "$@""#;

impl Process {
    /// Starts a child.
    pub fn start(launch: Launch) -> Result<Process> {
        let Launch { name, program, args, dir, socket } = launch;
        let stdout = dir.join(format!("{name}.out"));
        let stderr = dir.join(format!("{name}.err"));
        let out = append(&stdout)?;
        let mut command = match socket {
            None => {
                let mut command = Command::new(&program);
                command.stdout(out);
                command
            }
            Some(socket) => {
                let mut command = Command::new("sh");
                command.arg("-c").arg(PASS_SOCKET).arg(&stdout).arg(&program).stdout(Stdio::from(socket));
                command
            }
        };
        for (variable, _) in std::env::vars_os() {
            // Settings of the agent could come from there too.
            if variable.to_str().is_some_and(|name| name.starts_with("PRISMESH_")) {
                command.env_remove(variable);
            }
        }
        let child = command
            .args(&args)
            .stdin(Stdio::piped())
            .stderr(append(&stderr)?)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {name} ({})", program.display()))?;
        Ok(Process { name, child, stdout, stderr, expected_to_end: false })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it has printed a line that is JSON, as every server of the lab does when it listens.
    pub async fn ready(&mut self, within: Duration) -> Result<serde_json::Value> {
        let deadline = Instant::now() + within;
        loop {
            let printed = std::fs::read_to_string(&self.stdout).unwrap_or_default();
            let line = printed.lines().last().and_then(|line| serde_json::from_str(line).ok());
            if let Some(line) = line {
                return Ok(line);
            }
            if let Some(status) = self.ended() {
                bail!("{} ended ({status}) before it was ready:\n{}", self.name, self.output());
            }
            if Instant::now() > deadline {
                bail!("{} was not ready within {within:?}:\n{}", self.name, self.output());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// SIGKILL, and waits for its end.
    pub fn kill(&mut self) {
        self.expected_to_end = true;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM.
    pub fn terminate(&mut self) -> Result<()> {
        self.expected_to_end = true;
        self.signal(Signal::TERM)
    }

    /// SIGSTOP: it hangs, its kernel still accepts.
    pub fn stop(&mut self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT: it goes on.
    pub fn go_on(&mut self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Gives it a line on its standard input.
    pub fn say(&mut self, line: &str) -> Result<()> {
        let stdin = self.child.stdin.as_mut().context("its standard input is closed")?;
        writeln!(stdin, "{line}").with_context(|| format!("{} does not listen", self.name))
    }

    /// Sends it a signal.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if let Some(status) = self.ended() {
            bail!("{} has already ended ({status})", self.name);
        }
        kill_process(Pid::from_child(&self.child), signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits for its end.
    pub async fn end(&mut self, within: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.ended() {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("{} has not ended within {within:?}", self.name);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// It has ended, and nobody asked it to.
    pub fn died(&mut self) -> Option<ExitStatus> {
        if self.expected_to_end { None } else { self.ended() }
    }

    /// What it printed, both ways, the last of it.
    pub fn output(&self) -> String {
        let mut text = tail(&self.stdout);
        text.push_str(&tail(&self.stderr));
        text
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// For children: ends this process when its standard input does.
pub fn end_with_stdin() {
    hear_stdin(|_| ());
}

/// The same, for children that are told something meanwhile, a line each.
pub fn hear_stdin(mut hear: impl FnMut(&str) + Send + 'static) {
    std::thread::spawn(move || {
        std::io::stdin().lock().lines().map_while(Result::ok).for_each(|line| hear(&line));
        std::process::exit(0);
    });
}

fn append(path: &Path) -> Result<File> {
    OpenOptions::new().create(true).append(true).open(path).with_context(|| format!("cannot write {}", path.display()))
}

/// The last of a file.
fn tail(path: &Path) -> String {
    const MOST: usize = 8 * 1024;
    let bytes = std::fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(MOST)..]).into_owned()
}
