//! What the kernel says of a process, of a network namespace and of the machine.

use std::fs::read_to_string;
use std::time::Duration;

use anyhow::{Context, Result};

/// The unit of CPU times in /proc/stat (`USER_HZ`, the same on all of Linux's common platforms).
const TICK: Duration = Duration::from_millis(10);
/// The header that /proc/net/dev counts with each packet of the loopback device.
const ETHERNET_HEADER: u64 = 14;

/// The memory of a process, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Memory {
    /// Shared pages count as a share (`Pss`).
    pub(super) proportional: u64,
    /// Shared pages count in full (`Rss`).
    pub(super) resident: u64,
}

/// What the namespace has sent, over loopback alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Network {
    /// UDP datagrams, before fragmentation.
    pub(super) udp_datagrams: u64,
    /// IP packets of all protocols.
    pub(super) packets: u64,
    /// Bytes of these, with their IP headers.
    pub(super) bytes: u64,
}

/// CPU time of a process: all its threads that still exist, in the scheduler's nanoseconds.
///
/// `utime` and `stime` in /proc/PID/stat are the same sum rounded to 10 ms, which is all that an idle agent uses in 10 s.
pub(super) fn cpu(pid: u32) -> Result<Duration> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("process {pid} is gone"))?;
    let mut nanoseconds = 0;
    for task in tasks {
        // A thread may have ended since.
        let Ok(text) = read_to_string(task?.path().join("schedstat")) else { continue };
        let first = text.split_ascii_whitespace().next().context("schedstat is empty")?;
        nanoseconds += first.parse::<u64>().context("schedstat holds no number")?;
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// The memory of a process.
pub(super) fn memory(pid: u32) -> Result<Memory> {
    let text = read_to_string(format!("/proc/{pid}/smaps_rollup")).with_context(|| format!("memory of process {pid}"))?;
    Ok(Memory { proportional: kilobytes(&text, "Pss:")?, resident: kilobytes(&text, "Rss:")? })
}

/// Memory that new processes can have, in bytes.
pub(super) fn available_memory() -> Result<u64> {
    kilobytes(&read_to_string("/proc/meminfo")?, "MemAvailable:")
}

/// Average number of runnable processes in the last minute.
pub(super) fn load_average() -> Result<f64> {
    let text = read_to_string("/proc/loadavg")?;
    Ok(text.split_ascii_whitespace().next().context("/proc/loadavg is empty")?.parse()?)
}

/// CPU time that all processes of the machine have used.
pub(super) fn machine_cpu() -> Result<Duration> {
    let text = read_to_string("/proc/stat")?;
    let line = text.lines().next().context("/proc/stat is empty")?;
    let ticks: Vec<u64> = line.split_ascii_whitespace().skip(1).map_while(|number| number.parse().ok()).collect();
    // user, nice, system, then idle and iowait, then irq and softirq.
    let busy: u64 = ticks.iter().take(3).chain(ticks.iter().skip(5).take(2)).sum();
    Ok(Duration::from_secs_f64(TICK.as_secs_f64() * busy as f64))
}

/// What this process's network namespace has sent.
pub(super) fn network() -> Result<Network> {
    let snmp = read_to_string("/proc/self/net/snmp")?;
    let mut udp = snmp.lines().filter_map(|line| line.strip_prefix("Udp:")).map(str::split_ascii_whitespace);
    let (names, numbers) = udp.next().zip(udp.next()).context("/proc/net/snmp does not count UDP")?;
    let sent = names.zip(numbers).find(|(name, _)| *name == "OutDatagrams").context("no OutDatagrams in /proc/net/snmp")?;
    let devices = read_to_string("/proc/self/net/dev")?;
    let lo = devices.lines().find_map(|line| line.trim_start().strip_prefix("lo:")).context("no device lo")?;
    let lo: Vec<u64> = lo.split_ascii_whitespace().map_while(|number| number.parse().ok()).collect();
    // Received: bytes, packets and six more; then sent: bytes, packets.
    let (bytes, packets) = lo.get(8).zip(lo.get(9)).context("/proc/net/dev is not what was expected")?;
    let bytes = bytes.saturating_sub(packets * ETHERNET_HEADER);
    Ok(Network { udp_datagrams: sent.1.parse()?, packets: *packets, bytes })
}

/// The value of a line such as `Pss:  248 kB`, in bytes.
fn kilobytes(text: &str, name: &str) -> Result<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
    let number = value.split_ascii_whitespace().next().with_context(|| format!("{name} has no value"))?;
    Ok(number.parse::<u64>().with_context(|| format!("{name} {value}"))? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_answers_all_questions_about_this_process() {
        let pid = std::process::id();
        let memory = memory(pid).expect("memory");
        assert!(memory.proportional > 0 && memory.resident >= memory.proportional, "{memory:?}");
        let before = cpu(pid).expect("CPU time");
        assert!(before > Duration::ZERO && machine_cpu().expect("the machine's") >= before);
        assert!(available_memory().expect("memory of the machine") > 0);
        assert!(load_average().expect("load") >= 0.0);
        assert!(network().is_ok(), "{:?}", network());
    }
}
