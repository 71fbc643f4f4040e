//! The leaves of the log, as types. RECEIPTS.md section "Entries" is the source of every member.
//!
//! Members are declared in RFC 8785 order (all names are ASCII), so that `serde_json` writes the
//! canonical bytes by construction; a test compares each type with the canonical writer. Integers stay
//! below 2^53, there are no floats and no null: what is absent is left out.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    ActionName, ActorId, AuthenticationMethod, Decision, Digest, Epoch, IdempotencyKey, LeafIndex,
    OutcomeStatus, PackageName, Place, PolicyReason, ReadItem, ReceiptId, Settled, SurfaceName, TreeSize,
};

/// Value of `spec` in every leaf.
pub const SPEC: &str = "interlock-receipt/1";

/// Value of `type` in every leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryType {
    Decision,
    Epoch,
    Outcome,
    Policy,
    Refusal,
}

/// What every leaf carries; read first, to learn the type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Common {
    pub epoch: Epoch,
    pub spec: Arc<str>,
    /// RFC 3339, UTC, microseconds.
    pub time: Arc<str>,
    #[serde(rename = "type")]
    pub entry_type: EntryType,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActorEntry {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential_digest: Option<Digest>,
    pub id: ActorId,
    pub method: AuthenticationMethod,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EvaluationStatus {
    Evaluated,
    NotEvaluated,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluationEntry {
    /// Why it was not evaluated, or could not be to the end: a `ReasonCode`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Arc<str>>,
    /// Of the policy input in RFC 8785 form.
    pub input_digest: Digest,
    pub read_set: Vec<ReadItem>,
    pub status: EvaluationStatus,
}

/// Whether a refusal stops the request (`enforce`), or is only noted (`observe`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    Enforce,
    Observe,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyReference {
    pub engine: Arc<str>,
    pub package: PackageName,
    pub revision: Digest,
}

/// How the forwarded bytes came from the received ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BodyForm {
    JsonCanonical,
    JsonVerbatim,
    Form,
    Opaque,
    None,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestEntry {
    /// Of the body that is forwarded.
    pub body_digest: Digest,
    /// Of the exact HTTP/1.1 message to be written, with `{credential:NAME}` in the injected slot.
    pub digest: Digest,
    pub form: BodyForm,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<Arc<str>>,
    pub method: Arc<str>,
    /// Of the body as it was received.
    pub received_digest: Digest,
    /// Of the forwarded body, bytes.
    pub size: u64,
    /// Path and query as forwarded.
    pub target: Arc<str>,
}

/// A verdict on one execution request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecisionEntry {
    pub action: ActionName,
    pub actor: ActorEntry,
    pub decision: Decision,
    pub epoch: Epoch,
    pub evaluation: EvaluationEntry,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Arc<str>>,
    pub id: ReceiptId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<IdempotencyKey>,
    pub mode: Mode,
    pub policy: PolicyReference,
    pub reasons: Vec<PolicyReason>,
    pub request: RequestEntry,
    pub reserves: Vec<Arc<str>>,
    pub spec: Arc<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supersedes: Option<ReceiptId>,
    pub surface: SurfaceName,
    pub time: Arc<str>,
    /// W3C `traceparent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<Arc<str>>,
    #[serde(rename = "type")]
    pub entry_type: EntryType,
}

/// The upstream's answer as far as it was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResponseEntry {
    pub body_digest: Digest,
    pub size: u64,
    pub status_code: u16,
}

/// What left the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SentEntry {
    /// Equal to the decision's `request.digest` when the whole message left.
    pub digest: Digest,
    /// Bytes of the message written, counting the credential's placeholder instead of the credential.
    pub size: u64,
}

/// What became of one PERMIT.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutcomeEntry {
    pub attestation: Settled,
    /// Why it is not simply what the answer says: `superseded`, `recovered`, a `ReasonCode`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Arc<str>>,
    pub decision_id: ReceiptId,
    pub decision_index: LeafIndex,
    pub duration_us: u64,
    pub epoch: Epoch,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<ResponseEntry>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<SentEntry>,
    pub settles: Vec<Arc<str>>,
    pub spec: Arc<str>,
    pub status: OutcomeStatus,
    pub time: Arc<str>,
    #[serde(rename = "type")]
    pub entry_type: EntryType,
}

/// What was refused before it became an execution request, for an authenticated actor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefusalEntry {
    pub actor: ActorEntry,
    pub epoch: Epoch,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// A `ReasonCode`.
    pub reason: Arc<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received_digest: Option<Digest>,
    pub spec: Arc<str>,
    /// How many more of this actor's were refused, and not written, since the last one that was.
    pub suppressed: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub surface: Option<SurfaceName>,
    pub time: Arc<str>,
    #[serde(rename = "type")]
    pub entry_type: EntryType,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EpochEvent {
    Start,
    Stop,
}

/// The tree before this leaf.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreviousTree {
    pub root: Digest,
    pub size: TreeSize,
}

/// A start or a clean stop of the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochEntry {
    pub binary_digest: Digest,
    /// At a start: whether the log ended with a stop leaf, or is new. At a stop: true.
    pub clean: bool,
    pub config_digest: Digest,
    pub epoch: Epoch,
    pub event: EpochEvent,
    pub previous: PreviousTree,
    pub spec: Arc<str>,
    pub time: Arc<str>,
    /// Bytes quarantined from a torn last frame.
    pub torn_bytes: u64,
    #[serde(rename = "type")]
    pub entry_type: EntryType,
    /// Verifier keys (C2SP signed-note) that sign this epoch's checkpoints.
    pub vkeys: Vec<Arc<str>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyFile {
    pub name: Arc<str>,
    pub sha256: Digest,
}

/// A policy bundle became the active one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyEntry {
    /// Who activated it: `start`, or an operator's id.
    pub activated_by: Arc<str>,
    pub engine: Arc<str>,
    pub epoch: Epoch,
    /// Sorted by name.
    pub files: Vec<PolicyFile>,
    pub revision: Digest,
    pub spec: Arc<str>,
    pub time: Arc<str>,
    #[serde(rename = "type")]
    pub entry_type: EntryType,
}

/// One leaf.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    Decision(Box<DecisionEntry>),
    Epoch(Box<EpochEntry>),
    Outcome(Box<OutcomeEntry>),
    Policy(Box<PolicyEntry>),
    Refusal(Box<RefusalEntry>),
}

impl Entry {
    /// The leaf's bytes, in RFC 8785 form by construction.
    pub fn to_bytes(&self) -> Vec<u8> {
        let written = match self {
            Self::Decision(e) => serde_json::to_vec(e),
            Self::Epoch(e) => serde_json::to_vec(e),
            Self::Outcome(e) => serde_json::to_vec(e),
            Self::Policy(e) => serde_json::to_vec(e),
            Self::Refusal(e) => serde_json::to_vec(e),
        };
        written.expect("entries hold only strings, integers, lists and structs, and a Vec takes any write")
    }

    /// Reads a leaf's members. Whether the bytes are in canonical form is the verifier's question.
    pub fn from_bytes_unverified(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        let common: Common = serde_json::from_slice(bytes)?;
        Ok(match common.entry_type {
            EntryType::Decision => Self::Decision(serde_json::from_slice(bytes)?),
            EntryType::Epoch => Self::Epoch(serde_json::from_slice(bytes)?),
            EntryType::Outcome => Self::Outcome(serde_json::from_slice(bytes)?),
            EntryType::Policy => Self::Policy(serde_json::from_slice(bytes)?),
            EntryType::Refusal => Self::Refusal(serde_json::from_slice(bytes)?),
        })
    }
}
