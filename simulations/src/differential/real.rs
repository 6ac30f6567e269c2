//! Real API servers, once for all trials: each takes seconds to start.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use hyper::Method;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::stage::Servers;
use crate::lab::apiserver::WATCH_PERIOD;
use crate::lab::children::{Launch, Process};
use crate::lab::client::Target;
use crate::lab::kubernetes::{self, WIDGETS, create, request, served};

/// The widget that changes all the time.
pub(super) const BEAT: &str = "beat";
/// Others, which make a list large.
const HEAVY: usize = 60;
const HEAVY_BYTES: usize = 100_000;
const ETCD_HOST: u8 = 9;
const ETCD_PORT: u16 = 2379;
const ETCD_START: Duration = Duration::from_secs(30);
/// As clients send merge patches.
const PATCH: &str = "application/merge-patch+json";
/// A change that takes longer is not waited for.
const CHANGED_WITHIN: Duration = Duration::from_secs(1);

/// They and what their clients see.
pub(super) struct Kubernetes {
    pub(super) servers: Servers,
    writer: JoinHandle<()>,
}

impl Kubernetes {
    /// Starts etcd and them, and fills them.
    pub(super) async fn start(program: &Path) -> Result<Kubernetes> {
        let mut servers = Servers::lay_out(program)?;
        let etcd = servers.at(ETCD_HOST, ETCD_PORT);
        let args = kubernetes::etcd_args(etcd, &servers.dir().join("etcd"));
        let (name, program, dir) = ("etcd".to_owned(), program.to_owned(), servers.dir().to_owned());
        let mut process = Process::start(Launch { name, program, args, dir, socket: None })?;
        process.ready(ETCD_START).await?;
        servers.etcd = Some(process);
        servers.client = Some(servers.ca.client("differential", "system:masters")?);
        let ca = servers.ca.certificate();
        for server in &mut servers.all {
            // The port closes at once, and what is under way goes on.
            server.args = kubernetes::apiserver_args(&server.options, etcd, &ca, "0s");
        }
        servers.rest().await?;
        let targets: Vec<Target> =
            servers.all.iter().map(|server| Ok(servers.target(server.addr)?.path(WIDGETS))).collect::<Result<_>>()?;
        fill(targets.first().context("an apiserver")?).await?;
        for target in &targets {
            served(&target.path(&format!("{WIDGETS}/{BEAT}"))).await?;
        }
        Ok(Kubernetes { servers, writer: tokio::spawn(write(targets)) })
    }
}

impl Drop for Kubernetes {
    fn drop(&mut self) {
        self.writer.abort();
    }
}

async fn fill(target: &Target) -> Result<()> {
    kubernetes::define_widgets(target).await?;
    create(target, WIDGETS, "application/json", widget(BEAT, 1)).await?;
    for number in 0..HEAVY {
        create(target, WIDGETS, "application/json", widget(&format!("heavy-{number}"), HEAVY_BYTES)).await?;
    }
    Ok(())
}

fn widget(name: &str, bytes: usize) -> String {
    let spec = serde_json::json!({ "text": "x".repeat(bytes) });
    serde_json::json!({ "apiVersion": "demo.prismesh.dev/v1", "kind": "Widget", "metadata": { "name": name }, "spec": spec })
        .to_string()
}

/// Changes a widget again and again, by way of each of them in turn. Whether a change arrives is not counted: watches show it.
async fn write(targets: Vec<Target>) {
    let path = format!("{WIDGETS}/{BEAT}");
    for (beat, target) in targets.iter().cycle().enumerate() {
        let patch = format!(r#"{{"spec":{{"beat":{beat}}}}}"#);
        let _ = target.send(request(Method::PATCH, &path, PATCH, patch), CHANGED_WITHIN).await;
        sleep(WATCH_PERIOD).await;
    }
}
