//! HTTP over a verified stream, one question at a time: HTTP/2 where ALPN chose it, HTTP/1.1 otherwise.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryFutureExt as _;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, AUTHORIZATION, HOST, HeaderValue, USER_AGENT};
use hyper::{Request, StatusCode, Version};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, BufWriter};
use tokio::time::{Instant, timeout_at};

use super::outcome;
use crate::engine::event::Outcome;

/// What ALPN offers, as client-go does.
pub(super) const ALPN: [&[u8]; 2] = [HTTP2, b"http/1.1"];
const HTTP2: &[u8] = b"h2";

const PATH: &str = "/readyz";
/// Who asks: what an apiserver's audit log shows.
const AGENT: &str = concat!("prismesh/", env!("CARGO_PKG_VERSION"));

/// An answer's head is at most this large; an apiserver's has about 300 bytes.
const HEAD_BYTES: u16 = 16 << 10;
/// A body longer than this is not read to its end: a failing `/readyz` lists its checks in 2 to 4 KiB.
const BODY_BYTES: usize = 64 << 10;
/// A body that has not come this long after its head costs the connection, not the probe. It usually comes in the same segment.
const BODY_WAIT: Duration = Duration::from_millis(100);

/// An answer whose head is in hand and whose body has not been read.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    body: Body,
}

enum Body {
    Http1(Incoming),
    Http2(h2::RecvStream),
}

/// A connection's HTTP.
pub(super) struct Http {
    sender: Sender,
    /// Moves the connection's bytes. [`None`] once it has ended.
    driver: Option<Driver>,
    authority: String,
    authorization: Option<HeaderValue>,
}

enum Sender {
    Http1(http1::SendRequest<Empty<Bytes>>),
    Http2(h2::client::SendRequest<Bytes>),
}

type Driver = Pin<Box<dyn Future<Output = Result<(), Outcome>> + Send>>;

impl Http {
    /// Speaks what was chosen by ALPN. Nothing is waited for.
    pub(super) async fn over<S>(
        stream: S,
        alpn: Option<&[u8]>,
        authority: String,
        authorization: Option<HeaderValue>,
    ) -> Result<Http, Outcome>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (sender, driver): (_, Driver) = if alpn == Some(HTTP2) {
            // What a connection begins with comes in several writes, each of which would be a segment.
            let stream = BufWriter::new(stream);
            let (sender, connection) = h2::client::Builder::new()
                .enable_push(false)
                .max_header_list_size(HEAD_BYTES.into())
                .handshake(stream)
                .await
                .map_err(|error| outcome::of_http2(&error))?;
            (Sender::Http2(sender), Box::pin(connection.map_err(|error| outcome::of_http2(&error))))
        } else {
            let (sender, connection) = http1::Builder::new()
                .max_buf_size(HEAD_BYTES.into())
                .handshake(TokioIo::new(stream))
                .await
                .map_err(|error| outcome::of_http1(&error))?;
            (Sender::Http1(sender), Box::pin(connection.map_err(|error| outcome::of_http1(&error))))
        };
        Ok(Http { sender, driver: Some(driver), authority, authorization })
    }

    /// Asks, and waits for the answer's head. Where the connection ends meanwhile, its end tells more than the question's does.
    pub(super) async fn ask(&mut self) -> Result<Answer, Outcome> {
        let (answer, ended) = match &mut self.sender {
            Sender::Http1(sender) => {
                let request = request(Version::HTTP_11, &self.authority, self.authorization.as_ref(), Empty::new())?;
                let exchange = async {
                    sender.ready().await?;
                    sender.send_request(request).await
                };
                let (answer, ended) = drive(&mut self.driver, exchange).await;
                let answer = answer.map_err(|error| outcome::of_http1(&error));
                (answer.map(|answer| Answer { status: answer.status(), body: Body::Http1(answer.into_body()) }), ended)
            }
            Sender::Http2(sender) => {
                let request = request(Version::HTTP_2, &self.authority, self.authorization.as_ref(), ())?;
                let exchange = async {
                    poll_fn(|context| sender.poll_ready(context)).await?;
                    sender.send_request(request, true)?.0.await
                };
                let (answer, ended) = drive(&mut self.driver, exchange).await;
                let answer = answer.map_err(|error| outcome::of_http2(&error));
                (answer.map(|answer| Answer { status: answer.status(), body: Body::Http2(answer.into_body()) }), ended)
            }
        };
        answer.map_err(|error| ended.unwrap_or(error))
    }

    /// Reads what is left of an answer. False if the connection cannot be used again.
    pub(super) async fn settle(&mut self, answer: Answer) -> bool {
        let sender = &mut self.sender;
        let rest = async {
            match answer.body {
                Body::Http1(body) => drop(Limited::new(body, BODY_BYTES).collect().await.ok()?),
                Body::Http2(body) => read(body).await?,
            }
            match sender {
                Sender::Http1(sender) => sender.ready().await.ok(),
                Sender::Http2(sender) => poll_fn(|context| sender.poll_ready(context)).await.ok(),
            }
        };
        let settled = timeout_at(Instant::now() + BODY_WAIT, drive(&mut self.driver, rest)).await;
        matches!(settled, Ok((Some(()), _))) && self.driver.is_some()
    }
}

/// Reads a body to its end, if that is near.
async fn read(mut body: h2::RecvStream) -> Option<()> {
    let mut bytes = 0;
    while let Some(part) = body.data().await {
        let count = part.ok()?.len();
        bytes += count;
        if bytes > BODY_BYTES {
            return None;
        }
        body.flow_control().release_capacity(count).ok()?;
    }
    Some(())
}

fn request<B>(version: Version, authority: &str, authorization: Option<&HeaderValue>, body: B) -> Result<Request<B>, Outcome> {
    let request = if version == Version::HTTP_2 {
        Request::get(format!("https://{authority}{PATH}"))
    } else {
        Request::get(PATH).header(HOST, authority)
    };
    let mut request = request
        .version(version)
        .header(USER_AGENT, AGENT)
        .header(ACCEPT, "*/*")
        .body(body)
        .map_err(|error| Outcome::LocalError(error.to_string()))?;
    if let Some(authorization) = authorization {
        request.headers_mut().insert(AUTHORIZATION, authorization.clone());
    }
    Ok(request)
}

/// Does `work` while moving the connection's bytes; also tells how the connection ended badly meanwhile.
async fn drive<T>(driver: &mut Option<Driver>, work: impl Future<Output = T>) -> (T, Option<Outcome>) {
    let mut work = pin!(work);
    let mut ended = None;
    let done = poll_fn(|context| {
        if let Poll::Ready(done) = work.as_mut().poll(context) {
            return Poll::Ready(done);
        }
        if let Some(running) = driver
            && let Poll::Ready(end) = running.as_mut().poll(context)
        {
            ended = end.err();
            *driver = None;
        }
        work.as_mut().poll(context)
    })
    .await;
    (done, ended)
}
