//! The real world. (filled in by its own change)
