//! How strict a run is, and the machinery of tries and claims.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;

/// Whether the promised times are asserted.
pub(crate) fn strict() -> bool {
    std::env::var("PRISMESH_BOUNDS").is_ok_and(|bounds| bounds == "strict")
}

/// An ordinary run grants five times as much.
const SLACK: u32 = 5;

/// What is granted in this run where `promised` is promised.
pub(crate) fn granted(promised: Duration) -> Duration {
    if strict() { promised } else { promised * SLACK }
}

/// One of two times: strict, ordinary.
pub(crate) fn either(strictly: Duration, ordinarily: Duration) -> Duration {
    if strict() { strictly } else { ordinarily }
}

/// Shared machines are noisy: a strict run tries up to three times, one must hold, all are printed.
fn tries() -> u32 {
    if strict() { 3 } else { 1 }
}

/// One statement and what was measured.
struct Claim {
    holds: bool,
    told: String,
}

/// What one try found.
#[derive(Default)]
pub(crate) struct Claims(Vec<Claim>);

impl Claims {
    /// Something that should hold, and what was seen.
    pub(crate) fn add(&mut self, holds: bool, should: &str, seen: impl fmt::Display) {
        self.0.push(Claim { holds, told: format!("{should}: {seen}") });
    }

    fn hold(&self) -> bool {
        self.0.iter().all(|claim| claim.holds)
    }
}

impl fmt::Display for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|claim| writeln!(f, "  {} {}", if claim.holds { "holds " } else { "BROKEN" }, claim.told))
    }
}

/// Two cores are shared with everything else: one story at a time.
static TURN: Mutex<()> = Mutex::new(());

/// Waits for this test's turn.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a story until its claims hold, at most as often as is granted.
pub(crate) fn promise(title: &str, mut story: impl AsyncFnMut(&mut Claims) -> Result<()>) {
    assert!(!(strict() && cfg!(debug_assertions)), "strict bounds are for a release build: cargo test --release");
    let _turn = turn();
    let mut failures = Vec::new();
    for number in 1..=tries() {
        let mut claims = Claims::default();
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let ended = runtime.block_on(story(&mut claims));
        drop(runtime);
        let error = ended.err().map(|error| format!("  BROKEN {error:#}\n")).unwrap_or_default();
        let text = format!("{title} (try {number} of {})\n{claims}{error}", tries());
        say(&text);
        if error.is_empty() && claims.hold() {
            return;
        }
        failures.push(text);
    }
    panic!("{title}: promised and not kept\n{}", failures.concat());
}

#[expect(clippy::print_stdout, reason = "what was measured is worth more than that it passed")]
pub(crate) fn say(text: &str) {
    println!("{text}");
}
