//! The real world: sockets, files, names and the time of day.

mod resolver;
mod store;
mod wall;

pub use resolver::SystemResolver;
pub use store::Files;
pub use wall::SystemClock;
