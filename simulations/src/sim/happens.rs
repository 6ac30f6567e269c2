//! What happens in a story, in words: what a file calls `apiserver: {of: cp-1, mode: hung}` is "cp-1's apiserver hangs" to whoever
//! looks at a page.

use serde::Serialize;

use super::outcome::Happened;
use super::plan::{Fault, Step};
use super::state::{Class, Mode};

/// Names told of one step; the rest is a number.
const NAMED: usize = 4;

/// A step, as it is told.
pub(super) fn told(step: &Step) -> Happened {
    Happened { at: step.at, until: step.lasts.map(|lasts| step.at + lasts), what: words(&step.what) }
}

/// A fault in words.
fn words(fault: &Fault) -> String {
    match fault {
        Fault::Apiserver { of, mode } => format!("apiserver of {} {}", names(of), does(*mode)),
        Fault::Drain { of } => format!("apiserver of {} drains and closes", names(of)),
        Fault::GracefulStop { of, serves_on } => {
            format!("apiserver of {} closes its port, and after {serves_on} ms what is open", names(of))
        }
        Fault::Flap { of, period } => format!("apiserver of {} crashes and comes back each {period} ms", names(of)),
        Fault::Impostor { of, mode } => format!("something else at the apiserver's address of {} {}", names(of), does(*mode)),
        Fault::Balancer { mode } => format!("the external balancer {}", does(*mode)),
        Fault::BalancerBlind => "the external balancer's checks find nothing".to_owned(),
        Fault::Dns { silent } => format!("DNS {}", if *silent { "does not answer" } else { "fails" }),
        Fault::Machine { of } => format!("{} without power", names(of)),
        Fault::Stall { of } => format!("agent of {} does not get on", names(of)),
        Fault::AgentKilled { of } => format!("agent of {} killed", names(of)),
        Fault::Newer { of } => format!("agent of {} is of a later build", names(of)),
        Fault::AgentRestart { of } => format!("agent of {} restarted", names(of)),
        Fault::Join { of } => format!("{} joins", names(of)),
        Fault::Leave { of } => format!("{} leaves for good", names(of)),
        Fault::Readdress { of } => format!("{} comes back at another address", names(of)),
        _ => of_networks(fault),
    }
}

fn of_networks(fault: &Fault) -> String {
    match fault {
        Fault::Family { of, ipv6 } => format!("{} dead for {}", if *ipv6 { "IPv6" } else { "IPv4" }, names(of)),
        Fault::Partition { from, to, both, class } => {
            let what = class.map_or("nothing", |class| if class == Class::Api { "no API packet" } else { "no gossip" });
            let ways = if *both { ", either way" } else { "" };
            let to = if to.is_empty() { "everyone else".to_owned() } else { names(to) };
            format!("{what} passes from {} to {to}{ways}", names(from))
        }
        Fault::Forbid { of, to } => format!("the kernel of {} forbids new connections to {}", names(of), names(to)),
        Fault::Loss { of, share } => format!("{} loses {:.0}% of its packets", names(of), share * 100.0),
        Fault::Latency { of, to, ms } => {
            let to = if to.is_empty() { "everyone else".to_owned() } else { names(to) };
            format!("{} and {to} are {ms} ms further apart, one way", names(of))
        }
        Fault::Jitter { of, share } => format!("times of {} differ by {:.0}%", names(of), share * 100.0),
        Fault::Mtu { of, bytes } => format!("datagrams of {} above {bytes} bytes vanish", names(of)),
        Fault::SegmentHole { from, to, bytes } => {
            format!("segments from {} to {} above {bytes} bytes vanish", names(from), names(to))
        }
        Fault::Disorder { of, share } => format!("{:.0}% of the datagrams of {} come twice or late", share * 100.0, names(of)),
        _ => of_state(fault),
    }
}

fn of_state(fault: &Fault) -> String {
    match fault {
        Fault::StateLost { of } => format!("{} loses its state directory", names(of)),
        Fault::StateRestored { of, from } => format!("state directory of {} as it was at {from} ms", names(of)),
        Fault::Cloned { of, from } => format!("{of} is a copy of {from}"),
        Fault::ClockJump { of, by } => format!("clock of {} jumps by {by} ms", names(of)),
        Fault::Configure { of, .. } => format!("{} read another configuration", names(of)),
        Fault::NameTakesTurns { of } => format!("the balancer's name is answered with {}, one at a time", names(of)),
        Fault::NewCa => "the cluster's CA is another one".to_owned(),
        Fault::NextCa => "there is a new CA".to_owned(),
        Fault::Reissue { of } => format!("apiserver of {} shows a certificate of the newest CA", names(of)),
        Fault::GiveCa { of, old_too: true } => format!("{} get the newest CA beside the one before", names(of)),
        Fault::GiveCa { of, .. } => format!("{} get the newest CA", names(of)),
        Fault::LoseCa { of } => format!("{} lose their CA file", names(of)),
        Fault::Keyring { of, step } => format!("key rotation at {}: {step}", names(of)),
        Fault::Hostile { node, act } => format!("{node} means harm: {}", as_written(act)),
        other => as_written(other),
    }
}

/// What has no words of its own, as files call it.
fn as_written(what: &impl Serialize) -> String {
    let value = serde_json::to_value(what).unwrap_or_default();
    let name = value.as_object().and_then(|fields| fields.keys().next().cloned()).or(value.as_str().map(str::to_owned));
    name.unwrap_or_default().replace('-', " ")
}

fn does(mode: Mode) -> String {
    match mode {
        Mode::Ready => "serves".to_owned(),
        Mode::Draining => "says that it is not ready".to_owned(),
        Mode::Hung => "hangs".to_owned(),
        Mode::Refusing => "refuses".to_owned(),
        Mode::Dropping => "falls silent".to_owned(),
        Mode::Unrouted => "is reached by its own machine only".to_owned(),
        Mode::Slow(ms) => format!("is {ms} ms slower"),
        Mode::WrongCertificate => "shows a wrong certificate".to_owned(),
        Mode::NotTls => "speaks no TLS".to_owned(),
        Mode::LateReadyz(least, most) => format!("answers /readyz after {least} to {most} ms"),
        Mode::EtcdFrozen => "gets no answer of etcd".to_owned(),
        Mode::Closed => "closes its port and serves on".to_owned(),
        Mode::NotReading => "does not read what is uploaded".to_owned(),
        Mode::QueueFull => "has a full accept queue".to_owned(),
        Mode::NoDescriptors => "has no descriptors left".to_owned(),
        Mode::UnsupportedCertificate => "shows a certificate that agents cannot check".to_owned(),
        other => format!("is {}", as_written(&other)),
    }
}

fn names(who: &[String]) -> String {
    match who.len() {
        0 => "everyone".to_owned(),
        all if all > NAMED => format!("{} and {} more", who[..NAMED].join(", "), all - NAMED),
        _ => who.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::plan::who;

    #[test]
    fn a_step_is_told_with_who_what_and_until_when() {
        let step = Step { at: 16_000, lasts: Some(9_000), what: Fault::Apiserver { of: who("cp-1"), mode: Mode::Hung } };
        let expected = Happened { at: 16_000, until: Some(25_000), what: "apiserver of cp-1 hangs".to_owned() };
        assert_eq!(told(&step), expected);
        assert_eq!(does(Mode::Gone), "is gone");
        let many: Vec<String> = (1..=6).map(|number| format!("worker-{number}")).collect();
        assert_eq!(names(&many), "worker-1, worker-2, worker-3, worker-4 and 2 more");
    }
}
