//! prismesh: a node-local balancer for the Kubernetes API that learns the control plane by gossip.
pub mod admin;
pub mod cli;
pub mod config;
pub mod engine;
pub mod names;
pub mod probe;
pub mod service;
pub mod world;
