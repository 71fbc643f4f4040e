//! The leaves of the log, as types. RECEIPTS.md section "Entries" is the source of every member.
//!
//! Members are declared in RFC 8785 order (all names are ASCII), so that `serde_json` writes the
//! canonical bytes by construction; a test compares each type with the canonical writer. Integers stay
//! below 2^53, there are no floats and no null: what is absent is left out.

use std::borrow::Cow;
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize};

use super::{
    ActionName, ActorId, AuthenticationMethod, BudgetName, Decision, Digest, Epoch, IdempotencyKey,
    LeafIndex, OutcomeStatus, PackageName, Place, PolicyReason, ReadItem, ReceiptId, Settled, SurfaceName,
    TreeSize,
};

/// Value of `spec` in every leaf.
pub const SPEC: &str = "interlock-receipt/1";

/// Value of `type` in every leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryType {
    Admin,
    Decision,
    Epoch,
    Heartbeat,
    Key,
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

/// The digest of an SD-JWT disclosure (RFC 9901 section 4.2.3): 43 characters of base64url, SHA-256.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct DisclosureDigest(Arc<str>);

/// The text is not base64url of 32 bytes without padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected 43 characters of base64url")]
pub struct InvalidDisclosureDigest;

impl DisclosureDigest {
    /// Of a disclosure, which is base64url itself: SHA-256 over its ASCII bytes.
    pub fn of(disclosure: &str) -> Self {
        Self(URL_SAFE_NO_PAD.encode(Digest::of(disclosure.as_bytes()).as_bytes()).into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DisclosureDigest {
    type Err = InvalidDisclosureDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDisclosureDigest> {
        // The engine refuses bits past the last byte, so a digest has one text.
        let decoded = URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidDisclosureDigest)?;
        if decoded.len() == 32 { Ok(Self(text.into())) } else { Err(InvalidDisclosureDigest) }
    }
}

impl<'de> Deserialize<'de> for DisclosureDigest {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What was asked. On a route that redacts, the members whose values could be guessed from a plain digest or must
/// not reach the disk are left out, and `_sd` holds the digests of their disclosures (RFC 9901 section 4.2.4.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestEntry {
    /// Ascending; no more than one for each member that is left out.
    #[serde(rename = "_sd", default, skip_serializing_if = "Vec::is_empty")]
    pub disclosures: Vec<DisclosureDigest>,
    /// Of the body that is forwarded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_digest: Option<Digest>,
    /// Of the exact HTTP/1.1 message to be written, with `{credential:NAME}` in the injected slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    pub form: BodyForm,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<Arc<str>>,
    pub method: Arc<str>,
    /// Of the body as it was received.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received_digest: Option<Digest>,
    /// Of the forwarded body, bytes.
    pub size: u64,
    /// Path and query as forwarded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Arc<str>>,
}

/// That a PERMIT claims its idempotency key: one execution, for this actor on this surface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimEntry {
    /// RFC 3339, UTC, microseconds: from then on the key is free again, unless the outcome is not known.
    pub until: Arc<str>,
}

/// A request that is held for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HoldEntry {
    /// Of the decision that opened the hold: this one, or an earlier one on the same request.
    pub id: ReceiptId,
    /// RFC 3339, UTC, microseconds: approvals count until then.
    pub until: Arc<str>,
}

/// What a PERMIT takes of one budget until its outcome settles it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reserve {
    /// Exact decimal, as the caller wrote it, without exponent.
    pub amount: Arc<str>,
    pub budget: BudgetName,
    /// SHA-256 over the RFC 8785 form of the list of values that the budget's key pointers lead to.
    pub key: Digest,
    /// RFC 3339, UTC, microseconds: from then on it counts no more.
    pub until: Arc<str>,
}

/// What an outcome did to one budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SettledAs {
    Spent,
    Released,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settle {
    pub budget: BudgetName,
    pub settled_as: SettledAs,
}

/// A verdict on one execution request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecisionEntry {
    pub action: ActionName,
    pub actor: ActorEntry,
    /// Of a PERMIT: the hold whose approvals it uses up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved_hold: Option<ReceiptId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<ClaimEntry>,
    pub decision: Decision,
    pub epoch: Epoch,
    pub evaluation: EvaluationEntry,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<HoldEntry>,
    pub id: ReceiptId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<IdempotencyKey>,
    pub mode: Mode,
    pub policy: PolicyReference,
    pub reasons: Vec<PolicyReason>,
    pub request: RequestEntry,
    pub reserves: Vec<Reserve>,
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
    /// As in [`RequestEntry`].
    #[serde(rename = "_sd", default, skip_serializing_if = "Vec::is_empty")]
    pub disclosures: Vec<DisclosureDigest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_digest: Option<Digest>,
    pub size: u64,
    pub status_code: u16,
}

/// What left the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SentEntry {
    /// As in [`RequestEntry`]; the same digest as there when the whole message left.
    #[serde(rename = "_sd", default, skip_serializing_if = "Vec::is_empty")]
    pub disclosures: Vec<DisclosureDigest>,
    /// Equal to the decision's `request.digest` when the whole message left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// Bytes of the message written, counting the credential's placeholder instead of the credential.
    pub size: u64,
}

/// Who or what vouches for an outcome that the gateway did not see itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttestedBy {
    /// Where it can be looked up: a ticket, a transaction id, a status answer's digest.
    pub evidence: Arc<str>,
    /// `None` if the upstream's own log was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<OperatorEntry>,
}

/// What became of one PERMIT. A PERMIT has exactly one outcome by the gateway; if that is indeterminate, at most one
/// more follows, `confirmed` or `failed`, by an operator or the upstream's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutcomeEntry {
    /// Of the answer that is kept for requests with the same idempotency key: evidence beside this leaf.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer_digest: Option<Digest>,
    pub attestation: Settled,
    /// Who settled it, and on what grounds, where the gateway itself did not see it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attested_by: Option<AttestedBy>,
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
    /// What became of the decision's reserves; none while the outcome is indeterminate.
    pub settles: Vec<Settle>,
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

/// No other leaf was written for a while: at this time the gateway was alive, and the log stood here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeartbeatEntry {
    pub epoch: Epoch,
    /// Seconds without a leaf after which one of these is written. Not zero.
    pub every_s: u64,
    pub previous: PreviousTree,
    pub spec: Arc<str>,
    pub time: Arc<str>,
    #[serde(rename = "type")]
    pub entry_type: EntryType,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyFile {
    pub name: Arc<str>,
    pub sha256: Digest,
}

/// `policy.revision` (RECEIPTS.md) of these files, sorted by name, for an engine of this name: SHA-256 over the RFC 8785 form of
/// three members. They stand in sorted order, and names and digests need no escapes beyond those of RFC 8785.
pub fn policy_revision(engine: &str, files: &[PolicyFile]) -> Digest {
    #[derive(Serialize)]
    struct Construction<'a> {
        construction: &'static str,
        engine: &'a str,
        files: &'a [PolicyFile],
    }
    let construction = Construction { construction: "interlock-policy-revision-v1", engine, files };
    Digest::of(&serde_json::to_vec(&construction).expect("strings and digests always serialize"))
}

/// A policy bundle became the active one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyEntry {
    /// What caused it: `start`, `change` of what it is read from, `signal`, or `operator`, who is named in `by`.
    pub activated_by: Arc<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<OperatorEntry>,
    pub engine: Arc<str>,
    pub epoch: Epoch,
    /// Sorted by name.
    pub files: Vec<PolicyFile>,
    /// It is not after this version, which was active before; somebody answers for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub older_than: Option<u64>,
    /// Of the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Arc<str>>,
    pub revision: Digest,
    pub spec: Arc<str>,
    pub time: Arc<str>,
    #[serde(rename = "type")]
    pub entry_type: EntryType,
    /// Of a signed bundle, as its signature covers it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
}

/// What an operator may do in that role, each role including those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Reads.
    Viewer,
    /// Approves and refuses what is held.
    Approver,
    /// Freezes, unfreezes, releases, reconciles.
    Operator,
    /// Everything.
    Administrator,
}

impl Role {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Approver => "approver",
            Self::Operator => "operator",
            Self::Administrator => "administrator",
        }
    }
}

/// Who acted on the gateway. Never an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperatorEntry {
    /// `gateway` for what the gateway does by itself, such as letting a hold expire.
    pub id: Arc<str>,
    pub role: Role,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdminAction {
    /// Nothing more is sent: anywhere, on a surface, or for an actor.
    Freeze,
    Unfreeze,
    /// Of a hold.
    Approve,
    /// Of a hold: it is not asked again before it would have expired.
    Refuse,
    /// Of a hold, by time.
    Expire,
    /// Isolates an actor on a surface.
    Quarantine,
    /// Ends a quarantine.
    Release,
}

impl AdminAction {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Freeze => "freeze",
            Self::Unfreeze => "unfreeze",
            Self::Approve => "approve",
            Self::Refuse => "refuse",
            Self::Expire => "expire",
            Self::Quarantine => "quarantine",
            Self::Release => "release",
        }
    }
}

/// What was done to the gateway's state, by whom and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminEntry {
    pub action: AdminAction,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<ActorId>,
    pub by: OperatorEntry,
    pub epoch: Epoch,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<ReceiptId>,
    pub reason: Arc<str>,
    pub spec: Arc<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub surface: Option<SurfaceName>,
    pub time: Arc<str>,
    #[serde(rename = "type")]
    pub entry_type: EntryType,
}

/// What happened to a key that signs checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyEvent {
    /// Signs from here on.
    Add,
    /// Signs no more; what it signed stands.
    Retire,
    /// Signs no more; no checkpoint of more leaves than stand before this one is to be believed on its word alone.
    Compromised,
}

/// A signing key came or went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyEntry {
    pub epoch: Epoch,
    pub event: KeyEvent,
    pub spec: Arc<str>,
    pub time: Arc<str>,
    #[serde(rename = "type")]
    pub entry_type: EntryType,
    /// C2SP signed-note verifier key.
    pub vkey: Arc<str>,
}

/// One leaf.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    Admin(Box<AdminEntry>),
    Decision(Box<DecisionEntry>),
    Epoch(Box<EpochEntry>),
    Heartbeat(Box<HeartbeatEntry>),
    Key(Box<KeyEntry>),
    Outcome(Box<OutcomeEntry>),
    Policy(Box<PolicyEntry>),
    Refusal(Box<RefusalEntry>),
}

impl Entry {
    /// The leaf's bytes, in RFC 8785 form by construction.
    pub fn to_bytes(&self) -> Vec<u8> {
        let written = match self {
            Self::Admin(e) => serde_json::to_vec(e),
            Self::Decision(e) => serde_json::to_vec(e),
            Self::Epoch(e) => serde_json::to_vec(e),
            Self::Heartbeat(e) => serde_json::to_vec(e),
            Self::Key(e) => serde_json::to_vec(e),
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
            EntryType::Admin => Self::Admin(serde_json::from_slice(bytes)?),
            EntryType::Decision => Self::Decision(serde_json::from_slice(bytes)?),
            EntryType::Epoch => Self::Epoch(serde_json::from_slice(bytes)?),
            EntryType::Heartbeat => Self::Heartbeat(serde_json::from_slice(bytes)?),
            EntryType::Key => Self::Key(serde_json::from_slice(bytes)?),
            EntryType::Outcome => Self::Outcome(serde_json::from_slice(bytes)?),
            EntryType::Policy => Self::Policy(serde_json::from_slice(bytes)?),
            EntryType::Refusal => Self::Refusal(serde_json::from_slice(bytes)?),
        })
    }
}
