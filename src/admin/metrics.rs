//! `/metrics`: all numbers, in the OpenMetrics text format that Prometheus reads.
//!
//! The numbers are counted where they arise and handed over as plain data at each scrape; this module only names them. So nothing
//! here is on the hot path, and series of an endpoint that is gone end with it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::text;
use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use crate::engine::Endpoint;
use crate::engine::event::Verdict;

/// What [`encode`] writes.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Counts by a word out of a fixed set, so that what comes from outside cannot make series without end.
pub type Counts = BTreeMap<&'static str, u64>;

/// All numbers of an agent. Counters count since its start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    /// By endpoint.
    pub upstreams: Vec<UpstreamMetrics>,
    /// Nodes, as far as this one knows.
    pub cluster_size: u32,
    /// Time since the agent's start.
    pub uptime: Duration,
    /// Established client connections.
    pub clients: u64,
    /// Clients held now.
    pub held: u64,
    /// Times a client was held.
    pub holds: u64,
    /// ClientHellos sent to one more upstream because the first was silent.
    pub replays: u64,
    /// Replays not made because too many had been made lately.
    pub replays_refused: u64,
    /// ClientHellos that came while the same one was being forwarded: an endpoint leads back to this agent.
    pub repeated_hellos: u64,
    /// Connections refused, by the limit that was reached.
    pub refusals: Counts,
    /// Connections and requests that the admin port turned away, by reason.
    pub admin_rejections: Counts,
    /// Failed accepts of the proxy's listeners.
    pub accept_errors: u64,
    /// Sightings of the proxy that the engine was too busy to take.
    pub sightings_dropped: u64,
    /// Events that the engine has handled.
    pub engine_events: u64,
    /// Panics of the process.
    pub panics: u64,
    /// Starts after its first of each task that is started again when it ends.
    pub task_restarts: Counts,
    /// What the agent waits for, 1 each.
    pub waiting: Counts,
    /// Lines of the log that could not be queued or written.
    pub log_lines_dropped: u64,
    /// Names that could not be resolved in a family when they were last looked up.
    pub names_unresolved: u64,
    /// Families of names that could not be looked up.
    pub name_lookup_failures: u64,
    /// The last write to some file of the state directory failed.
    pub state_write_failing: bool,
    /// Writes to the state directory that failed.
    pub state_write_failures: u64,
    /// Reloads that failed and left what was there.
    pub reload_failures: u64,
    /// No CA is in force: apiservers cannot be told from others.
    pub ca_missing: bool,
    /// A CA is configured, or was in force, and its file cannot be read.
    pub ca_unreadable: bool,
    /// [`None`] when gossip is off.
    pub gossip: Option<GossipMetrics>,
}

/// The numbers of one endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct UpstreamMetrics {
    /// Which.
    pub endpoint: Endpoint,
    /// What the engine holds of it.
    pub verdict: Verdict,
    /// New connections are given to it first.
    pub best: bool,
    /// This node's established connections.
    pub connections: u64,
    /// The connections of all members.
    pub load: Option<u64>,
    /// The estimated round trip.
    pub rtt: Option<Duration>,
    /// Dials by outcome.
    pub dials: Counts,
    /// Probes by outcome.
    pub probes: Counts,
    /// Bytes carried to it.
    pub bytes_to_upstream: u64,
    /// Bytes carried from it.
    pub bytes_to_client: u64,
    /// Established connections that were reset, by reason.
    pub resets: Counts,
    /// When its certificate ends, in seconds since 1970.
    pub certificate_not_after: Option<i64>,
}

impl UpstreamMetrics {
    /// An endpoint of which nothing has been counted yet.
    pub fn new(endpoint: Endpoint, verdict: Verdict) -> UpstreamMetrics {
        UpstreamMetrics {
            endpoint,
            verdict,
            best: false,
            connections: 0,
            load: None,
            rtt: None,
            dials: Counts::new(),
            probes: Counts::new(),
            bytes_to_upstream: 0,
            bytes_to_client: 0,
            resets: Counts::new(),
            certificate_not_after: None,
        }
    }
}

/// The numbers of gossip.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GossipMetrics {
    /// Live members, this one included.
    pub members: u64,
    /// Datagrams received, those that are dropped later included.
    pub datagrams_in: u64,
    /// Datagrams sent.
    pub datagrams_out: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Their bytes.
    pub bytes_out: u64,
    /// Datagrams dropped, by reason.
    pub dropped: Counts,
    /// Since another member was heard last; [`None`]: not yet.
    pub since_heard: Option<Duration>,
    /// Another machine uses this node's name.
    pub name_conflict: bool,
    /// No other node answers this node.
    pub isolated: bool,
    /// Starts of the gossip task after its first.
    pub restarts: u64,
    /// Workers that hold the full keyring; [`None`] on a worker.
    pub workers_with_full_keyring: Option<u64>,
}

/// Writes all numbers as text.
pub fn encode(metrics: &Metrics) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("prismesh");
    let page = &mut Page(&mut registry);
    page.process(metrics);
    page.upstreams(&metrics.upstreams);
    page.proxy(metrics);
    if let Some(gossip) = &metrics.gossip {
        page.gossip(gossip);
    }
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

/// Names for numbers. Counters get their `_total`, and what has a unit its suffix, from the library.
struct Page<'a>(&'a mut Registry);

impl Page<'_> {
    fn process(&mut self, metrics: &Metrics) {
        let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
        self.gauges("build_info", "The version that runs", [(version, 1.0)]);
        self.seconds("uptime", "Time since the agent started", [(vec![], metrics.uptime.as_secs_f64())]);
        self.gauge("cluster_size", "Nodes of the cluster, as far as this one knows", f64::from(metrics.cluster_size));
        self.gauge(
            "ca_missing",
            "1 if no CA is in force, so that apiservers cannot be told from others",
            flag(metrics.ca_missing),
        );
        let help = "1 if a CA is configured, or was in force, and its file cannot be read";
        self.gauge("ca_unreadable", help, flag(metrics.ca_unreadable));
        self.count("engine_events", "Events that the engine has handled", metrics.engine_events);
        self.count("panics", "Panics of the process", metrics.panics);
        let restarts = words("task", &metrics.task_restarts);
        self.counts("task_restarts", "Restarts of a task that ended or panicked", restarts);
        let waiting = words("for", &metrics.waiting).into_iter().map(|(labels, one)| (labels, number(one)));
        self.gauges("waiting", "1 for each thing that the agent waits for while it serves", waiting);
        self.count("log_lines_dropped", "Log lines that could not be queued or written", metrics.log_lines_dropped);
        let help = "Names whose last look-up failed in an address family; what was known of them is kept";
        self.gauge("names_unresolved", help, number(metrics.names_unresolved));
        let help = "Look-ups that failed in an address family";
        self.count("name_lookup_failures", help, metrics.name_lookup_failures);
        let help = "1 if something in the state directory could not be written lately";
        self.gauge("state_write_failing", help, flag(metrics.state_write_failing));
        self.count("state_write_failures", "Failed writes to the state directory", metrics.state_write_failures);
        self.count("reload_failures", "Reloads that failed and left in force what was there", metrics.reload_failures);
    }

    fn upstreams(&mut self, upstreams: &[UpstreamMetrics]) {
        let each = |value: fn(&UpstreamMetrics) -> f64| some(upstreams, |upstream| Some(value(upstream)));
        let connections = each(|upstream| number(upstream.connections));
        self.gauges("upstream_connections", "This node's established connections", connections);
        self.gauges("upstream_best", "1 if new connections are given to it first", each(|upstream| flag(upstream.best)));
        let load = some(upstreams, |upstream| upstream.load.map(number));
        self.gauges("upstream_load", "Established connections of all nodes, as they gossip them", load);
        self.gauges("upstream_verdict", "1 for the verdict that the engine holds, 0 for the others", verdicts(upstreams));
        let rtt = some(upstreams, |upstream| upstream.rtt.map(|rtt| rtt.as_secs_f64()));
        self.seconds("upstream_round_trip", "The estimated round trip", rtt);
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 stay exact for longer than certificates last")]
        let expiry = some(upstreams, |upstream| upstream.certificate_not_after.map(|at| at as f64));
        let help = "When the certificate that it showed last ends, in seconds since 1970";
        self.seconds("upstream_certificate_expiry_timestamp", help, expiry);
        let help = "Established connections that the agent reset, by reason";
        self.counts("upstream_resets", help, by(upstreams, "reason", |upstream| &upstream.resets));
        self.counts("dials", "Dials by outcome", by(upstreams, "outcome", |upstream| &upstream.dials));
        self.counts("probes", "Probes by outcome", by(upstreams, "outcome", |upstream| &upstream.probes));
        self.counts("bytes", "Bytes carried", bytes(upstreams));
    }

    fn proxy(&mut self, metrics: &Metrics) {
        self.gauge("clients", "Client connections that are open", number(metrics.clients));
        self.gauge("clients_held", "Clients that wait because no upstream answers", number(metrics.held));
        self.count("holds", "Times a client was held because no upstream answered", metrics.holds);
        self.count("replays", "ClientHellos sent to one more upstream because the first was silent", metrics.replays);
        self.count("replays_refused", "Replays not made because too many had been made lately", metrics.replays_refused);
        self.count("sightings_dropped", "Sightings of the proxy that the engine was too busy to take", metrics.sightings_dropped);
        let help = "ClientHellos that came while the same one was being forwarded: an endpoint leads back to this agent";
        self.count("repeated_hellos", help, metrics.repeated_hellos);
        let help = "Connections and requests that the admin port turned away, by reason";
        self.counts("admin_rejections", help, words("reason", &metrics.admin_rejections));
        self.counts("refusals", "Connections refused, by the limit that was reached", words("limit", &metrics.refusals));
        self.count("accept_errors", "Failed accepts of the proxy's listeners", metrics.accept_errors);
    }

    fn gossip(&mut self, gossip: &GossipMetrics) {
        let ways = |inward, outward| [(vec![("direction", "in".into())], inward), (vec![("direction", "out".into())], outward)];
        self.gauge("gossip_members", "Live members, this one included", number(gossip.members));
        self.counts("gossip_datagrams", "Datagrams received and sent", ways(gossip.datagrams_in, gossip.datagrams_out));
        self.counts("gossip_bytes", "Bytes of datagrams received and sent", ways(gossip.bytes_in, gossip.bytes_out));
        self.counts("gossip_dropped", "Datagrams dropped, by reason", words("reason", &gossip.dropped));
        let heard = gossip.since_heard.map(|heard| (vec![], heard.as_secs_f64()));
        self.seconds("gossip_last_heard", "Time since another member was heard", heard);
        self.gauge("gossip_name_conflict", "1 if another machine uses this node's name", flag(gossip.name_conflict));
        self.gauge("gossip_isolated", "1 if no core member answers this node", flag(gossip.isolated));
        self.count("gossip_restarts", "Starts of the gossip task after its first", gossip.restarts);
        let holders = gossip.workers_with_full_keyring.map(|holders| (vec![], number(holders)));
        self.gauges("gossip_workers_with_full_keyring", "Workers that hold the full keyring, which they do not need", holders);
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.gauges(name, help, [(vec![], value)]);
    }

    fn gauges(&mut self, name: &str, help: &str, samples: impl IntoIterator<Item = (Labels, f64)>) {
        self.0.register(name, help, Gauges(samples.into_iter().collect()));
    }

    fn seconds(&mut self, name: &str, help: &str, samples: impl IntoIterator<Item = (Labels, f64)>) {
        self.register(name, help, Unit::Seconds, samples);
    }

    fn register(&mut self, name: &str, help: &str, unit: Unit, samples: impl IntoIterator<Item = (Labels, f64)>) {
        self.0.register_with_unit(name, help, unit, Gauges(samples.into_iter().collect()));
    }

    fn count(&mut self, name: &str, help: &str, value: u64) {
        self.counts(name, help, [(vec![], value)]);
    }

    fn counts(&mut self, name: &str, help: &str, samples: impl IntoIterator<Item = (Labels, u64)>) {
        self.0.register(name, help, Counters(samples.into_iter().collect()));
    }
}

type Labels = Vec<(&'static str, String)>;

#[derive(Debug)]
struct Gauges(Vec<(Labels, f64)>);

#[derive(Debug)]
struct Counters(Vec<(Labels, u64)>);

impl EncodeMetric for Gauges {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        self.0.iter().try_for_each(|(labels, value)| match labels.as_slice() {
            [] => encoder.encode_gauge(value),
            _ => encoder.encode_family(labels)?.encode_gauge(value),
        })
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}

impl EncodeMetric for Counters {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        self.0.iter().try_for_each(|(labels, value)| match labels.as_slice() {
            [] => encoder.encode_counter::<NoLabelSet, _, u64>(value, None),
            _ => encoder.encode_family(labels)?.encode_counter::<NoLabelSet, _, u64>(value, None),
        })
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}

const VERDICTS: [Verdict; 5] = [Verdict::Ready, Verdict::Draining, Verdict::Unproven, Verdict::Suspect, Verdict::Down];

fn verdicts(upstreams: &[UpstreamMetrics]) -> Vec<(Labels, f64)> {
    let each =
        |upstream| VERDICTS.map(|verdict| (with(upstream, "verdict", verdict.as_str()), flag(upstream.verdict == verdict)));
    upstreams.iter().flat_map(each).collect()
}

fn bytes(upstreams: &[UpstreamMetrics]) -> impl Iterator<Item = (Labels, u64)> {
    upstreams.iter().flat_map(|upstream| {
        [
            (with(upstream, "direction", "to_upstream"), upstream.bytes_to_upstream),
            (with(upstream, "direction", "to_client"), upstream.bytes_to_client),
        ]
    })
}

fn some(upstreams: &[UpstreamMetrics], value: impl Fn(&UpstreamMetrics) -> Option<f64>) -> Vec<(Labels, f64)> {
    upstreams.iter().filter_map(|upstream| Some((labels(upstream), value(upstream)?))).collect()
}

fn by(upstreams: &[UpstreamMetrics], label: &'static str, counts: impl Fn(&UpstreamMetrics) -> &Counts) -> Vec<(Labels, u64)> {
    let each = |upstream| counts(upstream).iter().map(move |(word, count)| (with(upstream, label, word), *count));
    upstreams.iter().flat_map(each).collect()
}

fn words(label: &'static str, counts: &Counts) -> Vec<(Labels, u64)> {
    counts.iter().map(|(word, count)| (vec![(label, (*word).to_owned())], *count)).collect()
}

fn labels(upstream: &UpstreamMetrics) -> Labels {
    vec![("endpoint", upstream.endpoint.to_string())]
}

fn with(upstream: &UpstreamMetrics, label: &'static str, value: &str) -> Labels {
    let mut labels = labels(upstream);
    labels.push((label, value.to_owned()));
    labels
}

fn flag(holds: bool) -> f64 {
    f64::from(u8::from(holds))
}

#[expect(clippy::cast_precision_loss, reason = "gauges are 64-bit floats to whoever reads them")]
fn number(value: u64) -> f64 {
    value as f64
}
