//! A network of one's own, in which packets may be dropped without root.
//!
//! What must drop packets runs itself again under `unshare --user --map-root-user --net --mount`, the whole lab inside; no
//! rule is ever set outside, and a mount over /etc is seen by the lab alone. An address falls silent by redirecting its
//! packets, both ways and resets included, on the loopback device into a virtual cable whose far end drops them (`tc`,
//! which comes with `ip`, and needs no firewall in the kernel). One way alone is dropped likewise.

use std::ffi::OsString;
use std::net::IpAddr;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail, ensure};

/// Set inside a network of one's own: the file to which the test writes its name as proof that it was begun.
const INSIDE: &str = "PRISMESH_INSIDE_NETNS";
/// Set by who demands that tests which drop packets are run.
pub const DEMANDED: &str = "PRISMESH_DEMAND_NETNS";

/// Where a test that drops packets finds itself.
#[derive(Debug, PartialEq, Eq)]
pub enum Place {
    /// In a network of its own, ready: run the test.
    Inside,
    /// It has run, inside, and passed.
    Passed,
    /// Such networks are forbidden here.
    Forbidden(String),
}

/// Runs the test of this name again in a network of its own, unless this already is one.
pub fn enter(test: &str) -> Result<Place> {
    enter_if(test, "true")
}

/// The same, where this shell command can be run in such a network as well.
pub(super) fn enter_if(test: &str, command: &str) -> Result<Place> {
    if let Some(proof) = std::env::var_os(INSIDE) {
        prepare()?;
        std::fs::write(proof, test).context("cannot say that the test was begun")?;
        return Ok(Place::Inside);
    }
    if let Err(why) = possible(command) {
        ensure!(std::env::var_os(DEMANDED).is_none_or(|set| set != "1"), "{DEMANDED}=1, but {why:#}");
        return Ok(Place::Forbidden(format!("{why:#}")));
    }
    // A name that is no test's would run nothing, and pass.
    let proof = tempfile::NamedTempFile::new()?;
    let status = unshared(&std::env::current_exe()?)
        .args([test, "--exact", "--include-ignored", "--nocapture", "--test-threads=1"])
        .env(INSIDE, proof.path())
        .status()
        .context("cannot run unshare")?;
    ensure!(status.success(), "{test} failed in a network of its own ({status}); what it says is above");
    ensure!(std::fs::read_to_string(proof.path())? == test, "there is no test named {test}");
    Ok(Place::Passed)
}

/// Runs this program again with these arguments in a network of its own, unless this already is one.
pub fn enter_again(args: Vec<OsString>) -> Result<Again> {
    if inside() {
        prepare()?;
        return Ok(Again::Inside);
    }
    if let Err(why) = possible("true") {
        ensure!(std::env::var_os(DEMANDED).is_none_or(|set| set != "1"), "{DEMANDED}=1, but {why:#}");
        return Ok(Again::Forbidden(format!("{why:#}")));
    }
    let status = unshared(&std::env::current_exe()?).args(args).env(INSIDE, "").status().context("cannot run unshare")?;
    Ok(Again::Ended(status.code()))
}

/// Whether this process was run in a network of its own.
pub fn inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Where a program that drops packets finds itself.
#[derive(Debug, PartialEq, Eq)]
pub enum Again {
    /// In a network of its own, ready.
    Inside,
    /// It has run, inside, and ended with this exit code; [`None`]: by a signal.
    Ended(Option<i32>),
    /// Such networks are forbidden here.
    Forbidden(String),
}

fn unshared(program: &std::path::Path) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--net", "--mount", "--"]).arg(program);
    command
}

/// Tries everything that a silent address needs, and this command, in a network that is gone at once.
fn possible(command: &str) -> Result<()> {
    let tries = format!("{} && {} && {command}", PREPARE.join(" && "), redirect("127.0.0.2", "dst", FIRST_PREFERENCE));
    let output = unshared("sh".as_ref()).args(["-c", &tries]).output().context("cannot run unshare")?;
    if !output.status.success() {
        bail!("this machine forbids a network of one's own: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Brings loopback up and lays the cable.
const PREPARE: [&str; 5] = [
    "ip link set lo up",
    "ip link add silence type veth peer name nowhere",
    "ip link set silence up",
    "ip link set nowhere up",
    "tc qdisc add dev lo clsact",
];

/// Filters are told apart by preference; each has one of its own.
static NEXT_PREFERENCE: AtomicU32 = AtomicU32::new(0);
const FIRST_PREFERENCE: u32 = 10;
/// From here on the kernel chooses preferences by itself.
const PREFERENCES: u32 = 40_000;

fn prepare() -> Result<()> {
    PREPARE.iter().try_for_each(|command| run(command))
}

fn redirect(addr: &str, way: &str, preference: u32) -> String {
    format!(
        "tc filter add dev lo egress pref {preference} protocol ip u32 match ip {way} {addr}/32 action mirred egress redirect dev silence"
    )
}

fn run(command: &str) -> Result<()> {
    let mut words = command.split_ascii_whitespace();
    let output = Command::new(words.next().unwrap_or_default()).args(words).output().with_context(|| command.to_owned())?;
    ensure!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// Which packets of an address are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// Those that are sent to it.
    Towards,
    /// Those that it sends.
    From,
}

impl Way {
    fn matched(self) -> &'static str {
        match self {
            Way::Towards => "dst",
            Way::From => "src",
        }
    }
}

/// Packets of an IPv4 address that are dropped one way, until this is dropped.
#[derive(Debug)]
#[must_use = "the address is heard again when this is dropped"]
pub struct Loss {
    preference: u32,
}

impl Loss {
    /// From now on these packets are lost.
    pub fn of(addr: IpAddr, way: Way) -> Result<Loss> {
        let IpAddr::V4(v4) = addr else { bail!("{addr}: only packets of IPv4 addresses can be dropped") };
        let preference = FIRST_PREFERENCE + NEXT_PREFERENCE.fetch_add(1, Ordering::Relaxed) % PREFERENCES;
        run(&redirect(&v4.to_string(), way.matched(), preference))?;
        Ok(Loss { preference })
    }
}

impl Drop for Loss {
    fn drop(&mut self) {
        let _ = run(&format!("tc filter del dev lo egress pref {}", self.preference));
    }
}

/// An IPv4 address whose packets are dropped, to and from it, until this is dropped.
#[derive(Debug)]
#[must_use = "the address is heard again when this is dropped"]
pub struct Silence {
    _both: [Loss; 2],
}

impl Silence {
    /// From now on nobody hears of this address.
    pub fn of(addr: IpAddr) -> Result<Silence> {
        Ok(Silence { _both: [Loss::of(addr, Way::Towards)?, Loss::of(addr, Way::From)?] })
    }
}
