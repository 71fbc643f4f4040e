//! One request on the wire, and what became of it.
//!
//! [`InFlight`] and [`Answer`] hold the duty to record an outcome. Whatever happens to them (an answer, an error,
//! a time-out, a panic, a drop) ends in exactly one: the seal is revoked first, so that "no byte left" is a fact and
//! stays one, and only then the outcome is written.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode, response};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::timeout;

use super::conditions::CREDENTIAL_EXPIRED;
use super::kept::{Keeping, KeptAnswer};
use super::lease::Lease;
use super::permit::{PermittedRequest, SUPERSEDED};
use crate::canonical::ExecutionRequest;
use crate::clock::{Clock, Moment};
use crate::ledger::{OpenPermit, Outcome, OutcomeRecorded, Receipt, ResponseSeen, Sent};
use crate::model::{Digester, OutcomeStatus, ReasonCode};

type Sending = Pin<Box<dyn Future<Output = hyper::Result<Response<Incoming>>> + Send>>;

/// The duty to record the outcome of one exchange, and what is needed to know it.
struct Exchange {
    lease: Option<Lease>,
    permit: Option<OpenPermit>,
    whole: Sent,
    message_len: usize,
    started: Moment,
    clock: Clock,
}

/// Sent, or being sent; not answered yet.
pub struct InFlight {
    exchange: Exchange,
    sending: Sending,
    receipt: Receipt,
    execution: ExecutionRequest,
}

/// There is no answer; the outcome is recorded.
#[derive(Debug)]
pub struct NoAnswer {
    /// `not_sent`: no byte left, and none will. `indeterminate`: some did, and nothing is sent again.
    pub status: OutcomeStatus,
    pub code: ReasonCode,
    pub receipt: Receipt,
    /// The request, if it may be decided again: once the outcome is durable, because only that gives back what the
    /// permit had taken.
    pub again: Option<Box<(ExecutionRequest, OutcomeRecorded)>>,
    /// Something other than the permitted bytes asked to leave, and was stopped.
    pub is_violation: bool,
    /// For the log, not for the caller.
    pub cause: String,
}

/// The head of the upstream's answer, and its body as it streams by.
pub struct Answer {
    exchange: Exchange,
    parts: response::Parts,
    body: Incoming,
    receipt: Receipt,
    digester: Digester,
    size: u64,
    is_whole: bool,
    /// The answer's end is where its head says, by every reading of it.
    has_one_end: bool,
    idle_max: Duration,
    /// For requests with the same idempotency key, as far as it came.
    keeping: Option<Keeping>,
}

/// What an answer that has come to its end, or was given up, means.
#[derive(Debug)]
pub struct Concluded {
    pub status: OutcomeStatus,
    pub recorded: OutcomeRecorded,
}

/// The answer's body ended before it was whole.
#[derive(Debug, thiserror::Error)]
pub enum Cut {
    #[error("the upstream sent nothing for too long")]
    Silent,
    #[error("the upstream's answer broke off: {0}")]
    Broken(hyper::Error),
    #[error("nobody has been reading the answer for too long")]
    Unwanted,
}

impl InFlight {
    pub(super) fn start(permitted: PermittedRequest, mut lease: Lease) -> Self {
        let PermittedRequest { message, request, whole, mut permit, receipt, execution, clock } = permitted;
        let message_len = message.len();
        let started = clock.monotonic();
        // From here a crash or a drop may have sent bytes. A crash at this line leaves a PERMIT without an outcome,
        // which recovery closes as `indeterminate`.
        permit.bytes_may_leave();
        lease.seal.arm(message);
        let sending: Sending = Box::pin(lease.sender.send_request(request));
        let exchange =
            Exchange { lease: Some(lease), permit: Some(permit), whole, message_len, started, clock };
        Self { exchange, sending, receipt, execution }
    }

    /// Waits for the head of the answer, at most `head_max` from now. An answer whose body has at most `keep_max` bytes
    /// is kept.
    pub async fn answer(
        self,
        head_max: Duration,
        idle_max: Duration,
        keep_max: Option<usize>,
    ) -> Result<Answer, Box<NoAnswer>> {
        let Self { exchange, mut sending, receipt, execution } = self;
        let (code, cause) = match timeout(head_max, &mut sending).await {
            Ok(Ok(response)) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                (ReasonCode::UpstreamMalformed, "101 without an upgrade".to_owned())
            }
            Ok(Ok(response)) if !is_plainly_framed(response.headers()) => {
                (ReasonCode::UpstreamMalformed, "a transfer coding other than chunked".to_owned())
            }
            Ok(Ok(response)) => {
                let (parts, body) = response.into_parts();
                let digester = Digester::new();
                let has_one_end = has_one_end(&parts.headers, &body);
                return Ok(Answer {
                    exchange,
                    parts,
                    body,
                    receipt,
                    digester,
                    size: 0,
                    is_whole: false,
                    has_one_end,
                    idle_max,
                    keeping: keep_max.map(Keeping::new),
                });
            }
            Ok(Err(error)) if error.is_parse() => (ReasonCode::UpstreamMalformed, error.to_string()),
            Ok(Err(error)) => (ReasonCode::UpstreamSilent, error.to_string()),
            Err(_elapsed) => (ReasonCode::UpstreamSilent, "time-out".to_owned()),
        };
        let is_violation = exchange.is_violated();
        let (status, code, outcome) = exchange.give_up(code);
        let may_decide_again =
            status == OutcomeStatus::NotSent && !is_violation && code != ReasonCode::CredentialInvalid;
        let again = may_decide_again.then(|| Box::new((execution, outcome)));
        Err(Box::new(NoAnswer { status, code, receipt, again, is_violation, cause }))
    }
}

impl Answer {
    pub fn status(&self) -> StatusCode {
        self.parts.status
    }

    pub fn headers(&self) -> &http::HeaderMap {
        &self.parts.headers
    }

    pub fn receipt(&self) -> &Receipt {
        &self.receipt
    }

    /// The body's exact length if it is announced; 0 for answers without one.
    pub fn announced_len(&self) -> Option<u64> {
        http_body::Body::size_hint(&self.body).exact()
    }

    /// The next piece of the body; `None` when it is whole.
    pub async fn frame(&mut self) -> Result<Option<Frame<Bytes>>, Cut> {
        match timeout(self.idle_max, self.body.frame()).await {
            Err(_elapsed) => Err(Cut::Silent),
            Ok(Some(Err(error))) => Err(Cut::Broken(error)),
            Ok(Some(Ok(frame))) => {
                match frame.data_ref() {
                    Some(data) => {
                        self.digester.update(data);
                        self.size += data.len() as u64;
                        self.keeping = self.keeping.take().and_then(|keeping| keeping.with(data));
                    }
                    // Trailers.
                    None => self.keeping = None,
                }
                Ok(Some(frame))
            }
            Ok(None) => {
                self.is_whole = true;
                Ok(None)
            }
        }
    }

    /// Records the outcome; before it is queued, `keep` gets the answer if it is kept for requests with the same
    /// idempotency key. The connection is used again only if the exchange was whole in both directions, and no byte of
    /// this answer can still be on its way.
    pub fn conclude(mut self, keep: impl FnOnce(Receipt, KeptAnswer)) -> Concluded {
        let response = ResponseSeen {
            status_code: self.parts.status.as_u16(),
            size: self.size,
            body_digest: self.digester.clone().finish(),
        };
        let sent_whole = self.exchange.revoke() == self.exchange.message_len;
        let (status, cause) = match OutcomeStatus::of_whole_answer(self.parts.status.as_u16()) {
            _ if !self.is_whole => (OutcomeStatus::Indeterminate, Some("answer_cut")),
            // It claims to have acted on a request it has not seen the end of.
            OutcomeStatus::Confirmed if !sent_whole => {
                (OutcomeStatus::Indeterminate, Some("answered_before_sent"))
            }
            status => (status, None),
        };
        let announced_len = self.announced_len();
        let keeping = match status {
            OutcomeStatus::Confirmed | OutcomeStatus::Failed => self.keeping.take(),
            OutcomeStatus::NotSent | OutcomeStatus::Indeterminate => None,
        };
        let kept = keeping.map(|k| k.finish(self.parts.status, &self.parts.headers, announced_len));
        let evidence = kept.as_ref().and_then(KeptAnswer::to_bytes);
        if let Some(kept) = kept.filter(|_| evidence.is_some()) {
            keep(self.receipt.clone(), kept);
        }
        let recorded = self.exchange.close_with(status, cause, Some(response), evidence);
        if self.is_whole
            && sent_whole
            && self.has_one_end
            && let Some(lease) = self.exchange.lease.take()
        {
            lease.give_back();
        }
        Concluded { status, recorded }
    }
}

/// The only transfer coding that was asked for is `chunked`; what is left of another one could not be told from the
/// body (RFC 9112 section 6.1).
fn is_plainly_framed(headers: &http::HeaderMap) -> bool {
    headers
        .get_all(http::header::TRANSFER_ENCODING)
        .iter()
        .all(|coding| coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"))
}

/// An answer to HEAD, a 204 or a 304 ends with its head, whatever length it announces (RFC 9112 section 6.3); an
/// upstream that sends that body all the same would send it into the next exchange. Two framings are as bad.
fn has_one_end(headers: &http::HeaderMap, body: &Incoming) -> bool {
    let exact = http_body::Body::size_hint(body).exact();
    let is_exact = |length: &http::HeaderValue| {
        exact.is_some_and(|exact| length.to_str().is_ok_and(|text| text == exact.to_string()))
    };
    let is_announced_by_length = headers.get_all(http::header::CONTENT_LENGTH).iter().all(is_exact);
    is_announced_by_length && !(exact.is_some() && headers.contains_key(http::header::TRANSFER_ENCODING))
}

impl Exchange {
    /// Takes the permission to write back; how many bytes had left, for good.
    fn revoke(&self) -> usize {
        self.lease.as_ref().map_or(0, |lease| lease.seal.revoke())
    }

    fn is_violated(&self) -> bool {
        self.lease.as_ref().is_some_and(|lease| lease.seal.is_violated())
    }

    fn close(
        &mut self,
        status: OutcomeStatus,
        cause: Option<&'static str>,
        response: Option<ResponseSeen>,
    ) -> OutcomeRecorded {
        self.close_with(status, cause, response, None)
    }

    fn close_with(
        &mut self,
        status: OutcomeStatus,
        cause: Option<&'static str>,
        response: Option<ResponseSeen>,
        answer: Option<Bytes>,
    ) -> OutcomeRecorded {
        let sent = (self.revoke() == self.message_len).then(|| self.whole.clone());
        let duration = self.clock.monotonic().since(self.started);
        let permit =
            self.permit.take().expect("an exchange is closed once: closing takes it by value or in drop");
        permit.close(Outcome { status, cause, sent, response, answer, duration })
    }

    /// No answer came. If no byte had left, and none can any more, that is certain; else nothing is.
    fn give_up(mut self, code: ReasonCode) -> (OutcomeStatus, ReasonCode, OutcomeRecorded) {
        let superseded = self.lease.as_ref().and_then(|lease| lease.seal.superseded());
        let (status, code, cause) = match (self.revoke(), superseded) {
            (0, Some(moved)) if *moved == *CREDENTIAL_EXPIRED => {
                (OutcomeStatus::NotSent, ReasonCode::CredentialInvalid, SUPERSEDED)
            }
            (0, Some(_)) => (OutcomeStatus::NotSent, ReasonCode::ReadSetMoved, SUPERSEDED),
            (0, None) => {
                let code = ReasonCode::UpstreamNotSent;
                (OutcomeStatus::NotSent, code, code.as_str())
            }
            (_, _) => (OutcomeStatus::Indeterminate, code, code.as_str()),
        };
        let outcome = self.close(status, Some(cause), None);
        (status, code, outcome)
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if self.permit.is_some() {
            let status = match self.revoke() {
                0 => OutcomeStatus::NotSent,
                _ => OutcomeStatus::Indeterminate,
            };
            self.close(status, Some("abandoned"), None);
        }
    }
}
