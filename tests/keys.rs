//! Signing keys that come and go: what a log says about it, what a start accepts, and the whole exchange of a key
//! under load with kills in between.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use interlock::clock::Clock;
use interlock::gateway::Stopped;
use interlock::ledger::{Closed, Ledger, OpenError, Settings, Signers};
use interlock::merkle::checkpoint::parse_checkpoint;
use interlock::merkle::note::{Signer, VerifierKey, parse_note_unverified};
use interlock::model::entry::{Entry, EpochEvent, KeyEvent};
use interlock::verify::Directory;
use interlock::verify::walk::{Step, Walk};
use tempfile::TempDir;

use super::ledger_faults::{Key, ORIGIN, SEGMENT_BYTES, activation, interlock, start, stdout, write};
use super::support::{self, KEY, Script, Setup, World, request};

fn signers(keys: &[&Key], compromised: &[&Key]) -> Signers {
    let (primary, others) = keys.split_first().expect("a primary key");
    let others = others.iter().map(|key| Box::new((*key).clone()) as Box<dyn Signer>).collect();
    let compromised = compromised.iter().map(|key| key.verifier().clone()).collect();
    Signers::new(Box::new((*primary).clone()), others, compromised).expect("they sign together")
}

fn open(dir: &Path, signers: Signers) -> Result<Ledger, OpenError> {
    let settings = Settings {
        dir: dir.to_owned(),
        origin: ORIGIN.parse().expect("a name"),
        segment_bytes: SEGMENT_BYTES,
        salts: None,
        heartbeat: None,
    };
    Ok(Ledger::open(settings, signers, Clock::system(), start())?.0)
}

/// One run that writes two leaves and stops.
async fn run(dir: &Path, keys: &[&Key], compromised: &[&Key]) {
    let ledger = open(dir, signers(keys, compromised)).expect("opens");
    for n in 0..2 {
        ledger.record_policy(activation(n)).await.expect("recorded");
    }
    assert_eq!(ledger.close(Duration::ZERO).await, Closed::Clean);
}

fn refused(dir: &Path, keys: &[&Key], compromised: &[&Key]) -> String {
    open(dir, signers(keys, compromised)).expect_err("refused").to_string()
}

fn entries(dir: &Path, origin: &str) -> Vec<Entry> {
    let source = Directory::open(dir).expect("a log");
    let mut walk = Walk::new(&source, &origin.parse().expect("a name")).expect("readable");
    let mut entries = Vec::new();
    loop {
        match walk.step().expect("readable") {
            Step::Frame(frame, _) => {
                let read = |e: &&[u8]| Entry::from_bytes_unverified(e).expect("an entry");
                entries.extend(frame.entries.iter().map(read));
            }
            Step::End(_) => return entries,
            Step::Damaged(damage) => panic!("{damage:?}"),
        }
    }
}

/// What the leaves say about keys, in order: `start A B`, `add B`; keys by their position in `names`.
fn story(dir: &Path, origin: &str, names: &[&VerifierKey]) -> Vec<String> {
    let name = |vkey: &str| {
        let at = names.iter().position(|key| key.to_string() == vkey).expect("a key of this test");
        char::from(b'A' + at as u8).to_string()
    };
    let all = |vkeys: &[Arc<str>]| vkeys.iter().map(|vkey| name(vkey)).collect::<Vec<_>>().join(" ");
    let told = |entry: &Entry| match entry {
        Entry::Epoch(e) if e.event == EpochEvent::Start => Some(format!("start {}", all(&e.vkeys))),
        Entry::Epoch(e) => Some(format!("stop {}", all(&e.vkeys))),
        Entry::Key(e) => {
            let event = match e.event {
                KeyEvent::Add => "add",
                KeyEvent::Retire => "retire",
                KeyEvent::Compromised => "compromised",
            };
            Some(format!("{event} {}", name(&e.vkey)))
        }
        Entry::Admin(_)
        | Entry::Decision(_)
        | Entry::Heartbeat(_)
        | Entry::Outcome(_)
        | Entry::Policy(_)
        | Entry::Refusal(_) => None,
    };
    entries(dir, origin).iter().filter_map(told).collect()
}

fn checkpoint(dir: &Path) -> String {
    fs::read_to_string(dir.join("checkpoint")).expect("a checkpoint")
}

fn signs(dir: &Path, key: &VerifierKey) -> bool {
    parse_checkpoint(checkpoint(dir).as_bytes(), key).is_ok()
}

fn new_log() -> (TempDir, Key, Key, Key) {
    (tempfile::tempdir().expect("a directory"), Key::new(), Key::new(), Key::new())
}

#[tokio::test]
async fn a_key_is_exchanged_with_a_leaf_for_each_change_and_checkpoints_that_each_key_opens() {
    let (log, a, b, stranger) = new_log();
    let dir = log.path();
    run(dir, &[&a], &[]).await;
    assert!(signs(dir, a.verifier()) && !signs(dir, b.verifier()));
    run(dir, &[&a, &b], &[]).await;
    let note = checkpoint(dir);
    let (_, lines) = parse_note_unverified(note.as_bytes()).expect("a note");
    let ids: Vec<_> = lines.iter().map(|line| line.id).collect();
    assert_eq!(ids, [a.verifier().id(), b.verifier().id()], "the primary first");
    assert!(signs(dir, a.verifier()) && signs(dir, b.verifier()) && !signs(dir, stranger.verifier()));
    run(dir, &[&b, &a], &[]).await;
    assert!(signs(dir, a.verifier()) && signs(dir, b.verifier()));
    run(dir, &[&b], &[]).await;
    assert!(!signs(dir, a.verifier()) && signs(dir, b.verifier()));
    let expected = [
        "start A",
        "stop A",
        "start A B",
        "add B",
        "stop A B",
        "start B A",
        "stop B A",
        "start B",
        "retire A",
        "stop B",
    ];
    assert_eq!(story(dir, ORIGIN, &[a.verifier(), b.verifier()]), expected);
    // Its word ended with that leaf: whoever finds it must not be able to bring it back.
    let note = checkpoint(dir);
    let told = refused(dir, &[&b, &a], &[]);
    assert!(told.contains(&a.verifier().to_string()) && told.contains("was retired"), "{told}");
    assert_eq!(checkpoint(dir), note);
}

#[tokio::test]
async fn a_start_with_only_a_new_key_is_refused_and_says_what_to_do() {
    let (log, a, b, _) = new_log();
    let dir = log.path();
    run(dir, &[&a], &[]).await;
    let (before, note) = (entries(dir, ORIGIN).len(), checkpoint(dir));
    let told = refused(dir, &[&b], &[]);
    assert!(told.contains("also_sign_with") && told.contains("before you leave the old one out"), "{told}");
    assert!(told.contains(&a.verifier().id().to_string()), "it names the key that is missing: {told}");
    assert_eq!((entries(dir, ORIGIN).len(), checkpoint(dir)), (before, note), "nothing was changed");
    run(dir, &[&b, &a], &[]).await;
}

#[tokio::test]
async fn a_killed_run_s_tail_counts_if_any_configured_key_sealed_it() {
    let (log, a, b, c) = new_log();
    let dir = log.path();
    let ledger = open(dir, signers(&[&a, &b], &[])).expect("opens");
    let old = checkpoint(dir);
    ledger.record_policy(activation(0)).await.expect("recorded");
    drop(ledger);
    // As a kill before the file was written again would leave it.
    write(&dir.join("checkpoint"), old.as_bytes());
    // `b` signed this checkpoint, and did not seal what came after it.
    let told = refused(dir, &[&b], &[]);
    assert!(told.contains("none of the log's keys sealed them"), "{told}");
    // Swapped, with one more: the seal is by a key that is not the primary any more.
    run(dir, &[&b, &c, &a], &[]).await;
    let expected = ["start A B", "start B C A", "add C", "stop B C A"];
    assert_eq!(story(dir, ORIGIN, &[a.verifier(), b.verifier(), c.verifier()]), expected);
}

#[tokio::test]
async fn a_compromised_key_is_declared_once_and_never_signs_again() {
    let (log, a, b, c) = new_log();
    let dir = log.path();
    run(dir, &[&a, &b], &[]).await;
    run(dir, &[&b], &[&a]).await;
    run(dir, &[&b], &[&a]).await;
    // Known from long ago, and one that this log never had.
    run(dir, &[&b, &c], &[]).await;
    run(dir, &[&c], &[]).await;
    run(dir, &[&c], &[&b, &Key::new()]).await;
    let expected = [
        "start A B",
        "stop A B",
        "start B",
        "compromised A",
        "stop B",
        "start B",
        "stop B",
        "start B C",
        "add C",
        "stop B C",
        "start C",
        "retire B",
        "stop C",
        "start C",
        "compromised B",
        "stop C",
    ];
    assert_eq!(story(dir, ORIGIN, &[a.verifier(), b.verifier(), c.verifier()]), expected);
    // The config forgot it; the log did not.
    let note = checkpoint(dir);
    let told = refused(dir, &[&c, &a], &[]);
    assert!(told.contains(&a.verifier().to_string()) && told.contains("is compromised"), "{told}");
    assert_eq!(checkpoint(dir), note);
}

#[test]
fn key_leaves_come_after_the_outcomes_that_the_last_run_owed() {
    let mut world = Setup::default().lay_out();
    world.run_program(&[]);
    // An answer that never comes leaves a permit open.
    world.upstream.next(Script::steps([support::Step::Hang]));
    let mut client = world.client();
    let headers = [("x-api-key", KEY), ("x-want", "permit"), ("content-type", "application/json")];
    client.send(request("POST", "/v1/things", &headers, "{}"));
    world.wait_for_metric("interlock_ledger_open_permits", 1.0);
    world.kill();
    let next = generate(&world, "next.key");
    configure(&world, "./log.key, also_sign_with: [./next.key]");
    world.run_program(&[]);
    let audit = world.finish_here(Stopped::Clean);
    let at = audit.entries.iter().position(|e| matches!(e, Entry::Key(_))).expect("a key leaf");
    let Entry::Key(added) = &audit.entries[at] else { unreachable!("found as one") };
    assert_eq!((added.event, &*added.vkey), (KeyEvent::Add, &*next.to_string()));
    assert!(matches!(&audit.entries[at - 1], Entry::Outcome(o) if o.cause.as_deref() == Some("recovered")));
    assert!(matches!(&audit.entries[at - 2], Entry::Epoch(e) if e.event == EpochEvent::Start));
}

/// A new key of the world's log in this file; its verifier key.
pub(super) fn generate(world: &World, file: &str) -> VerifierKey {
    let path = world.path(file);
    let origin = world.key.name().as_str();
    let made = interlock(&["keys", "generate", "--origin", origin, "--out", path.to_str().expect("UTF-8")]);
    assert!(made.status.success(), "{made:?}");
    stdout(&made).trim_end().parse().expect("a verifier key")
}

/// Puts this in place of the config's `signing_key`.
pub(super) fn configure(world: &World, keys: &str) {
    let yaml = fs::read_to_string(world.path("interlock.yaml")).expect("readable");
    let (before, rest) = yaml.split_once("signing_key: ").expect("a signing key");
    let (_, after) = rest.split_once(", segment_mib").expect("its end");
    world.write("interlock.yaml", &format!("{before}signing_key: {keys}, segment_mib{after}"), 0o644);
}

/// Agents that ask until they are stopped, and do not mind dying connections.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    agents: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(address: SocketAddr) -> Self {
        static REQUESTS: AtomicUsize = AtomicUsize::new(0);
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let agents = (0..3).map(|_| {
            let (stop, answered) = (stop.clone(), answered.clone());
            thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    let n = REQUESTS.fetch_add(1, Ordering::SeqCst);
                    if ask(address, &format!("{{\"n\":{n}}}")).is_some() {
                        answered.fetch_add(1, Ordering::SeqCst);
                    }
                }
            })
        });
        let agents = agents.collect();
        Self { stop, answered, agents }
    }

    fn wait_for(&self, answers: usize) {
        while self.answered.load(Ordering::SeqCst) < answers {
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn stop(self) {
        self.stop.store(true, Ordering::SeqCst);
        for agent in self.agents {
            agent.join().expect("agents do not panic");
        }
    }
}

fn ask(address: SocketAddr, body: &str) -> Option<()> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let headers = [
        ("x-api-key", KEY),
        ("x-want", "permit"),
        ("content-type", "application/json"),
        ("connection", "close"),
    ];
    stream.write_all(&request("POST", "/v1/things", &headers, body)).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    answer.starts_with(b"HTTP/1.1 ").then_some(())
}

/// docs/OPERATIONS.md, "Rotating the signing key", step by step. Every step is taken under load by a kill, twice: the
/// start that follows finds an unsigned tail of the step before.
#[test]
fn the_signing_key_is_exchanged_as_the_operations_manual_says_under_load_with_kills_in_between() {
    let mut world = Setup::default().lay_out();
    let old = world.key.clone();
    let new = generate(&world, "next.key");
    let steps =
        ["./log.key", "./log.key, also_sign_with: [./next.key]", "./next.key, also_sign_with: [./log.key]"];
    for step in steps {
        configure(&world, step);
        for _ in 0..2 {
            world.run_program(&[]);
            let load = Load::start(world.address());
            load.wait_for(20);
            world.kill();
            load.stop();
        }
    }
    // The old key signed every epoch so far, so whoever pinned it alone still can check everything.
    world.run_program(&[]);
    let audit = world.finish_here(Stopped::Clean);
    assert!(audit.effects >= 6 * 20, "{}", audit.effects);

    configure(&world, "./next.key");
    world.run_program(&[]);
    assert_eq!(world.ask("POST", "/v1/things", "permit", "{}").status, 200);
    world.kill();
    configure(&world, &format!("./next.key, compromised_keys: [\"{old}\"]"));
    world.run_program(&[]);
    assert_eq!(world.ask("POST", "/v1/things", "permit", "{}").status, 200);
    world.program().terminate();
    assert!(world.wait_for_end().0.success());

    let dir = world.path("ledger");
    let told = story(&dir, old.name().as_str(), &[&old, &new]);
    let expected = [
        "start A",
        "start A",
        "start A B",
        "add B",
        "start A B",
        "start B A",
        "start B A",
        "start B A",
        "stop B A",
        "start B",
        "retire A",
        "start B",
        "compromised A",
        "stop B",
    ];
    assert_eq!(told, expected);
    assert!(signs(&dir, &new) && !signs(&dir, &old));
}

#[test]
fn a_config_whose_keys_do_not_fit_together_starts_nothing() {
    let mut world = Setup::default().lay_out();
    let other = world.path("other.key");
    let made =
        interlock(&["keys", "generate", "--origin", "other/log", "--out", other.to_str().expect("UTF-8")]);
    assert!(made.status.success());
    fs::copy(world.path("log.key"), world.path("copy.key")).expect("copied");
    let own = world.key.to_string();
    let cases = [
        ("./log.key, also_sign_with: [./other.key]".to_owned(), "all keys of this one are called"),
        ("./log.key, also_sign_with: [./copy.key]".to_owned(), "is one file named twice?"),
        (format!("./log.key, compromised_keys: [\"{own}\"]"), "is listed as compromised and may not sign"),
    ];
    for (config, why) in cases {
        configure(&world, &config);
        assert!(!world.try_run_program(&[]), "{config}");
        let (status, log) = world.wait_for_end();
        assert!(status.code() == Some(5) && log.contains(why), "{config}: {log}");
        let file = world.path("running.yaml");
        let checked = interlock(&["check", "--config", file.to_str().expect("UTF-8")]);
        let told = String::from_utf8_lossy(&checked.stderr).into_owned();
        assert!(checked.status.code() == Some(2) && told.contains(why), "{told}");
    }
    assert!(!world.path("ledger").exists(), "no log was begun");
    world.nothing_to_audit();
}

#[test]
fn keys_are_shown_and_trust_files_are_written() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name).to_str().expect("UTF-8").to_owned();
    let generate = |origin: &str, name: &str| {
        let made = interlock(&["keys", "generate", "--origin", origin, "--out", &path(name)]);
        assert!(made.status.success());
        stdout(&made).trim_end().to_owned()
    };
    let (a, b, other) = (generate(ORIGIN, "a"), generate(ORIGIN, "b"), generate("other/log", "o"));
    assert_eq!(stdout(&interlock(&["keys", "show", &path("a")])), format!("{a}\n"));
    assert_eq!(interlock(&["keys", "show", &path("a.vkey")]).status.code(), Some(1), "public is not private");
    let trust = |keys: &[&str]| interlock(&[&["keys", "trust"], keys].concat());
    assert_eq!(stdout(&trust(&[&a, &path("b.vkey")])), format!("log {a}\nlog {b}\nquorum none\n"));
    let refused = |keys: &[&str], why: &str| {
        let tried = trust(keys);
        let told = String::from_utf8_lossy(&tried.stderr).into_owned();
        assert!(tried.status.code() == Some(1) && tried.stdout.is_empty() && told.contains(why), "{told}");
    };
    refused(&[&a, &a], "appears twice");
    refused(&[&a, &other], "each log has a trust file of its own");
    refused(&[&path("a")], "does not hold a verifier key");
    refused(&["nothing"], "neither a verifier key nor a file");
    assert_eq!(trust(&[]).status.code(), Some(2));
}
