//! A long-lived stream, as kubelet's watches are, that redials when it ends.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::{Instant, sleep, timeout};

use super::client::{FirstByte, Target, ask, get, is_reset};

/// Between the end of a stream and the next dial, and between two dials.
const REDIAL: Duration = Duration::from_millis(50);
/// How long a dial may take until the stream's first line: client-go gives up a TLS handshake at 10 s.
const OPEN_WITHIN: Duration = Duration::from_secs(10);

/// A time without a line that is worth a note. Lines come each 200 ms.
const SILENCE: Duration = Duration::from_millis(300);

/// How a stream ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Its server closed it.
    Closed,
    /// It was reset.
    Reset(String),
    /// A line is missing or not what was expected: bytes were lost.
    Broken(String),
}

/// One stream, from its dial on.
#[derive(Clone, Debug)]
pub struct Stream {
    /// When it was dialled.
    pub dialled: Instant,
    /// When its first line came.
    pub opened: Option<Instant>,
    /// When its last line came.
    pub last: Option<Instant>,
    /// Lines.
    pub lines: u64,
    /// The server that says it sends.
    pub server: Option<String>,
    /// When it ended, and how; [`None`] while it lasts.
    pub ended: Option<(Instant, End)>,
}

/// What a watcher has seen.
#[derive(Default)]
struct Seen {
    streams: Vec<Stream>,
    last_line: Option<Instant>,
    /// Times without a line that are worth a note, whether a stream was there or not.
    silences: Vec<(Instant, Instant)>,
}

/// A client with one stream at a time. Ends when dropped.
pub struct Watcher {
    seen: Arc<Mutex<Seen>>,
    task: tokio::task::JoinHandle<()>,
}

impl Watcher {
    /// Starts watching.
    pub fn start(target: Target) -> Watcher {
        let note = Note::default();
        let seen = Arc::clone(&note.0);
        Watcher { seen, task: tokio::spawn(watch(target, note)) }
    }

    /// All its streams, oldest first.
    pub fn streams(&self) -> Vec<Stream> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).streams.clone()
    }

    /// The stream that it has now, if lines come.
    pub fn current(&self) -> Option<Stream> {
        self.streams().pop().filter(|stream| stream.opened.is_some() && stream.ended.is_none())
    }

    /// The longest time without a line within a span of time.
    pub fn longest_silence(&self, from: Instant, to: Instant) -> Duration {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let last = seen.last_line.unwrap_or(from);
        let clipped = seen.silences.iter().copied().chain([(last, to)]);
        clipped.map(|(begin, end)| end.min(to).saturating_duration_since(begin.max(from))).max().unwrap_or_default()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn watch(target: Target, note: Note) {
    loop {
        let stream = Stream { dialled: Instant::now(), opened: None, last: None, lines: 0, server: None, ended: None };
        note.with(|seen| seen.streams.push(stream));
        let end = match follow(&target, &note).await {
            Ok(end) => end,
            Err(error) if is_reset(&error) => End::Reset(format!("{error:#}")),
            Err(error) => End::Reset(format!("not opened: {error:#}")),
        };
        note.stream(|stream| stream.ended = Some((Instant::now(), end)));
        sleep(REDIAL).await;
    }
}

/// The watcher's task writes here.
#[derive(Clone, Default)]
struct Note(Arc<Mutex<Seen>>);

impl Note {
    fn with<T>(&self, write: impl FnOnce(&mut Seen) -> T) -> T {
        write(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// On the stream that there is now.
    fn stream<T>(&self, write: impl FnOnce(&mut Stream) -> T) -> Option<T> {
        self.with(|seen| seen.streams.last_mut().map(write))
    }

    /// A line came: its number within the stream.
    fn line(&self, server: Option<String>) -> u64 {
        let now = Instant::now();
        self.with(|seen| {
            if let Some(last) = seen.last_line.replace(now).filter(|last| now - *last > SILENCE) {
                seen.silences.push((last, now));
            }
        });
        let number = self.stream(|stream| {
            stream.lines += 1;
            stream.opened.get_or_insert(now);
            stream.last = Some(now);
            stream.server = server;
            stream.lines
        });
        number.unwrap_or_default()
    }
}

async fn follow(target: &Target, note: &Note) -> Result<End> {
    let first_byte = FirstByte::default();
    let stream = timeout(OPEN_WITHIN, target.connect(&first_byte)).await??;
    ask(stream, get(&target.path)?, |body| read_lines(body, note)).await
}

async fn read_lines(mut body: Incoming, note: &Note) -> Result<End> {
    let mut rest = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = match frame {
            Ok(frame) => frame.into_data().unwrap_or_else(|_| Bytes::new()),
            Err(error) => return Ok(End::Reset(format!("{error:#}"))),
        };
        rest.extend_from_slice(&frame);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            if let Err(why) = take_line(&line, note) {
                return Ok(End::Broken(why));
            }
        }
    }
    Ok(End::Closed)
}

/// A line that is numbered must be the next; one that is not may be anything that is JSON.
fn take_line(line: &[u8], note: &Note) -> Result<(), String> {
    let text = String::from_utf8_lossy(line);
    let parsed: serde_json::Value = serde_json::from_slice(line).map_err(|error| format!("{error}: {text}"))?;
    let number = parsed.get("line").and_then(serde_json::Value::as_u64);
    let server = parsed.get("server").and_then(serde_json::Value::as_str).map(str::to_owned);
    let expected = note.line(server);
    if number.is_some_and(|number| number != expected) { Err(format!("line {expected} expected: {text}")) } else { Ok(()) }
}
