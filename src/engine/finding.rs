//! What a probe's outcome says about its endpoint.

use super::event::Outcome;
use super::selection::Trouble;

/// The answer of an endpoint that answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) readiness: Readiness,
    /// Its certificate is outside its validity.
    pub(crate) expired: bool,
    /// Its certificate could not be verified, and was not found wrong either.
    pub(crate) unverified: bool,
}

/// What an apiserver says to `GET /readyz`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// 200.
    Ready,
    /// 401 or 403: it serves, but does not tell us whether it is ready.
    Unknown,
    /// 429, 500 or 503: it asks for less.
    NotReady,
    /// Its TLS handshake was right, and the answer did not come in time: the process is there, what it depends on may not be.
    Late,
}

impl Answer {
    /// Asks for less.
    pub(crate) fn draining(&self) -> bool {
        matches!(self.readiness, Readiness::NotReady | Readiness::Late)
    }

    pub(super) fn reason(&self) -> &'static str {
        match self.readiness {
            _ if self.unverified => "answers, and its certificate cannot be verified",
            _ if self.expired => "answers with a certificate outside its validity",
            Readiness::NotReady => "answers that it is not ready",
            Readiness::Late => "its TLS answers, and /readyz does not in time",
            Readiness::Unknown => "serves; readiness unknown: it does not answer /readyz to us",
            Readiness::Ready => "answers that it is ready",
        }
    }
}

/// What a probe's outcome says, once it is clear what may answer there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// An apiserver of ours answered.
    Answers(Answer),
    /// It failed to answer.
    Fails(Failure),
    /// It answered, and whether it is an apiserver of ours could not be verified: nothing that gossip or the cache named carries then.
    Unverifiable(String),
    /// Not an apiserver of ours.
    Disproves(String),
    /// A kept connection was not answered: only a fresh one can tell a late answer from a process that hangs.
    Unclear,
    /// Says nothing about the endpoint.
    Nothing,
}

/// A probe that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) why: String,
    pub(crate) trouble: Trouble,
    /// It connected, its kernel acknowledged the hello, and the process behind it did not answer.
    pub(crate) hung: bool,
}

impl Finding {
    /// Reads an outcome as the table of answers says. What does not speak TLS is disproven only where just gossip or the
    /// cache named it (`hearsay`); what a person configured may be a balancer having a bad day. A connection that ends
    /// before its answer says nothing if it was kept; one that was made for the probe (`fresh`) has failed.
    pub(crate) fn of(outcome: &Outcome, hearsay: bool, fresh: bool) -> Finding {
        let fails = |why: &str, trouble| Finding::Fails(Failure { why: why.into(), trouble, hung: false });
        let refuses = |why: &str| fails(why, Trouble::Refuses);
        let answers = |readiness, expired| Finding::Answers(Answer { readiness, expired, unverified: false });
        match outcome {
            Outcome::Status { code, expired } => match code {
                200 => answers(Readiness::Ready, *expired),
                401 | 403 => answers(Readiness::Unknown, *expired),
                429 | 500 | 503 => answers(Readiness::NotReady, *expired),
                _ => refuses(&format!("answered {code} to /readyz")),
            },
            Outcome::Unverified { lack, .. } if hearsay => Finding::Unverifiable(lack.explain()),
            // What a person configured carries, and its answer counts.
            Outcome::Unverified { code, .. } => {
                match Finding::of(&Outcome::Status { code: *code, expired: false }, hearsay, fresh) {
                    Finding::Answers(answer) => Finding::Answers(Answer { unverified: true, ..answer }),
                    other => other,
                }
            }
            Outcome::AnswerTimedOut if fresh => answers(Readiness::Late, false),
            Outcome::AnswerTimedOut => Finding::Unclear,
            Outcome::NotHttp => refuses("what it answered is not HTTP"),
            Outcome::Refused => refuses("refused or closed"),
            Outcome::DialTimedOut => fails("the dial is not answered", Trouble::Silent),
            Outcome::HandshakeTimedOut { hung: false } => {
                fails("connects, and the path loses the TLS handshake", Trouble::Silent)
            }
            Outcome::HandshakeTimedOut { hung: true } => Finding::Fails(Failure {
                why: "connects, and does not answer the TLS handshake".into(),
                trouble: Trouble::Silent,
                hung: true,
            }),
            Outcome::NotTls if hearsay => Finding::Disproves("it does not speak TLS".into()),
            Outcome::NotTls => refuses("it does not speak TLS"),
            Outcome::Untrusted(why) => Finding::Disproves(format!("its certificate is not of this cluster's CA: {why}")),
            Outcome::WrongName(why) => Finding::Disproves(format!("its certificate does not cover the name: {why}")),
            Outcome::Stale if fresh => refuses("closed before its answer"),
            // Whether it counts, the engine decides by how the others do.
            Outcome::Unreachable(why) => refuses(&super::reach::unreachable(why)),
            Outcome::Stale | Outcome::LocalError(_) => Finding::Nothing,
        }
    }
}
