//! The config file: what is accepted, and that each thing that is not is refused at its place.

use std::path::{Path, PathBuf};
use std::time::Duration;

use interlock::authority::{Amount, CalendarUnit, Window};
use interlock::canonical::{BodyRules, Forward, Required, WhenSent};
use interlock::clock::{Clock, WallTime};
use interlock::config::{Config, FactFrom, Form, Invalid, LogFormat, SecretsAre, Surroundings, fields};
use interlock::limits;
use interlock::upstream::{NotFoundIs, Scheme};

const BASE: &str = r#"log_origin: interlock.example/payments
ledger: { dir: ./ledger, signing_key: ./log.key }
policy: { dir: ./policies }
listeners:
  - { name: main, address: 127.0.0.1:8080 }
api_keys:
  - id: agent-7
    prefix: ilk_ab12cd34
    sha256: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
    claims: { role: buyer, level: 3, night: true, id: "007" }
    surfaces: [payments]
    not_after: 2027-01-31T00:00:00Z
surfaces:
  - name: payments
    listener: main
    package: gateway.payments
    identity: { api_key: {} }
    upstream: { url: "https://api.example.com" }
    credential: { name: payments-key, header: authorization, prefix: "Bearer ", from_env: PAYMENTS_KEY }
    routes:
      - { action: charge.create, method: POST, path: "/v1/charges/{id}", body: json, schema: charge.json }
      - { action: charge.read, method: GET, path: "/v1/charges/{id}", body: none }
"#;

/// A directory with everything that [`BASE`] names.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().expect("a directory"));
        std::fs::create_dir(place.path("policies")).expect("a directory");
        place.write("log.key", "key", 0o600);
        place.write("charge.json", r#"{"type":"object"}"#, 0o644);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    #[expect(clippy::disallowed_methods, reason = "a test lays out the files it reads")]
    fn write(&self, name: &str, content: &str, mode: u32) {
        use std::os::unix::fs::PermissionsExt;
        std::fs::write(self.path(name), content).expect("written");
        std::fs::set_permissions(self.path(name), PermissionsExt::from_mode(mode)).expect("permitted");
    }

    fn read(&self, text: &str) -> Result<Config, Invalid> {
        let clock = Clock::manual(WallTime::parse_rfc3339("2026-11-20T00:00:00Z").expect("a time"));
        self.read_with(text, &clock, SecretsAre::Needed)
    }

    fn read_with(&self, text: &str, clock: &Clock, secrets: SecretsAre) -> Result<Config, Invalid> {
        let variable = |name: &str| match name {
            "PAYMENTS_KEY" => Some("s3cret".to_owned()),
            "BROKEN_KEY" => Some("two words".to_owned()),
            _ => None,
        };
        let surroundings = Surroundings { clock, variable: &variable, secrets };
        Config::parse(text.as_bytes(), &self.path("interlock.yaml"), surroundings)
    }

    /// The one problem that the edited base has: `line:column message`.
    fn problem(&self, from: &str, to: &str) -> String {
        let problems = self.problems(&edit(from, to));
        assert_eq!(problems.len(), 1, "{from} -> {to}: {problems:#?}");
        problems[0].clone()
    }

    fn problems(&self, text: &str) -> Vec<String> {
        let invalid = self.read(text).err().unwrap_or_else(|| panic!("accepted:\n{text}"));
        let shown = |p: &interlock::config::Problem| format!("{}:{} {}", p.at.line, p.at.column, p.message);
        invalid.problems().iter().map(shown).collect()
    }
}

fn edit(from: &str, to: &str) -> String {
    assert_eq!(BASE.matches(from).count(), 1, "`{from}` is once in the base");
    BASE.replace(from, to)
}

/// Where `needle` begins in the edited base, as `line:column `.
fn place_of(text: &str, needle: &str) -> String {
    let at = text.find(needle).expect("the needle is in the text");
    let line = text[..at].matches('\n').count() + 1;
    let column = at - text[..at].rfind('\n').map_or(0, |n| n + 1) + 1;
    format!("{line}:{column} ")
}

#[test]
fn a_config_becomes_rules_settings_identities_and_secrets() {
    let place = Place::new();
    let config = place.read(BASE).expect("valid");
    assert_eq!(config.digest, interlock::model::Digest::of(BASE.as_bytes()));
    assert_eq!(config.ledger.dir, place.path("./ledger"));
    assert_eq!(config.ledger.segment_bytes, limits::SEGMENT_BYTES_DEFAULT);
    assert_eq!(config.admin.listen.to_string(), "127.0.0.1:9095");
    assert_eq!((config.telemetry.format, config.telemetry.level), (LogFormat::Json, tracing::Level::INFO));
    assert_eq!(config.limits.requests_in_flight_max as u64, limits::REQUESTS_IN_FLIGHT_MAX_DEFAULT);
    assert_eq!(config.limits.evaluation_max, Duration::from_millis(limits::EVALUATION_MS_MAX_DEFAULT));
    assert!(config.listeners[0].tls.is_none());
    assert!(config.warnings().is_empty(), "{:?}", config.warnings());

    let surface = &config.surfaces[0];
    assert_eq!(surface.api_key_headers, ["authorization", "x-api-key"]);
    assert_eq!(surface.permit_age_max, Duration::from_secs(1));
    assert_eq!(&*surface.upstream.authority, "api.example.com");
    assert!(matches!(surface.upstream.scheme, Scheme::Tls(_)));
    let slot = surface.credential.as_ref().expect("a slot");
    assert_eq!(
        (&*slot.header, &*slot.prefix, slot.when_sent),
        ("authorization", "Bearer ", WhenSent::Refuse)
    );
    assert_eq!(config.credentials.find(&slot.secret).expect("the secret").expose(), b"s3cret");
    assert!(!format!("{config:?}").contains("s3cret"));

    let [create, read] = &surface.routes[..] else { panic!("two routes") };
    assert_eq!(
        (create.action.as_str(), create.method.as_str(), &*create.path_text),
        ("charge.create", "POST", "/v1/charges/{id}")
    );
    assert_eq!(
        create.rules.body,
        BodyRules::Json { forward: Forward::Canonical, required: Required::Required }
    );
    assert_eq!(create.rules.body_bytes_max, limits::BODY_BYTES_MAX_DEFAULT);
    assert!(create.rules.schema.is_some() && create.rules.identity_headers.contains("x-api-key"));
    assert_eq!((&read.rules.body, read.rules.body_bytes_max), (&BodyRules::None, 0));
    assert_eq!(read.rules.idempotency_key, Required::Optional);
}

#[test]
fn claims_are_text_unless_they_are_plainly_something_else() {
    let place = Place::new();
    let key = "ilk_ab12cd34_0123456789abcdef0123456789abcdef";
    let digest = interlock::model::Digest::of(key.as_bytes()).to_string();
    let text = BASE
        .replace(
            "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            &digest["sha-256:".len()..],
        )
        .replace("id: \"007\" }", "id: \"007\", when: 2027-01-31, off: no, tree: { leaves: [-1, x] } }");
    let config = place.read(&text).expect("valid");
    let mut headers = http::HeaderMap::new();
    headers.insert("authorization", format!("Bearer {key}").parse().expect("a value"));
    let presented = interlock::authority::Presented { headers: &headers, certificate: None };
    let actor = config.surfaces[0].identities.authenticate(&presented).expect("proved");
    let claims = serde_json::to_string(&actor.claims).expect("JSON");
    let expected = r#"{"id":"007","level":3,"night":true,"off":"no","role":"buyer","tree":{"leaves":[-1,"x"]},"when":"2027-01-31"}"#;
    assert_eq!(claims, expected);
}

#[test]
fn every_field_of_a_route_reaches_its_rules() {
    let place = Place::new();
    let route = "body: json, schema: charge.json";
    let text = edit(
        route,
        "body: json, forward: verbatim, body_required: false, body_bytes_max: 65536, \
         headers: [accept, idempotency-key], idempotency_key: required, query_lists: [\"expand[]\", tag], \
         path_allows: [parameters, non_ascii, encoded_slash, empty_segments]",
    )
    .replace("    package:", "    idempotency: {}\n    package:");
    let config = place.read(&text).expect("valid");
    let rules = &config.surfaces[0].routes[0].rules;
    assert_eq!(rules.body, BodyRules::Json { forward: Forward::Verbatim, required: Required::Optional });
    assert_eq!((rules.body_bytes_max, rules.idempotency_key), (65_536, Required::Required));
    assert!(rules.forward_headers.contains("accept") && rules.forward_headers.contains("idempotency-key"));
    assert!(rules.query_lists.contains("expand[]") && rules.query_lists.contains("tag"));
    let allows = rules.path;
    assert!(allows.parameters && allows.non_ascii && allows.encoded_slash && allows.empty_segments);

    let config = place.read(&edit(route, "body: {opaque: [text/csv]}, body_required: false")).expect("valid");
    let BodyRules::Opaque { media_types, required } = &config.surfaces[0].routes[0].rules.body else {
        panic!("opaque");
    };
    assert!(media_types.contains("text/csv") && *required == Required::Optional);
    let config = place.read(&edit(route, "body: form")).expect("valid");
    assert_eq!(config.surfaces[0].routes[0].rules.body, BodyRules::Form { required: Required::Required });
}

#[test]
fn keys_that_also_sign_and_keys_that_must_not_reach_the_ledger() {
    let place = Place::new();
    place.write("next.key", "key", 0o600);
    let vkey = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8";
    let with = |also: &str, compromised: &str| {
        let keys = format!("log.key, also_sign_with: [{also}], compromised_keys: [{compromised}] }}");
        edit("log.key }", &keys).replace("interlock.example/payments", "sum.golang.org")
    };
    let config = place.read(&with("next.key", vkey)).expect("valid");
    assert_eq!(config.ledger.also_sign_with, [place.path("next.key")]);
    assert_eq!(config.ledger.compromised_keys.iter().map(ToString::to_string).collect::<Vec<_>>(), [vkey]);
    let none = place.read(BASE).expect("valid").ledger;
    assert!(none.also_sign_with.is_empty() && none.compromised_keys.is_empty());

    let one = |text: &str| {
        let problems = place.problems(text);
        assert_eq!(problems.len(), 1, "{problems:#?}");
        problems[0].clone()
    };
    assert!(one(&with("next.key, next.key", "")).contains("next.key appears twice"));
    assert!(one(&with("", &format!("{vkey}, {vkey}"))).contains("appears twice"));
    let names: Vec<_> = (0..16).map(|n| format!("{n}.key")).collect();
    names.iter().for_each(|name| place.write(name, "key", 0o600));
    assert!(place.read(&with(&names[..15].join(","), "")).is_ok());
    assert!(one(&with(&names.join(","), "")).contains("at most 15 keys"));
}

#[test]
fn an_unknown_field_is_refused_with_the_name_that_was_meant() {
    let place = Place::new();
    assert_eq!(
        place.problem("method: GET", "metod: x, method: GET"),
        format!(
            "{}unknown field `metod` in a route; did you mean `method`?",
            place_of(&edit("method: GET", "metod: x, method: GET"), "metod")
        )
    );
    let far = place.problem("policy: { dir: ./policies }", "policy: { dir: ./policies, zzz: 1 }");
    assert_eq!(
        far,
        "3:28 unknown field `zzz` in `policy`; expected one of `dir`, `bundle`, `keys`, `older`, `require_signature`"
    );
}

#[test]
fn sinks_are_read_and_what_cannot_be_one_is_refused() {
    let place = Place::new();
    let with = |sinks: &str| edit("surfaces:\n", &format!("sinks: [{sinks}]\nsurfaces:\n"));
    let config = place
        .read(&with("{name: out, kind: stdout}, {name: siem, kind: http, url: \"https://logs.example/in\", batch_leaves_max: 9}"))
        .expect("valid");
    let names: Vec<_> = config.sinks.iter().map(|s| (s.name.as_str(), s.batch_leaves_max)).collect();
    assert_eq!(names, [("out", 256), ("siem", 9)]);
    for (sinks, message) in [
        ("{name: a, kind: file}", "expected one of `stdout`, `http`, not `file`"),
        ("{name: a, kind: http}", "a sink of kind `http` needs the field `url`"),
        ("{name: a, kind: http, url: \"https://a?x\"}", "`url` must end after host and port"),
        ("{name: a, kind: stdout, url: \"https://a/in\"}", "`url` is of no use with the kind `stdout`"),
        (
            "{name: a, kind: stdout}, {name: a, kind: http, url: \"https://a/in\"}",
            "another sink is called `a`",
        ),
        ("{name: a, kind: stdout}, {name: b, kind: stdout}", "another sink is standard output already"),
        (
            "{name: a, kind: http, url: \"http://127.0.0.1/in\", roots: native}",
            "`roots` is of no use with an http URL",
        ),
        (
            "{name: a, kind: http, url: \"https://a/in\", credential: {header: authorization}}",
            "`credential` needs `from_env` or `from_file`",
        ),
    ] {
        let invalid = place.read(&with(sinks)).expect_err(sinks).to_string();
        assert!(invalid.contains(message), "{invalid}");
    }
}

/// Each edit of the base, the text its place begins at, and a part of its message.
const REFUSALS: &[(&str, &str, &str, &str)] = &[
    // Form.
    ("log_origin:", "log_origin: x\nlog_origin:", "log_origin: interlock", "`log_origin` appears twice"),
    (
        "policy: { dir: ./policies }",
        "policy: ./policies",
        "./policies",
        "must be a mapping with the fields `dir`",
    ),
    ("policy: { dir: ./policies }", "policy: {}", "{}\n", "exactly one of `dir` and `bundle`"),
    (
        "policy: { dir: ./policies }",
        "policy: { bundle: ./b.tar.gz }",
        "./b.tar.gz",
        "pin the keys that may sign it",
    ),
    (
        "policy: { dir: ./policies }",
        "policy: { bundle: ./b.tar.gz, keys: [{ id: a, public_key: ./nowhere.pem }] }",
        "./nowhere.pem",
        "nowhere.pem",
    ),
    (
        "body: json,",
        "body: jsn,",
        "jsn",
        "expected one of `json`, `form`, `none`, not `jsn`; did you mean `json`?",
    ),
    ("id: agent-7", "id:", "prefix", "expected a name, not nothing"),
    (
        "surfaces: [payments]",
        "surfaces: payments",
        "payments\n    not_after",
        "expected a list of surface names",
    ),
    // Names.
    ("interlock.example/payments", "a+b", "a+b", "a log origin must be"),
    ("action: charge.read", "action: Charge", "Charge", "an action name must be"),
    ("package: gateway.payments", "package: a-b", "a-b", "a policy package must be"),
    ("name: main", "name: Main", "Main", "a listener name must be"),
    // Bounds.
    (
        "dir: ./ledger,",
        "dir: ./ledger, segment_mib: 1,",
        "1, signing",
        "`segment_mib` must be a whole number from 4 to 1024",
    ),
    // More signing keys.
    ("log.key }", "log.key, also_sign_with: other.key }", "other.key }", "expected a list of key files"),
    ("log.key }", "log.key, also_sign_with: [none.key] }", "none.key]", "No such file"),
    ("log.key }", "log.key, also_sign_with: [charge.json] }", "charge.json]", "is readable by others"),
    ("log.key }", "log.key, also_sign_with: [./log.key] }", "[./log.key]", "signs already as `signing_key`"),
    ("log.key }", "log.key, compromised_keys: [abc] }", "abc]", "`abc` is not a verifier key"),
    (
        "log.key }",
        "log.key, compromised_keys: [sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8] }",
        "sum.golang",
        "this is a key of the log `sum.golang.org`",
    ),
    ("package:", "permit_age_ms_max: 60001\n    package:", "60001", "from 10 to 60000"),
    ("body: json,", "body: json, body_bytes_max: 1.5,", "1.5", "`body_bytes_max` must be a whole number"),
    ("body: json,", "body: json, body_bytes_max: 67108865,", "67108865", "from 1 to 67108864"),
    ("body: json,", "body: json, body_bytes_max: +5,", "+5", "`body_bytes_max` must be a whole number"),
    ("\"https://api.example.com\"", "\"https://a\", leases_max: 4097", "4097", "from 1 to 4096"),
    // Listeners and surfaces.
    ("127.0.0.1:8080", "localhost:8080", "localhost", "expected an IP address and a port"),
    ("listener: main", "listener: other", "other", "there is no listener `other`; expected `main`"),
    ("policy:", "admin: { listen: 0.0.0.0:9095 }\npolicy:", "0.0.0.0", "add `allow_remote: true`"),
    ("package:", "hosts: [Api.example]\n    package:", "Api", "is not a lowercase host name"),
    ("package:", "hosts: []\n    package:", "[]", "expected at least one host"),
    ("surfaces: [payments]", "surfaces: [exports]", "exports", "there is no surface `exports`"),
    ("surfaces: [payments]", "surfaces: []", "[]", "an empty list of surfaces"),
    // API keys.
    ("prefix: ilk_ab12cd34", "prefix: ilk", "ilk", "its first 12 characters"),
    ("sha256: 0", "sha256: X", "X123", "`sha256` must be 64 lowercase hex digits"),
    ("2027-01-31T00:00:00Z", "tomorrow", "tomorrow", "expected an RFC 3339 time"),
    ("level: 3", "level: 3.5", "3.5", "a claim must be a whole number"),
    ("level: 3", "level: 9007199254740992", "9007199254740992", "a claim must be a whole number"),
    ("level: 3", "level:", "}", "a claim has no value"),
    ("level: 3", "role: seller", "role: seller", "`role` appears twice"),
    // Identity, credential.
    (
        "api_key: {}",
        "api_key: { headers: [Authorization] }",
        "Authorization",
        "is not a lowercase header name",
    ),
    ("api_key: {}", "api_key: { headers: [host] }", "host", "is written or refused by the gateway itself"),
    ("api_key: {}", "api_key: { headers: [] }", "[]", "expected at least one header"),
    ("api_key: {}", "api_key: { headers: [x-a, x-a] }", "x-a] ", "`x-a` appears twice"),
    ("header: authorization", "header: content-length", "content-length", "cannot be named here"),
    ("\"Bearer \"", "\"a\\nb\"", "\"a\\n", "`prefix` must be"),
    ("from_env: PAYMENTS_KEY", "from_env: NOT_SET", "NOT_SET", "`NOT_SET` is not set"),
    ("from_env: PAYMENTS_KEY", "from_env: BROKEN_KEY", "BROKEN_KEY", "not visible ASCII"),
    ("from_env: PAYMENTS_KEY", "from_env: $KEY", "$KEY", "letters, digits and `_` only"),
    ("from_env: PAYMENTS_KEY", "from_file: nothing", "nothing", "No such file"),
    ("from_env: PAYMENTS_KEY", "from_file: charge.json", "charge.json", "is readable by others (mode 644)"),
    ("from_env: PAYMENTS_KEY", "from_file: log.key, from_env: A", "log.key, f", "one source"),
    ("from_env: PAYMENTS_KEY", "when_sent: drop", "{ name: payments-key", "needs `from_env` or `from_file`"),
    // Upstream.
    ("https://api.example.com", "https://a/v1", "\"https", "must end after host and port"),
    ("\"https://api.example.com\"", "\"https://a\", roots: mozilla", "mozilla", "one of `webpki`, `native`"),
    (
        "\"https://api.example.com\"",
        "\"https://a\", roots: {file: log.key}",
        "log.key}",
        "holds no certificate",
    ),
    (
        "\"https://api.example.com\"",
        "\"http://127.0.0.1\", roots: native",
        "roots",
        "of no use with an http URL",
    ),
    // Routes.
    ("method: GET", "method: get", "get,", "is not an uppercase method"),
    ("method: GET", "method: CONNECT", "CONNECT", "is not an uppercase method"),
    (
        "method: GET, path: \"/",
        "method: GET, path: \"",
        "\"v1/charges/{id}\", body: none",
        "`v1/charges/{id}`: ",
    ),
    (
        "action: charge.read",
        "action: charge.create",
        "charge.create, method: GET",
        "already declared on line 21",
    ),
    ("method: GET", "method: POST", "\"/v1/charges/{id}\", body: none", "neither is more specific"),
    ("body: none", "body: form", "form", "a GET or HEAD request has no body"),
    ("body: none", "body: none, body_bytes_max: 5", "body_bytes_max", "says nothing with `body: none`"),
    ("body: none", "body: none, body_required: true", "body_required", "says nothing with `body: none`"),
    ("body: none", "body: none, forward: verbatim", "forward", "for `body: json` only"),
    ("body: none", "body: none, schema: ./charge.json", "schema: ./charge", "needs `body: json`"),
    ("schema: charge.json", "schema: missing.json", "missing.json", "No such file"),
    ("schema: charge.json", "schema: log.key", "log.key }\n  ", "log.key: "),
    ("schema: charge.json", "schema: policies", "policies }\n  ", "is not a regular file"),
    (
        "body: json, schema: charge.json",
        "body: {opaque: [application/json]}",
        "application",
        "use `body: json`",
    ),
    ("body: json, schema: charge.json", "body: {opaque: [csv]}", "csv", "is not a lowercase `type/subtype`"),
    ("body: json, schema: charge.json", "body: {opaque: []}", "[]", "at least one media type"),
    ("body: none", "body: none, headers: [x-api-key]", "x-api-key", "it is never forwarded"),
    ("body: none", "body: none, headers: [te]", "te]", "cannot be named here"),
    ("body: none", "body: none, headers: [accept, accept]", "accept] ", "`accept` appears twice"),
    ("body: none", "body: none, query_lists: [a, a]", "a] ", "`a` appears twice"),
    ("body: none", "body: none, path_allows: [dots]", "dots", "one of `parameters`, `non_ascii`"),
    ("body: none", "body: none, idempotency_key: maybe", "maybe", "one of `required`, `optional`"),
    (
        "body: none",
        "body: none, idempotency_key: required",
        "required",
        "claims nothing without `idempotency`",
    ),
    ("policy: { dir: ./policies }", "policy: { dir: ./nowhere }", "./nowhere", "is not a directory"),
    ("signing_key: ./log.key", "signing_key: ./charge.json", "./charge.json", "is readable by others"),
    ("signing_key: ./log.key", "signing_key: ./no.key", "./no.key", "No such file"),
];

#[test]
fn every_refusal_stands_at_the_value_it_is_about() {
    let place = Place::new();
    for (from, to, needle, message) in REFUSALS {
        let text = edit(from, to);
        let problem = place.problem(from, to);
        assert!(problem.contains(message), "{from} -> {to}: {problem}");
        // A value that is absent has no place of its own.
        if !to.ends_with(':') {
            let expected = place_of(&text, needle);
            assert!(problem.starts_with(&expected), "{from} -> {to}: {problem}, expected at {expected}");
        }
    }
}

#[test]
fn all_problems_are_told_at_once_in_the_order_of_the_file() {
    let place = Place::new();
    let text = edit("127.0.0.1:8080", "nowhere")
        .replace("method: GET", "method: get")
        .replace("id: agent-7", "idd: agent-7")
        .replace("log_origin: i", "log_origin: + i");
    let problems = place.problems(&text);
    let lines: Vec<&str> = problems.iter().filter_map(|p| p.split(':').next()).collect();
    // Line 7 twice: `idd` is unknown, and `id` is missing. The surface still says what is wrong in it.
    assert_eq!(lines, ["1", "5", "7", "7", "22"], "{problems:#?}");
}

#[test]
fn an_error_shows_the_line_with_carets_and_the_count() {
    let shown = Place::new().read(&edit("body: none", "body: nune")).expect_err("refused").to_string();
    let lines: Vec<&str> = shown.lines().collect();
    assert!(lines[0].ends_with(
        "interlock.yaml:22:77: error: expected one of `json`, `form`, `none`, not `nune`; did you mean `none`?"
    ), "{shown}");
    assert_eq!(lines[3].find('^'), lines[2].find("nune"), "{shown}");
    assert!(lines[3].ends_with("^^^^") && lines[4].ends_with("interlock.yaml: 1 error"), "{shown}");
}

const SECOND: &str = "  - name: exports
    listener: main
    package: gateway.exports
    identity: { api_key: {} }
    upstream: { url: \"https://b.example\" }
    routes: [{ action: export.read, method: GET, path: /v1/exports, body: none }]
";

#[test]
fn every_host_leads_to_one_surface() {
    let place = Place::new();
    let with = |first: &str, second: &str| {
        let listener = "    listener: main\n";
        let first = BASE.replace(listener, &format!("{listener}{first}"));
        format!("{first}{}", SECOND.replace(listener, &format!("{listener}{second}")))
    };
    let both = place.problems(&with("", ""));
    assert_eq!(both.len(), 2, "{both:#?}");
    assert!(both.iter().all(|p| p.contains("needs `hosts`")), "{both:#?}");
    let same = place.problems(&with("    hosts: [a.example]\n", "    hosts: [a.example]\n"));
    assert!(same.len() == 1 && same[0].contains("has the host `a.example`"), "{same:#?}");
    let overlap = place.problems(&with("    hosts: [a.example]\n", "    hosts: [\"a.example:8080\"]\n"));
    assert!(overlap.len() == 1 && overlap[0].contains("every port"), "{overlap:#?}");

    let config = place
        .read(&with("    hosts: [a.example, \"[::1]\"]\n", "    hosts: [\"b.example:8080\"]\n"))
        .expect("valid");
    let [payments, exports] = &config.surfaces[..] else { panic!("two surfaces") };
    assert!(["a.example", "a.example:81", "[::1]", "[::1]:81"].iter().all(|h| payments.hosts.fit(h)));
    assert!(!payments.hosts.fit("b.example:8080") && exports.hosts.fit("b.example:8080"));
    assert!(!exports.hosts.fit("b.example") && !exports.hosts.fit("b.example:80"));
}

#[test]
fn names_addresses_prefixes_and_secrets_are_declared_once() {
    let place = Place::new();
    let listener = "  - { name: main, address: 127.0.0.1:8080 }\n";
    let twice = place.problems(&edit(listener, &format!("{listener}{listener}")));
    assert!(
        twice.len() == 2 && twice[0].contains("another listener") && twice[1].contains("has the address")
    );

    let surface = format!("{BASE}{}", SECOND.replace("exports\n", "payments\n")).replace(
        "    listener: main\n    package: gateway.p",
        "    listener: main\n    hosts: [a]\n    package: gateway.p",
    );
    let twice = place.problems(&surface);
    assert!(twice.iter().any(|p| p.contains("another surface is called `payments`")), "{twice:#?}");

    let start = BASE.find("  - id: agent-7").expect("a key");
    let key = &BASE[start..BASE.find("surfaces:\n").expect("surfaces")];
    let twice = place.problems(&edit(key, &format!("{key}{key}")));
    assert!(twice.len() == 1 && twice[0].contains("another API key has the same prefix"), "{twice:#?}");

    place.write("other", "s3cret2", 0o600);
    let credential = "    credential: { name: payments-key, header: x-key, from_file: other }\n    routes: [";
    let twice = format!(
        "{}{}",
        edit("    listener: main\n", "    listener: main\n    hosts: [a]\n"),
        SECOND.replace("    routes: [", &format!("    hosts: [b]\n{credential}"))
    );
    let twice = place.problems(&twice);
    assert!(twice.len() == 1 && twice[0].contains("has another source"), "{twice:#?}");
}

#[test]
fn what_is_allowed_but_doubtful_is_a_warning() {
    let place = Place::new();
    let warnings = |text: &str| -> Vec<String> {
        let config = place.read(text).expect("valid");
        config.warnings().iter().map(|w| config.show_warning(w)).collect()
    };
    let plain = warnings(&edit("https://api.example.com", "http://api.example.com"));
    assert!(
        plain.len() == 1 && plain[0].contains(":18:22: warning: requests and the credential"),
        "{plain:?}"
    );
    assert!(warnings(&edit("https://api.example.com", "http://localhost:9000")).is_empty());
    let ended = warnings(&edit("2027-01-31", "2026-01-31"));
    assert!(ended.len() == 1 && ended[0].contains("not valid any more"), "{ended:?}");
    let start = BASE.find("api_keys:").expect("keys");
    let none = warnings(&edit(&BASE[start..BASE.find("surfaces:\n").expect("surfaces")], ""));
    assert!(none.len() == 1 && none[0].contains("refuses everyone"), "{none:?}");
    let idle =
        warnings(&edit("  - { name: main,", "  - { name: spare, address: 127.0.0.1:1 }\n  - { name: main,"));
    assert!(idle.len() == 1 && idle[0].contains("no surface uses the listener `spare`"), "{idle:?}");
}

#[test]
fn without_secrets_a_missing_one_is_a_warning_and_is_not_there() {
    let place = Place::new();
    let clock = Clock::manual(WallTime::parse_rfc3339("2026-11-20T00:00:00Z").expect("a time"));
    let text = edit("from_env: PAYMENTS_KEY", "from_env: NOT_SET").replace("./log.key", "./no.key");
    let config = place.read_with(&text, &clock, SecretsAre::Optional).expect("valid");
    assert_eq!(config.warnings().len(), 2);
    assert_eq!(config.credentials.names().count(), 0);
}

#[test]
fn a_file_that_cannot_be_read_is_said_so() {
    let place = Place::new();
    let clock = Clock::system();
    let load = |path: &Path| Config::load(path, Surroundings::of_process(&clock)).expect_err("refused");
    assert!(load(&place.path("nowhere.yaml")).to_string().contains("cannot be read: No such file"));
    assert!(load(place.0.path()).to_string().contains("is not a regular file"));
    place.write("large.yaml", &" ".repeat(limits::CONFIG_FILE_BYTES_MAX as usize + 1), 0o644);
    assert!(load(&place.path("large.yaml")).to_string().contains("is larger than"));
    let surroundings = Surroundings::of_process(&clock);
    let not_text = Config::parse(b"a: \xff", &place.path("x.yaml"), surroundings).expect_err("refused");
    assert!(not_text.to_string().contains("is not UTF-8 (at byte 3)"));
}

#[test]
fn a_listener_with_tls_takes_a_matching_valid_pair_and_refuses_the_rest() {
    let place = Place::new();
    for name in ["a", "b"] {
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2026, 12, 31);
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        place.write(&format!("{name}.pem"), &certificate.pem(), 0o644);
        place.write(&format!("{name}.key"), &key.serialize_pem(), 0o600);
    }
    place.write("open.key", "", 0o644);
    let text = |tls: &str| edit("127.0.0.1:8080", &format!("127.0.0.1:8080, tls: {{ {tls} }}"));
    let config = place.read(&text("certificate: a.pem, key: a.key")).expect("valid");
    let tls = config.listeners[0].tls.as_ref().expect("TLS");
    assert_eq!(tls.load().config.alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);

    for (tls, needle, message) in [
        ("certificate: a.pem, key: b.key", "b.key", "does not belong to the certificate"),
        ("certificate: a.pem, key: open.key", "open.key", "is readable by others"),
        ("certificate: a.key, key: a.key", "a.key, key", "holds no certificate"),
        ("certificate: no.pem, key: a.key", "no.pem", "No such file"),
        ("certificate: a.pem", "{ certificate", "`tls` needs the field `key`"),
        ("certificate: a.pem, key: a.key, crls: [a.pem]", "crls", "`crls` needs `client_roots`"),
        (
            "certificate: a.pem, key: a.key, client_certificates: optional",
            "client_certificates",
            "`client_certificates` needs `client_roots`",
        ),
        ("certificate: a.pem, key: a.key, client_roots: a.key", "a.key }", "holds no certificate"),
        ("certificate: a.pem, key: a.key, client_roots: no.pem", "no.pem", "No such file"),
        (
            "certificate: a.pem, key: a.key, client_roots: a.pem, crls: [b.pem]",
            "b.pem",
            "holds no list of revoked certificates",
        ),
        ("certificate: a.pem, key: a.key, client_roots: a.pem, crls: [no.crl]", "no.crl", "No such file"),
    ] {
        let text = text(tls);
        let problems = place.problems(&text);
        assert_eq!(problems.len(), 1, "{problems:#?}");
        assert!(problems[0].contains(message), "{problems:#?}");
        assert!(problems[0].starts_with(&place_of(&text, needle)), "{problems:#?}");
    }

    let at = |time| {
        let clock = Clock::manual(WallTime::parse_rfc3339(time).expect("a time"));
        place.read_with(&text("certificate: a.pem, key: a.key"), &clock, SecretsAre::Needed)
    };
    let expired = at("2027-01-02T00:00:00Z").expect_err("refused").to_string();
    assert!(expired.contains("a.pem expired on"), "{expired}");
    let soon = at("2026-12-25T00:00:00Z").expect("valid");
    assert!(soon.warnings().iter().any(|w| w.message.contains("days left")), "{:?}", soon.warnings());
}

#[test]
fn what_identity_cannot_rest_on_is_refused_at_its_place() {
    const KEYS: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"a","x":"LNz-3ot2NuTSYRGqyGC_KviHLK3eB6j5JrR7Qfb8_Sk","y":"kFuNr3iF9voADxuETcSNmQVyikTkqD1anyUyKF1SJiA"}]}"#;
    let place = Place::new();
    place.write("jwks.json", KEYS, 0o644);
    place.write("private.json", &KEYS.replace("\"kid\"", "\"d\":\"AA\",\"kid\""), 0o644);
    place.write("hmac.json", r#"{"keys":[{"kty":"oct","k":"c2VjcmV0","alg":"HS256"}]}"#, 0o644);
    let text = |identity: &str| edit("{ api_key: {} }", identity);
    let jwt = |edit: (&str, &str)| {
        let jwt = "{ jwt: { issuer: \"https://i.test\", audiences: [me], algorithms: [ES256], keys: { file: jwks.json } } }";
        jwt.replace(edit.0, edit.1)
    };
    let config = place.read(&text(&jwt(("", "")))).expect("valid");
    assert!(config.surfaces[0].identities.taken().jwt.is_some());
    assert!(config.surfaces[0].api_key_headers.is_empty());
    assert!(config.surfaces[0].routes[0].rules.identity_headers.contains("authorization"));
    assert_eq!((config.identity_parts.len(), config.key_sets.len()), (1, 0));
    let fetched = "{ url: \"https://i.test/keys\" }";
    let config = place.read(&text(&jwt(("{ file: jwks.json }", fetched)))).expect("valid");
    assert_eq!((config.identity_parts.len(), config.key_sets.len()), (0, 1));

    let mtls = |more: &str| format!("{{ mtls: {{ trust_domains: [a.test]{more} }} }}");
    for (identity, needle, message) in [
        ("{}".to_owned(), "{}", "`identity` needs one of `mtls`, `jwt` and `api_key`"),
        (mtls(""), "{ trust_domains", "asks for no certificates"),
        ("{ mtls: { trust_domains: [A.test] } }".into(), "A.test", "lowercase letters"),
        ("{ mtls: { trust_domains: [] } }".into(), "[] } }", "expected 1 to 64 trust domains"),
        (mtls(", paths: [agents]"), "agents]", "begins with `/`"),
        (mtls(", paths: [/**/a]"), "/**/a", "only at its end"),
        (jwt(("https://i.test", "https://i.test#x")), "\"https://i.test#x\"", "without `#`"),
        (jwt(("[me]", "[]")), "[], algorithms", "expected 1 to 16 audiences"),
        (jwt(("[ES256]", "[none]")), "none", "expected one of `RS256`"),
        (jwt(("[ES256]", "[HS256]")), "HS256", "expected one of `RS256`"),
        (jwt(("[ES256]", "[ES256, ES256]")), "ES256]", "appears twice"),
        (jwt(("[ES256]", "[EdDSA]")), "jwks.json", "holds no key for the algorithms"),
        (jwt(("jwks.json", "private.json")), "private.json", "holds a private key"),
        (jwt(("jwks.json", "hmac.json")), "hmac.json", "holds no key for the algorithms"),
        (jwt(("jwks.json", "charge.json")), "charge.json", "is not an object with a list `keys`"),
        (jwt(("file: jwks.json", "roots: native")), "{ roots", "`keys` needs either `file` or `url`"),
        (jwt(("jwks.json }", "jwks.json, roots: native }")), "roots", "of no use with a file"),
        (
            jwt(("file: jwks.json", "url: \"http://i.test/keys\"")),
            "\"http://i.test/keys\"",
            "must come by https",
        ),
        (
            jwt(("file: jwks.json", "url: \"https://i.test/keys\", refresh_seconds: 5")),
            "{ url: \"https://i.test/keys\"",
            "at most `refresh_seconds`",
        ),
        (jwt(("keys:", "age_seconds_max: 0, keys:")), "0, keys", "a whole number from 1"),
        (jwt((" } } }", " } }, api_key: {} }")), "{} }\n", "declare other `headers`"),
        (jwt((" } } }", " } }, require_both: true }")), "require_both", "declare `mtls` and `jwt`"),
    ] {
        let text = text(&identity);
        let problems = place.problems(&text);
        // A surface that takes certificates behind this plain listener has that problem too.
        let at = place_of(&text, needle);
        let is_told = |problem: &String| problem.contains(message) && problem.starts_with(&at);
        assert!(problems.iter().any(is_told), "{identity}: {at} {problems:#?}");
        assert!(problems.len() <= 1 + usize::from(identity.contains("mtls")), "{identity}: {problems:#?}");
    }

    for id in ["spiffe://a.test/agent", "https://i.test#agent"] {
        let problem = place.problem("id: agent-7", &format!("id: \"{id}\""));
        assert!(problem.contains("ids of certificates and tokens"), "{problem}");
    }
    let keys =
        &BASE[BASE.find("  - id: agent-7").expect("a key")..BASE.find("surfaces:\n").expect("after it")];
    let from_file = BASE.replace(&format!("api_keys:\n{keys}"), "api_keys: { file: keys.yaml }\n");
    place.write("keys.yaml", keys, 0o644);
    assert_eq!(place.read(&from_file).expect("valid").api_keys.load().len(), 1);
    place.write("keys.yaml", &keys.replace("agent-7", "agent 7"), 0o644);
    let problems = place.problems(&from_file);
    assert!(problems[0].contains("keys.yaml:1:9: an actor id must be"), "{problems:?}");
    assert!(problems[0].starts_with(&place_of(&from_file, "keys.yaml")), "{problems:?}");
}

#[test]
fn lists_that_are_too_long_are_refused_as_a_whole() {
    let place = Place::new();
    let many = |n: usize, item: &dyn Fn(usize) -> String| (0..n).map(item).collect::<String>();
    let route = |n| format!("      - {{ action: a{n}, method: GET, path: /{n}, body: none }}\n");
    let routes = format!("{BASE}{}", many(limits::ROUTES_PER_SURFACE_MAX, &route));
    let surface = |n| SECOND.replace("exports\n", &format!("s{n}\n    hosts: [h{n}]\n"));
    let surfaces = edit("    listener: main\n", "    listener: main\n    hosts: [a]\n");
    let surfaces = format!("{surfaces}{}", many(limits::SURFACES_MAX, &surface));
    let key = |n| format!("  - {{ id: a, prefix: ilk_{n:08}, sha256: {} }}\n", "0".repeat(64));
    let keys = edit("api_keys:\n", &format!("api_keys:\n{}", many(limits::API_KEYS_MAX, &key)));
    for (text, message) in [
        (routes, "more than 1024 routes"),
        (surfaces, "more than 256 surfaces"),
        (keys, "more than 10000 API keys"),
    ] {
        let problems = place.problems(&text);
        assert!(problems.len() == 1 && problems[0].ends_with(message), "{problems:#?}");
    }
}

proptest::proptest! {
    #[test]
    fn a_file_that_is_damaged_anywhere_is_read_or_refused_and_never_panics(
        at in 0..BASE.len(),
        cut in 0_usize..40,
        inserted in proptest::sample::select(vec![
            "", "\n", " ", ":", "- ", "{", "}", "[", "]", "&a ", "*a", "!!str ", "|", ">", "\"", "'", "#", "~", "<<: ",
            "\t", "---\n", "\u{feff}", "\u{1f600}", "%", "? ", "9999999999999999999999", "\0",
        ]),
    ) {
        let place = Place::new();
        let mut text = BASE.to_owned();
        text.replace_range(at..(at + cut).min(BASE.len()), inserted);
        match place.read(&text) {
            Ok(config) => config.warnings().iter().for_each(|w| drop(config.show_warning(w))),
            Err(invalid) => {
                assert!(!invalid.problems().is_empty() && !invalid.to_string().is_empty());
            }
        }
    }
}

/// What docs/CONFIGURATION.md says of a field: default and bounds in the words of its tables.
const SALTED: &str = "segment_mib: 64, salts: ./salts }\n";

/// The base with salts, these lines in its surface, and a route that forwards a header.
fn redacting(surface: &str, route: &str) -> String {
    let text = BASE.replace("signing_key: ./log.key }\n", &format!("signing_key: ./log.key, {SALTED}"));
    let text = text.replace("    identity: {", &format!("{surface}    identity: {{"));
    text.replace("schema: charge.json }", &format!("schema: charge.json, headers: [x-patient-id]{route} }}"))
}

#[test]
fn what_a_surface_redacts_reaches_the_rules_of_every_route() {
    let place = Place::new();
    let surface =
        "    redact: { pointers: [/request/body/card, \"/request/params/id\"], headers: [x-patient-id] }\n";
    let config = place.read(&redacting(surface, ", sensitive: true")).expect("valid");
    assert_eq!(config.ledger.salts, Some(place.path("./salts")));
    let pointers = |route: usize| {
        let redaction = config.surfaces[0].routes[route].rules.redaction.as_ref().expect("it redacts");
        redaction.pointers().iter().map(|p| p.as_str().to_owned()).collect::<Vec<_>>()
    };
    let rest = ["/request/digest", "/request/path"];
    let both = ["/request/params/id", "/request/headers/x-patient-id"];
    assert_eq!(pointers(0), [&both[..], &["/request/body"], &rest].concat());
    assert_eq!(pointers(1), [&["/request/body/card"], &both[..], &rest].concat());
    // Without any, there is nothing to redact.
    let plain = place.read(BASE).expect("valid");
    assert!(plain.surfaces[0].routes.iter().all(|route| route.rules.redaction.is_none()));
    assert_eq!(plain.ledger.salts, None);
    // One sensitive route alone.
    let sensitive = place.read(&redacting("", ", sensitive: true")).expect("valid");
    let redacts = |route: usize| sensitive.surfaces[0].routes[route].rules.redaction.is_some();
    assert_eq!((redacts(0), redacts(1)), (true, false));
}

#[test]
fn what_cannot_be_redacted_is_refused_at_its_place() {
    let place = Place::new();
    let redact = |inside: &str| redacting(&format!("    redact: {{ {inside} }}\n"), "");
    let pointer = |text: &str| redact(&format!("pointers: [\"{text}\"]"));
    for (text, at, message) in [
        (pointer("request/body"), "\"request/body", "`request/body`: a pointer begins with `/`"),
        (pointer("/request/body/a~2"), "\"/request/body", "`~` in it is written `~0`"),
        (pointer("/time"), "\"/time", "a pointer begins with `/request/body`"),
        (pointer("/request/headers"), "\"/request/headers", "a header pointer is"),
        (pointer("/request/headers/X-A"), "\"/request/headers", "`X-A` is not a lowercase header name"),
        (pointer("/request/params/it"), "\"/request/params", "no route of this surface has a parameter `it`"),
        (
            pointer("/request/body/a").replace("body: json, schema: charge.json", "body: none"),
            "\"/request/body",
            "policy sees the body of no route of this surface",
        ),
        (redact("headers: [x-other]"), "x-other", "no route of this surface forwards the header `x-other`"),
        (redact("headers: [idempotency-key]"), "idempotency-key", "stands in every receipt"),
        (redact("headers: [content-type]"), "content-type", "cannot be named here"),
        (redact(""), "{  }", "`redact` needs `pointers` or `headers`"),
        (redact("pointers: [], headers: []"), "{ pointers: []", "at least one place"),
        (pointer("/actor/claims/rolle"), "\"/actor/claims", "no API key of this surface has a claim `rolle`"),
        (redact("pointers: [/request/body, /request/body/a]"), "/request/body/a", "can be the same place"),
        (
            redact("pointers: [/request/body/a/b, \"/request/body/*/b\"]"),
            "\"/request/body/*",
            "can be the same place",
        ),
        (
            redact("pointers: [/request/headers/x-patient-id], headers: [x-patient-id]"),
            "x-patient-id] }\n    identity",
            "can be the same place",
        ),
        (
            pointer("/request/body").replace("salts: ./salts", "salts: ./elsewhere/../ledger/salts"),
            "./elsewhere",
            "`salts` must be outside the directory of the log",
        ),
        (
            pointer("/request/body").replace(", salts: ./salts", ""),
            "\"/request/body",
            "redaction needs `ledger.salts`",
        ),
        (
            redacting("", ", sensitive: true").replace(", salts: ./salts", ""),
            "sensitive",
            "redaction needs `ledger.salts`",
        ),
        (redact("headers: [x-patient-id]").replace("role: buyer", "_sd: buyer"), "_sd", "cannot be a claim"),
        (
            redact("headers: [x-patient-id]").replace("charges/{id}", "charges/{_sd}"),
            "\"/v1/charges/{_sd}",
            "no parameter's name",
        ),
    ] {
        let problems = place.problems(&text);
        let expected = place_of(&text, at);
        assert!(
            problems.iter().any(|p| p.starts_with(&expected) && p.contains(message)),
            "{at} {message}: {expected} {problems:#?}"
        );
    }
    let many = (0..=limits::REDACT_POINTERS_MAX).map(|n| format!("/request/body/a{n}")).collect::<Vec<_>>();
    let problems = place.problems(&redact(&format!("pointers: [{}]", many.join(", "))));
    assert!(problems.iter().any(|p| p.contains("more than 64 places")), "{problems:?}");
}

/// The base with these fields of its surface, each on a line of its own.
fn with_surface_fields(fields: &str) -> String {
    let fields: String = fields.lines().map(|line| format!("    {line}\n")).collect();
    edit("    identity: { api_key: {} }\n", &format!("    identity: {{ api_key: {{}} }}\n{fields}"))
}

#[test]
fn what_a_surface_declares_of_facts_budgets_keys_and_holds_reaches_it() {
    let place = Place::new();
    place.write("rates.yaml", "EUR: 1.5\n", 0o644);
    let text = with_surface_fields(
        r#"facts:
  - { name: rates, file: rates.yaml, max_age_ms: 5000, timeout_ms: 500, bytes_max: 100 }
  - name: people
    url: "https://facts.example.com:8443/people?all=1"
    credential: { header: authorization, prefix: "Bearer ", from_env: PAYMENTS_KEY }
budgets:
  - name: spend
    key: [/actor/id, /request/body/currency]
    amount: /request/body/amount
    window: { calendar: week, zone: Europe/Berlin }
    unit: minor-units
    actions: [charge.create]
  - { name: calls, window: { sliding: 90m }, unit: calls }
idempotency: { keep_hours: 48, answer_bytes_max: 0 }
holds: { expire_minutes: 5, wait_seconds_max: 0 }"#,
    );
    let config = place.read(&text).expect("valid");
    assert!(config.warnings().is_empty(), "{:?}", config.warnings());
    let surface = &config.surfaces[0];
    let [rates, people] = &surface.facts[..] else { panic!("two facts") };
    assert_eq!((rates.name.as_str(), rates.bytes_max), ("rates", 100));
    assert_eq!((rates.max_age, rates.timeout), (Duration::from_secs(5), Duration::from_millis(500)));
    let FactFrom::File { path, form } = &rates.from else { panic!("a file") };
    assert_eq!((path, *form), (&place.path("rates.yaml"), Form::Yaml));
    let FactFrom::Url(endpoint) = &people.from else { panic!("a URL") };
    assert_eq!((&*endpoint.authority, &*endpoint.target), ("facts.example.com:8443", "/people?all=1"));
    assert!(endpoint.credential.is_some() && matches!(endpoint.scheme, Scheme::Tls(_)));
    assert_eq!(people.max_age, Duration::from_millis(limits::FACT_AGE_MS_MAX_DEFAULT));
    assert_eq!(endpoint.timeout, Duration::from_millis(limits::FACT_TIMEOUT_MS_MAX_DEFAULT));

    let [spend, calls] = &surface.budgets[..] else { panic!("two budgets") };
    let key: Vec<&str> = spend.key.iter().map(|pointer| pointer.as_str()).collect();
    assert_eq!(key, ["/actor/id", "/request/body/currency"]);
    assert!(matches!(&spend.amount, Amount::At(pointer) if pointer.as_str() == "/request/body/amount"));
    let Window::Calendar { unit: CalendarUnit::Week, zone } = &spend.window else { panic!("a week") };
    assert_eq!((zone.name(), &*spend.unit), ("Europe/Berlin", "minor-units"));
    assert!(spend.is_of("charge.create") && !spend.is_of("charge.read"));
    assert!(calls.is_of("charge.read") && calls.key.is_empty());
    assert!(matches!(&calls.amount, Amount::Fixed(amount) if amount.to_string() == "1"));
    assert_eq!(calls.window, Window::Sliding(Duration::from_secs(90 * 60)));

    let idempotency = surface.idempotency.expect("declared");
    assert_eq!((idempotency.keep, idempotency.answer_bytes_max), (Duration::from_secs(48 * 3_600), 0));
    assert_eq!(
        (surface.holds.expire_after, surface.holds.wait_max),
        (Duration::from_secs(300), Duration::ZERO)
    );

    let plain = &place.read(BASE).expect("valid").surfaces[0];
    assert!(plain.facts.is_empty() && plain.budgets.is_empty() && plain.idempotency.is_none());
    assert_eq!(plain.holds.expire_after, Duration::from_secs(60 * 60));
    assert_eq!(plain.holds.wait_max, Duration::from_secs(60));
    let defaults =
        place.read(&with_surface_fields("idempotency: {}")).expect("valid").surfaces[0].idempotency;
    let defaults = defaults.expect("declared");
    assert_eq!((defaults.keep, defaults.answer_bytes_max), (Duration::from_secs(24 * 3_600), 64 * 1024));
}

/// The one problem of the base with this field of its surface, and the text it is about.
fn surface_problem(place: &Place, fields: &str) -> String {
    problem_of(place, &with_surface_fields(fields))
}

/// The one problem of this text, and what it is about.
fn problem_of(place: &Place, text: &str) -> String {
    let problems = place.problems(text);
    assert_eq!(problems.len(), 1, "{text}: {problems:#?}");
    let (at, message) = problems[0].split_once(' ').expect("a place and a message");
    let (line, column) = at.split_once(':').expect("line and column");
    let (line, column): (usize, usize) = (line.parse().expect("a line"), column.parse().expect("a column"));
    let rest: String = text.lines().nth(line - 1).expect("the line").chars().skip(column - 1).collect();
    let word: String = rest.chars().take_while(|c| !matches!(c, ',' | '}' | ']' | ' ')).collect();
    format!("{} | {message}", word.trim_end_matches(':'))
}

#[test]
fn the_examples_of_the_document_are_accepted() {
    let place = Place::new();
    let docs = std::fs::read_to_string("docs/CONFIGURATION.md").expect("the document");
    let blocks: Vec<&str> =
        docs.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(blocks.len() >= 3, "only {} examples found: the test does not see them", blocks.len());
    let mut lookups = 0;
    for block in blocks {
        let fields: Vec<&str> =
            block.lines().map(|line| line.strip_prefix("    ").expect("of a surface")).collect();
        let config = place.read(&forwarding_keys(&fields.join("\n"))).expect(block);
        let surface = &config.surfaces[0];
        lookups += usize::from(surface.status_lookup.is_some());
        assert!(
            surface.facts.len() + surface.budgets.len() == 2 || surface.status_lookup.is_some(),
            "{block}"
        );
    }
    assert_eq!(lookups, 1);
}

/// The base with these fields of its surface, and idempotency keys forwarded where something is created.
fn forwarding_keys(fields: &str) -> String {
    let from = "schema: charge.json }";
    let text = with_surface_fields(fields);
    assert_eq!(text.matches(from).count(), 1);
    text.replace(from, "schema: charge.json, headers: [idempotency-key] }")
}

const LOOKUP: &str =
    "path: \"/v1/status/{idempotency_key}\", status: /status, confirmed: [succeeded, 2], failed: [declined]";

fn looking_up(fields: &str) -> String {
    format!("idempotency: {{}}\nstatus_lookup: {{ {fields} }}")
}

#[test]
fn what_a_surface_declares_of_its_status_lookup_reaches_it() {
    let place = Place::new();
    let config = place.read(&forwarding_keys(&looking_up(LOOKUP))).expect("valid");
    assert!(config.warnings().is_empty(), "{:?}", config.warnings());
    let lookup = config.surfaces[0].status_lookup.as_ref().expect("declared");
    let actions: Vec<_> = lookup.actions.iter().map(|action| action.as_str()).collect();
    assert_eq!(actions, ["charge.create"], "those that forward the key");
    let rules = &lookup.rules;
    assert_eq!(rules.question.as_str(), "/v1/status/{idempotency_key}");
    assert_eq!((rules.status.to_string().as_str(), &rules.echo), ("/status", &None));
    let values = |values: &std::collections::BTreeSet<std::sync::Arc<str>>| {
        values.iter().map(|value| value.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(
        (values(&rules.confirmed), values(&rules.failed)),
        (vec!["2".into(), "succeeded".into()], vec!["declined".into()])
    );
    assert_eq!((rules.not_found, rules.bytes_max), (NotFoundIs::Unknown, 64 * 1024));
    let milliseconds = Duration::from_millis;
    assert_eq!(rules.timeout, milliseconds(limits::STATUS_TIMEOUT_MS_DEFAULT));
    assert_eq!(lookup.after, milliseconds(limits::STATUS_AFTER_MS_DEFAULT));
    assert_eq!(lookup.again_max, milliseconds(limits::STATUS_AGAIN_MS_DEFAULT));

    let all = "path: /v1/status, header: x-key, actions: [charge.create], status: /a~1b/0, echo: /key, confirmed: [a], \
               not_found: failed, timeout_ms: 10, bytes_max: 1, after_ms: 0, again_ms_max: 100";
    let config = place.read(&forwarding_keys(&looking_up(all))).expect("valid");
    assert!(config.warnings().is_empty(), "{:?}", config.warnings());
    let lookup = config.surfaces[0].status_lookup.as_ref().expect("declared");
    let rules = &lookup.rules;
    assert_eq!(rules.echo.as_ref().map(ToString::to_string).as_deref(), Some("/key"));
    assert_eq!((rules.not_found, rules.bytes_max, rules.failed.len()), (NotFoundIs::Failed, 1, 0));
    assert_eq!(
        (rules.timeout, lookup.after, lookup.again_max),
        (milliseconds(10), Duration::ZERO, milliseconds(100))
    );
    assert!(place.read(BASE).expect("valid").surfaces[0].status_lookup.is_none());
}

#[test]
fn a_lookup_whose_answer_may_be_about_another_request_is_a_warning() {
    let place = Place::new();
    for (fields, warns) in [
        ("path: \"/v1/status?key={idempotency_key}\"", true),
        ("path: /v1/status, header: x-key", true),
        ("path: \"/v1/status?key={idempotency_key}\", echo: /key", false),
        ("path: \"/v1/{idempotency_key}/status\"", false),
    ] {
        let fields = looking_up(&format!("{fields}, status: /status, confirmed: [a]"));
        let config = place.read(&forwarding_keys(&fields)).expect("valid");
        let is_told = config.warnings().iter().any(|warning| warning.message.contains("`echo`"));
        assert_eq!(is_told, warns, "{fields}");
    }
}

#[test]
fn what_is_wrong_with_a_status_lookup_is_told_at_its_place() {
    let place = Place::new();
    let base = "status: /status, confirmed: [a]";
    let path = "path: \"/s/{idempotency_key}\"";
    let key = "\"/s/{idempotency_key}\"";
    let cases = [
        (base.to_string(), "{ | `status_lookup` needs the field `path`".to_owned()),
        (format!("{path}, confirmed: [a]"), "{ | `status_lookup` needs the field `status`".into()),
        (format!("{path}, status: /a"), "{ | `status_lookup` needs the field `confirmed`".into()),
        (format!("{path}, {base}, query: a"), "query | unknown field `query` in `status_lookup`".into()),
        (format!("path: /s, {base}"), "/s | `/s`: `{idempotency_key}` must stand in it, once".into()),
        (
            format!("path: \"/s/x-{{idempotency_key}}\", {base}"),
            "\"/s/x-{idempotency_key | `/s/x-{idempotency_key}`: `{idem".into(),
        ),
        (
            format!("path: \"/s/../{{idempotency_key}}\", {base}"),
            "\"/s/../{idempotency_key | `/s/../{idempotency_key}`: a path begins".into(),
        ),
        (
            format!("path: \"https://a/{{idempotency_key}}\", {base}"),
            "\"https://a/{idempotency_key | `https://a/{idempotency_key}`: a path begins".into(),
        ),
        (
            format!("{path}, header: x-key, {base}"),
            "\"/s/{idempotency_key | `/s/{idempotency_key}`: the key is sent once".into(),
        ),
        (
            format!("path: /s, header: authorization, {base}"),
            "authorization | `authorization` holds the gateway's credential".into(),
        ),
        (
            format!("path: /s, header: accept, {base}"),
            "accept | `accept` is written by the gateway itself".into(),
        ),
        (
            format!("path: /s, header: host, {base}"),
            "host | `host` is written or refused by the gateway itself".into(),
        ),
        (format!("path: /s, header: X-Key, {base}"), "X-Key | `X-Key` is not a lowercase header name".into()),
        (
            format!("{path}, status: status, confirmed: [a]"),
            "status | `status`: a pointer begins with `/`".into(),
        ),
        (format!("{path}, status: /a~2, confirmed: [a]"), "/a~2 | `/a~2`: a pointer begins with `/`".into()),
        (format!("{path}, {base}, echo: key"), "key | `key`: a pointer begins with `/`".into()),
        (format!("{path}, status: /a, confirmed: []"), "[ | expected at least one value".into()),
        (format!("{path}, status: /a, confirmed: [a, b, a]"), "a | `a` appears twice".into()),
        (format!("{path}, {base}, failed: [b, a]"), "a | `a` stands for `confirmed` as well".into()),
        (format!("{path}, {base}, failed: [\"a\\tb\"]"), "\"a\\tb\" | a value has at most 128 bytes".into()),
        (
            format!("{path}, {base}, not_found: confirmed"),
            "confirmed | expected one of `unknown`, `failed`".into(),
        ),
        (
            format!("{path}, {base}, not_found: failed"),
            "not_found | `not_found: failed` needs `after_ms`".into(),
        ),
        (
            format!("{path}, {base}, timeout_ms: 9"),
            "9 | `timeout_ms` must be a whole number from 10 to 60000".into(),
        ),
        (
            format!("{path}, {base}, bytes_max: 1048577"),
            "1048577 | `bytes_max` must be a whole number from 1 to 1048576".into(),
        ),
        (
            format!("{path}, {base}, after_ms: 86400001"),
            "86400001 | `after_ms` must be a whole number from 0 to 86400000".into(),
        ),
        (
            format!("{path}, {base}, again_ms_max: 99"),
            "99 | `again_ms_max` must be a whole number from 100 to 86400000".into(),
        ),
        (format!("{path}, {base}, actions: []"), "[ | expected at least one action".into()),
        (
            format!("{path}, {base}, actions: [charge.delete]"),
            "charge.delete | `charge.delete` is no action of this surface".into(),
        ),
        (
            format!("{path}, {base}, actions: [charge.read]"),
            "charge.read | `charge.read` does not forward `idempotency-key`".into(),
        ),
    ];
    for (fields, expected) in cases {
        let text = forwarding_keys(&looking_up(&fields));
        let told = problem_of(&place, &text);
        assert!(told.starts_with(&expected), "{fields}: {told}");
    }
    let values: Vec<String> = (0..=limits::STATUS_VALUES_MAX).map(|n| n.to_string()).collect();
    let many = format!("{path}, status: /a, confirmed: [{}]", values.join(", "));
    assert!(problem_of(&place, &forwarding_keys(&looking_up(&many))).ends_with("more than 32 values"));
    let unclaimed = forwarding_keys(&format!("status_lookup: {{ {path}, {base} }}"));
    assert!(problem_of(&place, &unclaimed).contains("`status_lookup` needs `idempotency`"));
    let unsent = with_surface_fields(&looking_up(&format!("path: {key}, {base}")));
    assert!(problem_of(&place, &unsent).contains("no route of this surface forwards `idempotency-key`"));
}

#[test]
fn what_is_wrong_with_a_fact_is_told_at_its_place() {
    let place = Place::new();
    place.write("rates.json", "{}", 0o644);
    for (fact, expected) in [
        (
            "file: rates.json, max_age: 1",
            "max_age | unknown field `max_age` in a fact; did you mean `max_age_ms`?",
        ),
        ("max_age_ms: 1000, timeout_ms: 100", "{ | a fact needs the field `file` or `url`"),
        (
            "file: rates.json, url: \"https://a/\"",
            "\"https://a/\" | a fact has one source: `file` or `url`, not both",
        ),
        ("file: rates.toml", "rates.toml | the name of a fact's file must end in `.json`, `.yaml` or `.yml`"),
        ("file: rates.json, roots: native", "roots | `roots` is of no use with a file"),
        (
            "file: rates.json, max_age_ms: 99",
            "99 | `max_age_ms` must be a whole number from 100 to 86400000, not `99`",
        ),
        (
            "file: rates.json, max_age_ms: 3000",
            "max_age_ms | a read may take `timeout_ms` (2000) and begins after half of `max_age_ms` (3000): \
             the value would be too old before it ends",
        ),
        ("url: \"ftp://a/\"", "\"ftp://a/\" | `url` must begin with `https://` or `http://`"),
        (
            "url: \"https://u:p@a/\"",
            "\"https://u:p@a/\" | `url` must end after host and port: no user, path, query or fragment (`@`)",
        ),
        ("url: \"http://localhost/\", roots: native", "roots | `roots` is of no use with an http URL"),
        (
            "url: \"https://a/\", credential: { header: x-key }",
            "{ | `credential` needs `from_env` or `from_file`; a secret never stands in this file",
        ),
    ] {
        let told = surface_problem(&place, &format!("facts:\n  - {{ name: rates, {fact} }}"));
        assert_eq!(told, expected, "{fact}");
    }
    let two = "facts:\n  - { name: rates, file: rates.json }\n  - { name: rates, file: rates.json }";
    assert_eq!(surface_problem(&place, two), "{ | another fact of this surface is called `rates`");
    let large = "facts:\n".to_owned()
        + &(0..5)
            .map(|n| format!("  - {{ name: f{n}, file: rates.json, bytes_max: 1048576 }}\n"))
            .collect::<String>();
    let told = surface_problem(&place, &large);
    assert!(told.contains("the `bytes_max` of all facts are 5242880 together, more than 4194304"), "{told}");
}

#[test]
fn a_fact_cannot_be_redacted_because_its_digest_is_in_every_receipt() {
    let place = Place::new();
    place.write("rates.json", "{}", 0o644);
    let text = |pointer: &str| {
        with_surface_fields(&format!(
            "facts: [{{ name: rates, file: rates.json }}]\nredact: {{ pointers: [{pointer}] }}"
        ))
        .replace("./log.key }", "./log.key, salts: ./salts }")
    };
    for pointer in ["/context", "/context/facts", "/context/facts/rates/EUR", "/context/*/rates"] {
        let problems = place.problems(&text(pointer));
        assert!(
            problems.len() == 1 && problems[0].contains("the digest of the fact `rates`"),
            "{pointer}: {problems:?}"
        );
    }
    place.read(&text("/context/approvals")).expect("something else");
}

#[test]
fn a_file_of_a_fact_that_is_not_there_yet_is_a_warning() {
    let place = Place::new();
    let text = with_surface_fields("facts: [{ name: rates, file: rates.json, bytes_max: 10 }]");
    let warned = |needle: &str| {
        let config = place.read(&text).expect("valid");
        let [warning] = config.warnings() else { panic!("one: {:?}", config.warnings()) };
        assert!(warning.message.contains(needle), "{}", warning.message);
        assert!(warning.message.ends_with("until it can be read, this surface refuses every request"));
    };
    warned("No such file");
    place.write("rates.json", "{\"a\":1,\"a\":2}", 0o644);
    warned("has more than `bytes_max` bytes");
    place.write("rates.json", "[1, 2", 0o644);
    warned("is not accepted");
    let clear = with_surface_fields("facts: [{ name: rates, url: \"http://facts.example.com/\" }]");
    let config = place.read(&clear).expect("valid");
    assert!(config.warnings()[0].message.contains("can change the fact"));
}

#[test]
fn what_is_wrong_with_a_budget_is_told_at_its_place() {
    let place = Place::new();
    let day = "window: { calendar: day, zone: UTC }";
    let create = "actions: [charge.create]";
    for (budget, expected) in [
        (
            format!("{day}, amounts: 1"),
            "amounts | unknown field `amounts` in a budget; did you mean `amount`?",
        ),
        (format!("{day}, amount: 0"), "0 | `amount` must be a pointer"),
        (format!("{day}, amount: -1"), "-1 | `amount` must be a pointer"),
        (format!("{day}, amount: 1e3"), "1e3 | `amount` must be a pointer"),
        (format!("{day}, amount: 0.0000000001"), "0.0000000001 | `amount` must be a pointer"),
        (
            format!("{day}, amount: /context/facts/rates"),
            "/context/facts/rates | `/context/facts/rates`: the pointer of a budget begins with",
        ),
        (
            format!("{day}, key: [/time/unix_ns]"),
            "/time/unix_ns | `/time/unix_ns`: the pointer of a budget begins with",
        ),
        (format!("{day}, key: [actor]"), "actor | `actor`: a pointer begins with `/`"),
        (format!("{day}, key: [/actor/id, /actor/id]"), "/actor/id | `/actor/id` appears twice"),
        ("window: { calendar: day }".into(), "{ | a calendar window needs the field `zone`, such as `UTC`"),
        (
            "window: { calendar: days, zone: UTC }".into(),
            "days | expected one of `hour`, `day`, `week`, `month`, not `days`; did you mean `day`?",
        ),
        (
            "window: { calendar: day, zone: Europe/Berlim }".into(),
            "Europe/Berlim | `Europe/Berlim` is not in the IANA time zone database; did you mean `Europe/Berlin`?",
        ),
        ("window: { sliding: 24h, zone: UTC }".into(), "zone | `zone` is of no use with a sliding window"),
        (
            "window: { sliding: 24h, calendar: day }".into(),
            "24h | a window is `calendar` or `sliding`, not both",
        ),
        ("window: {}".into(), "{ | `window` needs the field `calendar` or `sliding`"),
        (
            "window: { sliding: 30s }".into(),
            "30s | `sliding` must be a whole number of minutes, hours or days",
        ),
        (
            "window: { sliding: 010m }".into(),
            "010m | `sliding` must be a whole number of minutes, hours or days",
        ),
        ("window: { sliding: 0h }".into(), "0h | `sliding` must be a whole number of minutes, hours or days"),
        ("window: { sliding: 367d }".into(), "367d | a sliding window has at most 366 days, not `367d`"),
        (format!("{day}, actions: []"), "[ | expected at least one action"),
        (
            format!("{day}, actions: [charge.creat]"),
            "charge.creat | no route of this surface has the action `charge.creat`; did you mean `charge.create`?",
        ),
        (
            format!("{day}, amount: /request/body/amount"),
            "/request/body/amount | `/request/body/amount`: the action `charge.read` has no body that policy sees; name the actions that count in `actions`",
        ),
        (
            format!("{day}, key: [/request/params/ids]"),
            "/request/params/ids | `/request/params/ids`: the action `charge.create` has no path parameter `ids`",
        ),
        (
            format!("{day}, key: [/request/headers/x-a]"),
            "/request/headers/x-a | `/request/headers/x-a`: the action `charge.create` forwards no header `x-a`",
        ),
        (
            format!("{day}, key: [/idempotency_key], {create}"),
            "/idempotency_key | `/idempotency_key`: the action `charge.create` does not require an idempotency key",
        ),
    ] {
        let told = surface_problem(&place, &format!("budgets:\n  - {{ name: spend, unit: EUR, {budget} }}"));
        assert!(told.starts_with(expected), "{budget}:\n{told}\n{expected}");
    }
    let two = format!("budgets:\n  - {{ name: a, unit: x, {day} }}\n  - {{ name: a, unit: x, {day} }}");
    assert_eq!(surface_problem(&place, &two), "{ | another budget of this surface is called `a`");
    let unit = surface_problem(&place, &format!("budgets: [{{ name: a, unit: \"two words\", {day} }}]"));
    assert!(unit.ends_with("`unit` must be 1 to 32 visible ASCII characters"), "{unit}");
}

#[test]
fn a_budget_does_not_keep_what_is_redacted() {
    let place = Place::new();
    let text = |redacted: &str, budget: &str| {
        with_surface_fields(&format!(
            "redact: {{ pointers: [{redacted}] }}\nbudgets:\n  - {{ name: a, unit: x, {budget}, \
             window: {{ sliding: 1h }}, actions: [charge.create] }}"
        ))
        .replace("./log.key }", "./log.key, salts: ./salts }")
    };
    for (redacted, budget) in [
        ("/request/body/iban", "key: [/request/body/iban]"),
        ("/request/body", "key: [/request/body/iban]"),
        ("/request/body/iban/country", "key: [/request/body/iban]"),
        ("/request/body/*/iban", "key: [/request/body/to/iban]"),
        ("/request/body/amount", "amount: /request/body/amount"),
        // What would give a redacted place away is kept out with it.
        ("/request/params/id", "key: [/request/path]"),
        ("/request/body/iban", "key: [/request/digest]"),
    ] {
        let problems = place.problems(&text(redacted, budget));
        let told = "out of the log, and a budget would keep what is there";
        assert!(problems.len() == 1 && problems[0].ends_with(told), "{redacted}, {budget}: {problems:?}");
    }
    place.read(&text("/request/body/iban", "key: [/request/body/currency]")).expect("another place");
}

#[test]
fn times_of_keys_and_holds_have_bounds() {
    let place = Place::new();
    for (fields, expected) in [
        ("idempotency: { keep_hours: 0 }", "0 | `keep_hours` must be a whole number from 1 to 2160, not `0`"),
        (
            "idempotency: { answer_bytes_max: 1048577 }",
            "1048577 | `answer_bytes_max` must be a whole number from 0 to 1048576, not `1048577`",
        ),
        ("idempotency: { keep_days: 1 }", "keep_days | unknown field `keep_days` in `idempotency`"),
        (
            "holds: { expire_minutes: 10081 }",
            "10081 | `expire_minutes` must be a whole number from 1 to 10080, not `10081`",
        ),
        (
            "holds: { wait_seconds: 1 }",
            "wait_seconds | unknown field `wait_seconds` in `holds`; did you mean `wait_seconds_max`?",
        ),
    ] {
        let told = surface_problem(&place, fields);
        assert!(told.starts_with(expected), "{fields}: {told}");
    }
}

fn documented(rule: fields::Rule) -> String {
    match rule {
        fields::Rule::Required => "required".to_owned(),
        fields::Rule::Optional => "none".to_owned(),
        fields::Rule::Default("") => "empty".to_owned(),
        fields::Rule::Default(text) => format!("`{text}`"),
        fields::Rule::Number { default, min, max } => format!("{default} ({min} to {max})"),
    }
}

#[test]
fn every_field_is_documented_with_its_default() {
    let docs = std::fs::read_to_string("docs/CONFIGURATION.md").expect("the document");
    let rows: Vec<(&str, &str)> = docs
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| `")?.split('|');
            Some((cells.next()?.trim().trim_end_matches('`'), cells.next()?.trim()))
        })
        .collect();
    let mut expected = Vec::new();
    for section in fields::SECTIONS {
        for field in section.fields {
            let dot = if section.path.is_empty() { "" } else { "." };
            expected.push((format!("{}{dot}{}", section.path, field.name), documented(field.rule)));
        }
    }
    let rows: Vec<(String, String)> = rows.into_iter().map(|(n, d)| (n.to_owned(), d.to_owned())).collect();
    assert_eq!(rows, expected, "the tables of docs/CONFIGURATION.md, in the order of config::fields");
}
