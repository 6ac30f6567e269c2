//! The time of day.

use std::time::SystemTime;

use crate::world::WallClock;

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl WallClock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the seam through which all others ask")]
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}
