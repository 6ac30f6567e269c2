//! What gossip promises, told as it would happen. The network is in memory and the clock is tokio's, paused.

mod finding;
mod identity;
mod isolation;
mod real;
mod recorded;
mod removal;
mod rotation;
