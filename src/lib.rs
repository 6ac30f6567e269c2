//! prismesh: a node-local balancer for the Kubernetes API that learns the control plane by gossip.
pub mod admin;
pub mod agent;
pub mod cli;
pub mod config;
pub mod engine;
pub mod gossip;
pub mod log;
pub mod names;
pub mod probe;
pub mod proxy;
pub mod service;
pub mod supervise;
pub mod world;
