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
    Decision(Box<DecisionEntry>),
    Epoch(Box<EpochEntry>),
    Key(Box<KeyEntry>),
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
            EntryType::Decision => Self::Decision(serde_json::from_slice(bytes)?),
            EntryType::Epoch => Self::Epoch(serde_json::from_slice(bytes)?),
            EntryType::Key => Self::Key(serde_json::from_slice(bytes)?),
            EntryType::Outcome => Self::Outcome(serde_json::from_slice(bytes)?),
            EntryType::Policy => Self::Policy(serde_json::from_slice(bytes)?),
            EntryType::Refusal => Self::Refusal(serde_json::from_slice(bytes)?),
        })
    }
}
