//! The two files, each read on a thread of its own and by one at a time: where a read hangs, as on a mount whose server is
//! gone, it costs that thread, and look-ups go on after [`FILE_WAIT`] with what was read last.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::timeout;

use super::super::store::open_regular;
use super::conf::Conf;

/// A file that takes longer is not waited for.
const FILE_WAIT: Duration = Duration::from_secs(2);
/// /etc/hosts may be a block list of many megabytes; it is read line by line, and only what was asked for is kept.
const HOSTS_BYTES: u64 = 256 << 20;
/// What is longer is no line of a hosts file.
const LINE_BYTES: u64 = 64 << 10;
/// Names whose addresses are kept.
const NAMES: usize = 1024;
/// resolv.conf has a few lines.
const RESOLV_BYTES: u64 = 64 << 10;

/// Changes when a file does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl From<&Metadata> for Stamp {
    fn from(metadata: &Metadata) -> Stamp {
        Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// A file, and what was made of it.
struct Watched<T> {
    path: PathBuf,
    kept: Arc<Mutex<T>>,
    /// Held by the one thread that reads.
    reading: Arc<tokio::sync::Mutex<Told>>,
}

/// The problem that was logged last, so that each is logged once.
#[derive(Default)]
struct Told(Option<String>);

impl Told {
    fn problem(&mut self, path: &Path, problem: Option<String>) {
        if let Some(problem) = problem.as_ref().filter(|problem| self.0.as_ref() != Some(problem)) {
            tracing::warn!(path = %path.display(), problem, "cannot read all of the file; what was read before stays");
        }
        self.0 = problem;
    }
}

impl<T: Send + 'static> Watched<T> {
    fn new(path: PathBuf, nothing: T) -> Watched<T> {
        Watched { path, kept: Arc::new(Mutex::new(nothing)), reading: Arc::default() }
    }

    /// Lets `read` look at the file on a thread of its own, and waits for it for a while. `read` must not keep the lock while
    /// it waits for the file.
    async fn refresh(&self, read: impl FnOnce(&Path, &Mutex<T>) -> io::Result<()> + Send + 'static) {
        let (path, kept, reading) = (self.path.clone(), self.kept.clone(), self.reading.clone());
        let refreshed = async move {
            let mut told = reading.lock_owned().await;
            #[expect(clippy::disallowed_methods, reason = "the real seam: blocking work belongs on a thread of its own")]
            let thread = tokio::task::spawn_blocking(move || {
                let problem = read(&path, &kept).err().filter(|error| error.kind() != io::ErrorKind::NotFound);
                told.problem(&path, problem.map(|error| error.to_string()));
            });
            thread.await
        };
        if timeout(FILE_WAIT, refreshed).await.is_err() {
            tracing::debug!(path = %self.path.display(), "the file cannot be read in time");
        }
    }

    fn kept<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        look(&lock(&self.kept))
    }
}

fn lock<T>(kept: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

/// /etc/hosts.
pub(super) struct Hosts(Watched<Addresses>);

/// What the hosts file said of names that were asked for.
#[derive(Default)]
struct Addresses {
    stamp: Option<Stamp>,
    of: BTreeMap<String, Vec<IpAddr>>,
}

impl Hosts {
    pub(super) fn new(path: PathBuf) -> Hosts {
        Hosts(Watched::new(path, Addresses::default()))
    }

    /// The addresses of both families that the file has for a name, in its order.
    pub(super) async fn lookup(&self, name: &str) -> Vec<IpAddr> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let asked = name.clone();
        self.0.refresh(move |path, kept| look_for(&asked, path, kept)).await;
        self.0.kept(|addresses| addresses.of.get(&name).cloned().unwrap_or_default())
    }
}

/// Reads the file for a name, unless that was done since it changed last.
fn look_for(name: &str, path: &Path, kept: &Mutex<Addresses>) -> io::Result<()> {
    let opened = open_regular(path).and_then(|file| Ok((Stamp::from(&file.metadata()?), file)));
    let (stamp, file) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            if error.kind() == io::ErrorKind::NotFound {
                *lock(kept) = Addresses::default();
            }
            return Err(error);
        }
    };
    let known = |kept: &Addresses| kept.stamp == Some(stamp) && kept.of.contains_key(name);
    if known(&lock(kept)) {
        return Ok(());
    }
    let addresses = scan(name.as_bytes(), BufReader::new(file))?;
    let mut kept = lock(kept);
    if kept.stamp != Some(stamp) || kept.of.len() >= NAMES {
        // What others asked for is read again for them.
        *kept = Addresses { stamp: Some(stamp), of: BTreeMap::new() };
    }
    kept.of.insert(name.to_owned(), addresses);
    Ok(())
}

/// The addresses of one name in a hosts file. Lines that mean nothing are passed over, and only they.
fn scan(name: &[u8], mut file: impl io::BufRead) -> io::Result<Vec<IpAddr>> {
    let mut addresses = Vec::new();
    let (mut line, mut read) = (Vec::new(), 0);
    while read < HOSTS_BYTES {
        line.clear();
        let length = file.by_ref().take(LINE_BYTES).read_until(b'\n', &mut line)?;
        if length == 0 {
            return Ok(addresses);
        }
        read += length as u64;
        addresses.extend(address_for(name, &line).filter(|address| !addresses.contains(address)));
    }
    Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {HOSTS_BYTES} bytes")))
}

fn address_for(name: &[u8], line: &[u8]) -> Option<IpAddr> {
    let text = line.split(|byte| *byte == b'#').next()?;
    let mut words = text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let address = words.next()?;
    words.find(|word| word.strip_suffix(b".").unwrap_or(word).eq_ignore_ascii_case(name))?;
    std::str::from_utf8(address).ok()?.parse().ok()
}

/// /etc/resolv.conf.
pub(super) struct ResolvConf {
    file: Watched<Option<(Stamp, Arc<Conf>)>>,
    port: u16,
}

impl ResolvConf {
    /// `port` is where its name servers answer.
    pub(super) fn new(path: PathBuf, port: u16) -> ResolvConf {
        ResolvConf { file: Watched::new(path, None), port }
    }

    /// What it says. A file that is missing says nothing, and one that cannot be read says what it said before.
    pub(super) async fn now(&self) -> Arc<Conf> {
        let port = self.port;
        self.file.refresh(move |path, kept| read_conf(path, port, kept)).await;
        let read = self.file.kept(|kept| kept.as_ref().map(|(_, conf)| conf.clone()));
        read.unwrap_or_else(|| Arc::new(Conf::parse(b"", own_domain().as_deref(), port)))
    }
}

fn read_conf(path: &Path, port: u16, kept: &Mutex<Option<(Stamp, Arc<Conf>)>>) -> io::Result<()> {
    let opened = open_regular(path).and_then(|file| Ok((Stamp::from(&file.metadata()?), file)));
    let (stamp, file) = opened.inspect_err(|error| {
        if error.kind() == io::ErrorKind::NotFound {
            *lock(kept) = None;
        }
    })?;
    if lock(kept).as_ref().is_some_and(|(last, _)| *last == stamp) {
        return Ok(());
    }
    let mut text = Vec::new();
    file.take(RESOLV_BYTES).read_to_end(&mut text)?;
    *lock(kept) = Some((stamp, Arc::new(Conf::parse(&text, own_domain().as_deref(), port))));
    Ok(())
}

/// The domain in this machine's name.
fn own_domain() -> Option<String> {
    let name = hostname::get().ok()?.into_string().ok()?;
    name.split_once('.').map(|(_, domain)| domain.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, text: &[u8]) -> Vec<String> {
        scan(name.as_bytes(), text).unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_line_that_means_nothing_costs_only_itself() {
        let text =
            b"10.0.0.1 m\xfcnchen api\n10.0.0.x api\napi\n\xff\n10.0.0.2\tapi # \xfc\r\n  fd00::1  API. other\n# 10.0.0.3 api\n";
        assert_eq!(found("api", text), ["10.0.0.1", "10.0.0.2", "fd00::1"]);
        assert_eq!(found("other", text), ["fd00::1"]);
        assert_eq!(found("10.0.0.1", text), [""; 0]);
    }

    #[test]
    fn a_line_without_end_takes_no_memory_and_hides_nothing() {
        let endless = [vec![b'x'; 1 << 20], b"\n10.0.0.1 api\n".to_vec()].concat();
        assert_eq!(found("api", &endless), ["10.0.0.1"]);
    }

    #[tokio::test]
    async fn a_file_that_hangs_holds_one_thread_and_costs_only_what_stands_in_it() {
        let (release, hangs) = std::sync::mpsc::channel::<()>();
        let file = Watched::new(PathBuf::from("/nowhere"), 1);
        let begin = tokio::time::Instant::now();
        file.refresh(move |_, kept| {
            let _ = hangs.recv();
            *lock(kept) = 2;
            Ok(())
        })
        .await;
        assert_eq!(file.kept(|kept| *kept), 1, "what was read last");
        file.refresh(|_, _| panic!("a second thread")).await;
        assert!(begin.elapsed() < 3 * FILE_WAIT);
        drop(release);
        file.refresh(|_, kept| {
            *lock(kept) += 10;
            Ok(())
        })
        .await;
        assert_eq!(file.kept(|kept| *kept), 12, "the first one came to its end");
    }
}
