//! One simulation a process, and one thread for it: asserted, since a run is a function of its seed only then.
//!
//! A second thread is scheduled by the kernel, and what it hands over comes when it pleases; a second simulation finds what
//! the first left behind. Both would show in a hash sooner or later, and nobody would know whose fault it was. So the
//! process's threads are counted before a simulation begins, at every step of its story and at its end: tokio's blocking
//! threads live on for ten seconds, and none escapes. And every engine decides in the thread that has the seed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Threads that a process may have before its simulation begins: `main`, where its parent may die the one that waits for that, and
/// where its time is limited the one that ends it. None of them touches the simulation.
const OTHERS: usize = 3;
/// A thread that was joined is gone from the kernel's list within this.
const GOING: Duration = Duration::from_millis(200);

static BEGUN: AtomicBool = AtomicBool::new(false);

/// How many threads the process may have while its simulation runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Alone {
    threads: usize,
}

impl Alone {
    /// A simulation is about to begin, in a thread of its own.
    ///
    /// # Panics
    /// It is not the first one of this process, or there are threads that have nothing to do here.
    pub(super) fn begin() -> Alone {
        assert!(!BEGUN.swap(true, Ordering::Relaxed), "one process plays one simulation, and this is its second");
        let alone = Alone { threads: OTHERS };
        alone.check("before it begins");
        Alone { threads: threads().unwrap_or(OTHERS) + 1 }
    }

    /// Looks whether it still is.
    ///
    /// # Panics
    /// There is another thread.
    pub(super) fn check(self, when: &str) {
        let more = || threads().filter(|there| *there > self.threads);
        for _ in 0..GOING.as_millis() {
            if more().is_none() {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        if let Some(there) = more() {
            panic!("a simulation has one thread, and {when} the process has {there} in place of {}", self.threads);
        }
    }
}

/// The threads of this process; [`None`] where nothing tells.
fn threads() -> Option<usize> {
    std::fs::read_dir("/proc/self/task").ok().map(Iterator::count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thread_more_than_there_may_be_is_noticed() {
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let more = std::thread::spawn(move || ended.recv());
        let noticed = std::panic::catch_unwind(|| Alone { threads: 1 }.check("in a test"));
        drop(end);
        assert!(more.join().is_ok() && noticed.is_err());
    }
}
