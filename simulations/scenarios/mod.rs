//! The stories, each in a file of its own.

use crate::sim::scenario::Scenario;

mod apiserver_crashes;
mod calm;

/// All scenarios, in the order in which people read them.
pub const ALL: &[Scenario] = &[calm::SCENARIO, apiserver_crashes::SCENARIO];
