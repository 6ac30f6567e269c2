//! Demonstrations and simulations of prismesh.
//!
//! [`lab`] is a small control plane on loopback, whole enough that real agents cannot tell: TLS apiservers with a CA of
//! their own, an external balancer before them, clients that measure, and faults. Every server and every agent is a
//! process of its own, a child of the same executable by a hidden subcommand, so that SIGKILL and SIGSTOP are real.
//! [`demo`] tells a story with it; [`differential`] compares clients of prismesh with clients that do without it;
//! [`gossip`] measures what gossip costs; `tests/faults.rs` holds
//! the project's promises to it.
//!
//! Linux only: every server and node has a loopback address of its own (127.A.B.x), which other systems do not have.

pub mod demo;
pub mod differential;
pub mod gossip;
pub mod lab;
#[path = "../scenarios/mod.rs"]
pub mod scenarios;
pub mod sim;
