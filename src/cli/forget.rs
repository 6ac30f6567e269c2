//! `prismesh forget`: remove a control plane that is gone for good.
//!
//! The removal is signed here, with the full keyring, and brought to the local agent, which passes it on.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use clap::Args;

use super::admin::{AgentStatus, Peer, Which, runtime};
use super::keygen::KEYRING_MOST;
use super::output::{Failure, harmless, print};
use crate::config::Setting;
use crate::engine::NodeId;
use crate::gossip::item::{Item, Removal};
use crate::gossip::keys::Keyring;
use crate::world::Store as _;
use crate::world::real;

/// Removes a control plane from what all nodes know.
#[derive(Debug, Args)]
pub(super) struct Forget {
    /// The control plane, by its name or its id
    node: String,

    /// Remove it although it is live, or one of its endpoints answers
    #[arg(long)]
    force: bool,

    /// The full keyring [default: as configured]
    #[arg(long, value_name = "FILE")]
    keyring: Option<PathBuf>,

    #[command(flatten)]
    which: Which,
}

impl Forget {
    pub(super) fn execute(self) -> Result<(), Failure> {
        runtime()?.block_on(async {
            let (file, cluster) = self.configured().await?;
            let keyring = full(&file).await?;
            let status = self.which.ask().await?.status;
            let removal = removal(&status, &self.node, cluster.as_deref(), self.force)?;
            let name = removal.name.clone();
            let signed = Item::Removal(removal).sign(&keyring, &status.cluster).context("the removal cannot be signed")?;
            self.which.forget(&signed.bytes).await?;
            print(&format!(
                "{name} is removed. Every node drops its endpoints, unless another control plane names them, as soon as it hears of\n\
                 this: within seconds, and a node that is away when it comes back. If prismesh is started again on {name}, it returns.\n",
                name = harmless(&name)
            ))
        })
    }

    /// The keyring's file, and the cluster's id where it is written.
    async fn configured(&self) -> Result<(PathBuf, Option<String>), Failure> {
        let (layer, _) = self.which.sources().merge(&real::Files).await?;
        let written = |setting| layer.value(setting).filter(|_| layer.written(setting)).map(|written| written.text.clone());
        let file = self.keyring.clone().or_else(|| layer.value(Setting::Keyring).map(|written| written.text.clone().into()));
        let file = file.ok_or_else(|| anyhow!("no keyring is configured: give the full keyring with --keyring FILE"))?;
        Ok((file, written(Setting::Cluster)))
    }
}

/// Reads a full keyring.
async fn full(path: &Path) -> anyhow::Result<Keyring> {
    let text =
        real::Files.read(path, KEYRING_MOST).await.with_context(|| format!("cannot read the keyring {}", path.display()))?;
    let keyring = Keyring::parse(&text).with_context(|| format!("{} is not a keyring", path.display()))?;
    if !keyring.is_full() {
        bail!(
            "{} is a reader keyring, which cannot sign; a removal is signed with the full keyring, which control-plane nodes have: \
             run this there, or give its file with --keyring",
            path.display()
        );
    }
    Ok(keyring)
}

/// The removal of a control plane, as the agent knows it; an error where it must not be, or must be forced.
fn removal(status: &AgentStatus, node: &str, cluster: Option<&str>, force: bool) -> anyhow::Result<Removal> {
    if let Some(cluster) = cluster.filter(|cluster| *cluster != status.cluster) {
        bail!("the agent belongs to the cluster {}, and the configuration to {cluster}", harmless(&status.cluster));
    }
    if node == status.node || node == NodeId::of(&status.node).as_str() {
        bail!("{node} is the node of the agent that is asked: stop that agent, then run this on another node");
    }
    let named = |peer: &&Peer| peer.name == node || peer.node == node;
    let control_planes: Vec<&Peer> = status.peers.iter().filter(|peer| peer.role != "worker").collect();
    let Some((peer, generation)) = control_planes.iter().copied().find(named).and_then(|peer| Some((peer, peer.generation?)))
    else {
        let names: Vec<&str> = control_planes.iter().map(|peer| peer.name.as_str()).collect();
        let names = if names.is_empty() { "none".to_owned() } else { harmless(&names.join(", ")) };
        if status.peers.iter().any(|peer| named(&peer)) {
            bail!("{node} is a worker: nodes forget a worker by themselves. The control planes that the agent knows: {names}");
        }
        bail!("the agent knows no control plane {node}. Those that it knows: {names}");
    };
    let name = harmless(&peer.name);
    if !force && peer.alive {
        bail!(
            "{name} is live: stop its agent first, or give --force. It then leaves, and returns when its agent is started again"
        );
    }
    let answers = |verdict: &str| matches!(verdict, "ready" | "draining");
    let answering =
        status.upstreams.iter().find(|upstream| answers(&upstream.verdict) && peer.endpoints.contains(&upstream.endpoint));
    if let Some(upstream) = answering.filter(|_| !force) {
        bail!(
            "{name}'s endpoint {} answers: it may be in use. Stop its apiserver first, or give --force",
            harmless(&upstream.endpoint)
        );
    }
    Ok(Removal { name: peer.name.clone(), generation })
}

#[cfg(test)]
mod tests {
    use super::super::admin::Upstream;
    use super::*;

    fn peer(name: &str, role: &str, alive: bool) -> Peer {
        Peer {
            name: name.to_owned(),
            node: format!("id-{name}"),
            role: role.to_owned(),
            alive,
            generation: Some(7),
            endpoints: vec![format!("{name}:6443")],
            ..Peer::default()
        }
    }

    fn status(verdict: &str) -> AgentStatus {
        AgentStatus {
            node: "me".to_owned(),
            cluster: "c".to_owned(),
            peers: vec![peer("cp-1", "control-plane", true), peer("cp-2", "control-plane", false), peer("w", "worker", false)],
            upstreams: vec![Upstream { endpoint: "cp-2:6443".to_owned(), verdict: verdict.to_owned(), ..Upstream::default() }],
            ..AgentStatus::default()
        }
    }

    fn refused(verdict: &str, node: &str, force: bool) -> String {
        removal(&status(verdict), node, None, force).unwrap_err().to_string()
    }

    #[test]
    fn a_control_plane_that_is_away_is_removed_by_name_or_id() {
        let expected = Removal { name: "cp-2".to_owned(), generation: 7 };
        assert_eq!(removal(&status("down"), "cp-2", Some("c"), false).unwrap(), expected);
        assert_eq!(removal(&status("suspect"), "id-cp-2", None, false).unwrap(), expected);
    }

    #[test]
    fn what_lives_or_answers_has_to_be_forced() {
        assert!(refused("down", "cp-1", false).contains("is live"));
        for verdict in ["ready", "draining"] {
            assert!(refused(verdict, "cp-2", false).contains("cp-2:6443 answers"));
        }
        assert_eq!(removal(&status("ready"), "cp-2", None, true).unwrap().name, "cp-2");
        assert_eq!(removal(&status("down"), "cp-1", None, true).unwrap().name, "cp-1");
    }

    #[test]
    fn the_own_node_a_worker_an_unknown_node_and_another_cluster_are_refused_even_by_force() {
        for force in [false, true] {
            assert!(refused("down", "me", force).contains("stop that agent"));
            assert!(refused("down", "w", force).contains("is a worker"));
            assert!(refused("down", "cp-9", force).ends_with("cp-1, cp-2"));
        }
        assert!(removal(&status("down"), "cp-2", Some("d"), true).is_err());
    }
}
