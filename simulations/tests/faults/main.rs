//! What prismesh promises when something breaks, on real sockets, with every agent and server a process of its own.
//!
//! [`rows`] is the table of promises, a test a row; [`beyond`] is what is promised besides. Ordinary runs assert counts and
//! order, and times five times as long as promised, because machines are shared; with `PRISMESH_BOUNDS=strict` (a release
//! build, one test at a time, nothing else running) the promised times hold. See docs/TESTING.md.

mod beyond;
mod bounds;
mod misbehaving;
mod rows;
mod scene;
