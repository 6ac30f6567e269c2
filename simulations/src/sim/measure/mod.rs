//! What is measured beside the invariants: how things grow with a cluster's size, what peers' reports are worth, and how the
//! model compares with real sockets.

pub mod calibration;
pub mod growth;
pub mod limits;
pub mod reports;
