//! One request, put to a config and its policy without a gateway: what `interlock policy eval` does.
//!
//! In: a config, the bytes of a message (or a curl command line, [`curl`]), who is said to ask, and what is said to be
//! true. Out: the policy input a gateway with this config would make of it, by the same code (guard, routes, canonical
//! form, input), or the refusal its client would get. The actor is taken on the caller's word: nothing here can send,
//! record or permit anything.

pub mod curl;

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use crate::authority::draws;
use crate::canonical::ExecutionRequest;
use crate::clock::WallTime;
use crate::config::{Config, SurfaceConfig};
use crate::ingress::{Door, NotTaken, rehearse};
use crate::limits;
use crate::model::{
    Actor, Digest, Json, Number, Object, PackageName, PolicyReason, ReasonCode, Redaction, reserved_name,
};
use crate::pep::Hosts;
use crate::policy::{
    Bundle, BundleError, Context, Finding, Offline, SetTrace, Values, input_of, on_a_large_stack, read_input,
    subject,
};
use crate::redaction::{Disclosures, Masked, marked, mask, reasons_as_written};

/// What is put to policy besides the message.
pub struct Given {
    pub actor: Actor,
    /// `None`: the surface that the host belongs to.
    pub surface: Option<String>,
    /// An object with `facts`, `budgets`, `approvals` and `attempt`, each of which may be missing.
    pub context: Json,
    pub now: WallTime,
}

/// A request as policy is asked about it.
pub struct Asked {
    pub package: PackageName,
    input: Json,
    /// Where its route keeps something out of the log: the input without that, and that.
    masked: Option<Masked>,
}

impl Asked {
    /// The input as it may be shown.
    pub fn shown(&self) -> &Json {
        self.masked.as_ref().map_or(&self.input, |masked| &masked.value)
    }

    /// Of the message that would be sent, as a receipt names it; empty for an input that says nothing of one.
    pub fn request_digest(&self) -> &str {
        let request = self.input.as_object().and_then(|o| o.member("request")).and_then(Json::as_object);
        request.and_then(|request| request.member("digest")).and_then(Json::as_str).unwrap_or_default()
    }

    /// Something of it stays out of the log, and of what is shown.
    pub fn is_redacted(&self) -> bool {
        self.masked.is_some()
    }
}

/// What policy said.
pub struct Tried {
    pub finding: Finding,
    /// As a receipt would have them.
    pub reasons: Vec<PolicyReason>,
    pub revision: Digest,
    /// If it was to be explained.
    pub sets: Vec<SetTrace>,
}

/// Asks policy, and why it says so if that is wanted. Blocks.
pub fn evaluate(bundle: Bundle, asked: &Asked, explains: bool) -> Result<Tried, BundleError> {
    let revision = bundle.revision();
    let policy = Offline::new(bundle, NonZeroUsize::MIN)?;
    let values = match &asked.masked {
        None => Values::All,
        Some(masked) => Values::Redacted(masked.value.clone()),
    };
    let (finding, sets) = on_a_large_stack("policy-eval", || {
        let finding = policy.find(0, &asked.package, &asked.input);
        let sets = match explains {
            true => policy.explain(0, &asked.package, &asked.input, values),
            false => Vec::new(),
        };
        (finding, sets)
    })?;
    let reasons = match &asked.masked {
        None => finding.reasons.clone(),
        Some(masked) => reasons_as_written(&finding.reasons, &masked.withheld),
    };
    Ok(Tried { finding, reasons, revision, sets })
}

/// A policy input as it is. What was kept out of a recorded one has to be put back first: without it, policy would
/// judge something else.
pub fn recorded(input: Json, package: PackageName, disclosures: &Disclosures) -> Result<Asked, String> {
    if reserved_name(&input).is_none() {
        return Ok(Asked { package, input, masked: None });
    }
    let restored = disclosures.restore(input.clone()).map_err(|why| why.to_string())?;
    let masked = Some(Masked { value: marked(&input), withheld: restored.withheld });
    Ok(Asked { package, input: restored.value, masked })
}

/// Policy is not asked.
#[derive(Debug)]
pub enum NotAsked {
    /// As the client would be told: status, code, the rule, where, and what was found.
    Refused { code: ReasonCode, place: Option<String>, detail: Option<String> },
    /// What was given does not go together.
    Given(String),
}

impl NotAsked {
    fn given(why: impl Into<String>) -> Self {
        Self::Given(why.into())
    }
}

/// Puts a whole HTTP/1.1 message to the config.
pub async fn ask(config: &Config, message: &[u8], given: Given) -> Result<Asked, NotAsked> {
    if message.len() > limits::REHEARSAL_BYTES_MAX {
        return Err(NotAsked::given(format!("a message of more than {} bytes", limits::REHEARSAL_BYTES_MAX)));
    }
    let surfaces = surfaces(config, given.surface.as_deref())?;
    let doors = surfaces.iter().map(|surface| door(surface, given.surface.is_some())).collect();
    let taken = rehearse(doors, message).await.map_err(|not| match not {
        NotTaken::Refused(rejected) => {
            let malformed = rejected.malformed;
            let place = malformed.place.map(|place| place.to_string());
            let allow = rejected.allow.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let detail = malformed.detail.or((!allow.is_empty()).then(|| format!("Allowed here: {allow}.")));
            NotAsked::Refused { code: malformed.code, place, detail }
        }
        NotTaken::NotOneMessage(why) => NotAsked::given(why),
    })?;
    let surface = surfaces[taken.door];
    let redaction = taken.request.redaction().cloned();
    let execution = ExecutionRequest {
        surface: surface.name.clone(),
        action: taken.action,
        actor: Arc::new(given.actor),
        trace: taken.trace,
        request: taken.request,
    };
    let context = context(surface, &execution, &given.context, given.now)?;
    let input = input_of(&execution, &context, given.now);
    let mask = |redaction: Redaction| mask(input.clone(), &redaction);
    let masked = redaction.map(mask).transpose().map_err(|why| NotAsked::given(why.to_string()))?;
    Ok(Asked { package: surface.package.clone(), input, masked })
}

/// The surfaces that the message may be for. Hosts tell those of one listener apart, and nothing tells two listeners.
fn surfaces<'c>(config: &'c Config, name: Option<&str>) -> Result<Vec<&'c SurfaceConfig>, NotAsked> {
    let all: Vec<&SurfaceConfig> = config.surfaces.iter().collect();
    let names = || all.iter().map(|surface| surface.name.as_str()).collect::<Vec<_>>().join(", ");
    match name {
        Some(name) => {
            let found: Vec<_> = all.iter().copied().filter(|surface| surface.name.as_str() == name).collect();
            match found.is_empty() {
                true => {
                    Err(NotAsked::given(format!("the config has no surface `{name}`; it has {}", names())))
                }
                false => Ok(found),
            }
        }
        None if all.iter().any(|surface| surface.listener != all[0].listener) => Err(NotAsked::given(
            format!("surfaces are behind several listeners: say which one is meant (--surface): {}", names()),
        )),
        None => Ok(all),
    }
}

/// A surface that is named is asked whatever host the message names.
fn door(surface: &SurfaceConfig, is_named: bool) -> Door {
    let hosts = if is_named { Hosts::new(Default::default()) } else { surface.hosts.clone() };
    Door { hosts, routes: surface.enforced_routes() }
}

/// As given; budgets that nobody says anything of have nothing spent. A fact has no value that could be assumed.
fn context(
    surface: &SurfaceConfig,
    execution: &ExecutionRequest,
    given: &Json,
    now: WallTime,
) -> Result<Context, NotAsked> {
    let known = ["facts", "budgets", "approvals", "attempt"];
    let Some(given) = given.as_object() else { return Err(NotAsked::given("the context is no JSON object")) };
    if let Some((name, _)) = given.members().iter().find(|(name, _)| !known.contains(&&**name)) {
        return Err(NotAsked::given(format!("the context has `{name}`; it may have {}", known.join(", "))));
    }
    let facts = given.member("facts").cloned().unwrap_or_else(|| Json::object([]));
    let has = |name: &str| facts.as_object().is_some_and(|facts| facts.member(name).is_some());
    if let Some(missing) = surface.facts.iter().find(|fact| !has(fact.name.as_str())) {
        let name = missing.name.as_str();
        return Err(NotAsked::given(format!(
            "the surface declares the fact `{name}`: give it in the context's `facts`"
        )));
    }
    let drawn = draws(&surface.budgets, &subject(execution), now)
        .map_err(|why| NotAsked::given(format!("nothing can be drawn on a budget: {why}")))?;
    let spent = given.member("budgets").and_then(Json::as_object);
    let mut budgets: Vec<(Arc<str>, Json)> = spent.map(|spent| spent.members().to_vec()).unwrap_or_default();
    for draw in &drawn {
        let name = draw.budget.as_str();
        if !budgets.iter().any(|(known, _)| **known == *name) {
            let zero = || Json::Number(Number::new(0.0).expect("zero is finite"));
            budgets.push((name.into(), Json::object([("in_flight", zero()), ("spent", zero())])));
        }
    }
    let budgets =
        Object::new(budgets).map_err(|name| NotAsked::given(format!("two budgets called `{name}`")))?;
    let approvals = given.member("approvals").cloned().unwrap_or_else(|| Json::Array(Vec::new()));
    let attempt = match given.member("attempt") {
        None => 1,
        Some(Json::Number(n)) => {
            let whole = n.as_exact_i64().and_then(|n| u32::try_from(n).ok());
            whole.ok_or_else(|| NotAsked::given("`attempt` is a whole number from 1"))?
        }
        Some(_) => return Err(NotAsked::given("`attempt` is a whole number from 1")),
    };
    Ok(Context { facts, budgets: Json::Object(budgets), approvals, attempt })
}

/// A file of strict JSON, as the gateway reads JSON. `Err` says what is wrong with it.
pub fn read_json(path: &Path) -> Result<Json, String> {
    parse_json(&read_bounded(path)?).map_err(|why| format!("{} {why}", path.display()))
}

/// Strict JSON. `Err` goes on after a name.
pub fn parse_json(bytes: &[u8]) -> Result<Json, String> {
    read_input(bytes).map_err(|why| format!("is not strict JSON: {why}"))
}

/// A file no larger than a message may be; `-` is standard input.
pub fn read_bounded(path: &Path) -> Result<Vec<u8>, String> {
    use std::io::Read;
    let cannot = |e: std::io::Error| format!("{} cannot be read: {e}", path.display());
    let reader: Box<dyn Read> = match path.as_os_str() == "-" {
        true => Box::new(std::io::stdin()),
        false => Box::new(std::fs::File::open(path).map_err(cannot)?),
    };
    let mut bytes = Vec::new();
    reader.take(limits::REHEARSAL_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() > limits::REHEARSAL_BYTES_MAX {
        return Err(format!("{} has more than {} bytes", path.display(), limits::REHEARSAL_BYTES_MAX));
    }
    Ok(bytes)
}

/// A head that an editor wrote, with the line ends that a message has: those of the head alone.
pub fn with_crlf(message: &[u8]) -> Vec<u8> {
    let end = message.windows(2).position(|pair| pair == b"\n\n").map_or(message.len(), |at| at + 2);
    let mut whole = Vec::with_capacity(message.len() + 64);
    let mut before = 0;
    for &byte in &message[..end] {
        if byte == b'\n' && before != b'\r' {
            whole.push(b'\r');
        }
        whole.push(byte);
        before = byte;
    }
    whole.extend_from_slice(&message[end..]);
    whole
}
