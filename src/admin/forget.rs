//! `POST /forget`: a removal, signed with the cluster's signing key.
//!
//! Nobody is asked who they are: the signature is what counts, and gossip verifies it. A removal that was sent before changes
//! nothing when it is sent again. The type of the content is required because a web page in a browser cannot send it to
//! another site unasked.

use std::sync::atomic::Ordering;
use std::time::Duration;

use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request, StatusCode};
use tokio::time::timeout;

use super::{Answer, Shared, only, text};

/// A removal is a quarter of this at most.
const BODY_BYTES: usize = 4 << 10;
/// The body must be there within this time, and the answer within the same time again.
const WAIT: Duration = Duration::from_secs(2);

/// Why a removal was not taken. The text says it to whoever sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is none that may count.
    Forbidden(String),
    /// Nobody is there to take it, for now.
    Unavailable(String),
}

pub(super) async fn answer(request: Request<Incoming>, shared: &Shared) -> Answer {
    if request.method() != Method::POST {
        return only("POST");
    }
    if let Some(refused) = shared.misdirected(&request) {
        return refused;
    }
    if request.headers().get(CONTENT_TYPE).is_none_or(|kind| kind != "application/octet-stream") {
        return text(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body must be application/octet-stream\n");
    }
    if request.body().size_hint().lower() > BODY_BYTES as u64 {
        return too_large();
    }
    let removal = match timeout(WAIT, Limited::new(request.into_body(), BODY_BYTES).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return too_large(),
        Ok(Err(_)) => return text(StatusCode::BAD_REQUEST, "the body is not complete\n"),
        Err(_) => return text(StatusCode::REQUEST_TIMEOUT, "the body did not come in time\n"),
    };
    // Never closed.
    let _turn = shared.large.acquire().await;
    let taken = timeout(WAIT, shared.view.forget(removal.to_vec())).await;
    match taken.unwrap_or_else(|_| Err(Refused::Unavailable("gossip does not answer".to_owned()))) {
        Ok(done) => text(StatusCode::OK, format!("{done}\n")),
        Err(Refused::Forbidden(reason)) => {
            shared.rejections.removal.fetch_add(1, Ordering::Relaxed);
            text(StatusCode::FORBIDDEN, format!("{reason}\n"))
        }
        Err(Refused::Unavailable(reason)) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

fn too_large() -> Answer {
    text(StatusCode::PAYLOAD_TOO_LARGE, format!("the body has more than {BODY_BYTES} bytes\n"))
}
