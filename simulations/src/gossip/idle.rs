//! A span in which nothing happens: what processes use and what their network carries meanwhile.

use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, sleep};

use super::figures::Check;
use super::kernel::{Network, cpu, machine_cpu, network};

/// What passed in a span.
pub(super) struct Idle {
    /// CPU of each process, in % of a core, in the order in which they were given.
    pub(super) cpu: Vec<f64>,
    /// IP packets a second that the namespace sent.
    pub(super) packets: f64,
    /// The network and the rest of the machine.
    pub(super) check: Check,
}

/// Waits for so long and looks at these processes before and afterwards.
pub(super) async fn watch(pids: &[u32], span: Duration) -> Result<Idle> {
    let before = Look::at(pids)?;
    sleep(span).await;
    let after = Look::at(pids)?;
    let seconds = (after.at - before.at).as_secs_f64();
    let pairs = before.cpu.iter().zip(&after.cpu);
    let used: Vec<f64> = pairs.map(|(before, after)| after.saturating_sub(*before).as_secs_f64() / seconds).collect();
    let all = after.machine.saturating_sub(before.machine).as_secs_f64() / seconds;
    let rate = |of: fn(&Network) -> u64| of(&after.network).saturating_sub(of(&before.network)) as f64 / seconds;
    let check = Check {
        others_cores: (all - used.iter().sum::<f64>()).max(0.0),
        kernel_udp_per_second: rate(|network| network.udp_datagrams),
        agents_udp_per_second: None,
        network_bytes_per_second: rate(|network| network.bytes),
    };
    Ok(Idle { cpu: used.into_iter().map(|cores| cores * 100.0).collect(), packets: rate(|network| network.packets), check })
}

struct Look {
    at: Instant,
    cpu: Vec<Duration>,
    machine: Duration,
    network: Network,
}

impl Look {
    fn at(pids: &[u32]) -> Result<Look> {
        let cpu = pids.iter().map(|pid| cpu(*pid)).collect::<Result<_>>()?;
        Ok(Look { at: Instant::now(), cpu, machine: machine_cpu()?, network: network()? })
    }
}
