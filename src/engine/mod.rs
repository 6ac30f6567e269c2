//! The engine: all policy, and nothing else.
pub mod endpoint;
pub mod event;
pub mod policy;
pub mod selection;
pub mod time;

pub use endpoint::{Endpoint, EndpointTag, NodeId, Source};
pub use event::{Effect, Event};
pub use selection::{Routing, Upstream};
pub use time::Moment;
