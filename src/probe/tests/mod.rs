//! What a probe tells of servers of every kind, on real loopback sockets.

mod algorithms;
mod bench;
mod credentials;
mod keeping;
mod servers;
