//! prismesh
fn main() {}
