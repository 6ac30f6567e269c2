//! sims
fn main() {}
