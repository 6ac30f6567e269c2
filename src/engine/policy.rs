//! Every number of the policy, in one place: name, unit, and why it is what it is.
//!
//! `docs/ARCHITECTURE.md` argues for them; nothing elsewhere repeats one.

use std::time::Duration;

/// A client must have sent a whole ClientHello within this time after it was accepted, or, where it does not speak TLS, have been
/// answered; otherwise it is closed, and no upstream is blamed. Until then it is evicted when its place is needed.
pub const CLIENT_HELLO: Duration = Duration::from_secs(10);
/// What is kept of a client's bytes until the upstream's first one. A ClientHello with a post-quantum key share is under 2 KiB.
pub const REPLAY_BYTES: usize = 16 * 1024;
/// Replays of one connection's ClientHello.
pub const REPLAYS_A_CONNECTION: u32 = 2;
/// A race for whose replay there is no token asks for one again after this.
pub const REPLAY_AGAIN: Duration = Duration::from_millis(500);
/// Replay tokens at most.
pub const REPLAY_TOKENS: u32 = 10;
/// New connections that refill one replay token.
pub const CONNECTIONS_A_REPLAY_TOKEN: u32 = 10;
/// A dial stays in the race for the larger of this ...
pub const DIAL_STAY: Duration = Duration::from_secs(2);
/// ... and this many round trips.
pub const DIAL_STAY_ROUND_TRIPS: u32 = 4;
/// The second dial begins this many round trips after the first ...
pub const SECOND_DIAL_ROUND_TRIPS: u32 = 3;
/// ... but not before this ...
pub const SECOND_DIAL_LEAST: Duration = Duration::from_millis(10);
/// ... and not after the larger of this (RFC 8305 recommends 250 ms) ...
pub const SECOND_DIAL_MOST: Duration = Duration::from_millis(250);
/// ... and this many round trips: a dial that could not have connected yet is not late.
pub const SECOND_DIAL_PATIENCE: f64 = 1.5;
/// So many dials in a row that a later one overtook, none of which connected, are a doubt. Fewer are lost packets: where 5% are lost each
/// way, two in a row are overtaken once in a hundred dials, and four once in ten thousand.
pub const MIN_OVERTAKEN_DIALS: u32 = 4;
/// In one race the external balancer is dialled again so often, each time after the dial before was refused or closed. Where one of five
/// apiservers is left, and the balancer does not know and takes them in turn, whoever dials right after one that was answered finds the next
/// four dead: and held clients are let go at just that moment.
pub const BALANCER_REDIALS_A_RACE: u32 = 4;
/// The first byte is expected within this many round trips ...
pub const FIRST_BYTE_ROUND_TRIPS: u32 = 10;
/// ... but at least this is granted ...
pub const FIRST_BYTE_LEAST: Duration = Duration::from_millis(500);
/// ... and at most the larger of this ...
pub const FIRST_BYTE_MOST: Duration = Duration::from_secs(2);
/// ... and this many round trips.
pub const FIRST_BYTE_MIN_ROUND_TRIPS: u32 = 3;
/// A client is held this long, from its first byte: client-go gives up a TLS handshake at 10 s.
pub const HOLD: Duration = Duration::from_secs(8);
/// Clients held at most.
pub const HELD_CLIENTS: usize = 1024;
/// Held clients released at a time.
pub const RELEASE_BATCH: usize = 32;
/// Between two batches of released clients.
pub const RELEASE_PAUSE: Duration = Duration::from_millis(10);
/// An agent that stops serves this long.
pub const DRAIN: Duration = Duration::from_secs(5);
/// A connection younger than this when the drain ends may finish until it has this age.
pub const DRAIN_YOUNG: Duration = Duration::from_secs(1);
/// Upstream side: an idle connection asks its peer's kernel this often whether it is there. The rule for a silent peer builds on it: on a
/// living connection the last acknowledgement is never much older than this.
pub const UPSTREAM_KEEPALIVE: Duration = Duration::from_secs(2);
/// Between two keepalives that are not acknowledged.
pub const UPSTREAM_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// After so many keepalives without an acknowledgement the kernel ends the connection by itself: a backstop, longer than
/// [`PEER_SILENT_WHILE_REACHABLE`], for what is not looked at before.
pub const MAX_UPSTREAM_KEEPALIVES: u32 = 20;
/// A peer is silent when it has acknowledged nothing for so long although something was sent that asks for it, and dials to its
/// address are not answered either. It has had [`UPSTREAM_KEEPALIVE`] less to answer: 3 s, as long as a virtual machine pauses while it
/// is moved. Together with the gaps between two looks the connection is gone within 6 s.
pub const PEER_SILENT: Duration = Duration::from_millis(5_000);
/// The same where dials to the address are answered, so that only this connection's packets are lost: as with heavy loss, or a device on the
/// way that has forgotten the connection.
pub const PEER_SILENT_WHILE_REACHABLE: Duration = Duration::from_secs(15);
/// With a closed window, the kernel asks at growing gaps: so many of its questions must be unanswered where dials are answered.
pub const MIN_WINDOW_PROBES: u32 = 3;
/// A balancer has noticed by itself within this time that an apiserver behind it does not answer: kubespray's HAProxy needs 6 s, the load
/// balancers of clouds up to 30 s.
pub const BALANCER_NOTICES: Duration = Duration::from_secs(60);
/// Established connections are looked at this often.
pub const PEER_LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// A connection on which the client has said something and nothing has come back for so long is looked at each time.
pub const PEER_LOOK_AFTER: Duration = Duration::from_secs(1);
/// Of the other connections to an endpoint the quietest one is looked at this often; all of them while one has something unacknowledged.
pub const PEER_SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
/// While a peer leaves something unacknowledged its address is dialled this often, and each dial may take as long.
pub const PEER_DIAL_INTERVAL: Duration = Duration::from_secs(1);
/// The dial that is made before a connection is reset has so long to be answered.
pub const LAST_DIAL: Duration = Duration::from_millis(200);
/// Client side keepalive; no user timeout there, a client may stop reading for as long as it likes.
pub const CLIENT_KEEPALIVE: Duration = Duration::from_secs(30);
/// Between two keepalive probes of a client ...
pub const CLIENT_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// ... and after so many without an answer it is gone: a minute in all, where the kernel's defaults (9, 75 s apart) take twelve.
pub const CLIENT_KEEPALIVE_PROBES: u32 = 3;

/// Each phase of a probe (dial, TLS handshake, answer) may take the larger of this ...
pub const PROBE_PHASE: Duration = Duration::from_secs(1);
/// ... and this many round trips ...
pub const PROBE_PHASE_ROUND_TRIPS: u32 = 4;
/// ... but at most this, which is also what a patient probe grants: of an endpoint that was never measured while nothing answers, and of one
/// that fails now and then, because its path may have become longer than all it had before.
pub const MAX_PROBE_PHASE: Duration = Duration::from_secs(5);
/// One of so many probes of an endpoint that fails is a patient one.
pub const PATIENT_PROBE_EVERY: u32 = 4;
/// A probe dials again, beside the dials that are under way, each time this share of the dial's limit has passed: a lost SYN is
/// repeated only after 1 s. It is more than a round trip, since a limit is at least four.
pub const PROBE_DIALS: u32 = 3;
/// A probe whose end was not told by now never ends: another one is sent, and its own says nothing any more.
pub const PROBE_GIVEN_UP: Duration = Duration::from_secs(20);
/// One node's probes of one endpoint are at least this far apart in quiet ...
pub const PROBE_INTERVAL_LEAST: Duration = Duration::from_secs(1);
/// ... and all nodes together make at most this many of them a second.
pub const PROBES_A_SECOND: u32 = 20;
/// A control-plane node's probes of its own apiserver.
pub const PROBE_INTERVAL_LOCAL: Duration = Duration::from_millis(250);
/// Jitter of every interval, as a share of it.
pub const PROBE_JITTER: f64 = 0.2;
/// Above this interval connections are not kept between probes.
pub const PROBE_KEEP_BELOW: Duration = Duration::from_secs(30);
/// One of so many ordinary probes in a row goes over a fresh connection: its handshake tells how far the endpoint is, and a request how long
/// the apiserver thinks as well.
pub const HANDSHAKE_EVERY: usize = 4;
/// The same of a node's own apiserver. It is near, so its distance decides nothing, and it is asked several times a second.
pub const LOCAL_HANDSHAKE_EVERY: u64 = 16;
/// A kept probe connection is renewed after this, ± the jitter.
pub const PROBE_RENEW: Duration = Duration::from_secs(300);
/// The second of two failures that make `down` is sent this long after the first was sent.
pub const CONFIRM_AFTER: Duration = Duration::from_secs(1);
/// Unproven endpoints are probed with back-off to this.
pub const UNPROVEN_BACKOFF_MOST: Duration = Duration::from_secs(300);
/// The gap between the two successes that end `down` ...
pub const RECOVERY_GAP: Duration = Duration::from_millis(200);
/// ... doubled with each return to `down` within this ...
pub const FLAP_WINDOW: Duration = Duration::from_secs(300);
/// ... up to this.
pub const RECOVERY_GAP_MOST: Duration = Duration::from_millis(3200);
/// A time-out handled later than this after its deadline tells of a stalled agent, not of the endpoint.
pub const STALE_TIMEOUT: Duration = Duration::from_millis(500);
/// While clients are held, endpoints are probed at least this far apart ...
pub const HELD_PROBE_INTERVAL_LEAST: Duration = Duration::from_millis(500);
/// ... and this many nodes share a second of it.
pub const HELD_NODES_A_SECOND: u32 = 100;
/// A probe that evidence prompts comes at least this long after the one before: that one may have said it all.
pub const PROMPT_GAP: Duration = Duration::from_millis(200);
/// Confirming probes are spread over one second for this many nodes.
pub const CONFIRM_NODES_A_SECOND: u32 = 100;
/// So many other nodes must report an endpoint as suspect or down before their reports count: one node alone may have a broken path.
pub const MIN_REPORTING_NODES: usize = 2;
/// Nodes that confirm what other nodes report, on average over the endpoints of a cluster; all nodes of a cluster of up to this size.
pub const CONFIRMING_NODES: u32 = 5;
/// The cluster's size is the largest number of live names in this time.
pub const SIZE_WINDOW: Duration = Duration::from_secs(900);

/// A server whose last certificate a new CA rejects has this long to show another one, before its connections are reset: a dial and a
/// handshake over a path of 1,000 ms, or one lost packet.
pub const REJECTED_LOOK: Duration = Duration::from_secs(3);

/// The TLS handshake of a probe that confirms a hang may take this long: a slow process is not hung.
pub const HUNG_HANDSHAKE: Duration = Duration::from_secs(3);
/// Failed handshakes in a row that confirm a hang ...
pub const MIN_HUNG_PROBES: u32 = 2;
/// ... and behind a name or a load balancer, where two in a row may have met one of several apiservers.
pub const MIN_HUNG_PROBES_OF_A_BALANCER: u32 = 3;
/// An established connection to a hung process is reset only when it has received nothing for this long, counted from when a probe was
/// sent that did not get its handshake.
pub const HUNG_RESET_AFTER: Duration = Duration::from_secs(4);
/// A client that has gone on asking for this long without an answer is evidence. A kubelet asks each 10 s.
pub const UNANSWERED: Duration = Duration::from_secs(8);
/// Resets are spread over this.
pub const RESET_SPREAD: Duration = Duration::from_secs(1);
/// What traffic holds against an endpoint, and probes cannot refute because their hello is smaller, is tried again after this.
pub const TRAFFIC_DOUBT: Duration = Duration::from_secs(60);

/// A member's endpoint leaves when no record names it and probes have failed for this long.
pub const MEMBER_GONE: Duration = Duration::from_secs(60);
/// A cached endpoint leaves this long after its last proof.
pub const CACHED_GONE: Duration = Duration::from_secs(7 * 24 * 3600);
/// An endpoint that has to go gets no new connections, and is known for so much longer: a dial that had begun ([`DIAL_STAY`],
/// [`FIRST_BYTE_MOST`]) may still become a connection, which is told within a second.
pub const DEPARTURE: Duration = Duration::from_secs(5);
/// Nodes at one address that count for the cluster's size, unless the configuration says otherwise.
pub const NAMES_PER_ADDRESS: usize = 4;
/// Nodes at one address that a core member holds at most.
pub const NODES_OF_AN_ADDRESS: usize = 256;
/// Endpoints a member may name.
pub const ENDPOINTS_A_MEMBER: usize = 8;
/// Endpoints in all.
pub const ENDPOINTS: usize = 64;

/// An upstream enters the band at or below the larger of this many lowest estimates ...
pub const BAND_ENTER_FACTOR: f64 = 1.5;
/// ... and the lowest plus this ...
pub const BAND_ENTER_SLACK: Duration = Duration::from_millis(1);
/// ... but never above the lowest plus the larger of this ...
pub const MAX_BAND_ENTER_SLACK: Duration = Duration::from_millis(5);
/// ... and this share of it.
pub const BAND_ENTER_SHARE: f64 = 0.1;
/// It leaves above the larger of this many lowest estimates ...
pub const BAND_LEAVE_FACTOR: f64 = 2.0;
/// ... and the lowest plus this ...
pub const BAND_LEAVE_SLACK: Duration = Duration::from_millis(2);
/// ... and always above the lowest plus the larger of this: what is farther by so much is farther ...
pub const MAX_BAND_LEAVE_SLACK: Duration = Duration::from_millis(9);
/// ... and this share of it: jitter grows with the path. With 9 ms alone, two apiservers at 100 ms with 20% jitter took turns as the best 7 times
/// in two minutes.
pub const BAND_LEAVE_SHARE: f64 = 0.2;
/// Weight at least: an endpoint with much more load than its neighbours.
pub const WEIGHT_LEAST: f64 = 0.7;
/// Weight at most: one with much less.
pub const WEIGHT_MOST: f64 = 1.4;
/// Fair shares of new connections that one upstream of a band gets at most.
pub const SHARE_MOST: f64 = 1.6;
/// Share of its weight that an endpoint starts with when it joins or recovers ...
pub const RAMP_FROM: f64 = 0.1;
/// ... growing to the whole over this time.
pub const RAMP: Duration = Duration::from_secs(30);
/// The routing is renewed this often while a ramp lasts.
pub const RAMP_STEP: Duration = Duration::from_secs(1);
/// No round trip is longer: nothing of ours waits longer for one, and what is reported may be anything.
pub const ROUND_TRIP_MOST: Duration = Duration::from_secs(10);
/// Nearest peers whose reports stand in for own samples.
pub const PRIOR_PEERS: usize = 5;
/// A record is written at most this often but for a change of state.
pub const PUBLISH_INTERVAL: Duration = Duration::from_secs(10);
/// Two reports because of verdicts, or of the state of this node's own apiserver, are at least this far apart ...
pub const VERDICTS_APART: Duration = Duration::from_secs(1);
/// ... and those because of verdicts so far that all nodes together make this many a second, each of which goes to every node;
/// but at most [`PUBLISH_INTERVAL`].
pub const VERDICT_REPORTS_A_SECOND: u32 = 20;
/// Observations in a record, nearest first: a record holds 512 bytes.
pub const OBSERVATIONS: usize = 16;
