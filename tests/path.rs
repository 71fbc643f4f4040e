//! The five verdicts and every refusal, over the wire.

use crate::support::{Client, KEY, OTHER_KEY, SLOT, Script, Setup, World, request};

const BODY: &str = r#"{"amount": 10, "name": "x"}"#;
const JSON: (&str, &str) = ("content-type", "application/json");
const AGENT: (&str, &str) = ("x-api-key", KEY);
const PERMIT: (&str, &str) = ("x-want", "permit");

#[test]
fn a_permitted_request_arrives_once_in_its_canonical_form() {
    let world = World::start();
    let answer = world.ask("POST", "/v1/things?b=2&a=%41", "permit", BODY);
    assert_eq!((answer.status, answer.text().as_str()), (200, r#"{"done":true}"#));
    let receipt = answer.header("interlock-receipt").expect("a receipt").to_owned();
    assert!(receipt.contains("decision=PERMIT") && receipt.contains("id=\""), "{receipt}");
    let arrived = world.upstream.the_one();
    let port = world.upstream.address().port();
    assert_eq!(
        String::from_utf8_lossy(&arrived.bytes),
        format!(
            "POST /v1/things?b=2&a=A HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nauthorization: Bearer {}\r\n\
             content-length: 24\r\ncontent-type: application/json\r\nx-want: permit\r\n\r\n{{\"amount\":10,\"name\":\"x\"}}",
            SLOT.secret
        )
    );
    let audit = world.finish();
    assert_eq!((audit.verdicts(), audit.statuses()), (vec!["PERMIT"], vec!["confirmed"]));
    assert_eq!(audit.stops(), 1);
    let decision = audit.decisions()[0];
    assert!(receipt.contains(&decision.id.to_string()), "the receipt names the leaf");
    assert_eq!(decision.actor.id.as_str(), "agent-7");
}

#[test]
fn verbatim_routes_forward_the_callers_own_bytes() {
    let world = World::start();
    let own = "{ \"b\": 1,\n  \"a\": [1.0, 2] }";
    assert_eq!(world.ask("POST", "/v1/verbatim", "permit", own).status, 200);
    assert_eq!(world.upstream.the_one().body(), own.as_bytes());
    world.finish();
}

#[test]
fn a_form_arrives_in_one_encoding_with_its_order() {
    let world = World::start();
    let answer = world.ask("POST", "/v1/forms", "permit", "b=1&a%5Bx%5D=%7E+z&list[]=1&list[]=2");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let body = String::from_utf8_lossy(world.upstream.the_one().body()).into_owned();
    assert!(body.starts_with("b=1&") && body.contains("list%5B%5D=1&list%5B%5D=2"), "{body}");
    world.finish();
}

#[test]
fn an_opaque_body_arrives_byte_for_byte() {
    let world = World::start();
    let body: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    assert_eq!(world.ask("PUT", "/v1/blobs/b1", "permit", &body).status, 200);
    assert_eq!(world.upstream.the_one().body(), body);
    world.finish();
}

#[test]
fn a_denied_request_opens_no_connection() {
    for (want, decision, reason) in [
        ("deny", "DENY", "policy_denied"),
        ("nothing", "SILENCE", "policy_silent"),
        ("escalate", "ESCALATE", "policy_escalated"),
        ("quarantine", "QUARANTINE", "policy_quarantined"),
    ] {
        let world = World::start();
        let answer = world.ask("POST", "/v1/things", want, BODY);
        answer.assert_refused(403, reason);
        assert_eq!(answer.json()["decision"], decision);
        let index = answer.json()["receipt"]["index"].as_u64().expect("an index");
        assert_eq!(world.upstream.connections(), 0, "{want}");
        let audit = world.finish();
        assert_eq!((audit.verdicts(), audit.effects), (vec![decision], 0));
        assert!(matches!(&audit.entries[index as usize], interlock::model::entry::Entry::Decision(_)));
    }
}

#[test]
fn policy_judges_the_body_that_is_forwarded() {
    let world = World::start();
    let answer = world.ask("POST", "/v1/things", "permit", r#"{"amount": 1001}"#);
    answer.assert_refused(403, "policy_denied");
    assert_eq!(answer.json()["reasons"][0]["code"], "amount_over");
    assert_eq!(answer.json()["reasons"][0]["message"], "at most 1000");
    // An escape in a name is the same name.
    let answer = world.ask("POST", "/v1/things", "permit", r#"{"\u0061mount": 1001}"#);
    answer.assert_refused(403, "policy_denied");
    assert_eq!(world.upstream.connections(), 0);
    world.finish();
}

#[test]
fn what_policy_cannot_say_is_a_503_and_silence() {
    let world = World::start();
    let answer = world.ask("POST", "/v1/things", "broken", BODY);
    answer.assert_refused(503, "evaluation_result_invalid");
    assert_eq!(world.upstream.connections(), 0);
    let audit = world.finish();
    assert_eq!(audit.verdicts(), ["SILENCE"]);
}

#[test]
fn a_policy_that_does_not_end_is_a_503_and_the_next_request_is_decided() {
    let world = Setup { limits: &["evaluation_ms_max: 50"], ..Setup::default() }.start();
    let answer = world.ask("POST", "/v1/things", "late", BODY);
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(world.upstream.connections(), 0);
    let mut status = 0;
    // The thread that is still busy with the first one is replaced or comes back; either way we are served.
    for _ in 0..100 {
        status = world.ask("POST", "/v1/things", "permit", BODY).status;
        if status == 200 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!(status, 200);
    world.finish();
}

#[test]
fn nobody_is_served_without_exactly_one_valid_key() {
    let world = World::start();
    let bearer = format!("Bearer {KEY}");
    let wrong = format!("{}x", &KEY[..KEY.len() - 1]);
    for (headers, reason) in [
        (vec![], "credential_missing"),
        (vec![("x-api-key", "")], "credential_invalid"),
        (vec![("x-api-key", wrong.as_str())], "credential_invalid"),
        (vec![("x-api-key", &KEY[..12])], "credential_invalid"),
        (vec![("x-api-key", SLOT.secret)], "credential_invalid"),
        (vec![AGENT, AGENT], "credential_ambiguous"),
        (vec![AGENT, ("x-api-key", OTHER_KEY)], "credential_ambiguous"),
        (vec![AGENT, ("authorization", bearer.as_str())], "credential_ambiguous"),
        (vec![("authorization", "Basic YTpi")], "credential_invalid"),
    ] {
        let mut all = vec![PERMIT, JSON];
        all.extend(headers.iter());
        let answer = world.send(request("POST", "/v1/things", &all, BODY));
        answer.assert_refused(401, reason);
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"), "{headers:?}");
    }
    assert_eq!(world.upstream.connections(), 0);
    let audit = world.finish();
    assert_eq!((audit.decisions().len(), audit.refusals().len()), (0, 0), "strangers leave no leaves");
}

#[test]
fn either_header_proves_the_agent() {
    let world = World::start();
    let bearer = format!("Bearer {OTHER_KEY}");
    for header in [AGENT, ("authorization", bearer.as_str())] {
        let answer = world.send(request("POST", "/v1/things", &[header, PERMIT, JSON], BODY));
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    for arrived in world.upstream.captures() {
        assert_eq!(arrived.header("authorization"), Some(format!("Bearer {}", SLOT.secret)));
        assert!(!arrived.head().contains("ilk_"), "the agent's key stays here: {}", arrived.head());
    }
    let audit = world.finish();
    let actors: Vec<_> = audit.decisions().iter().map(|d| d.actor.id.to_string()).collect();
    assert_eq!(actors, ["agent-7", "agent-8"]);
}

#[test]
fn what_is_not_declared_is_not_reachable() {
    let world = World::start();
    let ask = |method: &str, target: &str| world.send(request(method, target, &[AGENT, PERMIT], ""));
    ask("GET", "/v1/other").assert_refused(404, "route_not_declared");
    ask("GET", "/").assert_refused(404, "route_not_declared");
    ask("GET", "/v1/things/").assert_refused(404, "route_not_declared");
    ask("GET", "/V1/things").assert_refused(404, "route_not_declared");
    let answer = ask("PATCH", "/v1/things/7");
    answer.assert_refused(405, "route_method_not_declared");
    let allow = answer.header("allow").expect("Allow");
    assert!(allow.contains("GET") && allow.contains("DELETE"), "{allow}");
    ask("TRACE", "/v1/things").assert_refused(405, "route_method_not_declared");
    assert_eq!(world.upstream.connections(), 0);
    let audit = world.finish();
    assert!(!audit.refusals().is_empty(), "a known actor's refusals are leaves");
}

#[test]
fn a_host_that_is_not_served_is_421() {
    let world = Setup { surface: &["hosts: [api.test]"], ..Setup::default() }.start();
    let served = world.send(request("GET", "/v1/things", &[AGENT, PERMIT], ""));
    assert_eq!(served.status, 200);
    let other = b"GET /v1/things HTTP/1.1\r\nhost: other.test\r\nx-api-key: KEY\r\n\r\n";
    world.send(other).assert_refused(421, "host_not_served");
    world.finish();
}

/// Every class of malformed head and target on HTTP/1.1: what is sent, and the refusal.
#[test]
fn two_readings_are_refused_and_none_is_taken() {
    let world = World::start();
    let start = |line: &str| format!("{line}\r\nhost: api.test\r\nx-api-key: {KEY}\r\nx-want: permit\r\n");
    let head = |line: &str, more: &str| format!("{}{more}\r\n", start(line));
    let get = |target: &str| head(&format!("GET {target} HTTP/1.1"), "");
    let post = |more: &str| {
        head("POST /v1/things HTTP/1.1", &format!("content-type: application/json\r\n{more}")) + "{}"
    };
    let with = |more: &str| head("GET /v1/things HTTP/1.1", more);
    let cases: Vec<(String, u16, &str)> = vec![
        (head("GET  /v1/things HTTP/1.1", ""), 400, "head_malformed"),
        (head("GET /v1/things", ""), 400, "head_malformed"),
        (head("GET /v1/things HTTP/1.1 x", ""), 400, "head_malformed"),
        (head("GET /v1/things HTTP/1.0", ""), 505, "version_unsupported"),
        (head("GET /v1/things HTTP/2.0", ""), 505, "version_unsupported"),
        (head("G@T /v1/things HTTP/1.1", ""), 400, "method_invalid"),
        (head("CONNECT api.test:443 HTTP/1.1", ""), 400, "upgrade_refused"),
        (with("no-colon\r\n"), 400, "head_malformed"),
        (with("x-a : 1\r\n"), 400, "header_name_invalid"),
        (with(": 1\r\n"), 400, "header_name_invalid"),
        (with("x-a: 1\r\n folded\r\n"), 400, "head_obsolete_fold"),
        (with("x-a: 1\n"), 400, "head_bare_lf"),
        (with("x-a: 1\rx-b: 2\r\n"), 400, "head_bare_lf"),
        (with("x-a: a\0b\r\n"), 400, "head_malformed"),
        (with("x-a: a\x01b\r\n"), 400, "header_value_invalid"),
        (with("x-a: gr\u{fc}n\r\n"), 400, "header_value_invalid"),
        (with("x-want: deny\r\n"), 400, "header_duplicate"),
        (with("host: api.test\r\n"), 400, "host_duplicate"),
        (with("connection: x-want\r\n"), 400, "header_hop_by_hop"),
        (with("keep-alive: timeout=5\r\n"), 400, "header_hop_by_hop"),
        (with("proxy-authorization: x\r\n"), 400, "header_hop_by_hop"),
        (with("te: gzip\r\n"), 400, "header_hop_by_hop"),
        (with("upgrade: websocket\r\nconnection: close\r\n"), 400, "upgrade_refused"),
        (with("trailer: x\r\n"), 400, "trailers_refused"),
        (with("x-http-method-override: DELETE\r\n"), 400, "header_method_override"),
        (with("expect: 200-ok\r\n"), 417, "expectation_unsupported"),
        (format!("GET /v1/things HTTP/1.1\r\nx-api-key: {KEY}\r\n\r\n"), 400, "host_missing"),
        (get("http://other.test/v1/things"), 400, "host_mismatch"),
        (get("ftp://api.test/v1/things"), 400, "target_form_unsupported"),
        (get("*"), 400, "target_form_unsupported"),
        (get("/v1/things#x"), 400, "target_fragment"),
        (get("/v1/%zz"), 400, "target_percent_invalid"),
        (get("/v1/../v1/things"), 400, "target_dot_segment"),
        (get("/v1/%2e%2e/things"), 400, "target_dot_segment"),
        (get("/v1//things"), 404, "route_not_declared"),
        (get("/v1\\things"), 400, "target_backslash"),
        (get("/v1%5cthings"), 400, "target_backslash"),
        (get("/v1%2fthings"), 404, "route_not_declared"),
        (get("/v1/things%00"), 400, "target_encoded_control"),
        (get("/v1/things%0d%0aX"), 400, "target_encoded_control"),
        (get("/v1/things/%c3%a9"), 400, "target_non_ascii"),
        (get("/v1/things;a=1"), 404, "route_not_declared"),
        (get("/v1/th\u{e9}ings"), 400, "target_character_invalid"),
        (get("/v1/things?a=1&a=2"), 400, "query_duplicate"),
        (get("/v1/things?a=%ff"), 400, "target_not_utf8"),
        (get(&format!("/v1/things?a={}", "a".repeat(9_000))), 414, "target_too_long"),
        (with(&format!("x-a: {}\r\n", "a".repeat(40_000))), 431, "head_too_large"),
        (with(&"x-a: 1\r\n".repeat(101)), 431, "header_count_over"),
        (post("content-length: 2\r\ncontent-length: 2\r\n"), 400, "content_length_invalid"),
        (post("content-length: 2, 2\r\n"), 400, "content_length_invalid"),
        (post("content-length: +2\r\n"), 400, "content_length_invalid"),
        (post("content-length: 0x2\r\n"), 400, "content_length_invalid"),
        (post("content-length: 2\r\ntransfer-encoding: chunked\r\n"), 400, "framing_conflict"),
        (post("transfer-encoding: gzip, chunked\r\n"), 400, "transfer_encoding_unsupported"),
        (post("transfer-encoding: identity\r\n"), 400, "transfer_encoding_unsupported"),
        (post("content-length: 2\r\ncontent-encoding: gzip\r\n"), 415, "content_encoding_unsupported"),
        (with("content-length: 2\r\n") + "{}", 400, "body_unexpected"),
    ];
    let mut wrong = Vec::new();
    for (bytes, status, reason) in cases {
        let mut client = world.client();
        client.send(&bytes);
        let answer = client.response();
        let found = (answer.status, answer.reason());
        if found != (status, reason.to_owned()) {
            let shown: String = bytes.chars().take(200).collect();
            wrong.push(format!("{found:?} instead of {status} {reason} for {shown}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(world.upstream.connections(), 0);
    let audit = world.finish();
    assert_eq!(audit.decisions().len(), 0);
    assert!(!audit.refusals().is_empty());
}

/// Every class of malformed body.
#[test]
fn a_body_that_is_not_what_it_says_is_refused() {
    let world = World::start();
    let post = |target: &str, media_type: &str, body: &[u8]| {
        world.send(request("POST", target, &[AGENT, PERMIT, ("content-type", media_type)], body))
    };
    let json: &[(&[u8], u16, &str)] = &[
        (b"{", 400, "json_invalid"),
        (b"{'a':1}", 400, "json_invalid"),
        (b"{\"a\":01}", 400, "json_invalid"),
        (b"{\"a\":NaN}", 400, "json_invalid"),
        (b"{} {}", 400, "json_trailing"),
        (b"\xef\xbb\xbf{}", 400, "json_byte_order_mark"),
        (b"{\"a\":\"\xff\"}", 400, "json_not_utf8"),
        (b"{\"a\":1,\"a\":2}", 400, "json_duplicate_name"),
        (b"{\"a\":1,\"\\u0061\":2}", 400, "json_duplicate_name"),
        (b"{\"a\":\"\\ud800\"}", 400, "json_lone_surrogate"),
        (b"{\"a\":9007199254740993}", 400, "json_number_inexact"),
        (b"{\"a\":1e400}", 400, "json_number_inexact"),
    ];
    for (body, status, reason) in json {
        post("/v1/things", "application/json", body).assert_refused(*status, reason);
        post("/v1/verbatim", "application/json", body).assert_refused(*status, reason);
    }
    let deep = "[".repeat(70) + &"]".repeat(70);
    post("/v1/things", "application/json", deep.as_bytes()).assert_refused(400, "json_too_deep");
    post("/v1/things", "text/plain", b"{}").assert_refused(415, "media_type_unsupported");
    post("/v1/shaped", "application/json", b"{}").assert_refused(422, "schema_mismatch");
    post("/v1/small", "application/json", &[b' '; 65]).assert_refused(413, "body_too_large");
    let form = "application/x-www-form-urlencoded";
    for (body, reason) in [
        (&b"a=1&a=2"[..], "form_duplicate_key"),
        (b"a=%zz", "form_invalid"),
        (b"a=%ff", "form_not_utf8"),
        (b"a[b=1", "form_key_invalid"),
        (b"a=1&a[b]=2", "form_key_conflict"),
    ] {
        post("/v1/forms", form, body).assert_refused(400, reason);
    }
    world.send(request("POST", "/v1/forms", &[AGENT, PERMIT], "")).assert_refused(400, "body_missing");
    world
        .send(request("POST", "/v1/things", &[AGENT, PERMIT], "{}"))
        .assert_refused(415, "media_type_missing");
    world
        .send(request("POST", "/v1/keyed", &[AGENT, PERMIT, JSON], "{}"))
        .assert_refused(400, "idempotency_key_missing");
    assert_eq!(world.upstream.connections(), 0);
    world.finish();
}

#[test]
fn a_credential_header_of_the_agent_is_refused_or_dropped_as_declared() {
    let sends = |world: &World| {
        world.send(request("GET", "/v1/things", &[AGENT, PERMIT, ("x-upstream-token", "mine")], ""))
    };
    let world = Setup { credential: "x-upstream-token", ..Setup::default() }.start();
    sends(&world).assert_refused(400, "header_credential_sent");
    assert_eq!(world.upstream.connections(), 0);
    world.finish();

    let world = Setup { credential: "x-upstream-token", when_sent: "drop", ..Setup::default() }.start();
    assert_eq!(sends(&world).status, 200);
    let arrived = world.upstream.the_one();
    assert_eq!(arrived.header("x-upstream-token"), Some(format!("Bearer {}", SLOT.secret)));
    assert_eq!(arrived.head().matches("x-upstream-token").count(), 1);
    world.finish();
}

#[test]
fn the_credential_arrives_upstream_and_is_nowhere_else() {
    let world = World::start();
    // The upstream is the only one that could tell; it does not, and nothing else knows.
    let permitted = world.ask("POST", "/v1/things", "permit", BODY);
    let denied = world.ask("POST", "/v1/things", "deny", BODY);
    let refused = world.ask("POST", "/v1/things", "permit", "{");
    assert!(world.upstream.the_one().head().contains(SLOT.secret));
    for answer in [permitted, denied, refused] {
        let all = format!("{:?} {}", answer.headers, answer.text());
        assert!(!all.contains(SLOT.secret), "{all}");
    }
    for path in ["/metrics", "/readyz", "/healthz"] {
        assert!(!world.admin(path).text().contains(SLOT.secret));
    }
    // The Auditor looks through every file of the log, and `finish` through the metrics.
    world.finish();
}

#[test]
fn only_declared_headers_go_on() {
    let world = World::start();
    let headers = [
        AGENT,
        PERMIT,
        ("accept", "application/json"),
        ("user-agent", "x"),
        ("cookie", "a=b"),
        ("x-forwarded-for", "10.0.0.1"),
        ("interlock-receipt", "id=\"mine\""),
        ("connection", "keep-alive"),
    ];
    assert_eq!(world.send(request("GET", "/v1/things", &headers, "")).status, 200);
    let arrived = world.upstream.the_one();
    let names: Vec<_> = arrived.head().trim_end().split("\r\n").skip(1).map(name_of).collect();
    assert_eq!(names, ["host", "accept", "authorization", "x-want"]);
    world.finish();
}

fn name_of(line: &str) -> String {
    line.split(':').next().unwrap_or_default().to_owned()
}

#[test]
fn requests_on_one_connection_are_judged_one_by_one() {
    let world = World::start();
    let mut client = world.client();
    for (want, status) in [("permit", 200), ("deny", 403), ("permit", 200), ("nothing", 403)] {
        client.send(request("GET", "/v1/things", &[AGENT, ("x-want", want)], ""));
        assert_eq!(client.response().status, status, "{want}");
    }
    let audit = world.finish();
    assert_eq!(audit.verdicts(), ["PERMIT", "DENY", "PERMIT", "SILENCE"]);
    assert_eq!(audit.effects, 2);
}

#[test]
fn the_same_request_twice_is_two_permits() {
    let world = World::start();
    for _ in 0..3 {
        assert_eq!(world.ask("POST", "/v1/things", "permit", BODY).status, 200);
    }
    let audit = world.finish();
    let digests: Vec<_> = audit.decisions().iter().map(|d| d.request.digest).collect();
    assert!(digests.iter().all(|d| *d == digests[0]) && digests.len() == 3);
    assert_eq!(audit.effects, 3);
}

#[test]
fn tls_on_both_sides_changes_nothing() {
    let world = Setup { listener_tls: true, upstream_tls: true, ..Setup::default() }.start();
    assert_eq!(world.ask("POST", "/v1/things", "permit", BODY).status, 200);
    world.ask("POST", "/v1/things", "deny", BODY).assert_refused(403, "policy_denied");
    assert_eq!(
        world.upstream.the_one().header("host"),
        Some(format!("localhost:{}", world.upstream.address().port()))
    );
    world.finish();
}

#[test]
fn an_upstream_that_cannot_prove_itself_gets_nothing() {
    // TLS to a plain upstream: there is no handshake, and so no lease.
    let mut setup = Setup { upstream_tls: true, ..Setup::default() };
    let stranger = crate::support::Upstream::plain();
    setup.upstream_url = Some(format!("https://localhost:{}", stranger.address().port()));
    let world = setup.start();
    let answer = world.ask("GET", "/v1/things", "permit", "");
    answer.assert_refused(502, "upstream_unreachable");
    assert!(!stranger.captures().iter().any(|c| c.head().contains("HTTP/1.1")), "nothing of HTTP was sent");
    world.finish();
}

#[test]
fn an_observer_of_the_admin_listener_changes_nothing() {
    let world = World::start();
    let mut client = Client::connect(world.admin_address());
    client.send(request("POST", "/metrics", &[("connection", "close")], "{}"));
    assert_eq!(client.response().status, 405);
    assert_eq!(world.admin("/v1/things").status, 404);
    assert_eq!(world.admin("/readyz").json()["ready"], true);
    world.upstream.next(Script::json(404, "{}"));
    assert_eq!(world.ask("GET", "/v1/things", "permit", "").status, 404);
    assert_eq!(world.metric("interlock_outcomes_total{outcome=\"failed\",surface=\"test\"}"), 1.0);
    let audit = world.finish();
    assert_eq!(audit.statuses(), ["failed"]);
}
