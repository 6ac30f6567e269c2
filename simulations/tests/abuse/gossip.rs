//! Datagrams and members that mean harm.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};

use crate::rig::program;

/// A keyring with a fresh key.
pub(crate) fn make_keyring(path: &Path) -> Result<()> {
    let mut child =
        Command::new(program()).args(["agent", "keygen"]).arg(path).stdin(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    // Our children end when their standard input does.
    let stdin = child.stdin.take();
    let status = child.wait()?;
    drop(stdin);
    ensure!(status.success(), "keygen: {status}");
    Ok(())
}
