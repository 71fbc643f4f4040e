//! What is shipped to deploy with: that it is hardened as it says, and that the gateway accepts it.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use granit_parser::{Event, Parser};
use interlock::authority::{Presented, Unauthenticated};
use interlock::clock::Clock;
use interlock::config::{AdminListen, Config, EXAMPLE_KEY, SecretsAre, Surroundings};
use interlock::model::{Digest, Json};

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// One of the shipped configs, laid out as in a checkout, with a directory for policies beside it. Secrets of containers
/// are not where they would be mounted.
fn example(file: &str) -> Config {
    example_with(file, |text, _| text)
}

fn example_with(file: &str, edit: impl FnOnce(String, &Path) -> String) -> Config {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::create_dir_all(dir.path().join("deploy/schemas")).expect("a directory");
    std::fs::create_dir(dir.path().join("policies")).expect("a directory");
    // As deploy/README.md makes them.
    std::fs::create_dir(dir.path().join("deploy/secrets")).expect("a directory");
    let made = Command::new(env!("CARGO_BIN_EXE_interlock"))
        .args(["keys", "operator", "--id", "ann", "--role", "approver"])
        .output()
        .expect("runs");
    let made = String::from_utf8(made.stdout).expect("UTF-8");
    let (_token, declared) = made.split_once('\n').expect("two parts");
    std::fs::write(dir.path().join("deploy/secrets/operators.yaml"), declared).expect("written");
    for copied in ["deploy/schemas/charge.json", "deploy/schemas/refund.json"] {
        std::fs::copy(copied, dir.path().join(copied)).unwrap_or_else(|e| panic!("{copied}: {e}"));
    }
    std::fs::write(dir.path().join(file), edit(read(file), dir.path())).expect("written");
    let clock = Clock::system();
    let surroundings = Surroundings { secrets: SecretsAre::Optional, ..Surroundings::of_process(&clock) };
    Config::load(&dir.path().join(file), surroundings).unwrap_or_else(|e| panic!("{e}"))
}

/// The scalars of a YAML file by path, such as `services.gateway.user` or `cap_drop.0`.
fn flat(file: &str) -> Vec<(String, String)> {
    let text = read(file);
    let events: Vec<Event<'_>> = Parser::new_from_str(&text)
        .map(|event| event.unwrap_or_else(|e| panic!("{file}: {e}")).0)
        .filter(|event| event.is_node() || matches!(event, Event::SequenceEnd | Event::MappingEnd))
        .collect();
    let mut out = Vec::new();
    flatten(&mut events.iter(), String::new(), &mut out);
    out
}

fn flatten<'e>(
    events: &mut std::slice::Iter<'e, Event<'e>>,
    path: String,
    out: &mut Vec<(String, String)>,
) -> bool {
    let dot = if path.is_empty() { "" } else { "." };
    match events.next().expect("a node") {
        Event::Scalar(text, ..) => out.push((path, text.to_string())),
        Event::SequenceStart(..) => {
            let mut index = 0;
            while flatten(events, format!("{path}{dot}{index}"), out) {
                index += 1;
            }
        }
        Event::MappingStart(..) => {
            while let Some(Event::Scalar(key, ..)) = events.next() {
                flatten(events, format!("{path}{dot}{key}"), out);
            }
        }
        Event::SequenceEnd | Event::MappingEnd => return false,
        other => panic!("{path}: {other:?} is not used in these files"),
    }
    true
}

fn value<'v>(values: &'v [(String, String)], path: &str) -> Option<&'v str> {
    values.iter().find(|(p, _)| p == path).map(|(_, v)| v.as_str())
}

#[test]
fn the_shipped_examples_are_valid_and_warn_of_the_published_key() {
    for file in ["deploy/interlock.yaml", "deploy/interlock.compose.yaml"] {
        let config = example(file);
        let published = |w: &interlock::config::Problem| w.message.contains("everyone knows");
        assert_eq!(config.warnings().iter().filter(|w| published(w)).count(), 1, "{file}");
        assert!(read(file).contains(&Digest::of(EXAMPLE_KEY.as_bytes()).to_string()["sha-256:".len()..]));
        assert!(EXAMPLE_KEY.starts_with("ilk_example0"));
        assert_eq!(config.surfaces[0].routes.len(), 4);
    }
}

#[test]
fn the_published_key_proves_the_example_actor_with_its_claims() {
    let config = example("deploy/interlock.yaml");
    let mut headers = http::HeaderMap::new();
    let presented = |headers: &http::HeaderMap| {
        config.surfaces[0].identities.authenticate(&Presented { headers, certificate: None })
    };
    assert_eq!(presented(&headers), Err(Unauthenticated::MISSING));
    headers.insert("x-api-key", EXAMPLE_KEY.parse().expect("a value"));
    let actor = presented(&headers).expect("proved");
    assert_eq!(actor.id.as_str(), "agent-7");
    let roles = Json::Array(vec![Json::string("agent")]);
    assert_eq!(actor.claims, Json::object([("roles", roles)]));
    assert_eq!(actor.credential_digest, Some(Digest::of(EXAMPLE_KEY.as_bytes())));
}

fn who(config: &Config) -> Vec<String> {
    config.admin.operators.load().iter().map(|operator| operator.to_string()).collect()
}

#[test]
fn somebody_operates_the_examples_and_nobody_over_plain_text() {
    let local = example("deploy/interlock.yaml");
    assert_eq!(who(&local), ["ann (approver)"]);
    let AdminListen::Tcp(address) = local.admin.listen else { panic!("an address") };
    assert!(address.ip().is_loopback());

    // With its secrets mounted, by the names that docker-compose.yml gives them.
    let compose = flat("docker-compose.yml");
    let config = example_with("deploy/interlock.compose.yaml", |text, dir| {
        let tls = dir.join("deploy/secrets/tls");
        let made = Command::new("sh").arg("certs/generate.sh").arg(tls).arg("20").output().expect("runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mounted = dir.join("mounted");
        std::fs::create_dir(&mounted).expect("a directory");
        for name in ["admin_certificate", "admin_key", "operators"] {
            let file = value(&compose, &format!("secrets.{name}.file")).expect(name);
            std::fs::copy(dir.join(file), mounted.join(name)).unwrap_or_else(|e| panic!("{file}: {e}"));
        }
        text.replace("/run/secrets", &mounted.display().to_string())
    });
    assert_eq!(who(&config), ["ann (approver)"]);
    assert!(config.admin.tls.is_some());
}

#[test]
fn the_compose_example_differs_in_addresses_paths_and_tls_only() {
    let body = |file: &str| -> String {
        let text = read(file);
        text[text.find("log_origin:").expect("the first field")..].to_owned()
    };
    let moved = [
        ("./data/ledger", "/var/lib/interlock/ledger"),
        ("./secrets/log.key", "/run/secrets/log_key"),
        ("./secrets/payments-key", "/run/secrets/payments_key"),
        (
            "# Who may approve, freeze and reconcile; deploy/README.md says how to make the file.\n\
             admin: { listen: 127.0.0.1:9095, operators: { file: ./secrets/operators.yaml } }",
            "# Who may approve, freeze and reconcile, over TLS; deploy/README.md says how to make the files.\n\
             admin:\n  \
               listen: 0.0.0.0:9095\n  \
               allow_remote: true\n  \
               tls: { certificate: /run/secrets/admin_certificate, key: /run/secrets/admin_key }\n  \
               operators: { file: /run/secrets/operators }",
        ),
        ("127.0.0.1:8080", "0.0.0.0:8080"),
        ("http://127.0.0.1:9000", "http://sample-api:9000"),
    ];
    let local = body("deploy/interlock.yaml");
    let expected = moved.iter().fold(local, |text, (from, to)| text.replace(from, to));
    assert_eq!(expected, body("deploy/interlock.compose.yaml"));
}

#[test]
fn every_container_is_hardened() {
    let compose = flat("docker-compose.yml");
    for service in ["gateway", "sample-api", "prometheus"] {
        let of = |field: &str| value(&compose, &format!("services.{service}.{field}"));
        assert_eq!(of("read_only"), Some("true"), "{service}");
        assert_eq!((of("cap_drop.0"), of("cap_drop.1")), (Some("ALL"), None), "{service}");
        assert_eq!(of("security_opt.0"), Some("no-new-privileges:true"), "{service}");
        assert!(of("cap_add.0").is_none() && of("privileged").is_none(), "{service}");
        let user = of("user").expect("a user");
        assert!(
            !user.starts_with('0') && !user.contains("root") && !user.contains(":-0"),
            "{service}: {user}"
        );
        assert!(of("mem_limit").is_some() && of("pids_limit").is_some(), "{service}");
    }
}

#[test]
fn the_gateway_is_the_only_way_to_the_sample_api() {
    let compose = flat("docker-compose.yml");
    let networks = |service: &str| -> BTreeSet<&str> {
        let prefix = format!("services.{service}.networks.");
        compose.iter().filter(|(p, _)| p.starts_with(&prefix)).map(|(_, v)| v.as_str()).collect()
    };
    assert_eq!(networks("sample-api"), BTreeSet::from(["upstream"]));
    assert_eq!(value(&compose, "networks.upstream.internal"), Some("true"));
    assert!(networks("gateway").contains("upstream") && !networks("prometheus").contains("upstream"));
    assert!(!compose.iter().any(|(p, _)| p.starts_with("services.sample-api.ports")));
    // What is published is published to this machine only.
    for (path, port) in compose.iter().filter(|(p, _)| p.contains(".ports.")) {
        assert!(port.starts_with("127.0.0.1:"), "{path}: {port}");
    }
}

#[test]
fn secrets_are_files_and_everything_mounted_is_there() {
    let compose = flat("docker-compose.yml");
    let config = example("deploy/interlock.compose.yaml");
    assert_eq!(config.ledger.signing_key, Path::new("/run/secrets/log_key"));
    for secret in ["log_key", "payments_key", "admin_certificate", "admin_key", "operators"] {
        assert!(value(&compose, &format!("secrets.{secret}.file")).is_some(), "{secret}");
        assert!(read("deploy/interlock.compose.yaml").contains(&format!("/run/secrets/{secret}")));
    }
    assert!(!compose.iter().any(|(p, _)| p.contains(".environment")));
    assert_eq!(value(&compose, "services.gateway.volumes.2.target"), Some("/var/lib/interlock"));
    assert!(config.ledger.dir.starts_with("/var/lib/interlock"));
    for volume in 0..2 {
        let path = format!("services.gateway.volumes.{volume}.read_only");
        assert_eq!(value(&compose, &path), Some("true"), "{path}");
    }
}

#[test]
fn the_image_is_empty_but_for_one_binary_and_runs_as_nobody_in_particular() {
    let dockerfile = read("deploy/Dockerfile");
    let last = &dockerfile[dockerfile.rfind("\nFROM ").expect("a stage") + 1..];
    assert!(last.starts_with("FROM scratch\n"));
    let lines: Vec<&str> = last.lines().collect();
    assert!(lines.contains(&"USER 65532:65532") && lines.contains(&r#"ENTRYPOINT ["/interlock"]"#));
    assert!(!lines.iter().any(|l| l.starts_with("RUN ") || l.starts_with("ADD ")));
    assert!(dockerfile.contains("cargo build --release --locked"));
}

#[test]
fn prometheus_scrapes_the_admin_listener_and_every_alert_explains_itself() {
    let prometheus = flat("deploy/prometheus.yml");
    let target = value(&prometheus, "scrape_configs.0.static_configs.0.targets.0").expect("a target");
    let listen = example("deploy/interlock.compose.yaml").admin.listen;
    let AdminListen::Tcp(address) = listen else { panic!("the example listens on {listen}") };
    let port = address.port();
    assert_eq!(target, format!("gateway:{port}"));
    assert_eq!(value(&prometheus, "scrape_configs.0.scheme"), Some("https"));
    let ca = value(&prometheus, "scrape_configs.0.tls_config.ca_file");
    let mounted = flat("docker-compose.yml");
    assert_eq!(ca, value(&mounted, "services.prometheus.volumes.2.target"));
    let alerts = flat("deploy/alerts.yml");
    let names =
        alerts.iter().filter(|(p, _)| p.ends_with(".alert")).map(|(p, _)| p.trim_end_matches(".alert"));
    let mut count = 0;
    for rule in names {
        for field in ["expr", "labels.severity", "annotations.summary"] {
            assert!(value(&alerts, &format!("{rule}.{field}")).is_some(), "{rule}.{field}");
        }
        count += 1;
    }
    assert!(count >= 5, "{count}");
}

#[test]
fn every_metric_that_an_alert_asks_for_exists() {
    let telemetry = read("src/telemetry.rs");
    for (path, expr) in flat("deploy/alerts.yml").iter().filter(|(p, _)| p.ends_with(".expr")) {
        let words = expr.split(|c: char| !c.is_ascii_lowercase() && c != '_');
        for name in words.filter_map(|word| word.strip_prefix("interlock_")) {
            // A histogram is scraped as three series.
            let name =
                ["_bucket", "_sum", "_count"].iter().find_map(|s| name.strip_suffix(s)).unwrap_or(name);
            assert!(telemetry.contains(&format!("\"{name}\"")), "{path}: {name}");
        }
    }
}

#[test]
fn the_generated_certificates_are_accepted() {
    let dir = tempfile::tempdir().expect("a directory");
    let out = dir.path().join("out");
    let run = || Command::new("sh").arg("certs/generate.sh").arg(&out).arg("20").output().expect("runs");
    let first = run();
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    assert!(!run().status.success(), "a second run must not overwrite the first");
    for key in ["ca.key", "server.key", "client.key"] {
        let mode = std::fs::metadata(out.join(key)).expect("a key").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
    }

    std::fs::create_dir(dir.path().join("policies")).expect("a directory");
    let clock = Clock::system();
    let surroundings = Surroundings { secrets: SecretsAre::Needed, ..Surroundings::of_process(&clock) };
    let text = "log_origin: test
ledger: { dir: ledger, signing_key: out/client.key }
policy: { dir: policies }
listeners: [{ name: main, address: 127.0.0.1:0, tls: { certificate: out/server.pem, key: out/server.key } }]
surfaces:
  - name: payments
    listener: main
    package: payments
    identity: { api_key: {} }
    upstream: { url: \"https://localhost\", roots: { file: out/ca.pem } }
    routes: [{ action: a, method: GET, path: /a, body: none }]
";
    let file = dir.path().join("interlock.yaml");
    let config = Config::parse(text.as_bytes(), &file, surroundings).unwrap_or_else(|e| panic!("{e}"));
    assert!(config.listeners[0].tls.is_some());
}
