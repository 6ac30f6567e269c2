//! How an apiserver of the lab behaves at the moment. Its parent tells it by a line of JSON on its standard input, so that it hears
//! even when its packets are dropped.

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderName, UPGRADE};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

use super::children;

/// Headers of an answer that leaves HTTP for a stream of bytes both ways, as `kubectl exec` uses one.
pub const UPGRADED: [(HeaderName, &str); 2] = [(CONNECTION, "Upgrade"), (UPGRADE, "echo")];

/// What may change while it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mood {
    /// How long `/readyz` takes.
    pub readyz_delay_ms: u64,
    /// How long everything else takes to be answered.
    pub answer_delay_ms: u64,
    /// Nothing is read of what requests carry and of streams: their windows close. Handshakes go on.
    pub reads_nothing: bool,
    /// New connections are refused; those that are open are served.
    pub port_closed: bool,
}

/// The mood that was last told. Ends the process when standard input ends.
pub(super) fn heard(first: Mood) -> watch::Receiver<Mood> {
    let (told, heard) = watch::channel(first);
    children::hear_stdin(move |line| {
        if let Ok(mood) = serde_json::from_str(line) {
            told.send_replace(mood);
        }
    });
    heard
}

/// Reads a request's body while the mood is to read: how many bytes came.
pub(super) async fn read(mut body: Incoming, mut mood: watch::Receiver<Mood>) -> usize {
    let mut bytes = 0;
    loop {
        let _ = mood.wait_for(|mood| !mood.reads_nothing).await;
        let Some(Ok(frame)) = body.frame().await else { return bytes };
        bytes += frame.data_ref().map_or(0, Bytes::len);
    }
}

/// Sends back whatever comes, until it ends.
pub(super) async fn echo(upgraded: OnUpgrade, mut mood: watch::Receiver<Mood>) {
    let Ok(stream) = upgraded.await else { return };
    let mut stream = TokioIo::new(stream);
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let _ = mood.wait_for(|mood| !mood.reads_nothing).await;
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(read) => {
                if stream.write_all(&buffer[..read]).await.is_err() {
                    return;
                }
            }
        }
    }
    let _ = stream.shutdown().await;
}
