//! A configuration file. A good one, printed as `prismesh config check` does, says the same again.
#![no_main]

use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use libfuzzer_sys::fuzz_target;
use prismesh::config::{Config, ConfigError, Loaded, Setting, Sources};
use prismesh::world::{BoxFuture, Store};

const FILE: &str = "config.yaml";

/// A disk with the one file, and with a keyring wherever the file says that there is one.
struct Disk<'a>(&'a [u8]);

impl Store for Disk<'_> {
    fn read<'a>(&'a self, path: &'a Path, most: usize) -> BoxFuture<'a, io::Result<Vec<u8>>> {
        Box::pin(async move {
            let content = match path.to_str() {
                Some(FILE) => self.0,
                Some(path) if path.ends_with(".crt") => return Err(io::ErrorKind::NotFound.into()),
                _ => b"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n",
            };
            if content.len() > most { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(content.to_vec()) }
        })
    }

    fn write<'a>(&'a self, _: &'a Path, _: &'a [u8]) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async { Err(io::ErrorKind::ReadOnlyFilesystem.into()) })
    }

    fn mode<'a>(&'a self, _: &'a Path) -> BoxFuture<'a, io::Result<u32>> {
        Box::pin(async move {
        Ok(0o600)
        })
    }
}

fn load(file: &[u8]) -> Result<Loaded, ConfigError> {
    let sources = Sources { file: Some(PathBuf::from(FILE)), hostname: Some("node".to_owned()), ..Sources::default() };
    let disk = Disk(file);
    // Nothing in it waits.
    match pin!(Config::load(&sources, &disk)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(loaded) => loaded,
        Poll::Pending => unreachable!("the disk answers at once"),
    }
}

/// What is said, without where.
fn texts(loaded: &Loaded) -> Vec<(Setting, Vec<&str>)> {
    let text = |setting: Setting| loaded.effective.values(setting).iter().map(|written| written.text.as_str()).collect();
    Setting::ALL.into_iter().map(|setting| (setting, text(setting))).collect()
}

fuzz_target!(|bytes: &[u8]| {
    match load(bytes) {
        Ok(loaded) => {
            let printed = loaded.effective.to_yaml();
            let again = load(printed.as_bytes()).unwrap_or_else(|error| panic!("{error}\n{printed}"));
            // Not the whole of it: what was a default is a person's will once it stands in a file.
            assert_eq!(texts(&again), texts(&loaded), "{printed}");
        }
        Err(error) => assert!(!error.to_string().contains('\n'), "an error is one line: {error}"),
    }
});
