//! What a probe tells of servers of every kind, on real loopback sockets.

mod algorithms;
mod bench;
mod credentials;
mod http2;
mod keeping;
mod servers;
