//! What nobody may overlook: every ERROR that anything logs during a run, and every panic, in whatever task.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, Once, PoisonError};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt};

use super::state::Ms;

/// Complaints kept at most: the first ones tell.
const MOST: usize = 100;

static HEARD: Mutex<Vec<String>> = Mutex::new(Vec::new());
static LISTENING: Once = Once::new();
/// The simulation's time, as it was last looked at.
static NOW: AtomicU64 = AtomicU64::new(0);

/// Listens from now on, in this process. What `log` selects is also written to standard error.
pub(super) fn listen(log: Option<&str>) {
    LISTENING.call_once(|| {
        let shown = log.map(|log| fmt::layer().with_writer(std::io::stderr).without_time().with_filter(EnvFilter::new(log)));
        // Someone else may have set up logs, in a test.
        let _ = tracing_subscriber::registry().with(Errors).with(shown).try_init();
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            complain(&format!("panic: {panic}"));
            usual(panic);
        }));
    });
}

fn complain(what: &str) {
    let mut heard = HEARD.lock().unwrap_or_else(PoisonError::into_inner);
    if heard.len() < MOST {
        heard.push(format!("at {} ms: {what}", NOW.load(Ordering::Relaxed)));
    }
}

/// It is so late now: for complaints, whose source has no clock.
pub(super) fn tick(now: Ms) {
    NOW.store(now, Ordering::Relaxed);
}

/// Everything heard so far.
pub(super) fn heard() -> Vec<String> {
    HEARD.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

struct Errors;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Errors {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if *event.metadata().level() == Level::ERROR {
            let mut text = Text(String::new());
            event.record(&mut text);
            complain(&format!("{}: {}", event.metadata().target(), text.0.trim_end()));
        }
    }
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.0, "{value:?} "),
            name => write!(self.0, "{name}={value:?} "),
        };
    }
}
