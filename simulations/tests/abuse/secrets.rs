//! Keyrings, the state directory, and a service that runs as a user of its own. As root only: files are given to others.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::gossip::make_keyring;
use crate::rig::{Rig, SOON, program, until};

const ROOT: u32 = 0;
/// The service's user, and another one; nobody has these numbers.
const USER: u32 = 64_990;
const OTHER: u32 = 64_991;

/// A directory that every user may enter, with the program in it.
struct Open {
    dir: TempDir,
}

impl Open {
    #[expect(clippy::print_stderr, reason = "a test that was skipped says so")]
    fn new() -> Result<Option<Open>> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: not root");
            return Ok(None);
        }
        let dir = tempfile::Builder::new().prefix("prismesh-user-").permissions(fs::Permissions::from_mode(0o755)).tempdir()?;
        fs::copy(program(), dir.path().join("simulations"))?;
        Ok(Some(Open { dir }))
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn program(&self) -> PathBuf {
        self.at("simulations")
    }

    /// A keyring with this owner, group and mode.
    fn keyring(&self, name: &str, (owner, group, mode): (u32, u32, u32)) -> Result<PathBuf> {
        let path = self.at(name);
        make_keyring(&path)?;
        give(&path, owner, group, mode)?;
        Ok(path)
    }

    /// Runs a subcommand of the agent as a user.
    fn run(&self, user: u32, args: &[&str]) -> Result<Output> {
        let id = user.to_string();
        let mut command = Command::new("setpriv");
        output(command.args(["--reuid", &id, "--regid", &id, "--clear-groups"]).arg(self.program()).arg("agent").args(args))
    }

    /// Whether that user's agent takes a configuration, and what it says.
    fn takes(&self, user: u32, keyring: &Path, state: &Path) -> Result<(bool, String)> {
        let (keyring, state) = (keyring.display().to_string(), state.display().to_string());
        let args = ["config", "check", "--cluster", "c", "--node", "n", "--keyring", &keyring, "--state-dir", &state];
        let output = self.run(user, &args)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(matches!(output.status.code(), Some(0 | 2)), "{}: {said}", output.status);
        Ok((output.status.success(), said))
    }
}

fn output(command: &mut Command) -> Result<Output> {
    // Our children end when their standard input does.
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let stdin = child.stdin.take();
    let output = child.wait_with_output()?;
    drop(stdin);
    Ok(output)
}

fn give(path: &Path, owner: u32, group: u32, mode: u32) -> Result<()> {
    lchown(path, Some(owner), Some(group))?;
    if !path.is_symlink() {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// Owner, group and mode.
fn of(path: &Path) -> Result<(u32, u32, u32)> {
    let meta = fs::metadata(path)?;
    Ok((meta.uid(), meta.gid(), meta.mode() & 0o7777))
}

#[test]
fn changing_a_keyring_as_root_leaves_its_owner_and_mode_as_they_are() -> Result<()> {
    let Some(open) = Open::new()? else { return Ok(()) };
    for (number, access) in
        [(USER, USER, 0o600), (USER, USER, 0o400), (ROOT, USER, 0o640), (ROOT, ROOT, 0o600)].into_iter().enumerate()
    {
        let path = open.keyring(&format!("keyring-{number}"), access)?;
        let link = open.at(&format!("link-{number}"));
        symlink(&path, &link)?;
        for (step, file) in [("add", &path), ("promote", &link)] {
            let before = fs::read(&path)?;
            let output = open.run(ROOT, &["key", step, &file.display().to_string()])?;
            ensure!(output.status.success(), "{output:?}");
            ensure!(fs::read(&path)? != before, "it was changed");
            ensure!(of(&path)? == access, "{access:?} became {:?} by {step}", of(&path)?);
        }
        ensure!(link.is_symlink(), "a link stays a link");
    }
    // A user that cannot keep the owner changes nothing.
    let dir = open.at("shared");
    fs::create_dir(&dir)?;
    give(&dir, USER, USER, 0o755)?;
    let path = open.keyring("shared/keyring", (ROOT, USER, 0o640))?;
    let before = fs::read(&path)?;
    let output = open.run(USER, &["key", "add", &path.display().to_string()])?;
    ensure!(!output.status.success() && fs::read(&path)? == before && of(&path)? == (ROOT, USER, 0o640), "{output:?}");
    Ok(())
}

#[test]
fn a_keyring_that_somebody_else_owns_or_can_open_is_refused() -> Result<()> {
    let Some(open) = Open::new()? else { return Ok(()) };
    let state = open.at("no-state-yet");
    let cases = [
        (USER, (USER, USER, 0o600), true),
        (USER, (USER, USER, 0o400), true),
        (USER, (ROOT, USER, 0o640), true),
        (USER, (ROOT, USER, 0o440), true),
        (ROOT, (ROOT, ROOT, 0o600), true),
        (ROOT, (ROOT, USER, 0o640), true),
        (USER, (OTHER, USER, 0o640), false),
        (USER, (USER, USER, 0o640), false),
        (USER, (USER, USER, 0o620), false),
        (USER, (USER, USER, 0o604), false),
        (USER, (ROOT, USER, 0o660), false),
        (USER, (ROOT, USER, 0o644), false),
        (USER, (ROOT, ROOT, 0o444), false),
        (ROOT, (USER, USER, 0o600), false),
        (ROOT, (OTHER, OTHER, 0o400), false),
    ];
    for (number, (user, access, fine)) in cases.into_iter().enumerate() {
        let keyring = open.keyring(&format!("keyring-{number}"), access)?;
        let (takes, said) = open.takes(user, &keyring, &state)?;
        ensure!(takes == fine, "user {user}, keyring {access:?}: {said}");
        ensure!(fine || said.contains(&keyring.display().to_string()), "it names the file: {said}");
    }
    Ok(())
}

#[test]
fn links_to_a_keyring_are_followed_only_if_root_or_the_agents_user_made_them() -> Result<()> {
    let Some(open) = Open::new()? else { return Ok(()) };
    let state = open.at("no-state-yet");
    let target = open.keyring("target", (ROOT, USER, 0o440))?;
    for (owner, fine) in [(ROOT, true), (USER, true), (OTHER, false)] {
        let (link, dir) = (open.at(&format!("link-{owner}")), open.at(&format!("dir-{owner}")));
        symlink(&target, &link)?;
        symlink(open.dir.path(), &dir)?;
        for path in [&link, &dir] {
            lchown(path, Some(owner), Some(owner))?;
        }
        for path in [link, dir.join("target")] {
            let (takes, said) = open.takes(USER, &path, &state)?;
            ensure!(takes == fine, "{} of user {owner}: {said}", path.display());
        }
    }
    Ok(())
}

/// Where Kubernetes and systemd put secrets, as they do it.
#[test]
fn keyrings_from_a_secret_mount_and_from_load_credential_are_taken() -> Result<()> {
    let Some(open) = Open::new()? else { return Ok(()) };
    let state = open.at("no-state-yet");
    // A Secret volume with fsGroup: root's tmpfs, open to all and sticky; the group can read, as `defaultMode` says.
    let (mount, version) = (open.at("secret"), open.at("secret/..2026_01_01_00_00_00.1"));
    fs::create_dir_all(&version)?;
    for (mode, fine) in [(0o440, true), (0o640, true), (0o400, false), (0o644, false)] {
        let keyring = version.join("keyring");
        let _ = fs::remove_file(&keyring);
        make_keyring(&keyring)?;
        give(&keyring, ROOT, USER, mode)?;
        give(&version, ROOT, USER, 0o2755)?;
        give(&mount, ROOT, USER, 0o3777)?;
        let _ = symlink("..2026_01_01_00_00_00.1", mount.join("..data"));
        let _ = symlink("..data/keyring", mount.join("keyring"));
        let (takes, said) = open.takes(USER, &mount.join("keyring"), &state)?;
        ensure!(takes == fine, "a Secret with mode {mode:o}: {said}");
    }
    // LoadCredential=: root's file, which an access list opens (its mask shows as the group's bits), or the user's own.
    let credentials = open.at("credentials");
    fs::create_dir(&credentials)?;
    for access in [(ROOT, USER, 0o440), (USER, USER, 0o400)] {
        give(&credentials, ROOT, ROOT, 0o755)?;
        let _ = fs::remove_file(credentials.join("keyring"));
        let keyring = open.keyring("credentials/keyring", access)?;
        give(&credentials, access.0, access.1, 0o550)?;
        let (takes, said) = open.takes(USER, &keyring, &state)?;
        ensure!(takes, "a credential {access:?}: {said}");
    }
    Ok(())
}

#[test]
fn a_state_directory_that_others_can_write_is_refused() -> Result<()> {
    let Some(open) = Open::new()? else { return Ok(()) };
    let keyring = open.keyring("keyring", (ROOT, USER, 0o640))?;
    let cases = [
        (USER, (USER, USER, 0o700), true),
        (USER, (USER, USER, 0o775), true),
        (USER, (ROOT, USER, 0o2775), true),
        (ROOT, (ROOT, ROOT, 0o755), true),
        (USER, (USER, USER, 0o777), false),
        (USER, (ROOT, ROOT, 0o1777), false),
        (USER, (OTHER, USER, 0o770), false),
        (USER, (USER, USER, 0o702), false),
        (ROOT, (USER, USER, 0o700), false),
    ];
    for (number, (user, access, fine)) in cases.into_iter().enumerate() {
        let state = open.at(&format!("state-{number}"));
        fs::create_dir(&state)?;
        give(&state, access.0, access.1, access.2)?;
        let (takes, said) = open.takes(user, &keyring, &state)?;
        ensure!(takes == fine, "user {user}, state directory {access:?}: {said}");
        ensure!(fine || said.contains(&state.display().to_string()), "it names the directory: {said}");
    }
    let foreign = open.at("link-to-state");
    symlink(open.at("state-0"), &foreign)?;
    lchown(&foreign, Some(OTHER), Some(OTHER))?;
    ensure!(!open.takes(USER, &keyring, &foreign)?.0, "a link that somebody else made is not followed");
    Ok(())
}

/// A link that was put into the state directory while others could write it.
#[tokio::test]
async fn a_foreign_link_in_the_state_directory_is_not_written_through() -> Result<()> {
    let Some(open) = Open::new()? else { return Ok(()) };
    let rig = Rig::new().await?;
    let (state, victim) = (open.at("state"), open.at("victim"));
    fs::create_dir(&state)?;
    fs::write(&victim, "precious\n")?;
    for file in ["peers", "generation"] {
        symlink(&victim, state.join(file))?;
        lchown(state.join(file), Some(OTHER), Some(OTHER))?;
    }
    let keyring = open.keyring("keyring", (ROOT, ROOT, 0o600))?;
    let gossip = rig.subnet.at(31, 7447).to_string();
    let plan = rig.agent().instead("--state-dir", &state).instead("--gossip-listen", gossip).flag("--keyring", keyring);
    let agent = plan.start().await?;
    let failing = async || agent.metric("prismesh_state_write_failing").await.is_ok_and(|failing| failing == 1.0);
    until("the metric says so", SOON, failing).await?;
    let notes = agent.status().await?["notes"].to_string();
    ensure!(notes.contains(&state.join("generation").display().to_string()), "{notes}");
    ensure!(fs::read(&victim)? == b"precious\n");
    agent.is_sound().await
}

#[tokio::test]
async fn a_state_directory_that_cannot_be_written_is_told_until_it_can_be() -> Result<()> {
    let Some(open) = Open::new()? else { return Ok(()) };
    let rig = Rig::new().await?;
    let _apiserver = rig.apiserver(11).await?;
    let state = open.at("state");
    fs::create_dir(&state)?;
    let keyring = open.keyring("keyring", (ROOT, USER, 0o640))?;
    let ca = open.at("ca.crt");
    fs::copy(rig.ca.certificate(), &ca)?;
    fs::set_permissions(&ca, fs::Permissions::from_mode(0o644))?;
    let plan = rig.agent().endpoint(11).instead("--ca", ca).instead("--state-dir", &state).flag("--keyring", keyring);
    let mut agent = plan.instead("--gossip-listen", rig.subnet.at(31, 7447).to_string()).run_by(USER, open.program()).launch()?;
    agent.serves().await?;
    let failing = async |expected| agent.metric("prismesh_state_write_failing").await.is_ok_and(|failing| failing == expected);
    until("the metric says so", SOON, async || failing(1.0).await).await?;
    ensure!(agent.metric("prismesh_state_write_failures_total").await? >= 1.0);
    let notes = agent.status().await?["notes"].to_string();
    ensure!(notes.contains(&state.display().to_string()) && notes.contains("Permission denied"), "{notes}");
    let client = rig.client(&agent, "/")?;
    ensure!(client.get(SOON).await.is_ok(), "it serves all the same");
    chown(&state, Some(USER), Some(USER))?;
    until("it is written again", SOON + SOON, async || failing(0.0).await).await?;
    let notes = agent.status().await?["notes"].to_string();
    ensure!(!notes.contains(&state.display().to_string()), "{notes}");
    agent.is_sound().await
}

/// The commands of the documents, one after the other, but for those that need systemd.
#[tokio::test]
async fn the_documented_steps_to_a_service_work_in_order() -> Result<()> {
    let Some(open) = Open::new()? else { return Ok(()) };
    let rig = Rig::new().await?;
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/OPERATIONS.md"))?;
    let block = |after: &str, kind: &str| -> Result<String> {
        let rest = page.split_once(after).with_context(|| format!("no {after:?} in OPERATIONS.md"))?.1;
        let code = rest.split_once(&format!("```{kind}\n")).context("no code after it")?.1;
        Ok(code.split_once("```").context("the code ends")?.0.to_owned())
    };
    let (etc, bin) = (open.at("etc"), open.at("bin"));
    fs::create_dir(&bin)?;
    let local = |text: &str| text.replace("/etc/prismesh", &etc.join("prismesh").display().to_string());
    fs::write(bin.join("prismesh"), format!("#!/bin/sh\nexec {} agent \"$@\"\n", open.program().display()))?;
    fs::set_permissions(bin.join("prismesh"), fs::Permissions::from_mode(0o755))?;
    fs::write(open.at("config.yaml"), local(&block("`/etc/prismesh/config.yaml`:", "yaml")?))?;
    fs::create_dir(&etc)?;
    let mut done = 0;
    for line in local(&block("### As a systemd service", "sh")?).lines() {
        if line.starts_with("useradd") || line.starts_with("systemctl") || line.trim().is_empty() {
            continue;
        }
        let line = line.replace("root:prismesh", &format!("root:{USER}"));
        let line = line.replace("--reuid prismesh --regid prismesh", &format!("--reuid {USER} --regid {USER}"));
        let script = format!("umask 022; PATH={}:$PATH; {line}", bin.display());
        let output = output(Command::new("sh").arg("-ec").arg(script).current_dir(open.dir.path()))?;
        ensure!(output.status.success(), "{line}: {output:?}");
        done += 1;
    }
    ensure!(done >= 4, "{done} steps");
    // What the unit starts, as the unit's user; on addresses of this test.
    let config = etc.join("prismesh/config.yaml");
    let plan = rig.agent().without("--cluster").without("--gossip-listen").without("--ca").flag("--config", config);
    let gossip = rig.subnet.at(31, 7447).to_string();
    let plan = plan.flag("--gossip-listen", &gossip).flag("--seed", &gossip).instead("--state-dir", open.at("state"));
    fs::create_dir(open.at("state"))?;
    chown(open.at("state"), Some(USER), Some(USER))?;
    let mut agent = plan.run_by(USER, open.program()).launch()?;
    agent.serves().await?;
    ensure!(agent.status().await?["cluster"] == "prod", "with the documented configuration");
    Ok(())
}

/// As `umask 077` and `umask 022` have it.
#[test]
fn a_new_keyring_is_its_owners_and_its_new_directory_can_be_entered() -> Result<()> {
    let Some(open) = Open::new()? else { return Ok(()) };
    let path = open.at("etc/prismesh/keyring");
    let output = open.run(ROOT, &["keygen", &path.display().to_string()])?;
    ensure!(output.status.success(), "{output:?}");
    ensure!(of(&path)? == (ROOT, ROOT, 0o600) && of(&open.at("etc/prismesh"))?.2 == 0o755, "{:?}", of(&open.at("etc/prismesh"))?);
    Ok(())
}
