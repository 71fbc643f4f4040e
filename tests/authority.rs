//! What was approved earlier may not be valid when it runs: claims, budgets, holds, freezes, on real sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use interlock::clock::{Clock, WallTime};
use interlock::gateway::Stopped;
use interlock::ledger::Administration;
use interlock::limits;
use interlock::model::entry::{AdminAction, DecisionEntry, OperatorEntry, Role};
use interlock::model::{Decision, Digest, OutcomeStatus, ReceiptId};

use crate::support::client::Response;
use crate::support::upstream::{Gate, Script, Step};
use crate::support::{KEY, OTHER_KEY, Setup, World, request};

const POLICY: &str = r#"package gateway.test

wanted contains input.request.headers["x-want"]

permit contains "wanted" if "permit" in wanted

deny contains "not_wanted" if "deny" in wanted

quarantine contains "isolated" if "quarantine" in wanted

permit contains "within" if {
	"spend" in wanted
	spend := input.context.budgets.spend
	spend.spent + spend.in_flight + input.request.body.amount <= 10
}

deny contains "over_budget" if {
	"spend" in wanted
	spend := input.context.budgets.spend
	spend.spent + spend.in_flight + input.request.body.amount > 10
}

needs_two if "two" in wanted

approvers contains who if {
	some approval in input.context.approvals
	who := approval.by
}

escalate contains "ask_somebody" if {
	"escalate" in wanted
	count(approvers) < 1
}

escalate contains "ask_two" if {
	needs_two
	count(approvers) < 2
}

permit contains "approved" if {
	"escalate" in wanted
	count(approvers) >= 1
}

permit contains "approved_by_two" if {
	needs_two
	count(approvers) >= 2
}
"#;

const SURFACE: &[&str] = &[
    "idempotency: { keep_hours: 24, answer_bytes_max: 4096 }",
    "holds: { expire_minutes: 10, wait_seconds_max: 20 }",
    "budgets: [ { name: spend, actions: [keyed.create], key: [/request/body/currency], amount: /request/body/amount, window: { calendar: month, zone: UTC }, unit: EUR } ]",
];

fn setup() -> Setup {
    Setup { policy: POLICY.into(), surface: SURFACE, ..Setup::default() }
}

/// A request of the agent with an idempotency key.
fn keyed(key: &str, want: &str, body: &str) -> Vec<u8> {
    by(KEY, key, want, body, &[])
}

fn by(agent: &str, key: &str, want: &str, body: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let mut headers = vec![
        ("x-api-key", agent),
        ("x-want", want),
        ("content-type", "application/json"),
        ("idempotency-key", key),
        ("connection", "close"),
    ];
    headers.extend_from_slice(more);
    request("POST", "/v1/keyed", &headers, body)
}

fn pay(amount: &str) -> String {
    format!(r#"{{"amount":{amount},"currency":"EUR"}}"#)
}

/// Draws on a budget that nothing else draws on.
const HOT: &str = r#"{"amount":1,"currency":"CHF"}"#;

fn administration(action: AdminAction, by: &str) -> Administration {
    Administration {
        action,
        by: OperatorEntry { id: by.into(), role: Role::Administrator },
        surface: None,
        actor: None,
        hold: None,
        reason: "as a test".into(),
    }
}

fn of_hold(action: AdminAction, by: &str, hold: ReceiptId) -> Administration {
    Administration { hold: Some(hold), ..administration(action, by) }
}

fn hold_of(response: &Response) -> ReceiptId {
    let hold = &response.json()["hold"];
    assert!(hold["until"].is_string(), "{}", response.text());
    hold["id"].as_str().expect("an id").parse().expect("an id")
}

/// What was answered is settled a moment later.
fn settled(world: &World) {
    world.wait_for_metric("interlock_ledger_open_permits", 0.0);
}

#[test]
fn a_thousand_retries_of_one_key_cause_one_effect() {
    let world = setup().start();
    let counts = std::sync::Mutex::new(BTreeMap::<String, usize>::new());
    thread::scope(|scope| {
        for _ in 0..64 {
            scope.spawn(|| {
                for _ in 0..16 {
                    let response = world.send(keyed("order-1", "spend", &pay("7")));
                    let what = match response.status {
                        200 => response.text(),
                        _ => response.reason(),
                    };
                    *counts.lock().expect("unpoisoned").entry(what).or_default() += 1;
                }
            });
        }
    });
    settled(&world);
    let counts = counts.into_inner().expect("unpoisoned");
    assert!(
        counts.keys().all(|what| [r#"{"done":true}"#, "idempotency_running"].contains(&what.as_str())),
        "{counts:?}"
    );
    assert!(counts[r#"{"done":true}"#] > 0, "{counts:?}");
    let again = world.send(keyed("order-1", "spend", &pay("7")));
    assert_eq!((again.status, again.header("interlock-replayed")), (200, Some("true")));
    let audit = world.finish();
    assert_eq!((audit.effects, audit.verdicts()), (1, vec!["PERMIT"]));
    assert!(audit.refusals().iter().any(|refusal| &*refusal.reason == "idempotency_replayed"));
}

#[test]
fn a_kept_answer_is_given_again_byte_for_byte_also_after_a_restart() {
    let mut world = setup().lay_out();
    world.run_inside();
    let body = r#"{"id":"ch_1","price":1.50,"text":"a\u00e4"}"#;
    let head = "HTTP/1.1 201 Made\r\ncontent-type: application/json\r\nx-upstream: a\r\nx-upstream: b\r\n";
    world.upstream.next(Script::answer(format!("{head}content-length: {}\r\n\r\n{body}", body.len())));
    let first = world.send(keyed("order-1", "permit", &pay("1")));
    let again = |world: &World| {
        let again = world.send(keyed("order-1", "permit", &pay("1")));
        assert_eq!((again.status, again.text()), (201, body.to_owned()), "{:?}", again.headers);
        assert_eq!(again.header("interlock-replayed"), Some("true"));
        let values = |response: &Response| -> Vec<_> {
            let of = |name: &str| ["content-type", "x-upstream", "content-length"].contains(&name);
            response.headers.iter().filter(|(name, _)| of(name)).cloned().collect()
        };
        assert_eq!(values(&again), values(&first));
        let receipt = |response: &Response| {
            let header = response.header("interlock-receipt").expect("a receipt").to_owned();
            header
                .split(", ")
                .filter(|part| !part.starts_with("size="))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(receipt(&again), receipt(&first));
    };
    assert_eq!(first.header("interlock-replayed"), None);
    settled(&world);
    again(&world);
    // Whatever policy would say now, and however the same value is written.
    let spaced = world.send(keyed("order-1", "permit", r#"{ "currency": "EUR", "amount": 1.0 }"#));
    assert_eq!((spaced.status, spaced.header("interlock-replayed")), (201, Some("true")));
    let other = world.send(keyed("order-1", "permit", &pay("2")));
    other.assert_refused(422, "idempotency_key_reused");
    assert!(
        first
            .header("interlock-receipt")
            .expect("set")
            .contains(other.json()["original"]["id"].as_str().expect("the original"))
    );
    // Another actor's key is another key.
    let response = world.send(by(OTHER_KEY, "order-1", "permit", &pay("1"), &[]));
    assert_eq!((response.status, response.header("interlock-replayed")), (200, None));
    world.finish_here(Stopped::Clean);

    world.run_inside();
    again(&world);
    world.send(keyed("order-1", "permit", &pay("2"))).assert_refused(422, "idempotency_key_reused");
    let audit = world.finish();
    assert_eq!(audit.effects, 2);
}

#[test]
fn while_a_key_is_being_carried_out_the_request_is_not_sent_again() {
    let world = setup().start();
    let gate = Gate::default();
    world.upstream.next(Script::steps([
        Step::Wait(gate.clone()),
        Step::Write(b"HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n".to_vec()),
    ]));
    let mut first = world.client();
    first.send(keyed("order-1", "permit", &pay("1")));
    world.upstream.wait_for(1);
    let running = world.send(keyed("order-1", "permit", &pay("1")));
    running.assert_refused(409, "idempotency_running");
    assert_eq!(running.header("retry-after"), Some("1"));
    world.send(keyed("order-1", "permit", &pay("2"))).assert_refused(422, "idempotency_key_reused");
    gate.open();
    assert_eq!(first.response().status, 404);
    settled(&world);
    // That it failed is its answer.
    let again = world.send(keyed("order-1", "permit", &pay("1")));
    assert_eq!((again.status, again.header("interlock-replayed")), (404, Some("true")));
    assert_eq!(world.finish().effects, 1);
}

#[test]
fn a_key_whose_outcome_is_not_known_is_not_sent_again_also_after_a_restart() {
    let mut world = setup().lay_out();
    world.run_inside();
    world.upstream.next(Script::steps([Step::Close]));
    world.send(keyed("order-1", "permit", &pay("1"))).assert_refused(504, "upstream_silent");
    settled(&world);
    let unknown = |world: &World| {
        let unknown = world.send(keyed("order-1", "permit", &pay("1")));
        unknown.assert_refused(409, "idempotency_unknown");
        assert!(
            unknown.json()["original"]["id"].is_string() && unknown.json()["original"]["index"].is_number()
        );
        assert!(unknown.text().contains("reconcile"), "{}", unknown.text());
        assert_eq!(unknown.header("x-should-retry"), Some("false"));
    };
    unknown(&world);
    world.finish_here(Stopped::Clean);
    world.run_inside();
    unknown(&world);
    assert_eq!(world.finish().effects, 1);
}

#[test]
fn an_answer_that_is_too_large_is_not_kept_and_the_request_is_not_sent_again() {
    let world = setup().start();
    world.upstream.next(Script::ok(&"x".repeat(5_000)));
    assert_eq!(world.send(keyed("order-1", "permit", &pay("1"))).status, 200);
    settled(&world);
    let again = world.send(keyed("order-1", "permit", &pay("1")));
    again.assert_refused(409, "idempotency_answer_not_kept");
    assert_eq!(world.finish().effects, 1);
}

/// What is true now stands in the way of what is new, and not of what was carried out.
#[test]
fn a_kept_answer_is_given_whatever_is_frozen_isolated_or_spent_by_now() {
    let world = setup().start();
    assert_eq!(world.send(keyed("order-1", "spend", &pay("10"))).status, 200);
    settled(&world);
    let again = |world: &World| {
        let again = world.send(keyed("order-1", "spend", &pay("10")));
        assert_eq!(
            (again.status, again.header("interlock-replayed")),
            (200, Some("true")),
            "{}",
            again.text()
        );
    };
    world.send(keyed("order-2", "spend", &pay("1"))).assert_refused(403, "policy_denied");
    again(&world);
    world.administer(administration(AdminAction::Freeze, "ann"));
    world.send(keyed("order-2", "spend", &pay("1"))).assert_refused(403, "frozen");
    again(&world);
    world.administer(administration(AdminAction::Unfreeze, "ann"));
    world.send(keyed("order-3", "quarantine", &pay("1"))).assert_refused(403, "policy_quarantined");
    world.send(keyed("order-2", "spend", &pay("1"))).assert_refused(403, "actor_quarantined");
    again(&world);
    // Other bytes are told apart as before, and who proves nobody gets nothing.
    world.send(keyed("order-1", "spend", &pay("9"))).assert_refused(422, "idempotency_key_reused");
    let nobody = world.send(by("ilk_agent007nobody", "order-1", "spend", &pay("10"), &[]));
    nobody.assert_refused(401, "credential_invalid");
    assert_eq!(world.finish().effects, 1);
}

const FACT_POLICY: &str = r#"package gateway.test

permit contains "rated" if input.context.facts.rates.eur > 0
"#;

#[test]
fn a_fact_that_fails_or_grows_stale_is_silence_that_names_it() {
    let files = vec![("rates.json", r#"{"eur":1}"#.to_owned())];
    let facts = &["facts: [ { name: rates, file: ./rates.json, max_age_ms: 2000, timeout_ms: 1000 } ]"];
    let world = Setup { policy: FACT_POLICY.into(), surface: facts, files, ..Setup::default() }.start();
    let ask = || world.ask("POST", "/v1/things", "permit", r#"{"a":1}"#);
    assert_eq!(ask().status, 200);
    world.write("rates.json", "no JSON", 0o600);
    let began = Instant::now();
    let mut refused = ask();
    while refused.status == 200 {
        assert!(began.elapsed() < Duration::from_secs(30), "the fact never grows stale");
        thread::sleep(Duration::from_millis(50));
        refused = ask();
    }
    refused.assert_refused(503, "fact_unavailable");
    let problem = refused.json();
    assert_eq!(problem["decision"], "SILENCE");
    assert_eq!(problem["reasons"][0]["code"], "fact_unavailable");
    assert_eq!(problem["reasons"][0]["detail"]["fact"], "rates");
    let audit = world.finish();
    let silence = audit.decisions().into_iter().rfind(|d| d.decision.as_str() == "SILENCE").expect("one");
    let detail = silence.reasons[0].detail.as_ref().expect("a detail");
    assert_eq!(serde_json::to_string(detail).expect("JSON"), r#"{"fact":"rates"}"#);
}

/// Agents ask while what policy rests on changes under them. A permit that the change overtakes sends nothing, and its
/// request is judged again on what is so by then: here that is no, so it is refused, with no effect.
#[test]
fn a_fact_that_moves_between_decision_and_send_supersedes_the_permit_and_the_request_is_judged_again() {
    const OPEN: &str = r#"{"eur":1}"#;
    const CLOSED: &str = r#"{"eur":0}"#;
    let files = vec![("rates.json", OPEN.to_owned())];
    let facts = &["facts: [ { name: rates, file: ./rates.json, max_age_ms: 1000, timeout_ms: 400 } ]"];
    let mut world = Setup { policy: FACT_POLICY.into(), surface: facts, files, ..Setup::default() }.start();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for agent in 0..16 {
            let (world, stop) = (&world, &stop);
            scope.spawn(move || {
                let mut n = 0;
                while !stop.load(Ordering::SeqCst) {
                    n += 1;
                    let answer =
                        world.ask("POST", "/v1/things", "x", format!(r#"{{"agent":{agent},"n":{n}}}"#));
                    // On a busy machine the fact may be read too late for a while.
                    match answer.status {
                        200 => {}
                        403 => answer.assert_refused(403, "policy_silent"),
                        _ => assert!(["read_set_moved", "fact_unavailable"].contains(&&*answer.reason())),
                    }
                }
            });
        }
        // Until some have been: a permit takes about as long as its fsync, and there are sixteen of them at any time.
        let began = Instant::now();
        let superseded = || world.metric(r#"interlock_outcomes_total{outcome="not_sent",surface="test"}"#);
        for value in [CLOSED, OPEN].iter().cycle() {
            thread::sleep(Duration::from_millis(300));
            world.write("rates.next", value, 0o600);
            std::fs::rename(world.path("rates.next"), world.path("rates.json")).expect("renamed");
            if superseded() >= 8.0 || began.elapsed() > Duration::from_secs(60) {
                break;
            }
        }
        stop.store(true, Ordering::SeqCst);
    });
    let audit = world.finish_here(Stopped::Clean);
    let decisions = audit.decisions();
    let version = |d: &DecisionEntry| {
        let item = d.evaluation.read_set.iter().find(|item| &*item.name == "fact:test/rates");
        item.map(|item| item.version.to_string())
    };
    let [open, closed] = [OPEN, CLOSED].map(|value| Some(Digest::of(value.as_bytes()).to_string()));
    let permits = decisions.iter().filter(|d| d.decision == Decision::Permit);
    permits.for_each(|permit| assert_eq!(version(permit), open, "nothing else permits"));
    let mut refused_on_the_new_value = 0;
    for outcome in audit.outcomes().into_iter().filter(|o| o.status == OutcomeStatus::NotSent) {
        assert_eq!(outcome.cause.as_deref(), Some("superseded"));
        let next =
            decisions.iter().find(|d| d.supersedes == Some(outcome.decision_id)).expect("judged again");
        if next.decision == Decision::Silence && version(next) == closed {
            refused_on_the_new_value += 1;
        }
    }
    assert!(refused_on_the_new_value > 0);
    let confirmed = audit.outcomes().into_iter().filter(|o| o.status == OutcomeStatus::Confirmed).count();
    assert_eq!(audit.effects, confirmed, "what was overtaken had no effect");
}

/// Back or forth: what has ended, and what counts, cannot be told by it. What was carried out is told as before.
#[test]
fn a_clock_that_is_set_while_the_gateway_runs_decides_nothing_until_it_is_right_again() {
    let mut world = setup().lay_out();
    let clock = Clock::manual(Clock::system().wall());
    world.run_inside_at(clock.clone());
    let right = clock.wall().unix_ns();
    let step = limits::CLOCK_STEP_MS_MAX * 1_000_000;
    assert_eq!(world.send(keyed("order-1", "permit", &pay("1"))).status, 200);
    settled(&world);
    for wrong in [right - step - 1, right + step + 1] {
        clock.set_wall(WallTime::from_unix_ns(wrong));
        world.send(keyed("order-2", "permit", &pay("1"))).assert_refused(503, "clock_stepped");
        let ready = world.admin("/readyz");
        assert_eq!((ready.status, ready.json()["clock"].as_str()), (503, Some("stepped")));
        let again = world.send(keyed("order-1", "permit", &pay("1")));
        assert_eq!((again.status, again.header("interlock-replayed")), (200, Some("true")));
        clock.set_wall(WallTime::from_unix_ns(right));
        let ready = world.admin("/readyz");
        assert_eq!((ready.status, ready.json()["clock"].as_str()), (200, Some("right")));
    }
    assert_eq!(world.metric(r#"interlock_alarms_total{alarm="clock_stepped"}"#), 2.0);
    // By as much as a time server corrects.
    clock.set_wall(WallTime::from_unix_ns(right - step));
    assert_eq!(world.send(keyed("order-2", "permit", &pay("1"))).status, 200);
    let audit = world.finish();
    assert_eq!(audit.effects, 2);
    let stepped = audit.decisions().into_iter().filter(|d| d.decision == Decision::Silence);
    let causes: Vec<_> = stepped.map(|d| d.evaluation.cause.as_deref()).collect();
    assert_eq!(causes, [Some("clock_stepped"); 2]);
}

/// Retries of one hot key and charges of a budget from 64 clients, killed in the middle: what the state counts is what
/// was permitted, and nothing is carried out twice or beyond the limit.
#[test]
fn a_kill_amid_64_clients_leaves_one_effect_of_a_key_and_a_budget_that_adds_up() {
    let mut world = setup().lay_out();
    let retries = AtomicUsize::new(0);
    for round in 0..3 {
        world.run_program(&[]);
        let address = world.address();
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for agent in 0..64 {
                let (stop, retries) = (&stop, &retries);
                scope.spawn(move || {
                    let mut n = 0;
                    while !stop.load(Ordering::SeqCst) {
                        let _ = if agent % 2 == 0 {
                            retries.fetch_add(1, Ordering::Relaxed);
                            try_ask(address, &keyed("hot", "spend", HOT))
                        } else {
                            try_ask(address, &keyed(&format!("o-{agent}-{round}-{n}"), "spend", &pay("1")))
                        };
                        n += 1;
                    }
                });
            }
            thread::sleep(Duration::from_millis(100 + 100 * round));
            world.kill();
            stop.store(true, Ordering::SeqCst);
        });
    }
    world.run_program(&[]);
    // Fill what is left; then the next one is over.
    let mut filled = 0;
    while world.send(keyed(&format!("fill-{filled}"), "spend", &pay("1"))).status == 200 {
        filled += 1;
        assert!(filled <= 10, "more than the budget");
    }
    world.send(keyed("over", "spend", &pay("1"))).assert_refused(403, "policy_denied");
    // A budget of its own, so that nothing but the key decides.
    let again = world.send(keyed("hot", "spend", HOT));
    match again.status {
        200 => assert_eq!(again.header("interlock-replayed"), Some("true")),
        // The kill met it: whether it took effect is not known.
        409 => assert_eq!(again.reason(), "idempotency_unknown"),
        _ => panic!("{}", again.text()),
    }
    let audit = world.finish_here(Stopped::Clean);
    // All that was permitted and did not come to nothing counts: exactly the budget, and exactly one of the key.
    let not_sent: BTreeSet<_> = audit
        .outcomes()
        .into_iter()
        .filter(|o| o.status == OutcomeStatus::NotSent)
        .map(|o| o.decision_id.to_string())
        .collect();
    let counted = |is_hot: bool| {
        let permits = audit.decisions().into_iter().filter(|d| d.decision.as_str() == "PERMIT");
        let of =
            permits.filter(|d| d.idempotency_key.as_ref().is_some_and(|key| key.as_str() == "hot") == is_hot);
        of.filter(|d| !not_sent.contains(&d.id.to_string())).count()
    };
    assert_eq!((counted(false), counted(true)), (10, 1), "{} retries", retries.load(Ordering::Relaxed));
    assert!(retries.load(Ordering::Relaxed) > 100);
    let hot = |capture: &&crate::support::upstream::Capture| {
        capture.header("idempotency-key").as_deref() == Some("hot")
    };
    assert!(world.upstream.captures().iter().filter(hot).count() <= 1);
    assert!(audit.effects <= 11);
}

#[test]
fn a_budget_of_exactly_n_permits_exactly_n_of_64_at_once() {
    let world = setup().start();
    let permitted = AtomicUsize::new(0);
    thread::scope(|scope| {
        for n in 0..64 {
            let (world, permitted) = (&world, &permitted);
            scope.spawn(move || {
                let response = world.send(keyed(&format!("order-{n}"), "spend", &pay("1")));
                match response.status {
                    200 => {
                        permitted.fetch_add(1, Ordering::SeqCst);
                    }
                    _ => response.assert_refused(403, "policy_denied"),
                }
            });
        }
    });
    assert_eq!(permitted.load(Ordering::SeqCst), 10);
    let usd = r#"{"amount":10,"currency":"USD"}"#;
    assert_eq!(world.send(keyed("usd", "spend", usd)).status, 200, "another key of the budget");
    let audit = world.finish();
    assert_eq!(audit.effects, 11);
    let permits = audit.decisions().into_iter().filter(|d| d.decision.as_str() == "PERMIT");
    permits.for_each(|d| {
        let read: Vec<_> = d.evaluation.read_set.iter().map(|item| &*item.name).collect();
        assert_eq!(read, ["approvals", "budget:spend", "claim", "freezes", "identity", "policy"]);
        assert_eq!(d.reserves.len(), 1);
    });
}

#[test]
fn what_was_not_sent_or_failed_frees_its_budget_and_what_is_not_known_does_not() {
    let world = setup().start();
    world.upstream.next(Script::json(402, "{}"));
    assert_eq!(world.send(keyed("failed", "spend", &pay("10"))).status, 402);
    settled(&world);
    world.upstream.next(Script::steps([Step::Close]));
    world.send(keyed("unknown", "spend", &pay("6"))).assert_refused(504, "upstream_silent");
    settled(&world);
    world.send(keyed("more", "spend", &pay("5"))).assert_refused(403, "policy_denied");
    assert_eq!(world.send(keyed("rest", "spend", &pay("4"))).status, 200);
    world.send(keyed("none", "spend", &pay("0.01"))).assert_refused(403, "policy_denied");
    let response = world.send(keyed("text", "spend", r#"{"amount":"many","currency":"EUR"}"#));
    response.assert_refused(503, "budget_unusable");
    let audit = world.finish();
    assert_eq!(audit.statuses(), ["failed", "indeterminate", "confirmed"]);
}

#[test]
fn a_request_that_was_not_sent_frees_its_key_and_its_budget() {
    // The upstream is not there.
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("free").local_addr().expect("bound").port();
    let world = Setup { upstream_url: Some(format!("http://127.0.0.1:{port}")), ..setup() }.start();
    for _ in 0..3 {
        let response = world.send(keyed("order-1", "spend", &pay("10")));
        response.assert_refused(502, "upstream_unreachable");
    }
    assert_eq!(world.finish().effects, 0);
}

#[test]
fn a_held_request_is_released_by_an_approval_once() {
    let world = setup().start();
    let held = world.send(keyed("order-1", "escalate", &pay("1")));
    held.assert_refused(403, "policy_escalated");
    let hold = hold_of(&held);
    let again = world.send(keyed("order-1", "escalate", &pay("1")));
    assert_eq!(hold_of(&again), hold, "one hold for one request");
    world.administer(of_hold(AdminAction::Approve, "ann", hold));
    let other = world.send(keyed("order-1", "escalate", &pay("2")));
    assert_ne!(hold_of(&other), hold, "other bytes are another request");
    assert_eq!(world.send(keyed("order-1", "escalate", &pay("1"))).status, 200);
    settled(&world);
    // The key gives the answer again; under another key, which is another request, people are asked again.
    assert_eq!(
        world.send(keyed("order-1", "escalate", &pay("1"))).header("interlock-replayed"),
        Some("true")
    );
    world.send(keyed("order-2", "escalate", &pay("1"))).assert_refused(403, "policy_escalated");
    let audit = world.finish();
    assert_eq!(audit.effects, 1);
    let permit = audit.decisions().into_iter().find(|d| d.decision.as_str() == "PERMIT").expect("one");
    assert_eq!(permit.approved_hold, Some(hold));
}

#[test]
fn an_approval_is_used_by_one_of_many_that_come_at_once() {
    let world = setup().start();
    // Without a key, nothing but the hold stands in the way.
    let ask = || world.ask("POST", "/v1/things", "escalate", r#"{"a":1}"#);
    let hold = hold_of(&ask());
    world.administer(of_hold(AdminAction::Approve, "ann", hold));
    let permitted = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let response = ask();
                match response.status {
                    200 => permitted.fetch_add(1, Ordering::SeqCst),
                    _ => {
                        assert!(["policy_escalated", "read_set_moved"].contains(&&*response.reason()));
                        0
                    }
                };
            });
        }
    });
    assert_eq!(permitted.load(Ordering::SeqCst), 1);
    assert_eq!(world.finish().effects, 1);
}

#[test]
fn a_refused_hold_is_refused_without_asking_policy() {
    let world = setup().start();
    let hold = hold_of(&world.send(keyed("order-1", "escalate", &pay("1"))));
    world.administer(of_hold(AdminAction::Refuse, "ann", hold));
    let refused = world.send(keyed("order-1", "escalate", &pay("1")));
    refused.assert_refused(403, "hold_refused");
    assert_eq!(hold_of(&refused), hold);
    world.send(keyed("order-1", "escalate", &pay("2"))).assert_refused(403, "policy_escalated");
    assert_eq!(world.finish().effects, 0);
}

#[test]
fn a_caller_that_waits_gets_its_answer_when_two_have_approved() {
    let world = setup().start();
    let mut waiting = world.client();
    waiting.send(by(KEY, "order-1", "two", &pay("1"), &[("prefer", "wait=15")]));
    let hold = hold_of(&world.send(keyed("order-1", "two", &pay("1"))));
    world.administer(of_hold(AdminAction::Approve, "ann", hold));
    thread::sleep(Duration::from_millis(50));
    assert_eq!(world.upstream.captures().len(), 0, "one is not enough");
    world.administer(of_hold(AdminAction::Approve, "ben", hold));
    let response = waiting.response();
    assert_eq!((response.status, response.header("preference-applied")), (200, Some("wait=15")));
    assert_eq!(world.finish().effects, 1);
}

#[test]
fn a_wait_ends_at_its_time_with_the_hold() {
    let world = setup().start();
    let began = Instant::now();
    let response = world.send(by(KEY, "order-1", "escalate", &pay("1"), &[("prefer", "wait=1")]));
    response.assert_refused(403, "policy_escalated");
    assert_eq!(response.header("preference-applied"), Some("wait=1"));
    assert!(began.elapsed() >= Duration::from_secs(1));
    hold_of(&response);
    assert_eq!(world.finish().effects, 0);
}

#[test]
fn a_quarantined_actor_is_isolated_on_the_surface_until_it_is_released() {
    let mut world = setup().lay_out();
    world.run_inside();
    world.send(keyed("a", "quarantine", &pay("1"))).assert_refused(403, "policy_quarantined");
    world.send(keyed("b", "permit", &pay("1"))).assert_refused(403, "actor_quarantined");
    assert_eq!(world.send(by(OTHER_KEY, "c", "permit", &pay("1"), &[])).status, 200, "nobody else");
    world.finish_here(Stopped::Clean);
    world.run_inside();
    world.send(keyed("b", "permit", &pay("1"))).assert_refused(403, "actor_quarantined");
    world.administer(Administration {
        surface: Some("test".parse().expect("a name")),
        actor: Some("agent-7".parse().expect("an id")),
        ..administration(AdminAction::Release, "ann")
    });
    assert_eq!(world.send(keyed("b", "permit", &pay("1"))).status, 200);
    assert_eq!(world.finish().effects, 2);
}

/// Agents send as fast as they can; once the freeze has returned, nothing more arrives, in any round, but for what had left
/// by then. That the very first byte asks once more is `airlock::what_moves_or_ends_between_the_seal_and_the_first_byte_sends_nothing`.
#[test]
fn after_freeze_has_returned_nothing_starts() {
    let world = setup().start();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for agent in 0..64 {
            let (world, stop) = (&world, &stop);
            scope.spawn(move || {
                let mut n = 0;
                while !stop.load(Ordering::SeqCst) {
                    let body = format!(r#"{{"agent":{agent},"n":{n}}}"#);
                    n += 1;
                    let response = world.ask("POST", "/v1/things", "permit", body);
                    if response.status != 200 {
                        let reason = response.reason();
                        assert!(["frozen", "read_set_moved"].contains(&reason.as_str()), "{reason}");
                    }
                }
            });
        }
        for _ in 0..5 {
            thread::sleep(Duration::from_millis(150));
            world.administer(administration(AdminAction::Freeze, "ann"));
            let frozen_at = interlock::clock::Clock::system().wall().unix_ns();
            thread::sleep(Duration::from_millis(150));
            // What arrived after the freeze had returned had left before: a socket's delay, and no more than was open.
            let late: Vec<_> = world
                .upstream
                .captures()
                .into_iter()
                .filter(|capture| capture.arrived_unix_ns > frozen_at + 50_000_000)
                .collect();
            assert!(late.is_empty(), "{} requests started after the freeze", late.len());
            world.administer(administration(AdminAction::Unfreeze, "ann"));
        }
        stop.store(true, Ordering::SeqCst);
    });
    let audit = world.finish();
    assert!(audit.effects > 0);
    let frozen = audit.decisions().into_iter().filter(|d| d.evaluation.cause.as_deref() == Some("frozen"));
    assert!(frozen.count() > 0);
    let not_sent = audit.outcomes().into_iter().filter(|o| o.status == OutcomeStatus::NotSent);
    not_sent.for_each(|o| assert_eq!(o.cause.as_deref(), Some("superseded")));
}

/// Freezes of somebody else move the version that every permit rests on, between its record and its first byte. What is
/// judged again must not meet the key and the amount that it had taken itself.
#[test]
fn a_superseded_request_does_not_meet_what_it_had_taken() {
    let world = setup().start();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let agents: Vec<_> = (0..4)
            .map(|agent| {
                let world = &world;
                scope.spawn(move || {
                    for n in 0..100 {
                        let key = format!("order-{agent}-{n}");
                        let response = world.send(keyed(&key, "permit", &pay("0.01")));
                        if response.status != 200 {
                            assert_eq!(response.reason(), "read_set_moved", "{}", response.text());
                        }
                    }
                })
            })
            .collect();
        let (world, stop) = (&world, &stop);
        scope.spawn(move || {
            let nobody = |action| Administration {
                actor: Some("nobody".parse().expect("an id")),
                ..administration(action, "ann")
            };
            while !stop.load(Ordering::SeqCst) {
                world.administer(nobody(AdminAction::Freeze));
                world.administer(nobody(AdminAction::Unfreeze));
            }
        });
        let ended: Vec<_> = agents.into_iter().map(thread::ScopedJoinHandle::join).collect();
        stop.store(true, Ordering::SeqCst);
        ended.into_iter().for_each(|agent| agent.expect("no panic"));
    });
    let audit = world.finish();
    let not_sent = audit.outcomes().into_iter().filter(|o| o.status == OutcomeStatus::NotSent);
    assert!(not_sent.count() > 0, "some were superseded");
}

/// The real program is killed while agents retry their keys: each key has at most one effect whose outcome is known, and
/// the budget is never overdrawn.
#[test]
fn a_kill_in_between_changes_neither_keys_nor_budgets() {
    let mut world = setup().lay_out();
    for round in 0..6 {
        world.run_program(&[]);
        let address = world.address();
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for agent in 0..8 {
                let stop = &stop;
                scope.spawn(move || {
                    while !stop.load(Ordering::SeqCst) {
                        for n in 0..6 {
                            let key = format!("order-{agent}-{n}");
                            let _ = try_ask(address, &keyed(&key, "spend", &pay("1")));
                        }
                    }
                });
            }
            thread::sleep(Duration::from_millis(20 + 15 * round));
            world.kill();
            stop.store(true, Ordering::SeqCst);
        });
    }
    world.run_program(&[]);
    let audit = world.finish_here(Stopped::Clean);
    let mut by_key = BTreeMap::<String, usize>::new();
    for capture in world.upstream.captures().iter().filter(|capture| capture.is_whole) {
        *by_key.entry(capture.header("idempotency-key").expect("a key")).or_default() += 1;
    }
    assert!(by_key.values().all(|effects| *effects == 1), "{by_key:?}");
    assert!((1..=10).contains(&by_key.len()), "{by_key:?}");
    assert!(audit.effects <= 10);
}

/// `None` if no whole answer came.
fn try_ask(address: std::net::SocketAddr, bytes: &[u8]) -> Option<()> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(bytes).ok()?;
    stream.read_to_end(&mut Vec::new()).ok().map(|_| ())
}
