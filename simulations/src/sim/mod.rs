//! Whole clusters in virtual time: the agent that ships, over a modelled world.

mod apiserver;
mod balancer;
pub mod cli;
mod client;
mod complaints;
mod core;
mod director;
mod disk;
pub mod draw;
pub mod history;
mod hostile;
mod kubelet;
pub mod log;
mod moves;
mod node;
pub mod plan;
mod prober;
pub mod run;
pub mod scenario;
mod seams;
mod seed;
pub mod state;
mod tcp;
mod trace;
mod udp;
pub mod watched;
mod wire;
