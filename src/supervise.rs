//! Panics and what follows from them: they are counted and told, and the task that panicked is started again.
//!
//! A panic ends one task, never the process. Tasks whose loss would go unnoticed (gossip, name resolution, the admin server, the
//! watch over established connections, the writing of what could not be written) run under a [`Supervised`], which starts them again with back-off. Tasks without which the agent is of no use (the engine's
//! driver, the accept loops) carry an [`Essential`], and their end ends the process with a reason.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// The first pause before a task is started again ...
const MIN_PAUSE: Duration = Duration::from_secs(1);
/// ... doubled with each failure up to this. A task that ran for so long begins with the first pause again.
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// A failure is shown in `status` for this long.
const NOTE_FOR: Duration = Duration::from_secs(600);

static HOOKED: AtomicBool = AtomicBool::new(false);
static PANICS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// Whether a [`caught`] is being polled on this thread.
    static CATCHING: Cell<bool> = const { Cell::new(false) };
    /// What the hook saw while it was.
    static SEEN: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// From now on every panic of this process is counted, and told through the log instead of straight to standard error, where a
/// stalled reader would stop the thread that panicked. One that [`caught`] catches is told by the caller of [`caught`].
pub fn hook_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|panic| {
            PANICS.fetch_add(1, Ordering::Relaxed);
            let told = located(panic);
            if CATCHING.get() {
                SEEN.set(Some(told));
            } else {
                let thread = std::thread::current();
                tracing::error!(thread = thread.name().unwrap_or_default(), "{told}");
            }
            tracing::debug!("backtrace of the panic: {}", std::backtrace::Backtrace::capture());
        }));
        HOOKED.store(true, Ordering::Relaxed);
    });
}

/// Panics of this process since [`hook_panics`]; [`None`] without the hook.
pub fn panics() -> Option<u64> {
    HOOKED.load(Ordering::Relaxed).then(|| PANICS.load(Ordering::Relaxed))
}

fn located(panic: &PanicHookInfo<'_>) -> String {
    let what = described(panic.payload());
    match panic.location() {
        Some(at) => format!("{what} ({}:{})", at.file(), at.line()),
        None => what,
    }
}

fn described(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    format!("panicked: {}", text.unwrap_or("for a reason that is no text"))
}

/// Runs `work` to its end; the error says how it panicked.
pub async fn caught<T>(work: impl Future<Output = T>) -> Result<T, String> {
    let mut work = pin!(work);
    poll_fn(|cx| {
        let outer = CATCHING.replace(true);
        let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx)));
        CATCHING.set(outer);
        match polled {
            Ok(polled) => polled.map(Ok),
            Err(payload) => Poll::Ready(Err(SEEN.take().unwrap_or_else(|| described(&*payload)))),
        }
    })
    .await
}

/// A task that is started again when it ends.
#[derive(Debug)]
pub struct Supervised {
    name: &'static str,
    restarts: AtomicU64,
    panics: AtomicU64,
    state: Mutex<Restarts>,
}

#[derive(Debug)]
struct Restarts {
    began: Instant,
    /// Failures in a row.
    failures: u32,
    last: Option<(Instant, String)>,
}

impl Supervised {
    /// A task of this name, which begins now.
    pub fn new(name: &'static str) -> Supervised {
        let state = Mutex::new(Restarts { began: Instant::now(), failures: 0, last: None });
        Supervised { name, restarts: AtomicU64::new(0), panics: AtomicU64::new(0), state }
    }

    /// Runs `work` until it ends by itself, and anew after each panic.
    pub async fn keep<F: Future<Output = ()>>(&self, mut work: impl FnMut() -> F) {
        while let Err(reason) = caught(work()).await {
            self.panicked(&reason).await;
        }
    }

    /// The task has panicked: tells it, and waits until it may be started again.
    pub async fn panicked(&self, reason: &str) {
        self.count_panic();
        self.ended(reason).await;
    }

    /// The task has ended: tells it, and waits until it may be started again.
    pub async fn ended(&self, reason: &str) {
        sleep(self.failed(reason)).await;
        self.restarted();
    }

    /// The task has ended: tells it, and returns the pause before it may be started again. The first of several failures in a
    /// row is an ERROR.
    pub fn failed(&self, reason: &str) -> Duration {
        let (first, pause) = self.fail(reason);
        if first {
            tracing::error!(task = self.name, reason, "the task has ended; it is started again");
        } else {
            tracing::debug!(task = self.name, reason, ?pause, "the task has ended again");
        }
        pause
    }

    /// The task is started again now.
    pub fn restarted(&self) {
        self.restarts.fetch_add(1, Ordering::Relaxed);
        self.state().began = Instant::now();
    }

    /// Counts a panic of the task, or of one of its parts.
    pub fn count_panic(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
    }

    fn fail(&self, reason: &str) -> (bool, Duration) {
        let mut state = self.state();
        let now = Instant::now();
        if now >= state.began + MAX_PAUSE {
            state.failures = 0;
        }
        let doublings = state.failures.min(u32::BITS - 1);
        state.failures = state.failures.saturating_add(1);
        state.last = Some((now, reason.to_owned()));
        (doublings == 0, MIN_PAUSE.saturating_mul(1_u32 << doublings).min(MAX_PAUSE))
    }

    /// The task's name, as metrics show it.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Starts after the first.
    pub fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::Relaxed)
    }

    /// How often it panicked.
    pub fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    /// What a person should know of it: that it failed within the last ten minutes.
    pub fn note(&self) -> Option<String> {
        let state = self.state();
        let (at, reason) = state.last.as_ref().filter(|(at, _)| at.elapsed() < NOTE_FOR)?;
        let (name, ago, times) = (self.name, at.elapsed().as_secs(), self.restarts());
        Some(format!("{name} ended {ago} s ago and is started again ({times} times so far): {reason}"))
    }

    fn state(&self) -> MutexGuard<'_, Restarts> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs tasks that must not end. When one of them has ended, however that happened, [`Ended`] completes.
#[derive(Debug)]
pub struct Essential {
    ends: watch::Sender<Option<String>>,
}

/// Completes when a task of an [`Essential`] has ended.
#[derive(Clone, Debug)]
pub struct Ended(watch::Receiver<Option<String>>);

impl Essential {
    /// One without a task yet, and what to watch.
    pub fn new() -> (Essential, Ended) {
        let (ends, ended) = watch::channel(None);
        (Essential { ends }, Ended(ended))
    }

    /// Runs a task of this name; its panic is the reason that is told.
    pub fn run<F: Future<Output = ()>>(&self, name: &'static str, work: F) -> impl Future<Output = ()> + use<F> {
        let teller = Teller { name, ends: self.ends.clone() };
        async move {
            let reason = caught(work).await.err();
            teller.tell(reason.as_deref().unwrap_or("it returned"));
        }
    }
}

struct Teller {
    name: &'static str,
    ends: watch::Sender<Option<String>>,
}

impl Teller {
    fn tell(&self, reason: &str) {
        self.ends.send_if_modified(|told| {
            let first = told.is_none();
            told.get_or_insert_with(|| format!("{} has ended: {reason}", self.name));
            first
        });
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        self.tell("its task was dropped");
    }
}

impl Ended {
    /// Completes when a task has ended, and says which and why.
    pub async fn reason(mut self) -> String {
        match self.0.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => "all tasks have ended".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_kept_task_is_started_again_after_each_panic_and_not_after_its_end() {
        let task = Supervised::new("kept");
        let starts = Cell::new(0);
        task.keep(|| {
            starts.set(starts.get() + 1);
            let panics = starts.get() < 3;
            async move { assert!(!panics, "as it was told to") }
        })
        .await;
        assert_eq!((starts.get(), task.panics(), task.restarts()), (3, 2, 2));
        assert!(task.note().is_some_and(|note| note.contains("kept ended")), "{:?}", task.note());
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_fails_again_and_again_is_started_after_ever_longer_pauses() {
        let task = Supervised::new("names");
        assert_eq!((task.note(), task.restarts()), (None, 0));
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let begun = Instant::now();
            task.panicked("panicked: why").await;
            pauses.push(begun.elapsed().as_secs());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!((task.restarts(), task.panics()), (8, 8));
        assert!(task.note().unwrap().contains("names ended 60 s ago and is started again (8 times so far): panicked: why"));
        sleep(MAX_PAUSE).await;
        let begun = Instant::now();
        task.ended("the socket is gone").await;
        assert_eq!(begun.elapsed(), MIN_PAUSE, "it had run long enough");
        sleep(NOTE_FOR).await;
        assert_eq!(task.note(), None);
    }

    #[tokio::test]
    async fn a_panic_is_caught_with_its_words_and_what_does_not_panic_is_left_alone() {
        assert_eq!(caught(async { 7 }).await, Ok(7));
        let number = 7;
        let told = caught(async { panic!("no {number}") }).await.map(|(): ()| ()).unwrap_err();
        assert!(told.starts_with("panicked: no 7"), "{told}");
        let told = caught(async { std::panic::panic_any(7) }).await.map(|(): ()| ()).unwrap_err();
        assert!(told.starts_with("panicked: for a reason that is no text"), "{told}");
    }

    #[tokio::test]
    async fn the_end_of_an_essential_task_is_told_with_its_reason_and_only_the_first_counts() {
        let (essential, ended) = Essential::new();
        let driver = essential.run("the driver", std::future::pending());
        tokio::spawn(essential.run("an accept loop", async { panic!("of a bug") })).await.unwrap();
        drop((driver, essential));
        let reason = ended.reason().await;
        assert!(reason.starts_with("an accept loop has ended: panicked: of a bug"), "{reason}");
    }

    #[tokio::test]
    async fn an_essential_task_that_is_aborted_has_ended_too() {
        let (essential, ended) = Essential::new();
        tokio::spawn(essential.run("the driver", std::future::pending())).abort();
        assert_eq!(ended.reason().await, "the driver has ended: its task was dropped");
    }
}
