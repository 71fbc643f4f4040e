//! One request, from its head to the head of its answer.
//!
//! The body is read within the connection; from then on the request runs in a task of its own, so that a client
//! that hangs up cancels nothing between evaluation and outcome.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, header};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::connection::Listener;
use super::guard::Heads;
use super::patience::Open;
use super::peer::Peer;
use crate::authority::{Presented, ProvedUnder, Unauthenticated};
use crate::canonical::headers;
use crate::canonical::target::CanonicalTarget;
use crate::canonical::{
    BodyRules, CanonicalRequest, ExecutionRequest, Malformed, Received, ReceivedHead, Rules, Version,
    canonicalize,
};
use crate::ledger::Rejection;
use crate::limits;
use crate::model::{ActionName, Actor, Digest, ReasonCode};
use crate::pep::{self, Admitted, NoRoute, Patience, Routes, Surface};
use crate::respond::{self, Piece, Rejected, ResponseBody, WantReceipt};
use crate::telemetry::{Alarm, Metrics};
use crate::upstream::{Answer, Concluded, Cut, passed_trailers};

/// Always a response. `heads` is the guard's word on HTTP/1.1; `open` marks the request on an HTTP/2 connection;
/// `peer` has presented a certificate.
pub(super) async fn answer(
    listener: Arc<Listener>,
    heads: Option<Heads>,
    open: Option<Open>,
    peer: Option<Arc<Peer>>,
    request: Request<Incoming>,
) -> Response<ResponseBody> {
    // First of all, and for every head: a verdict left behind would be taken for the next head's.
    let alarm = || listener.gate.metrics.alarm(Alarm::FramingDisagreement);
    let head = received_head(heads.as_ref(), &request, alarm);
    // Before anything more is read or allocated for it.
    let Ok(slot) = listener.in_flight.clone().try_acquire_owned() else {
        listener.gate.metrics.refused(None, ReasonCode::Overloaded);
        return respond::rejected(&ReasonCode::Overloaded.into(), WantReceipt::Usual);
    };
    let want = head.as_ref().map_or(WantReceipt::Usual, wanted_receipt);
    let mut wait = None;
    let result = match head {
        Err(malformed) => Err(unattributed(&listener, None, malformed)),
        Ok(head) => {
            wait = preferred_wait(&head.headers);
            admissible(&listener, heads.as_ref(), peer.as_deref(), head, request.into_body()).await
        }
    };
    match result {
        Err(rejected) => respond::rejected(&rejected, want),
        Ok(admissible) => run(listener, admissible, (want, wait), slot, open).await,
    }
}

/// A value that means nothing is refused like any other part of the head, once the actor is known.
fn wanted_receipt(head: &ReceivedHead) -> WantReceipt {
    match headers::wants_proof(&head.headers) {
        Ok(true) => WantReceipt::Proof,
        Ok(false) | Err(_) => WantReceipt::Usual,
    }
}

/// RFC 7240 section 4.3: how long the caller is ready to wait. A preference that is not understood is ignored.
fn preferred_wait(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    let seconds = values.flat_map(|value| value.split(',')).find_map(|preference| {
        // Parameters of the preference come after a semicolon; `wait` has none.
        let (name, value) = preference.split(';').next()?.split_once('=')?;
        name.trim().eq_ignore_ascii_case("wait").then(|| value.trim().trim_matches('"'))
    })?;
    let is_plain = !seconds.is_empty() && seconds.bytes().all(|b| b.is_ascii_digit());
    // So many digits that they are no number any more: for as long as there is.
    is_plain.then(|| Duration::from_secs(seconds.parse().unwrap_or(u64::MAX)))
}

/// A request that may be put to policy.
struct Admissible {
    surface: Arc<Surface>,
    execution: ExecutionRequest,
    proved: ProvedUnder,
    memory: OwnedSemaphorePermit,
}

/// The head as it came, after the guard's verdict on it. `disagreement` hears of a head that the guard has not seen.
pub(super) fn received_head(
    heads: Option<&Heads>,
    request: &Request<Incoming>,
    disagreement: impl FnOnce(),
) -> Result<ReceivedHead, Malformed> {
    let uri = request.uri();
    let (version, target, authority) = match heads {
        Some(heads) => match heads.next() {
            Some(verdict) => (Version::Http11, verdict?.target, None),
            None => {
                // hyper has read a request that the guard has not. Nobody knows where it came from.
                disagreement();
                return Err(Malformed { code: ReasonCode::HeadMalformed, place: None, detail: None });
            }
        },
        None => {
            let target = uri.path_and_query().map_or_else(String::new, |t| t.as_str().to_owned());
            (Version::Http2, target, uri.authority().map(|a| a.as_str().to_owned()))
        }
    };
    Ok(ReceivedHead {
        version,
        method: request.method().clone(),
        target,
        authority,
        headers: request.headers().clone(),
    })
}

async fn admissible(
    listener: &Listener,
    heads: Option<&Heads>,
    peer: Option<&Peer>,
    head: ReceivedHead,
    body: Incoming,
) -> Result<Admissible, Rejected> {
    // Who asks comes before what they ask: a stranger learns nothing about routes and rules.
    let target = CanonicalTarget::parse(&head);
    let surface = match &target {
        Ok(target) => surface_for(listener, target.authority()),
        Err(_) => surface_for(listener, &claimed_host(&head)),
    };
    let Some(surface) = surface else {
        let not_served = Malformed { code: ReasonCode::HostNotServed, place: None, detail: None };
        return Err(unattributed(listener, None, target.err().unwrap_or(not_served)));
    };
    let proved = ProvedUnder::now(&listener.gate.versions);
    let actor = authenticate(listener, surface, peer, &head.headers).map_err(|unauthenticated| {
        let malformed = Malformed { code: unauthenticated.code(), place: None, detail: None };
        listener.gate.metrics.unproved(Some(&surface.name), unauthenticated.0);
        tracing::info!(surface = %surface.name, fault = unauthenticated.0.as_str(), "nobody was proved");
        unattributed(listener, Some(surface), malformed)
    })?;
    let mut received = Seen::default();
    let reading = Reading { heads, bodies: &listener.bodies, body_max: listener.bounds.body_max };
    let checked = check(reading, &surface.routes, target, head, body, &mut received).await;
    match checked {
        Ok(Checked { action, request, trace, memory }) => Ok(Admissible {
            surface: surface.clone(),
            execution: ExecutionRequest { surface: surface.name.clone(), action, actor, trace, request },
            proved,
            memory,
        }),
        Err(rejected) => Err(attributed(listener, surface, actor, rejected, received).await),
    }
}

/// Who asks. The connection's certificate counts only as long as it is good.
fn authenticate(
    listener: &Listener,
    surface: &Surface,
    peer: Option<&Peer>,
    headers: &HeaderMap,
) -> Result<Arc<Actor>, Unauthenticated> {
    let certificate = match (peer, &listener.tls) {
        (Some(peer), Some(tls)) => {
            Some(peer.certificate(tls, &listener.gate.clock).map_err(Unauthenticated)?)
        }
        (Some(_) | None, None) | (None, Some(_)) => None,
    };
    surface.identities.authenticate(&Presented { headers, certificate })
}

/// What was known of a request when it was refused.
#[derive(Default)]
pub(super) struct Seen {
    body: Option<Bytes>,
    redacts: bool,
}

/// How a body is read.
#[derive(Clone, Copy)]
pub(super) struct Reading<'a> {
    /// The guard's word on HTTP/1.1.
    pub heads: Option<&'a Heads>,
    /// Bytes of bodies held in memory.
    pub bodies: &'a Arc<Semaphore>,
    /// From the head to the last byte.
    pub body_max: Duration,
}

/// A request in its one form, and the action that its route stands for.
pub(super) struct Checked {
    pub action: ActionName,
    pub request: CanonicalRequest,
    pub trace: Option<Arc<str>>,
    memory: OwnedSemaphorePermit,
}

/// Route, body, canonical form: what remains after the actor is known.
pub(super) async fn check(
    reading: Reading<'_>,
    routes: &Routes,
    target: Result<CanonicalTarget, Malformed>,
    head: ReceivedHead,
    body: Incoming,
    received: &mut Seen,
) -> Result<Checked, Rejected> {
    let target = target?;
    let matched = routes.find(&head.method, &target).map_err(|no_route| match no_route {
        NoRoute::Path => Rejected::from(ReasonCode::RouteNotDeclared),
        NoRoute::Method(allow) => Rejected { allow, ..ReasonCode::RouteMethodNotDeclared.into() },
    })?;
    let rules = &matched.route.rules;
    received.redacts = rules.redaction.is_some();
    let (body, memory) = read_body(reading, rules, body).await?;
    received.body = Some(body.clone());
    let trace = traceparent(&head.headers);
    let request = canonicalize(Received { head, body }, target, matched.params, rules)?;
    Ok(Checked { action: matched.route.action.clone(), request, trace, memory })
}

impl From<Malformed> for Rejected {
    fn from(malformed: Malformed) -> Self {
        Self { malformed, receipt: None, allow: Vec::new() }
    }
}

fn surface_for<'a>(listener: &'a Listener, authority: &str) -> Option<&'a Arc<Surface>> {
    listener.surfaces.iter().find(|surface| surface.hosts.fit(authority))
}

/// The host of a request whose target or Host is malformed, to know whom to ask who is asking. Nothing else
/// rests on it: the request is refused in any case.
fn claimed_host(head: &ReceivedHead) -> String {
    let host = head.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    head.authority.as_deref().or(host).unwrap_or_default().to_ascii_lowercase()
}

/// Reads the body whole, within the route's bound, the time and the memory there is.
async fn read_body(
    reading: Reading<'_>,
    rules: &Rules,
    body: Incoming,
) -> Result<(Bytes, OwnedSemaphorePermit), Rejected> {
    let bytes_max = match rules.body {
        BodyRules::None => 0,
        BodyRules::Json { .. } | BodyRules::Form { .. } | BodyRules::Opaque { .. } => rules.body_bytes_max,
    };
    let announced = body.size_hint().exact().and_then(|n| usize::try_from(n).ok());
    if announced.is_some_and(|n| n > bytes_max) {
        return Err(too_large(bytes_max));
    }
    // A chunked body may become as large as the route allows.
    let reserved = u32::try_from(announced.unwrap_or(bytes_max)).unwrap_or(u32::MAX);
    let memory = reading.bodies.clone().try_acquire_many_owned(reserved);
    let memory = memory.map_err(|_| Rejected::from(ReasonCode::Overloaded))?;
    if announced == Some(0) {
        return Ok((Bytes::new(), memory));
    }
    let whole = Limited::new(body, bytes_max).collect();
    let error = match timeout(reading.body_max, whole).await {
        Ok(Ok(whole)) if whole.trailers().is_some() => return Err(ReasonCode::TrailersRefused.into()),
        Ok(Ok(whole)) => return Ok((whole.to_bytes(), memory)),
        Ok(Err(error)) => error,
        Err(_elapsed) => return Err(ReasonCode::BodyTimeout.into()),
    };
    if error.is::<LengthLimitError>() {
        return Err(too_large(bytes_max));
    }
    match reading.heads.and_then(Heads::body_refusal) {
        Some(malformed) => Err(malformed.into()),
        None => Err(ReasonCode::BodyIncomplete.into()),
    }
}

fn too_large(bytes_max: usize) -> Rejected {
    let (code, detail) = match bytes_max {
        0 => (ReasonCode::BodyUnexpected, None),
        _ => (ReasonCode::BodyTooLarge, Some(format!("At most {bytes_max} bytes."))),
    };
    Malformed { code, place: None, detail }.into()
}

/// A well-formed W3C `traceparent` (version 00); anything else is nobody's trace.
fn traceparent(headers: &HeaderMap) -> Option<Arc<str>> {
    let text = headers.get("traceparent")?.to_str().ok()?;
    let is_hex = |part: &str, len: usize| {
        part.len() == len && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let parts: Vec<_> = text.split('-').collect();
    let [version, trace, parent, flags] = parts[..] else { return None };
    let is_valid = version == "00" && is_hex(trace, 32) && is_hex(parent, 16) && is_hex(flags, 2);
    is_valid.then(|| text.into())
}

/// Refused while nobody is known to have asked: counted and logged, no leaf.
fn unattributed(listener: &Listener, surface: Option<&Surface>, malformed: Malformed) -> Rejected {
    listener.gate.metrics.refused(surface.map(|s| &s.name), malformed.code);
    tracing::info!(reason = %malformed.code, "refused, no actor");
    malformed.into()
}

/// Refused with a known actor: a `refusal` leaf, durable before the answer.
async fn attributed(
    listener: &Listener,
    surface: &Surface,
    actor: Arc<Actor>,
    mut rejected: Rejected,
    received: Seen,
) -> Rejected {
    let Malformed { code, place, .. } = &rejected.malformed;
    listener.gate.metrics.refused(Some(&surface.name), *code);
    tracing::info!(surface = %surface.name, actor = %actor.id, reason = %code, "refused");
    let rejection = Rejection {
        actor,
        surface: Some(surface.name.clone()),
        code: *code,
        place: place.clone(),
        received_digest: received.body.map(|body| Digest::of(&body)),
        redacts: received.redacts,
    };
    match listener.gate.ledger.record_rejection(rejection).await {
        Ok(receipt) => rejected.receipt = receipt,
        // The request is refused in any case; that the log is in trouble shows on readiness and in metrics.
        Err(error) => tracing::error!(%error, "refusal not recorded"),
    }
    rejected
}

/// For simulations, which have no connections: a request that was read and found admissible, from here to its end. Whoever
/// drops this hangs up.
#[cfg(test)]
pub(crate) async fn run_admissible(
    listener: Arc<Listener>,
    surface: Arc<Surface>,
    execution: ExecutionRequest,
    proved: ProvedUnder,
    wait: Option<Duration>,
) -> Response<ResponseBody> {
    let slot = listener.in_flight.clone().try_acquire_owned().expect("fewer run at once");
    let memory = listener.bodies.clone().try_acquire_many_owned(1).expect("bodies are small");
    run(listener, Admissible { surface, execution, proved, memory }, (WantReceipt::Usual, wait), slot, None)
        .await
}

/// Runs the request in its own task and waits for the head of its answer.
async fn run(
    listener: Arc<Listener>,
    admissible: Admissible,
    (want, wait): (WantReceipt, Option<Duration>),
    slot: OwnedSemaphorePermit,
    open: Option<Open>,
) -> Response<ResponseBody> {
    let (head, answered) = oneshot::channel();
    // Dropped with this future, when the client hangs up.
    let gone = CancellationToken::new();
    let _caller = gone.clone().drop_guard();
    let patience = Patience { wait, gone, applied: None };
    let tasks = listener.tasks.clone();
    let task = tasks.spawn(async move {
        listener.gate.metrics.in_flight.inc();
        let _in_flight = InFlight { metrics: listener.gate.metrics.clone(), _slot: slot, _open: open };
        // When this is dropped by the gateway going away, what it holds records its own outcome.
        // What ends just as it is given up has ended: equal runs are equal.
        tokio::select! {
            biased;
            () = execute(&listener, admissible, (want, patience), head) => {}
            () = listener.abandon.cancelled() => {}
        }
    });
    match answered.await {
        Ok(response) => response,
        Err(_dropped) => {
            // Either the gateway is going away, or the task has panicked: its outcome is in the log either way.
            if task.await.is_err_and(|error| error.is_panic()) {
                return respond::rejected(&ReasonCode::InternalError.into(), want);
            }
            respond::rejected(&ReasonCode::Draining.into(), want)
        }
    }
}

/// Held by a request's own task. Sees a panic also when nobody waits for the answer any more.
struct InFlight {
    metrics: Arc<Metrics>,
    _slot: OwnedSemaphorePermit,
    _open: Option<Open>,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.metrics.alarm(Alarm::RequestPanic);
        }
        self.metrics.in_flight.dec();
    }
}

async fn execute(
    listener: &Listener,
    admissible: Admissible,
    (want, mut patience): (WantReceipt, Patience),
    head: oneshot::Sender<Response<ResponseBody>>,
) {
    let Admissible { surface, execution, proved, memory } = admissible;
    let received = listener.gate.clock.monotonic();
    let admitted = pep::admit(&listener.gate, &surface, execution, received, &proved, &mut patience).await;
    // The body has been sent or dropped; the answer may take its time.
    drop(memory);
    let with_preference = |mut response: Response<ResponseBody>| {
        if let Some(wait) = patience.applied {
            respond::waited(&mut response, wait);
        }
        response
    };
    // A client that is gone does not want the response; that changes nothing here.
    match admitted {
        Err(refused) => drop(head.send(with_preference(respond::refused(&refused, want)))),
        Ok(Admitted::Again(kept)) => drop(head.send(with_preference(respond::replayed(&kept, want)))),
        Ok(Admitted::Answer(answer)) => {
            let (response, pieces) = respond::answered(&answer, want);
            let client = head.send(with_preference(response)).ok().map(|()| pieces);
            stream(listener, &surface, *answer, client).await;
        }
    }
}

/// Passes the answer's body on as it comes, to its end: for a while also when the client is gone, because how the
/// answer ends is the outcome. An answer that goes on for longer without a client is given up: it may have no end.
async fn stream(
    listener: &Listener,
    surface: &Surface,
    mut answer: Answer,
    mut client: Option<tokio::sync::mpsc::Sender<Piece>>,
) {
    let passed = match &client {
        Some(pieces) => pass_on(&mut answer, pieces, listener.bounds.client_stall_max).await,
        None => Passed::ClientGone,
    };
    let ended = match passed {
        Passed::Ended(ended) => ended,
        Passed::ClientGone => {
            client = None;
            let alone_max = Duration::from_millis(limits::ANSWER_WITHOUT_CLIENT_MS_MAX);
            timeout(alone_max, read_on(&mut answer)).await.unwrap_or(Err(Cut::Unwanted))
        }
    };
    if let Err(cut) = &ended {
        tracing::warn!(surface = %surface.name, %cut, "answer cut");
    }
    let answers = &listener.gate.answers;
    let Concluded { status, recorded } = answer.conclude(|receipt, kept| answers.keep(receipt, kept));
    listener.gate.metrics.settled(&surface.name, status);
    if let Some(pieces) = client
        && ended.is_ok()
    {
        send_piece(&pieces, Piece::End, listener.bounds.client_stall_max).await;
    }
    if let Err(error) = recorded.durable().await {
        tracing::error!(%error, outcome = status.as_str(), "outcome not recorded");
    }
}

enum Passed {
    Ended(Result<(), Cut>),
    ClientGone,
}

async fn pass_on(
    answer: &mut Answer,
    pieces: &tokio::sync::mpsc::Sender<Piece>,
    stall_max: Duration,
) -> Passed {
    loop {
        // What has come is passed on also as the client goes: how the answer ends does not hang on a coin.
        let frame = tokio::select! {
            biased;
            frame = answer.frame() => frame,
            () = pieces.closed() => return Passed::ClientGone,
        };
        let frame = match frame {
            Ok(Some(frame)) => frame,
            Ok(None) => return Passed::Ended(Ok(())),
            Err(cut) => return Passed::Ended(Err(cut)),
        };
        let frame = match frame.into_trailers() {
            Ok(trailers) => Frame::trailers(passed_trailers(trailers)),
            Err(data) => data,
        };
        if !send_piece(pieces, Piece::Frame(frame), stall_max).await {
            return Passed::ClientGone;
        }
    }
}

/// To the end, for nobody.
async fn read_on(answer: &mut Answer) -> Result<(), Cut> {
    while answer.frame().await?.is_some() {}
    Ok(())
}

/// Whether the client is still there.
async fn send_piece(pieces: &tokio::sync::mpsc::Sender<Piece>, piece: Piece, stall_max: Duration) -> bool {
    matches!(timeout(stall_max, pieces.send(piece)).await, Ok(Ok(())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[tokio::test]
    async fn a_panic_in_a_requests_task_is_an_alarm_although_nobody_waits() {
        let metrics = Arc::new(Metrics::new().expect("distinct names"));
        let slots = Arc::new(tokio::sync::Semaphore::new(1));
        let slot = slots.clone().acquire_owned().await.expect("open");
        let held = InFlight { metrics: metrics.clone(), _slot: slot, _open: None };
        let task = tokio::spawn(async move {
            let _held = held;
            panic!("as a test");
        });
        task.await.expect_err("it panics");
        assert_eq!(slots.available_permits(), 1);
        let text = String::from_utf8(metrics.render().expect("rendered")).expect("UTF-8");
        let alarm = text.lines().find(|line| line.contains("request_panic")).expect("a series");
        assert!(alarm.ends_with(" 1"), "{alarm}");
    }

    #[test]
    fn a_wait_is_preferred_in_seconds_and_what_is_not_understood_is_ignored() {
        let of = |values: &[&'static str]| {
            let headers =
                values.iter().map(|v| (http::HeaderName::from_static("prefer"), HeaderValue::from_static(v)));
            preferred_wait(&HeaderMap::from_iter(headers)).map(|wait| wait.as_secs())
        };
        assert_eq!(of(&["wait=10"]), Some(10));
        assert_eq!(of(&["respond-async, Wait = \"7\"; x=1"]), Some(7));
        assert_eq!(of(&["return=minimal", "wait=3, wait=4"]), Some(3));
        assert_eq!(of(&["wait=99999999999999999999999"]), Some(u64::MAX));
        for nothing in ["", "wait", "wait=", "wait=-1", "wait=1.5", "await=3"] {
            assert_eq!(of(&[nothing]), None, "{nothing}");
        }
    }

    #[test]
    fn only_a_well_formed_traceparent_is_taken() {
        let of = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("traceparent", HeaderValue::from_static(text));
            traceparent(&headers)
        };
        assert!(of("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").is_some());
        assert!(of("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").is_none());
        assert!(of("00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").is_none());
        assert!(of("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331").is_none());
    }
}
