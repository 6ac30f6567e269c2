//! What gossip promises, told as it would happen. The network is in memory and the clock is tokio's, paused.

mod finding;
mod identity;
mod real;
mod removal;
mod rotation;
