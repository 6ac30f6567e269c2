//! Whole clusters in virtual time: the agent that ships, over a modelled world.

mod alone;
mod apiserver;
#[cfg(test)]
mod apiserver_tests;
mod asking;
mod balancer;
pub mod baseline;
pub mod cli;
mod client;
pub mod compare;
mod complaints;
#[cfg(test)]
mod contract;
pub mod core;
mod director;
mod disk;
pub mod draw;
mod exchange;
mod figures;
pub mod file;
mod happens;
pub mod history;
mod hostile;
mod invariants;
mod kubelet;
mod kubeprism;
mod learned;
pub mod log;
pub mod measure;
mod moves;
#[cfg(test)]
mod network_tests;
mod newer;
pub mod node;
pub mod outcome;
pub mod plan;
mod prober;
pub mod promises;
mod recorder;
pub mod report;
pub mod results;
pub mod run;
pub mod sabotage;
pub mod scenario;
mod seams;
mod seed;
pub mod seen;
mod smaller;
mod sound;
pub(crate) mod span;
pub mod spread;
pub mod state;
mod tcp;
#[cfg(test)]
mod testing;
mod timelines;
mod trace;
mod udp;
mod waits;
pub mod watched;
mod wire;
mod words;
mod written;
