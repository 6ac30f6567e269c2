//! A control plane on loopback, its clients, and what can break.

pub mod apiserver;
pub mod balancer;
pub mod ca;
pub mod children;
pub mod client;
pub mod cluster;
pub mod kubernetes;
pub mod moods;
pub mod netns;
pub mod status;
pub mod subnet;
pub mod tally;
pub mod watcher;
pub mod wire;
