//! The airlock: the only way from a recorded PERMIT to bytes that may leave.
//!
//! [`seal`] is the one constructor of [`PermittedRequest`]. It takes a PERMIT whose receipt is durable, checks in
//! one step without an await that everything the decision read is still so and that the permit is young
//! enough, puts the credential into its slot, and hands out a value that can only be forwarded, once. The same
//! conditions go with the message: its first byte leaves only if they still hold (`conditions`, `sealed_io`).

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Uri};
use http_body_util::Full;
use zeroize::Zeroizing;

use super::conditions::Conditions;
use super::exchange::InFlight;
use super::lease::Lease;
use super::sealed_io::SealedMessage;
use crate::authority::{Credentials, Versions};
use crate::canonical::{ExecutionRequest, Slot, Wire};
use crate::clock::Clock;
use crate::ledger::{OpenPermit, Outcome, OutcomeRecorded, Receipt, Recorded, Sent};
use crate::model::{Digest, OutcomeStatus};
use crate::policy::Permit;

/// A request that may leave now: exactly these bytes, once.
pub struct PermittedRequest {
    pub(super) message: SealedMessage,
    pub(super) request: Request<Full<Bytes>>,
    pub(super) whole: Sent,
    pub(super) permit: OpenPermit,
    pub(super) receipt: Receipt,
    /// Kept in case nothing can be sent and the request has to be decided again.
    pub(super) execution: ExecutionRequest,
    pub(super) clock: Clock,
}

/// What the decision rests on has changed, or the permit is too old. Its outcome is recorded as `not_sent`;
/// the request may be evaluated again.
pub struct Moved {
    pub execution: ExecutionRequest,
    pub receipt: Receipt,
    /// What moved: the name of a read item, `permit_age`, `approvals`, or [`super::CREDENTIAL_EXPIRED`].
    pub name: std::sync::Arc<str>,
    /// What the permit had taken is given back when this is durable: not before, the request may be decided again.
    pub outcome: OutcomeRecorded,
}

/// Cause of the outcome of a permit that was not used, because something it rests on had changed.
pub(super) const SUPERSEDED: &str = "superseded";

/// From "receipt durable" to "may be sent". Panics if a slot's credential is not there, which config rules out.
pub fn seal(
    recorded: Recorded<Permit>,
    versions: &Versions,
    credentials: &Credentials,
    permit_age_max: Duration,
    clock: &Clock,
) -> Result<PermittedRequest, Box<Moved>> {
    let (evaluated, receipt, permit) = recorded.into_parts();
    let conditions = Conditions::of(&evaluated, versions, permit_age_max, clock);
    if let Err(name) = conditions.check() {
        let outcome = permit.close(Outcome {
            status: OutcomeStatus::NotSent,
            cause: Some(SUPERSEDED),
            sent: None,
            response: None,
            answer: None,
            duration: conditions.age(),
        });
        return Err(Box::new(Moved { execution: evaluated.into_execution(), receipt, name, outcome }));
    }
    let execution = evaluated.into_execution();
    let digest = execution.request.digest();
    let wire = execution.request.wire();
    // The request owns its bytes and nothing can change them; here that is looked at once more.
    debug_assert_eq!(digest, digest_of(wire), "the bytes to be sent are the bytes that were judged");
    let whole = Sent { digest, size: (wire.head.len() + wire.body.len()) as u64 };
    let (head, fields) = fill_slot(wire, credentials);
    let request = http_request(wire, fields);
    let message = SealedMessage::new(head, wire.body.clone(), conditions);
    Ok(PermittedRequest { message, request, whole, permit, receipt, execution, clock: clock.clone() })
}

impl PermittedRequest {
    pub fn execution(&self) -> &ExecutionRequest {
        &self.execution
    }

    /// Arms the lease's seal with these bytes and starts the exchange.
    pub fn forward(self, lease: Lease) -> InFlight {
        InFlight::start(self, lease)
    }
}

fn digest_of(wire: &Wire) -> Digest {
    let mut digester = crate::model::Digester::new();
    digester.update(&wire.head);
    digester.update(&wire.body);
    digester.finish()
}

/// The head with the credential in its slot, and the header fields likewise.
fn fill_slot(wire: &Wire, credentials: &Credentials) -> (Zeroizing<Vec<u8>>, Vec<(HeaderName, HeaderValue)>) {
    let secret = wire.slot.as_ref().map(|slot| {
        let credential =
            credentials.find(&slot.secret).expect("config reads the secret of every slot it declares");
        (slot, credential)
    });
    let head = match secret {
        None => Zeroizing::new(wire.head.to_vec()),
        Some((Slot { range, .. }, credential)) => {
            let parts = [&wire.head[..range.start], credential.expose(), &wire.head[range.end..]];
            Zeroizing::new(parts.concat())
        }
    };
    let fields = wire.fields.iter().map(|(name, value)| {
        let header = HeaderName::from_bytes(name.as_bytes()).expect("canonical names are header names");
        let value = match secret {
            Some((slot, credential)) if slot.header == *name => {
                let placeholder = format!("{{credential:{}}}", slot.secret);
                let prefix = value.strip_suffix(&placeholder).expect("the slot ends its header's value");
                let filled = Zeroizing::new([prefix.as_bytes(), credential.expose()].concat());
                let mut value = HeaderValue::from_bytes(&filled).expect("credentials are visible ASCII");
                value.set_sensitive(true);
                value
            }
            Some(_) | None => HeaderValue::from_str(value).expect("canonical values are visible ASCII"),
        };
        (header, value)
    });
    (head, fields.collect())
}

fn http_request(wire: &Wire, fields: Vec<(HeaderName, HeaderValue)>) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(wire.body.clone()));
    *request.method_mut() = wire.method.clone();
    *request.uri_mut() = Uri::try_from(&*wire.target).expect("a canonical target is a URI in origin form");
    let headers = request.headers_mut();
    headers.reserve(fields.len());
    for (name, value) in fields {
        headers.insert(name, value);
    }
    request
}
