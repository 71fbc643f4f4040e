//! What the demo's agent asks for, what its operator does, and what has to become of it.

/// One row of the demo.
pub struct Step {
    pub what: &'static str,
    /// What is sent in one line, for people.
    pub sent: String,
    pub act: Act,
    pub expected: Expected,
}

/// Who does what.
pub enum Act {
    /// The agent sends one request.
    Ask(Vec<u8>),
    /// The agent sends the same request so many times at once.
    AskAtOnce(Vec<u8>, usize),
    /// The operator posts to the admin listener; `{hold}` in the path is the hold that was opened last.
    Operate { path: &'static str, body: String },
}

/// What has to be seen from outside.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Expected {
    pub status: u16,
    /// Of the receipt.
    pub decision: Option<&'static str>,
    /// The first reason of the verdict, or the reason of the refusal.
    pub reason: Option<&'static str>,
    /// Where the answer names one.
    pub outcome: Option<&'static str>,
    /// Whether the log has a leaf of it, named in the answer.
    pub receipt: bool,
    /// Requests that reach the upstream.
    pub arrived: u64,
    /// Whether the answer comes piece by piece.
    pub streamed: bool,
    /// Whether it is the kept answer to an earlier request.
    pub replayed: bool,
    /// Of requests that are sent at once: how many are permitted. The reason is that of all others.
    pub permitted: Option<usize>,
}

const NOTHING: Expected = Expected {
    status: 0,
    decision: None,
    reason: None,
    outcome: None,
    receipt: false,
    arrived: 0,
    streamed: false,
    replayed: false,
    permitted: None,
};

/// Permitted, sent, answered.
const PERMITTED: Expected =
    Expected { status: 200, decision: Some("PERMIT"), receipt: true, arrived: 1, ..NOTHING };

/// A verdict that is not PERMIT.
const fn verdict(decision: &'static str, reason: &'static str) -> Expected {
    Expected { status: 403, decision: Some(decision), reason: Some(reason), receipt: true, ..NOTHING }
}

/// An operator's change, which is a leaf.
const OPERATED: Expected = Expected { status: 200, receipt: true, ..NOTHING };

/// Refused before it became an execution request, by somebody known.
const fn refused(status: u16, reason: &'static str) -> Expected {
    Expected { status, reason: Some(reason), receipt: true, ..NOTHING }
}

/// Refused before anybody was known: counted and logged, and no leaf.
const fn unattributed(status: u16, reason: &'static str) -> Expected {
    Expected { status, reason: Some(reason), ..NOTHING }
}

const PAYMENTS: &str = "payments.localhost";
const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";

/// Who asks, with what key.
struct Agent<'k> {
    key: &'k str,
}

impl Agent<'_> {
    fn request(&self, line: &str, host: &str, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
        let mut text = format!("{line} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n");
        for (name, value) in [("x-api-key", self.key)].iter().chain(headers) {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() {
            text.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        text.push_str("\r\n");
        text.push_str(body);
        text.into_bytes()
    }

    fn step(&self, what: &'static str, line: &str, media_type: &str, body: &str, expected: Expected) -> Step {
        let bytes = self.request(line, PAYMENTS, &[("content-type", media_type)], body);
        Step { what, sent: format!("{line} {body}"), act: Act::Ask(bytes), expected }
    }

    /// A charge with an idempotency key.
    fn keyed(&self, what: &'static str, amount: u32, expected: Expected) -> Step {
        let line = "POST /v1/charges";
        let body = format!(r#"{{"amount":{amount},"currency":"EUR","customer":"cus_1"}}"#);
        let headers = [("content-type", JSON), ("idempotency-key", "order-77")];
        let bytes = self.request(line, PAYMENTS, &headers, &body);
        let sent = format!("{line} with idempotency-key: order-77 {body}");
        Step { what, sent, act: Act::Ask(bytes), expected }
    }

    fn charge(&self, what: &'static str, body: &str, expected: Expected) -> Step {
        self.step(what, "POST /v1/charges", JSON, body, expected)
    }

    fn read(&self, what: &'static str, host: &str, path: &str, accept: &str, expected: Expected) -> Step {
        let line = format!("GET {path}");
        let bytes = self.request(&line, host, &[("accept", accept)], "");
        Step { what, sent: format!("{line} (host {host})"), act: Act::Ask(bytes), expected }
    }
}

fn operate(what: &'static str, path: &'static str, body: &str) -> Step {
    let sent = format!("the operator: POST {path} {body}");
    Step { what, sent, act: Act::Operate { path, body: body.to_owned() }, expected: OPERATED }
}

/// All of them, in order: the refund names the charge that the first one makes.
pub fn steps(key: &str) -> Vec<Step> {
    let agent = Agent { key };
    let mut steps = permitted(&agent);
    steps.extend(judged(&agent));
    steps.extend(approved(&agent));
    steps.extend(quarantined(&agent));
    steps.extend(frozen(&agent));
    steps.extend(retried(&agent));
    steps.push(at_once(&agent));
    steps.extend(malformed(&agent));
    steps.extend(unknown(&agent));
    steps.extend(answers(&agent));
    steps
}

fn permitted(agent: &Agent<'_>) -> Vec<Step> {
    let refund = "charge=ch_000001&amount=1000&currency=EUR&metadata[order]=77";
    vec![
        agent.charge(
            "a charge within the limit, JSON",
            r#"{"amount":4200,"currency":"EUR","customer":"cus_1"}"#,
            PERMITTED,
        ),
        agent.step("a refund, form", "POST /v1/refunds", FORM, refund, PERMITTED),
    ]
}

fn judged(agent: &Agent<'_>) -> Vec<Step> {
    let payout = r#"{"amount":100,"currency":"EUR"}"#;
    vec![
        agent.charge(
            "a charge over the limit",
            r#"{"amount":600000,"currency":"EUR","customer":"cus_1"}"#,
            verdict("DENY", "over_limit"),
        ),
        agent.step(
            "an action that no rule names",
            "POST /v1/payouts",
            JSON,
            payout,
            verdict("SILENCE", "policy_silent"),
        ),
    ]
}

/// Held for people, approved by one, permitted once.
fn approved(agent: &Agent<'_>) -> Vec<Step> {
    let body = r#"{"amount":200000,"currency":"EUR","customer":"cus_1"}"#;
    let held = || verdict("ESCALATE", "needs_approval");
    vec![
        agent.charge("a charge that needs a second person", body, held()),
        operate(
            "the operator approves it",
            "/holds/{hold}/approve",
            r#"{"reason":"invoice 4711 was checked"}"#,
        ),
        agent.charge("the same charge, approved", body, PERMITTED),
        agent.charge("the same again: approved only once", body, held()),
    ]
}

/// Isolated by policy, released by an operator.
fn quarantined(agent: &Agent<'_>) -> Vec<Step> {
    let ordinary = r#"{"amount":100,"currency":"EUR","customer":"cus_1"}"#;
    vec![
        agent.charge(
            "a charge to a canary customer",
            r#"{"amount":100,"currency":"EUR","customer":"cus_canary"}"#,
            verdict("QUARANTINE", "canary_touched"),
        ),
        agent.charge(
            "any charge by the isolated agent",
            ordinary,
            verdict("QUARANTINE", "actor_quarantined"),
        ),
        operate(
            "the operator releases the agent",
            "/release",
            r#"{"actor":"agent-7","surface":"payments","reason":"the prompt was repaired"}"#,
        ),
        agent.charge("a charge by the released agent", ordinary, PERMITTED),
    ]
}

fn frozen(agent: &Agent<'_>) -> Vec<Step> {
    let ordinary = r#"{"amount":100,"currency":"EUR","customer":"cus_1"}"#;
    vec![
        operate(
            "the operator freezes payments",
            "/freeze",
            r#"{"surface":"payments","reason":"the bank reports an incident"}"#,
        ),
        agent.charge("a charge while payments are frozen", ordinary, verdict("SILENCE", "frozen")),
        operate(
            "the operator ends the freeze",
            "/unfreeze",
            r#"{"surface":"payments","reason":"the incident is over"}"#,
        ),
        agent.charge("a charge after the freeze", ordinary, PERMITTED),
    ]
}

/// One key, one effect.
fn retried(agent: &Agent<'_>) -> Vec<Step> {
    let again = Expected { arrived: 0, replayed: true, ..PERMITTED };
    vec![
        agent.keyed("a charge with an idempotency key", 4_200, PERMITTED),
        agent.keyed("its retry: the same answer", 4_200, again),
        agent.keyed("the key on another charge", 4_300, refused(422, "idempotency_key_reused")),
    ]
}

/// A customer may be charged 1,000,000 a day: ten of these.
fn at_once(agent: &Agent<'_>) -> Step {
    const CHARGES: usize = 16;
    const WITHIN: usize = 10;
    let line = "POST /v1/charges";
    let body = r#"{"amount":100000,"currency":"EUR","customer":"cus_2"}"#;
    let bytes = agent.request(line, PAYMENTS, &[("content-type", JSON)], body);
    Step {
        what: "16 at once, budget for 10",
        sent: format!("16 times {line} {body}"),
        act: Act::AskAtOnce(bytes, CHARGES),
        expected: Expected {
            reason: Some("over_budget"),
            receipt: false,
            arrived: WITHIN as u64,
            permitted: Some(WITHIN),
            ..PERMITTED
        },
    }
}

fn malformed(agent: &Agent<'_>) -> Vec<Step> {
    let large = format!(r#"{{"amount":1,"note":"{}"}}"#, "x".repeat(5_000));
    let key = agent.key;
    let smuggled = format!(
        "POST /v1/charges HTTP/1.1\r\nhost: {PAYMENTS}\r\nx-api-key: {key}\r\ncontent-length: 6\r\n\
         transfer-encoding: chunked\r\n\r\n0\r\n\r\nX"
    );
    let bare = format!("GET /v1/charges HTTP/1.1\nhost: {PAYMENTS}\nx-api-key: {key}\n\n");
    let mut too_large = agent.charge("a body over the limit", &large, refused(413, "body_too_large"));
    too_large.sent = format!("POST /v1/charges with {} bytes", large.len());
    vec![
        agent.charge(
            "one member name twice",
            r#"{"amount":1,"currency":"EUR","amount":600000}"#,
            refused(400, "json_duplicate_name"),
        ),
        agent.charge(
            "a number that a double cannot hold",
            r#"{"amount":9007199254740993,"currency":"EUR"}"#,
            refused(400, "json_number_inexact"),
        ),
        too_large,
        agent.read(
            "a path with dot segments",
            PAYMENTS,
            "/v1/charges/../../admin",
            "*/*",
            refused(400, "target_dot_segment"),
        ),
        Step {
            what: "two framings, as in request smuggling",
            sent: "POST /v1/charges with content-length and transfer-encoding".into(),
            act: Act::Ask(smuggled.into_bytes()),
            expected: unattributed(400, "framing_conflict"),
        },
        Step {
            what: "lines that end in a bare LF",
            sent: "GET /v1/charges with LF line ends".into(),
            act: Act::Ask(bare.into_bytes()),
            expected: unattributed(400, "head_bare_lf"),
        },
    ]
}

fn unknown(agent: &Agent<'_>) -> Vec<Step> {
    let wrong = format!("{}{}", &agent.key[..agent.key.len() - 1], '!');
    let stranger = Agent { key: &wrong };
    let mut with_credential = agent.read(
        "the gateway's own credential header",
        PAYMENTS,
        "/v1/charges",
        "*/*",
        refused(400, "header_credential_sent"),
    );
    with_credential.sent = "GET /v1/charges with authorization: Bearer stolen".into();
    let stolen = agent.request("GET /v1/charges", PAYMENTS, &[("authorization", "Bearer stolen")], "");
    with_credential.act = Act::Ask(stolen);
    vec![
        stranger.read(
            "a wrong API key",
            PAYMENTS,
            "/v1/charges",
            "*/*",
            unattributed(401, "credential_invalid"),
        ),
        with_credential,
        agent.read(
            "a path that is not declared",
            PAYMENTS,
            "/v1/customers",
            "*/*",
            refused(404, "route_not_declared"),
        ),
    ]
}

fn answers(agent: &Agent<'_>) -> Vec<Step> {
    let dies = Expected {
        status: 504,
        reason: Some("upstream_silent"),
        outcome: Some("indeterminate"),
        ..PERMITTED
    };
    let unreachable = Expected { outcome: Some("not_sent"), ..refused(502, "upstream_unreachable") };
    let events = "text/event-stream";
    vec![
        agent.charge(
            "the upstream dies after reading",
            r#"{"amount":100,"currency":"EUR","customer":"cus_dies"}"#,
            dies,
        ),
        agent.read(
            "an export, streamed as events",
            "exports.localhost",
            "/exports/exp_1",
            events,
            Expected { streamed: true, ..PERMITTED },
        ),
        agent.read("nobody behind the surface", "config.localhost", "/config/feature.x", "*/*", unreachable),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use interlock::model::ReasonCode;

    #[test]
    fn every_refusal_names_a_reason_of_the_list_with_its_status() {
        for step in steps("ilk_00000000_0000000000000000000000") {
            let Expected { status, decision, reason, .. } = step.expected;
            if status == 200 {
                continue;
            }
            let listed = ReasonCode::ALL.iter().find(|code| Some(code.as_str()) == reason);
            match (listed, decision) {
                (Some(code), _) => assert_eq!(code.status(), status, "{}", step.what),
                // The policy author's own reason.
                (None, Some(_)) => assert!(status == 403 || reason.is_none(), "{}", step.what),
                (None, None) => panic!("{} expects no reason", step.what),
            }
        }
    }

    #[test]
    fn nothing_arrives_without_a_permit() {
        for step in steps("ilk_00000000_0000000000000000000000") {
            let Expected { decision, arrived, replayed, permitted, .. } = step.expected;
            let permits = u64::from(decision == Some("PERMIT") && !replayed);
            assert_eq!(arrived, permitted.map_or(permits, |n| n as u64), "{}", step.what);
        }
    }
}
