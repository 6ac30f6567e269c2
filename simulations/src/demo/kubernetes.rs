//! Real API servers: Kubernetes' own server library, built with Go when asked for; something for watches to see; and
//! `kubectl` among the clients, where it is installed.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use hyper::Method;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::stage::{PATIENCE, Paths};
use super::voice::Voice;
use crate::lab::apiserver::WATCH_PERIOD;
use crate::lab::ca::Pair;
use crate::lab::client::Target;
use crate::lab::cluster::Cluster;
use crate::lab::kubernetes::{self, Built, WIDGETS, create, request, served};

const WIDGET: &str = r#"{"apiVersion":"demo.prismesh.dev/v1","kind":"Widget","metadata":{"name":"demo"},"spec":{"beat":0}}"#;
/// Between two tries.
const AGAIN: Duration = Duration::from_millis(200);
/// Between two runs of `kubectl get`: each costs a tenth of a second of a core.
const KUBECTL_PERIOD: Duration = Duration::from_secs(1);

/// Builds the program with the API servers; [`None`] if it cannot be, and says why.
pub(super) async fn build(voice: &Voice) -> Result<Option<PathBuf>> {
    voice.say("Building the Kubernetes API servers (minutes at the first time, seconds later) ...");
    Ok(match kubernetes::build().await? {
        Built::Program(program) => Some(program),
        Built::Not(why) => {
            voice.alarm(&format!("demo --kubernetes: {why}"));
            None
        }
    })
}

/// What the clients ask for.
pub(super) fn paths() -> Paths {
    Paths { get: WIDGETS.to_owned(), watch: format!("{WIDGETS}?watch=true") }
}

/// Those who take part only where the API is real. They leave when dropped.
pub(super) struct Guests {
    writer: JoinHandle<()>,
    kubectl: Option<Kubectl>,
}

impl Guests {
    /// Defines widgets, makes one, changes it all the time so that watches have something to see, and starts kubectl.
    pub(super) async fn welcome(cluster: &Cluster, voice: &Voice) -> Result<Guests> {
        let last = cluster.nodes.len() - 1;
        let target = cluster.through(last, WIDGETS)?;
        kubernetes::define_widgets(&target).await?;
        create(&target, WIDGETS, "application/json", WIDGET).await?;
        for apiserver in &cluster.apiservers {
            served(&target.at(apiserver.addr)).await?;
        }
        let writer = tokio::spawn(write(target));
        let kubectl = Kubectl::start(cluster, last).await?;
        if kubectl.is_none() {
            voice.say("kubectl is not installed: it does not take part.");
        }
        Ok(Guests { writer, kubectl })
    }

    /// What came of them; false if one failed.
    pub(super) fn tell(&self, voice: &Voice) -> bool {
        let Some(kubectl) = &self.kubectl else { return true };
        let counts = &kubectl.counts;
        let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
        let (gets, failed, retried) = (count(&counts.gets), count(&counts.failed), count(&counts.retried));
        let (lines, begun) = (count(&counts.lines), count(&counts.watches));
        let text = format!(
            "Through prismesh as well: kubectl get {gets} times ({failed} failed, {retried} retried); kubectl get --watch saw {lines} changes, begun {begun} times."
        );
        let good = failed == 0 && gets > 0 && lines > 0;
        if good {
            voice.say(&text);
        } else {
            voice.alarm(&text);
        }
        good
    }
}

impl Drop for Guests {
    fn drop(&mut self) {
        self.writer.abort();
    }
}

/// Changes the widget again and again. Whether a change arrives is not counted: watches show it.
async fn write(target: Target) {
    let path = format!("{WIDGETS}/demo");
    for beat in 1_u64.. {
        let patch = format!(r#"{{"spec":{{"beat":{beat}}}}}"#);
        let _ = target.send(request(Method::PATCH, &path, "application/merge-patch+json", patch), PATIENCE).await;
        sleep(WATCH_PERIOD).await;
    }
}

/// What kubectl did.
#[derive(Default)]
struct Counts {
    gets: AtomicUsize,
    failed: AtomicUsize,
    retried: AtomicUsize,
    watches: AtomicUsize,
    lines: AtomicUsize,
}

/// `kubectl get` again and again, and `kubectl get --watch`, begun anew when it ends.
struct Kubectl {
    counts: Arc<Counts>,
    tasks: [JoinHandle<()>; 2],
}

impl Kubectl {
    async fn start(cluster: &Cluster, node: usize) -> Result<Option<Kubectl>> {
        let version =
            Command::new("kubectl").args(["version", "--client"]).stdout(Stdio::null()).stderr(Stdio::null()).status().await;
        if !version.is_ok_and(|status| status.success()) {
            return Ok(None);
        }
        let config = cluster.dir().join("kubeconfig");
        let node = cluster.nodes.get(node).context("no such node")?;
        let client = cluster.client.as_ref().context("a client certificate")?;
        std::fs::write(&config, kubeconfig(&node.proxy().to_string(), &cluster.ca.certificate(), client))?;
        let counts = Arc::new(Counts::default());
        let tasks = [tokio::spawn(get(config.clone(), Arc::clone(&counts))), tokio::spawn(watch(config, Arc::clone(&counts)))];
        Ok(Some(Kubectl { counts, tasks }))
    }
}

impl Drop for Kubectl {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn kubeconfig(server: &str, ca: &Path, client: &Pair) -> String {
    let (ca, cert, key) = (ca.display(), client.cert.display(), client.key.display());
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: demo\n\
         clusters: [{{name: demo, cluster: {{server: 'https://{server}', tls-server-name: kubernetes, certificate-authority: '{ca}'}}}}]\n\
         users: [{{name: demo, user: {{client-certificate: '{cert}', client-key: '{key}'}}}}]\n\
         contexts: [{{name: demo, context: {{cluster: demo, user: demo, namespace: default}}}}]\n"
    )
}

fn kubectl(config: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("kubectl");
    command.arg("--kubeconfig").arg(config).arg("--cache-dir").arg(config.with_extension("cache")).args(args);
    command.stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    command
}

/// As a careful script does: each once more if it failed.
async fn get(config: PathBuf, counts: Arc<Counts>) {
    loop {
        let once = || kubectl(&config, &["get", "widgets", "-o", "name"]).stdout(Stdio::null()).status();
        let good = |status: std::io::Result<std::process::ExitStatus>| status.is_ok_and(|status| status.success());
        let mut answered = good(once().await);
        if !answered {
            counts.retried.fetch_add(1, Ordering::Relaxed);
            answered = good(once().await);
        }
        counts.gets.fetch_add(1, Ordering::Relaxed);
        counts.failed.fetch_add(usize::from(!answered), Ordering::Relaxed);
        sleep(KUBECTL_PERIOD).await;
    }
}

async fn watch(config: PathBuf, counts: Arc<Counts>) {
    loop {
        counts.watches.fetch_add(1, Ordering::Relaxed);
        let child = kubectl(&config, &["get", "widgets", "--watch", "-o", "name"]).stdout(Stdio::piped()).spawn();
        if let Ok(mut child) = child
            && let Some(stdout) = child.stdout.take()
        {
            let mut lines = BufReader::new(stdout).lines();
            while matches!(lines.next_line().await, Ok(Some(_))) {
                counts.lines.fetch_add(1, Ordering::Relaxed);
            }
        }
        sleep(AGAIN).await;
    }
}
