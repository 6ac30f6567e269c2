//! An agent as a process of its own, abused from outside: by its clients, by its apiservers, by the machine, by whoever
//! writes its files, and by whoever sends it datagrams. Each test is a rule that holds meanwhile.
//!
//! Tests share the machine but nothing else: each has a loopback subnet of its own. Those that load it with thousands of
//! connections, or with datagrams, wait until the others that run are done (see [`rig::Rig::alone`]).

mod admin;
mod apiservers;
mod clients;
mod clock;
mod crowds;
mod distance;
mod dns;
mod established;
mod files;
mod forget;
mod gossip;
mod holding;
mod indirect;
mod listening;
mod logging;
mod loops;
mod names;
mod panics;
mod paths;
mod places;
mod quiet;
mod reach;
mod recording;
mod reloading;
mod rig;
mod secrets;
mod signals;
mod starting;
mod stolen;
mod systemd;
mod trust;
mod trust_changes;
mod vanished;
mod wired;
