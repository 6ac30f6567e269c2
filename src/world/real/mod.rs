//! The real world: sockets, files, names and the time of day.

pub mod carry;
mod datagram;
mod links;
mod net;
mod resolver;
mod store;
mod tcp_info;
mod wall;

pub use datagram::{RealDatagram, RealDatagramSocket};
pub use net::{RealListener, RealNet};
pub use resolver::SystemResolver;
pub use store::Files;
pub use wall::SystemClock;
