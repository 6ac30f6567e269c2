//! The rules of the data path, on connections in memory and a clock that stands still until everyone waits.

use super::testing::*;

mod echoes;
mod hold;
mod limits;
mod race;
mod stop;
mod trust;
