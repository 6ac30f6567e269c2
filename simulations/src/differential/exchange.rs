//! What a client does on its connection, and whether that ended as it would have where nothing breaks.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, UPGRADE};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use tokio_rustls::client::TlsStream;

use super::draw::{Kind, World};
use super::real::BEAT;
use crate::lab::apiserver::WATCH_PERIOD;
use crate::lab::client::Noting;
use crate::lab::kubernetes::WIDGETS;

/// A client's connection.
pub(super) type Stream = TlsStream<Noting<TcpStream>>;
/// As `kubectl` says who it asks.
const HOST: (&str, &str) = ("host", "kubernetes");
/// A client that reads slowly has a kernel's buffer of this size.
pub(super) const SMALL_WINDOW: u32 = 16 * 1024;
/// The large answer.
const LIST: u64 = 6_000_000;
/// A large request.
const UPLOAD: u64 = 20_000_000;
/// The same to a real API server, which takes 3 MiB at most.
const REAL_UPLOAD: u64 = 2_500_000;
/// A part of a large request.
const PART: usize = 64 * 1024;
/// Between two short requests, and between two lines of an exec.
const PAUSE: Duration = Duration::from_millis(300);
/// Between two looks of a slow reader.
const SIP: Duration = Duration::from_millis(100);

type Sender = http1::SendRequest<BoxBody<Bytes, Infallible>>;

/// Does all of it. What came of it in words, or why not all of it came.
pub(super) async fn exchange(kind: Kind, world: World, stream: Stream, lasts: Duration) -> Result<String> {
    let small = kind == Kind::SlowList;
    let mut builder = http1::Builder::new();
    if small {
        builder.max_buf_size(SMALL_WINDOW as usize);
    }
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
    let mut connection = pin!(connection.with_upgrades());
    let mut exchanged = pin!(act(kind, world, sender, lasts));
    let mut open = true;
    loop {
        tokio::select! {
            exchanged = &mut exchanged => return exchanged,
            // What it failed of, the exchange will say.
            _ = &mut connection, if open => open = false,
        }
    }
}

async fn act(kind: Kind, world: World, mut sender: Sender, lasts: Duration) -> Result<String> {
    match world {
        World::Lab => lab(kind, &mut sender, lasts).await,
        World::Kubernetes => kubernetes(kind, &mut sender, lasts).await,
    }
}

async fn lab(kind: Kind, sender: &mut Sender, lasts: Duration) -> Result<String> {
    let ms = lasts.as_millis();
    match kind {
        Kind::QuietWatch => lines(get(sender, &format!("/quiet?ms={ms}")).await?, 2).await,
        Kind::EventWatch => {
            let expected = 1 + ms / WATCH_PERIOD.as_millis();
            lines(get(sender, &format!("/events?ms={ms}")).await?, expected).await
        }
        Kind::LongRequest => whole(get(sender, &format!("/slow?ms={ms}")).await?).await,
        Kind::Upload => {
            let response = post(sender, "/upload", UPLOAD, lasts).await?;
            let body = response.into_body().collect().await?.to_bytes();
            ensure!(body == UPLOAD.to_string().as_bytes(), "{} B arrived of {UPLOAD}", String::from_utf8_lossy(&body));
            Ok(format!("{UPLOAD} B"))
        }
        Kind::SlowList => slowly(get(sender, &format!("/bulk?bytes={LIST}")).await?, lasts).await,
        Kind::Exec => exec(sender, lasts).await,
        Kind::ShortRequests => short_requests(sender, "/short", lasts).await,
    }
}

/// Whatever real API servers answer is an answer: while etcd is frozen, say, it may be an error. What counts is that it comes, whole.
async fn kubernetes(kind: Kind, sender: &mut Sender, lasts: Duration) -> Result<String> {
    let watch = |name| format!("{WIDGETS}?watch=true&timeoutSeconds={}&fieldSelector=metadata.name={name}", lasts.as_secs());
    let dry = format!("{WIDGETS}?dryRun=All");
    match kind {
        Kind::QuietWatch => whole(get(sender, &watch("nothing")).await?).await,
        Kind::EventWatch => whole(get(sender, &watch(BEAT)).await?).await,
        Kind::LongRequest => whole(post(sender, &dry, REAL_UPLOAD, lasts).await?).await,
        Kind::Upload => whole(post(sender, &dry, REAL_UPLOAD, lasts / 2).await?).await,
        Kind::SlowList => slowly(get(sender, WIDGETS).await?, lasts).await,
        Kind::Exec => bail!("no real API server of this lab has pods"),
        Kind::ShortRequests => short_requests(sender, &format!("{WIDGETS}/{BEAT}"), lasts).await,
    }
}

async fn get(sender: &mut Sender, path: &str) -> Result<Response<Incoming>> {
    send(sender, Request::get(path).header(HOST.0, HOST.1).body(Full::default().boxed())?).await
}

async fn send(sender: &mut Sender, request: Request<BoxBody<Bytes, Infallible>>) -> Result<Response<Incoming>> {
    sender.ready().await.context("before the request")?;
    sender.send_request(request).await.context("no answer")
}

/// All lines of a watch, in order, and its end.
async fn lines(response: Response<Incoming>, expected: u128) -> Result<String> {
    let mut body = response.into_body();
    let (mut text, mut lines) = (Vec::new(), 0_u128);
    while let Some(frame) = body.frame().await {
        text.extend_from_slice(&frame.with_context(|| format!("after {lines} lines"))?.into_data().unwrap_or_default());
        while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(&text.drain(..=end).collect::<Vec<u8>>()).trim().to_owned();
            lines += 1;
            ensure!(line == lines.to_string(), "line {lines} is {line:?}");
        }
    }
    ensure!(lines == expected, "{lines} lines of {expected}");
    Ok(format!("{lines} lines"))
}

/// A large request that is sent at an even pace.
async fn post(sender: &mut Sender, path: &str, bytes: u64, lasts: Duration) -> Result<Response<Incoming>> {
    let request = Request::post(path).header(HOST.0, HOST.1).header("content-type", "application/json");
    send(sender, request.body(Paced::new(bytes, lasts).boxed())?).await
}

/// An answer, to its end.
async fn whole(response: Response<Incoming>) -> Result<String> {
    let status = response.status();
    let body = response.into_body().collect().await.context("the answer broke off")?.to_bytes();
    Ok(format!("{status}, {} B", body.len()))
}

/// An answer that is read at an even pace, so that a large one takes that long.
async fn slowly(response: Response<Incoming>, lasts: Duration) -> Result<String> {
    let (status, length) = (response.status(), response.headers().get("content-length").cloned());
    let mut body = response.into_body();
    let (begun, mut read) = (Instant::now(), 0_u64);
    loop {
        let share = begun.elapsed().as_secs_f64() / lasts.as_secs_f64();
        while share >= 1.0 || (read as f64) <= LIST as f64 * share {
            let Some(frame) = body.frame().await else { return Ok(format!("{status}, {read} B of {length:?}")) };
            read += frame.with_context(|| format!("after {read} B"))?.data_ref().map_or(0, Bytes::len) as u64;
        }
        sleep(SIP).await;
    }
}

/// Sends a line now and then, and wants each back.
async fn exec(sender: &mut Sender, lasts: Duration) -> Result<String> {
    let request = Request::post("/exec").header(HOST.0, HOST.1).header(CONNECTION, "Upgrade").header(UPGRADE, "echo");
    let response = send(sender, request.body(Full::default().boxed())?).await?;
    ensure!(response.status() == StatusCode::SWITCHING_PROTOCOLS, "answered {}", response.status());
    let mut stream = TokioIo::new(hyper::upgrade::on(response).await?);
    let begun = Instant::now();
    let mut sent = 0_u64;
    while begun.elapsed() < lasts {
        let length = 1 + usize::try_from(sent * 397 % 3_000)?;
        let text = format!("{sent:>length$}\n");
        stream.write_all(text.as_bytes()).await.with_context(|| format!("line {sent}"))?;
        stream.flush().await?;
        let mut back = vec![0; text.len()];
        stream.read_exact(&mut back).await.with_context(|| format!("line {sent}"))?;
        ensure!(back == text.as_bytes(), "line {sent} came back as something else");
        sent += 1;
        sleep(PAUSE).await;
    }
    stream.shutdown().await.context("at the end")?;
    ensure!(stream.read(&mut [0; 1]).await.context("at the end")? == 0, "more came back than was sent");
    Ok(format!("{sent} lines"))
}

async fn short_requests(sender: &mut Sender, path: &str, lasts: Duration) -> Result<String> {
    let (begun, mut answered) = (Instant::now(), 0_u64);
    while begun.elapsed() < lasts {
        let asked = async { anyhow::Ok(get(sender, path).await?.into_body().collect().await?) };
        asked.await.with_context(|| format!("request {answered}"))?;
        answered += 1;
        sleep(PAUSE).await;
    }
    if answered == 0 {
        bail!("nothing was asked");
    }
    Ok(format!("{answered} answers"))
}

/// Many bytes, all at once or at an even pace.
struct Paced {
    sent: u64,
    bytes: u64,
    begun: Instant,
    lasts: Duration,
    waits: Option<Pin<Box<Sleep>>>,
}

impl Paced {
    fn new(bytes: u64, lasts: Duration) -> Paced {
        Paced { sent: 0, bytes, begun: Instant::now(), lasts, waits: None }
    }
}

impl Body for Paced {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let part = (PART as u64).min(self.bytes - self.sent);
        if part == 0 {
            return Poll::Ready(None);
        }
        let due = self.begun + self.lasts.mul_f64(self.sent as f64 / self.bytes as f64);
        let waits = self.waits.get_or_insert_with(|| Box::pin(sleep_until(due)));
        std::task::ready!(waits.as_mut().poll(cx));
        self.waits = None;
        self.sent += part;
        static NOUGHTS: [u8; PART] = [0; PART];
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&NOUGHTS).slice(..usize::try_from(part).unwrap_or_default())))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes - self.sent)
    }
}
