//! Real API servers: Kubernetes' own server library, built with Go when asked for, and something for their clients to see.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request};
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use super::apiserver::Options;
use super::client::Target;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const DEFINITION: &str = include_str!("../../kubernetes/widget.yaml");
/// Where the objects are that clients ask for.
pub const WIDGETS: &str = "/apis/demo.prismesh.dev/v1/namespaces/default/widgets";
/// A server takes this long to serve what was defined a moment ago, on a machine with much else to do.
const DEFINED_WITHIN: Duration = Duration::from_secs(60);
/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two tries.
const AGAIN: Duration = Duration::from_millis(200);

/// What came of a build.
#[derive(Debug)]
pub enum Built {
    /// The program is there.
    Program(PathBuf),
    /// It is not, and why.
    Not(String),
}

/// Builds the program with the API servers.
pub async fn build() -> Result<Built> {
    let go = Command::new("go").arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status().await;
    if !go.is_ok_and(|status| status.success()) {
        let why = "Kubernetes API servers are built with Go, which is not in PATH (https://go.dev/dl)";
        return Ok(Built::Not(why.to_owned()));
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("kubernetes");
    let exe = std::env::current_exe()?;
    // target/PROFILE/simulations: the program is the same for every profile.
    let target = exe.ancestors().nth(2).context("not in a target directory")?;
    let program = target.join("kubernetes").join("prismesh-kubernetes");
    let built = Command::new("go")
        .args(["build", "-ldflags", "-X k8s.io/component-base/version.gitVersion=v1.37.2", "-o"])
        .arg(&program)
        .arg(".")
        .current_dir(&source)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .status()
        .await
        .context("cannot run go")?;
    if !built.success() {
        return Ok(Built::Not(format!("go could not build {}; what it says is above", source.display())));
    }
    Ok(Built::Program(program))
}

/// The arguments for an etcd.
pub fn etcd_args(listen: SocketAddr, dir: &Path) -> Vec<OsString> {
    let mut args = ["etcd", "--exit-with-stdin", "--listen"].map(OsString::from).to_vec();
    args.extend([listen.to_string().into(), "--dir".into(), dir.as_os_str().to_owned()]);
    args
}

/// The arguments for an API server in the place of one of the lab's.
pub fn apiserver_args(options: &Options, etcd: SocketAddr, ca: &Path, shutdown_delay: &str) -> Vec<OsString> {
    let mut args = ["apiserver", "--exit-with-stdin", "--shutdown-delay", shutdown_delay].map(OsString::from).to_vec();
    let mut flag = |name: &str, value: OsString| args.extend([OsString::from(name), value]);
    flag("--listen", options.listen.to_string().into());
    flag("--etcd", format!("http://{etcd}").into());
    flag("--tls-cert", options.cert.clone().into());
    flag("--tls-key", options.key.clone().into());
    flag("--client-ca", ca.into());
    args
}

/// Defines widgets.
pub async fn define_widgets(target: &Target) -> Result<()> {
    create(target, DEFINITIONS, "application/yaml", DEFINITION).await
}

/// Creates an object; a server that is not yet ready for it is asked again.
pub async fn create(target: &Target, path: &str, kind: &str, text: impl Into<Bytes>) -> Result<()> {
    let (deadline, text) = (Instant::now() + DEFINED_WITHIN, text.into());
    while let Err(failure) = target.send(request(Method::POST, path, kind, text.clone()), PATIENCE).await {
        if failure.why.contains("409") {
            break;
        }
        ensure!(Instant::now() < deadline, "cannot create {path}: {}", failure.why);
        sleep(AGAIN).await;
    }
    Ok(())
}

/// Waits until a server answers for widgets: it prepares for them when first asked.
pub async fn served(target: &Target) -> Result<()> {
    let deadline = Instant::now() + DEFINED_WITHIN;
    while let Err(failure) = target.get(PATIENCE).await {
        if Instant::now() > deadline {
            bail!("{} does not serve widgets: {}", target.addr, failure.why);
        }
        sleep(AGAIN).await;
    }
    Ok(())
}

/// A request with a body.
pub fn request(method: Method, path: &str, kind: &str, body: impl Into<Bytes>) -> Result<Request<Full<Bytes>>> {
    let request = Request::builder().method(method).uri(path).header("host", "kubernetes");
    Ok(request.header("accept", "application/json").header("content-type", kind).body(Full::new(body.into()))?)
}
