//! The real implementations of the seams.
pub mod carry;
pub mod datagram;
pub mod net;
