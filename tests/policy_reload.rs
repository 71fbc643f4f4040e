//! Policy that changes while the gateway runs: what is in force, who put it there, and what a broken bundle does.

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroUsize;
use std::os::unix::fs::symlink;
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use interlock::gateway::Stopped;
use interlock::model::Digest;
use interlock::model::entry::{Entry, PolicyEntry, Role};
use interlock::replay::{Disclosures, Replayer, Selection, Under};
use interlock::verify::Directory;
use serde_json::{Value, json};

use crate::support::client::Response;
use crate::support::{Client, KEY, Script, Setup, World, request};

const ADMINISTRATOR: &str = "ilo_admin000_Zm9vYmFyYmF6cXV4MTIzNDU2Nzg5MA";
const OPERATOR: &str = "ilo_operator_Zm9vYmFyYmF6cXV4MTIzNDU2Nzg5MA";

fn setup() -> Setup {
    let of = |id: &str, role: &str, token: &str| {
        let sha256 = Digest::of(token.as_bytes()).to_string().split_off("sha-256:".len());
        format!("{{ id: {id}, role: {role}, prefix: {}, sha256: {sha256} }}", &token[..12])
    };
    let operators = [of("ada", "administrator", ADMINISTRATOR), of("oda", "operator", OPERATOR)];
    Setup {
        policy: policy("first"),
        admin: vec![format!("operators: [{}]", operators.join(", "))],
        ..Setup::default()
    }
}

/// Permits what the usual one permits, and says which it is.
fn policy(name: &str) -> String {
    format!(
        "package gateway.test\n\npermit contains \"{name}\" if input.request.headers[\"x-want\"] == \"permit\"\n"
    )
}

fn write(world: &World, text: &str) {
    world.write("policies/test.rego", text, 0o644);
}

fn reload(world: &World, token: &str, reason: &str) -> Response {
    reload_as(world, token, &json!({ "reason": reason }))
}

fn reload_as(world: &World, token: &str, body: &Value) -> Response {
    let body = body.to_string();
    let mut client = Client::connect(world.admin_address());
    let head = format!(
        "POST /policy/reload HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    client.send(head + &body);
    client.response()
}

fn readiness(world: &World) -> Value {
    world.admin("/readyz").json()
}

/// Waits until another revision judges.
#[track_caller]
fn wait_for_another(world: &World, before: &Value) {
    let start = Instant::now();
    while readiness(world)["policy"] == before["policy"] {
        assert!(start.elapsed() < Duration::from_secs(30), "still {before}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn activations(entries: &[Entry]) -> Vec<(usize, &PolicyEntry)> {
    let entries = entries.iter().enumerate();
    entries
        .filter_map(|(index, entry)| match entry {
            Entry::Policy(policy) => Some((index, Box::as_ref(policy))),
            _ => None,
        })
        .collect()
}

/// Each decision names a bundle that the log holds before it.
#[track_caller]
fn each_names_a_bundle_before_it(entries: &[Entry]) {
    let mut held = BTreeMap::new();
    for (index, entry) in entries.iter().enumerate() {
        match entry {
            Entry::Policy(policy) => {
                held.insert(policy.revision.to_string(), index);
            }
            Entry::Decision(decision) => {
                assert!(held.contains_key(&decision.policy.revision.to_string()), "entry {index}");
            }
            _ => {}
        }
    }
}

#[test]
fn a_changed_file_judges_without_a_restart_and_the_log_says_what_changed_it() {
    let world = setup().start();
    world.ask("GET", "/v1/things", "permit", "");
    let before = readiness(&world);
    assert_eq!(before["policy_source"], "in_force");
    write(&world, &policy("second"));
    wait_for_another(&world, &before);
    world.ask("GET", "/v1/things", "permit", "");
    assert_eq!(world.metric("interlock_policy_reloads_total{result=\"in_force\"}"), 1.0);
    let audit = world.finish();
    each_names_a_bundle_before_it(&audit.entries);
    let reasons: Vec<_> = audit.decisions().iter().map(|d| json!(d.reasons)).collect();
    assert_eq!(reasons, [json!([{ "code": "first" }]), json!([{ "code": "second" }])]);
    let activations = activations(&audit.entries);
    let by: Vec<_> =
        activations.iter().map(|(_, policy)| (&*policy.activated_by, policy.by.is_none())).collect();
    assert_eq!(by, [("start", true), ("change", true)]);
    // What a decision read of policy is the activation it was judged under.
    for (decision, (index, policy)) in audit.decisions().iter().zip(&activations) {
        assert_eq!(decision.policy.revision, policy.revision);
        let read = decision.evaluation.read_set.iter().find(|item| &*item.name == "policy").expect("watched");
        assert_eq!(&*read.version, index.to_string());
    }
}

#[test]
fn a_bundle_that_cannot_be_used_leaves_the_last_good_one_and_says_so_until_it_can() {
    let world = setup().start();
    let before = readiness(&world);
    let failing_test =
        "package test_test\n\nimport data.gateway.test\n\ntest_nothing if count(test.permit) == 7\n";
    let broken: [(&str, &str, &str); 3] = [
        ("policies/test.rego", "package gateway.test\n\npermit contains if {", "syntax"),
        ("policies/test.rego", "package gateway.test\n\nx := http.send({})\n", "builtin_refused"),
        ("policies/test_test.rego", failing_test, "test_failed"),
    ];
    for (file, text, rule) in broken {
        world.write(file, text, 0o644);
        world.wait_for_metric("interlock_policy_failing", 1.0);
        let now = readiness(&world);
        assert_eq!((&now["policy"], &now["policy_source"]), (&before["policy"], &json!("failing")), "{rule}");
        assert_eq!(now["ready"], true, "the last good one judges");
        assert_eq!(world.ask("GET", "/v1/things", "permit", "").status, 200);
        let told = reload(&world, ADMINISTRATOR, "try it");
        told.assert_refused(422, "policy_not_activated");
        let detail = told.json()["detail"].to_string();
        assert!(detail.contains(rule), "{rule}: {detail}");
        fs::remove_file(world.path(file)).expect("removed");
        write(&world, &policy("first"));
        world.wait_for_metric("interlock_policy_failing", 0.0);
        assert_eq!(readiness(&world)["policy_source"], "in_force");
    }
    // A test that passes changes nothing that decides.
    world.write("policies/test_test.rego", &failing_test.replace("7", "0"), 0o644);
    let unchanged = reload(&world, ADMINISTRATOR, "tests only").json();
    assert_eq!(unchanged["changed"], false, "{unchanged}");
    let audit = world.finish();
    assert_eq!(activations(&audit.entries).len(), 1);
}

#[test]
fn a_config_map_that_is_swapped_by_its_link_is_one_activation() {
    let world = setup().lay_out();
    let root = world.path("policies");
    fs::remove_file(root.join("test.rego")).expect("removed");
    let lay = |name: &str, text: &str| {
        fs::create_dir(root.join(name)).expect("a directory");
        fs::write(root.join(name).join("test.rego"), text).expect("written");
    };
    lay("..v1", &policy("first"));
    symlink("..v1", root.join("..data")).expect("linked");
    symlink("..data/test.rego", root.join("test.rego")).expect("linked");
    let mut world = world;
    world.run_inside();
    let before = readiness(&world);
    lay("..v2", &policy("second"));
    symlink("..v2", root.join("..data_tmp")).expect("linked");
    fs::rename(root.join("..data_tmp"), root.join("..data")).expect("swapped");
    wait_for_another(&world, &before);
    world.ask("GET", "/v1/things", "permit", "");
    let audit = world.finish();
    assert_eq!(json!(audit.decisions()[0].reasons), json!([{ "code": "second" }]));
    assert_eq!(activations(&audit.entries).len(), 2);
}

#[test]
fn an_administrator_and_a_signal_reload_at_once_and_are_named_in_the_leaf() {
    let mut world = setup().start();
    assert_eq!(reload(&world, ADMINISTRATOR, "nothing is new").json()["changed"], false);
    write(&world, &policy("second"));
    reload(&world, OPERATOR, "mine").assert_refused(403, "role_insufficient");
    let done = reload(&world, ADMINISTRATOR, "change 41").json();
    write(&world, &policy("third"));
    let before = readiness(&world);
    world.reload();
    wait_for_another(&world, &before);
    let audit = world.finish();
    let activations = activations(&audit.entries);
    assert_eq!(activations.len(), 3);
    let (index, ordered) = activations[1];
    // The tick may have come first; then there was nothing left to order.
    if &*ordered.activated_by == "operator" {
        assert_eq!(done["receipt"]["entry"], index);
        let by = ordered.by.as_ref().expect("named");
        assert_eq!((&*by.id, by.role), ("ada", Role::Administrator));
        assert_eq!(ordered.reason.as_deref(), Some("change 41"));
    } else {
        assert_eq!((&*ordered.activated_by, &done["changed"]), ("change", &json!(false)));
    }
    assert_eq!(&*activations[2].1.activated_by, "signal");
}

/// Bytes of memory the process has in RAM.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line");
    line.split_whitespace().nth(1).expect("a number").parse::<u64>().expect("kB") * 1024
}

#[test]
fn two_hundred_swaps_under_load_refuse_nobody_and_every_receipt_names_who_judged() {
    const SWAPS: usize = 200;
    const CLIENTS: usize = 64;
    let mut world = setup().start_program();
    let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
    world.upstream.on("/v1/things", Script::answer(answer));
    let pid = world.program().pid();
    let (stop, asked) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut warm = 0;
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut client = world.client();
                while !stop.load(Ordering::Relaxed) {
                    let headers = [("x-api-key", KEY), ("x-want", "permit")];
                    client.send(request("GET", "/v1/things", &headers, ""));
                    let response = client.response();
                    assert_eq!(response.status, 200, "{}", response.text());
                    asked.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(Duration::from_millis(400));
                }
            });
        }
        let mut swapped = 0;
        for n in 1..=SWAPS {
            write(&world, &policy(&format!("v{n}")));
            let done = reload(&world, ADMINISTRATOR, "swap");
            assert_eq!(done.status, 200, "{}", done.text());
            swapped += usize::from(done.json()["changed"] == true);
            if n == SWAPS / 2 {
                write(&world, "package gateway.test\n\npermit contains if {");
                let refused = reload(&world, ADMINISTRATOR, "broken");
                refused.assert_refused(422, "policy_not_activated");
                assert_eq!(world.metric("interlock_policy_failing"), 1.0);
            }
            if n == SWAPS / 4 {
                warm = resident(pid);
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert!(swapped > SWAPS / 2, "{swapped} by order");
    });
    let grown = resident(pid).saturating_sub(warm);
    println!("{} requests, {} bytes grown", asked.load(Ordering::Relaxed), grown);
    assert!(grown < 48 * 1024 * 1024, "{grown} bytes more than after a quarter of the swaps");
    assert_eq!(world.metric("interlock_policy_failing"), 0.0);
    let audit = world.finish_here(interlock::gateway::Stopped::Clean);
    let activations = activations(&audit.entries);
    assert_eq!(activations.len(), SWAPS + 1);
    each_names_a_bundle_before_it(&audit.entries);
    let name_of: BTreeMap<String, String> = activations
        .iter()
        .enumerate()
        .map(|(n, (_, policy))| {
            (policy.revision.to_string(), if n == 0 { "first".to_owned() } else { format!("v{n}") })
        })
        .collect();
    for decision in audit.decisions() {
        let name = &name_of[&decision.policy.revision.to_string()];
        assert_eq!(json!(decision.reasons), json!([{ "code": name }]), "its receipt names who judged");
    }
    let replayer = Replayer {
        trust: world.key.clone().into(),
        selection: Selection::All,
        under: Under::Recorded,
        disclosures: Disclosures::default(),
        accept_engine: false,
        threads: NonZeroUsize::new(2).expect("two"),
    };
    let log = Directory::open(&world.path("ledger")).expect("a log");
    let report = replayer.run(&log, |_| {}).expect("readable");
    assert!(report.all_exact() && report.decisions > 0, "{report}");
}

/// What the program says, and its exit code.
fn policy_command(arguments: &[&str]) -> (Option<i32>, String) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_interlock")).arg("policy").args(arguments).output().expect("runs");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).expect("UTF-8"))
}

/// Not running yet: policy will come from `bundle.tar.gz`, signed by `signing.pem`.
fn from_a_signed_bundle() -> World {
    let world = setup().lay_out();
    let (key, other) =
        (rcgen::KeyPair::generate().expect("P-256"), rcgen::KeyPair::generate().expect("P-256"));
    world.write("signing.pem", &key.serialize_pem(), 0o600);
    world.write("other.pem", &other.serialize_pem(), 0o600);
    world.write("release.pem", &key.public_key_pem(), 0o644);
    let yaml = fs::read_to_string(world.path("interlock.yaml")).expect("readable");
    let from_dir = format!("policy: {{ dir: {} }}", world.path("policies").display());
    let from_bundle =
        "policy: { bundle: ./bundle.tar.gz, keys: [{ id: release, public_key: ./release.pem }] }";
    assert!(yaml.contains(&from_dir));
    world.write("interlock.yaml", &yaml.replace(&from_dir, from_bundle), 0o644);
    world
}

/// Ships what stands in `policies`; the revision.
fn ship(world: &World, key: &str, version: Option<u64>) -> String {
    let path = |name: &str| world.path(name).display().to_string();
    let (dir, staged, key) = (path("policies"), path("staged.tar.gz"), path(key));
    let version = version.map(|version| version.to_string());
    let mut arguments = vec!["build", &dir, "-o", &staged, "--key", &key, "--key-id", "release"];
    arguments.extend(version.as_ref().into_iter().flat_map(|version| ["--version", version]));
    let built = policy_command(&arguments);
    assert_eq!(built.0, Some(0), "{}", built.1);
    fs::rename(&staged, world.path("bundle.tar.gz")).expect("shipped");
    built.1.trim().to_owned()
}

#[test]
fn a_signed_bundle_is_built_shipped_and_exchanged_and_one_that_nobody_signed_is_not_taken() {
    let world = from_a_signed_bundle();
    let first = ship(&world, "signing.pem", Some(1));
    let path = |name: &str| world.path(name).display().to_string();
    let (dir, bundle, release) = (path("policies"), path("bundle.tar.gz"), path("release.pem"));
    let inspected = policy_command(&["inspect", &bundle, "--public-key", &release, "--key-id", "release"]);
    assert_eq!(inspected.0, Some(0), "{}", inspected.1);
    for line in
        [&format!("revision   {first}"), "version    1", "signature  by `release`", "package    gateway.test"]
    {
        assert!(inspected.1.contains(line), "{line} in {}", inspected.1);
    }
    let of_directory = policy_command(&["inspect", &dir]);
    assert!(of_directory.1.contains(&first), "one revision: {}", of_directory.1);

    let mut world = world;
    world.run_inside();
    let before = readiness(&world);
    assert_eq!(before["policy"], *first);

    write(&world, &policy("second"));
    ship(&world, "other.pem", Some(2));
    world.wait_for_metric("interlock_policy_failing", 1.0);
    assert_eq!(readiness(&world)["policy"], *first, "somebody else signed it");
    let unsigned = policy_command(&["build", &dir, "-o", &bundle]);
    assert_eq!(unsigned.0, Some(0), "{}", unsigned.1);
    let refused = reload(&world, ADMINISTRATOR, "nobody signed it");
    refused.assert_refused(422, "policy_not_activated");
    assert!(refused.text().contains("signature_missing"), "{}", refused.text());
    let second = ship(&world, "signing.pem", Some(2));
    wait_for_another(&world, &before);
    world.wait_for_metric("interlock_policy_failing", 0.0);
    world.ask("GET", "/v1/things", "permit", "");
    let audit = world.finish();
    let versions: Vec<_> = activations(&audit.entries)
        .iter()
        .map(|(_, policy)| (policy.revision.to_string(), policy.version))
        .collect();
    assert_eq!(versions, [(first, Some(1)), (second.clone(), Some(2))]);
    assert_eq!(audit.decisions()[0].policy.revision.to_string(), second);
}

#[test]
fn an_older_version_needs_somebodys_word_for_exactly_its_revision() {
    let mut world = from_a_signed_bundle();
    let shipped = |world: &World, name: &str, version: Option<u64>| {
        write(world, &policy(name));
        ship(world, "signing.pem", version)
    };
    let first = shipped(&world, "first", Some(1));
    world.run_inside();
    let before = readiness(&world);
    let second = shipped(&world, "second", Some(2));
    wait_for_another(&world, &before);

    // Signed, all of them, and each by itself good.
    for (name, version) in [("first", Some(1)), ("other", Some(2)), ("none", None)] {
        shipped(&world, name, version);
        world.wait_for_metric("interlock_policy_failing", 1.0);
        let refused = reload(&world, ADMINISTRATOR, "because");
        refused.assert_refused(409, "policy_older");
        assert!(refused.text().contains("version 2, which entry"), "{}", refused.text());
        assert_eq!(readiness(&world)["policy"], *second);
        shipped(&world, "second", Some(2));
        world.wait_for_metric("interlock_policy_failing", 0.0);
    }

    // The word is for one revision, and not for whatever lies there now.
    shipped(&world, "first", Some(1));
    reload_older(&world, &second, "the wrong one").assert_refused(409, "policy_older");
    reload_older(&world, "sha-256:xyz", "no revision").assert_refused(400, "body_invalid");
    let done = reload_older(&world, &first, "the second refuses refunds");
    assert_eq!((done.status, &done.json()["changed"]), (200, &json!(true)), "{}", done.text());
    assert_eq!(readiness(&world)["policy"], *first);

    // It stays in force over a restart; any other one still has to be newer than the newest.
    world.finish_here(Stopped::Clean);
    world.run_inside();
    assert_eq!(readiness(&world)["policy"], *first);
    world.finish_here(Stopped::Clean);
    let third = shipped(&world, "other", Some(2));
    let (status, said) = start_fails(&mut world);
    assert!(!status.success() && said.contains("version 2 is not after version 2"), "{said}");
    let yaml = fs::read_to_string(world.path("interlock.yaml")).expect("readable");
    let word = format!("bundle: ./bundle.tar.gz, older: {{ revision: \"{third}\", than: 2 }},");
    let answered = yaml.replace("bundle: ./bundle.tar.gz,", &word);
    world.write("interlock.yaml", &answered, 0o644);
    world.run_inside();
    let before = readiness(&world);
    assert_eq!(before["policy"], *third);

    // The config's word was about one step back: a newer one ends it, while running and at the next start.
    let repaired = shipped(&world, "repaired", Some(3));
    wait_for_another(&world, &before);
    shipped(&world, "other", Some(2));
    world.wait_for_metric("interlock_policy_failing", 1.0);
    assert_eq!(readiness(&world)["policy"], *repaired);
    world.finish_here(Stopped::Clean);
    let (status, said) = start_fails(&mut world);
    assert!(!status.success() && said.contains("version 2 is not after version 3"), "{said}");
    shipped(&world, "repaired", Some(3));
    world.run_inside();

    let audit = world.finish();
    let activations: Vec<_> = activations(&audit.entries)
        .iter()
        .map(|(_, p)| (p.revision.to_string(), p.version, p.older_than, p.reason.as_deref()))
        .collect();
    let reason = Some("the second refuses refunds");
    let expected = [
        (first.clone(), Some(1), None, None),
        (second, Some(2), None, None),
        (first.clone(), Some(1), Some(2), reason),
        (first, Some(1), None, None),
        (third, Some(2), Some(2), None),
        (repaired.clone(), Some(3), None, None),
        (repaired, Some(3), None, None),
    ];
    assert_eq!(activations, expected);
}

fn reload_older(world: &World, revision: &str, reason: &str) -> Response {
    reload_as(world, ADMINISTRATOR, &json!({ "older": revision, "reason": reason }))
}

/// How a start ends that must end.
fn start_fails(world: &mut World) -> (ExitStatus, String) {
    world.start_without_waiting();
    world.wait_for_end()
}
