//! The process's log: one thread writes lines to standard error, and nothing else in the process ever waits for it.
//!
//! A reader that stalls, a full disk or a closed pipe costs log lines and nothing else. Lines that cannot be queued or written
//! are dropped and counted ([`dropped`]), and [`trouble`] says why. At exit [`Log::finish`] waits for a bounded time only.
//!
//! The queue is written here because `tracing-appender`, whose `non_blocking` does the same, reports at exit with `eprintln!`,
//! which blocks on the very stream that is stalled, and does not count lines that could not be written.

use std::io::{self, Write};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tokio::time::Instant;

/// Lines that wait to be written, at most.
const QUEUE: usize = 1024;
/// A longer line is cut to this many bytes, so that the queue's memory is bounded (16 MiB).
const MAX_LINE: usize = 16 << 10;
/// A write that takes longer than this is reported as a stalled reader.
const STALLED_AFTER: Duration = Duration::from_secs(1);
/// At exit the queued lines have this long to be written.
const FINISH_WITHIN: Duration = Duration::from_millis(500);

static LOG: OnceLock<Log> = OnceLock::new();

/// Starts the process's log on standard error; further calls return the same one.
///
/// Where standard error or a thread cannot be had, all lines are dropped and counted.
pub fn start() -> &'static Log {
    LOG.get_or_init(|| Log::to(io::stderr().as_fd().try_clone_to_owned()))
}

/// Lines of the process's log that were dropped so far.
pub fn dropped() -> u64 {
    LOG.get().map_or(0, |log| log.state.dropped())
}

/// Why lines of the process's log cannot be written now, in words; [`None`] while they can.
pub fn trouble() -> Option<String> {
    LOG.get().and_then(|log| log.state.trouble())
}

enum Message {
    Line(Vec<u8>),
    /// All lines before it are written: answers by hanging up.
    Flush(#[expect(dead_code, reason = "dropped, which is the answer")] SyncSender<()>),
}

/// A handle on a log.
#[derive(Clone)]
pub struct Log {
    queue: SyncSender<Message>,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    dropped: AtomicU64,
    write: Mutex<WriteState>,
}

/// What the writing thread does now.
#[derive(Default)]
enum WriteState {
    /// The last write succeeded, or there was none.
    #[default]
    Idle,
    /// A write is under way since then.
    Writing(Instant),
    /// The last write failed.
    Failed(String),
}

impl Log {
    fn to(stream: io::Result<OwnedFd>) -> Log {
        let (queue, messages) = sync_channel(QUEUE);
        let state = Arc::new(State::default());
        let writer = stream.and_then(|stream| {
            let writer = Writer { stream, state: Arc::clone(&state), torn: false, reported: 0 };
            std::thread::Builder::new().name("log".to_owned()).spawn(move || writer.run(&messages)).map(drop)
        });
        if let Err(error) = writer {
            state.set(WriteState::Failed(error.to_string()));
        }
        Log { queue, state }
    }

    /// Queues one line, which ends with a line break. Never waits: a line that finds the queue full is dropped and counted.
    pub fn line(&self, line: &[u8]) {
        let mut line = line.to_vec();
        if line.len() > MAX_LINE {
            line.truncate(MAX_LINE - 1);
            line.push(b'\n');
        }
        if self.queue.try_send(Message::Line(line)).is_err() {
            self.state.drop_line();
        }
    }

    /// Waits until the queued lines are written, but no longer than half a second, and not at all for a reader that has stalled.
    pub fn finish(&self) {
        let (flushed, written) = sync_channel(0);
        if self.state.trouble().is_none() && self.queue.try_send(Message::Flush(flushed)).is_ok() {
            // An error either way: the sender is gone once everything is written.
            let _ = written.recv_timeout(FINISH_WITHIN);
        }
    }
}

/// One formatted event is one write.
impl Write for &Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.line(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl State {
    fn drop_line(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn set(&self, write: WriteState) {
        *self.write.lock().unwrap_or_else(PoisonError::into_inner) = write;
    }

    fn trouble(&self) -> Option<String> {
        let dropped = self.dropped();
        match &*self.write.lock().unwrap_or_else(PoisonError::into_inner) {
            WriteState::Writing(since) if since.elapsed() >= STALLED_AFTER => {
                let stalled = since.elapsed().as_secs();
                Some(format!("the log is stalled: its reader has taken nothing for {stalled} s; {dropped} lines were dropped"))
            }
            WriteState::Failed(error) => Some(format!("the log cannot be written: {error}; {dropped} lines were dropped")),
            WriteState::Idle | WriteState::Writing(_) => None,
        }
    }
}

/// The thread that writes.
struct Writer {
    stream: OwnedFd,
    state: Arc<State>,
    /// The last line was written in part.
    torn: bool,
    /// Dropped lines that the log itself has told of.
    reported: u64,
}

impl Writer {
    fn run(mut self, messages: &Receiver<Message>) {
        while let Ok(message) = messages.recv() {
            self.take(message);
            loop {
                match messages.try_recv() {
                    Ok(message) => self.take(message),
                    Err(TryRecvError::Empty) => break self.report(),
                    Err(TryRecvError::Disconnected) => return,
                }
            }
        }
    }

    fn take(&mut self, message: Message) {
        let Message::Line(line) = message else { return };
        self.state.set(WriteState::Writing(Instant::now()));
        match self.write(&line) {
            Ok(()) => self.state.set(WriteState::Idle),
            Err(error) => {
                self.state.drop_line();
                self.state.set(WriteState::Failed(error.to_string()));
            }
        }
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.torn {
            self.write_bytes(b"\n")?;
            self.torn = false;
        }
        self.write_bytes(line)
    }

    fn write_bytes(&mut self, mut rest: &[u8]) -> io::Result<()> {
        while !rest.is_empty() {
            match rustix::io::write(&self.stream, rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    rest = rest.get(written..).unwrap_or_default();
                    self.torn = !rest.is_empty();
                }
                Err(Errno::INTR) => {}
                // Whoever shares the stream has made it non-blocking. This thread may wait.
                Err(Errno::AGAIN) => drop(poll(&mut [PollFd::new(&self.stream, PollFlags::OUT)], None)?),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Says in the log, once it can be written again, that there is a hole in it.
    fn report(&mut self) {
        let dropped = self.state.dropped();
        let failed = matches!(*self.state.write.lock().unwrap_or_else(PoisonError::into_inner), WriteState::Failed(_));
        if dropped > self.reported && !failed {
            tracing::warn!(
                lines = dropped - self.reported,
                "log lines were dropped: the log could not be written, or not fast enough"
            );
            self.reported = dropped;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Read as _};

    use super::*;

    fn until(what: &str, so: impl Fn() -> bool) {
        let begun = Instant::now();
        while !so() {
            assert!(begun.elapsed() < Duration::from_secs(10), "{what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn lines_arrive_whole_and_in_order_and_are_there_when_the_log_is_finished() {
        let (mut reader, writer) = io::pipe().unwrap();
        let log = Log::to(Ok(writer.into()));
        for number in 0..100 {
            log.line(format!("line {number}\n").as_bytes());
        }
        log.line(&[b'x'; 2 * MAX_LINE]);
        log.finish();
        drop(log);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 101);
        assert!(lines.iter().take(100).enumerate().all(|(number, line)| *line == format!("line {number}")));
        assert_eq!(lines[100].len(), MAX_LINE - 1);
    }

    #[test]
    fn a_stalled_reader_costs_counted_lines_and_neither_the_writer_nor_the_end_waits_for_it() {
        let (reader, writer) = io::pipe().unwrap();
        let log = Log::to(Ok(writer.into()));
        let begun = Instant::now();
        let line = [b'x'; 1023].into_iter().chain([b'\n']).collect::<Vec<u8>>();
        for _ in 0..QUEUE + 1000 {
            log.line(&line);
        }
        assert!(log.state.dropped() > 0, "a pipe holds 64 KiB, the queue {QUEUE} lines");
        log.finish();
        assert!(begun.elapsed() < STALLED_AFTER, "{:?}", begun.elapsed());
        until("the stall is told", || log.state.trouble().is_some_and(|trouble| trouble.contains("stalled")));
        let mut lines = BufReader::new(reader).lines();
        assert_eq!(lines.next().unwrap().unwrap().len(), 1023);
        std::thread::spawn(move || lines.for_each(drop));
        until("it goes on", || log.state.trouble().is_none());
        log.finish();
    }

    #[test]
    fn a_log_without_a_reader_drops_and_counts_and_says_why() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let log = Log::to(Ok(writer.into()));
        for _ in 0..10 {
            log.line(b"a line\n");
        }
        until("all are counted", || log.state.dropped() == 10);
        assert!(log.state.trouble().unwrap().contains("Broken pipe"));
        log.finish();
    }

    #[test]
    fn a_stream_that_someone_made_non_blocking_loses_nothing() {
        let (reader, writer) = io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        let log = Log::to(Ok(writer.into()));
        let line = [b'x'; 1023].into_iter().chain([b'\n']).collect::<Vec<u8>>();
        (0..200).for_each(|_| log.line(&line));
        let received = BufReader::new(reader).lines().take(200).filter(|line| line.as_ref().unwrap().len() == 1023).count();
        assert_eq!((received, log.state.dropped()), (200, 0));
    }

    #[test]
    fn without_a_stream_everything_is_dropped_and_told() {
        let log = Log::to(Err(io::ErrorKind::NotFound.into()));
        log.line(b"a line\n");
        log.finish();
        assert_eq!(log.state.dropped(), 1);
        assert!(log.state.trouble().is_some());
    }
}
