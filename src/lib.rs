//! prismesh: a node-local balancer for the Kubernetes API that learns the control plane by gossip.
pub mod config;
pub mod engine;
pub mod proxy;
pub mod world;
