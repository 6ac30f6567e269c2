//! A network of one's own, in which packets may be dropped without root.
//!
//! What must drop packets runs itself again under `unshare --user --map-root-user --net --mount`, the whole lab inside; no
//! rule is ever set outside, and a mount over /etc is seen by the lab alone. An address falls silent by redirecting its
//! packets, both ways and resets included, on the loopback device into a virtual cable whose far end drops them (`tc`,
//! which comes with `ip`, and needs no firewall in the kernel).

use std::net::IpAddr;
use std::process::Command;

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
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, proof.path())
        .status()
        .context("cannot run unshare")?;
    ensure!(status.success(), "{test} failed in a network of its own ({status}); what it says is above");
    ensure!(std::fs::read_to_string(proof.path())? == test, "there is no test named {test}");
    Ok(Place::Passed)
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

/// Filters are told apart by preference; each address takes two.
const FIRST_PREFERENCE: u32 = 10;

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

/// An IPv4 address whose packets are dropped, to and from it, until this is dropped.
#[derive(Debug)]
#[must_use = "the address is heard again when this is dropped"]
pub struct Silence {
    preference: u32,
}

impl Silence {
    /// From now on nobody hears of this address.
    pub fn of(addr: IpAddr) -> Result<Silence> {
        let IpAddr::V4(v4) = addr else { bail!("{addr}: only IPv4 addresses can be silenced") };
        // The last octet tells the lab's addresses apart.
        let preference = FIRST_PREFERENCE + 2 * u32::from(v4.octets()[3]);
        run(&redirect(&addr.to_string(), "dst", preference))?;
        run(&redirect(&addr.to_string(), "src", preference + 1))?;
        Ok(Silence { preference })
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        for preference in [self.preference, self.preference + 1] {
            let _ = run(&format!("tc filter del dev lo egress pref {preference}"));
        }
    }
}
