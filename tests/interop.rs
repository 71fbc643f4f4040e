//! Other people's tools read a log that a gateway wrote: Go's checksum database, sigstore, rfc8785, and three crates.
//!
//! The tools are installed by `make test-tools`, by the names of their packages. What they read is a log directory
//! after the gateway has stopped, and the tlog-proofs of its entries. `oracles` needs no log: random trees and notes.

mod oracles;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use interlock::clock::{Clock, WallTime};
use interlock::gateway::Stopped;
use interlock::ledger::{Administration, Closed, FileSigner, Ledger, Reader, Settings, Signers, Snapshot};
use interlock::merkle::checkpoint::parse_checkpoint;
use interlock::model::LeafIndex;
use interlock::model::entry::{AdminAction, OperatorEntry, Role};
use serde_json::Value;

use crate::ledger_faults::{ORIGIN, SEGMENT_BYTES, activation, start};
use crate::support::world::{POLICY, root};
use crate::support::{KEY, Setup, World, request};

const REQUESTS: usize = 700;
const AGENTS: usize = 4;
/// What no leaf shows.
const LETTER: &str = "let!ter";
/// A route whose digests are withheld, and one whose key makes a claim.
const ROUTES: &str = r#"
      - { action: thing.create, method: POST, path: /v1/things, body: json, headers: [x-want] }
      - { action: letter.create, method: POST, path: /v1/letters, body: json, headers: [x-want], sensitive: true }
      - { action: keyed.create, method: POST, path: /v1/keyed, body: json, headers: [x-want, idempotency-key], idempotency_key: required }
"#;
/// What canonical forms disagree about: control characters, quotes, characters outside the first plane, member order.
const ODD_TEXT: &str = r#"
deny contains {
	"code": "odd", "message": "\u20ac 1\u00a0000 \u0007\u007f\u2028 \"\\/ \ud83d\ude00", "\u00f6": [], "\ud83d\ude00": "", "\ufb33": ""
} if input.request.body.odd
"#;

/// A log with leaves of every type that requests and operators cause: decisions, some redacted, with a hold and with claims, outcomes, refusals, starts,
/// stops, policy, key and admin leaves; with a note of two signatures.
fn log() -> World {
    let policy = POLICY.to_owned() + ODD_TEXT;
    let surface = &["idempotency: {}"];
    let setup = Setup { policy, routes: ROUTES.into(), redacted: &[LETTER], surface, ..Setup::default() };
    let mut world = setup.lay_out();
    super::admin_plane::seed_holds(&world, &[Duration::from_secs(3_600)]);
    world.run_program(&[]);
    assert_eq!(world.ask("POST", "/v1/things", "permit", "{}").status, 200);
    world.finish_here(Stopped::Clean);
    let next = super::keys::generate(&world, "next.key");
    super::keys::configure(&world, "./log.key, also_sign_with: [./next.key]");
    world.run_program(&[]);
    thread::scope(|scope| {
        for agent in 0..AGENTS {
            let world = &world;
            scope.spawn(move || {
                for n in 0..REQUESTS / AGENTS {
                    let want = ["permit", "permit", "permit", "deny", "escalate"][n % 5];
                    let body = format!("{{\"agent\":{agent},\"n\":{n},\"odd\":{}}}", n % 5 == 3);
                    assert!(world.ask("POST", "/v1/things", want, &body).status < 500);
                }
                let letter = format!("{{\"text\":\"{LETTER}\"}}");
                assert_eq!(world.ask("POST", "/v1/letters", "permit", letter).status, 200);
                let order = format!("order-{agent}");
                let headers = [
                    ("x-api-key", KEY),
                    ("x-want", "permit"),
                    ("idempotency-key", &*order),
                    ("content-type", "application/json"),
                    ("connection", "close"),
                ];
                assert_eq!(world.send(request("POST", "/v1/keyed", &headers, "{}")).status, 200);
                // One that no policy sees.
                assert_eq!(world.ask("POST", "/v1/things", "permit", "{\"a\":1,\"a\":1}").status, 400);
            });
        }
    });
    world.finish_here(Stopped::Clean);
    world.run_inside();
    for action in [AdminAction::Freeze, AdminAction::Unfreeze] {
        world.administer(Administration {
            action,
            by: OperatorEntry { id: "ops@example.org".into(), role: Role::Operator },
            surface: Some("test".parse().expect("a name")),
            actor: None,
            hold: None,
            reason: "\u{20ac} \"odd\" \u{1f600}".into(),
        });
    }
    world.finish_here(Stopped::Clean);
    let note = checkpoint(&world);
    assert!(parse_checkpoint(note.as_bytes(), &next).is_ok() && note.lines().count() == 6, "{note}");
    world
}

fn checkpoint(world: &World) -> String {
    fs::read_to_string(world.path("ledger/checkpoint")).expect("a checkpoint")
}

/// The size that the checkpoint names: several full tiles and one that is not.
fn size(world: &World) -> usize {
    let size = checkpoint(world).lines().nth(1).and_then(|line| line.parse().ok()).expect("a size");
    assert!(size > 1_000 && !usize::is_multiple_of(size, 256), "{size}");
    size
}

/// The tlog-proof of each entry from the ledger's own reader, one JSON string a line. One more run stands in the log
/// afterwards, idle until its first heartbeat.
fn write_proofs(world: &World) -> PathBuf {
    let (reader, at) = read(world);
    assert_eq!(**at.checkpoint(), checkpoint(world), "what is served is what is on disk");
    let proof = |index| reader.proof(&at, LeafIndex(index)).expect("a proof").to_string();
    let line = |index| serde_json::to_string(&proof(index)).expect("a string") + "\n";
    world.write("proofs", &(0..at.size().0).map(line).collect::<String>(), 0o644);
    world.path("proofs")
}

#[tokio::main(flavor = "current_thread")]
async fn read(world: &World) -> (Reader, std::sync::Arc<Snapshot>) {
    let signer = |file| Box::new(FileSigner::load(&world.path(file)).expect("a key"));
    let signers = Signers::new(signer("log.key"), vec![signer("next.key")], Vec::new()).expect("two keys");
    let settings = Settings {
        dir: world.path("ledger"),
        origin: world.key.name().clone(),
        segment_bytes: SEGMENT_BYTES,
        salts: None,
        heartbeat: Some(Duration::from_secs(1)),
    };
    let (ledger, opened) = Ledger::open(settings, signers, Clock::system(), start()).expect("opens");
    let reader = ledger.reader();
    while ledger.statistics().leaves == opened.size.0 {
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(ledger.close(Duration::ZERO).await, Closed::Clean);
    let at = reader.snapshot();
    assert_eq!(reader.lag(), 0);
    (reader, at)
}

/// A tool that `make test-tools` installs.
fn installed(path: &Path) -> &Path {
    assert!(path.exists(), "{} is missing: run `make test-tools`", path.display());
    path
}

/// What it prints, as JSON; or, if it fails, what it says is wrong.
fn run(command: &mut Command) -> Result<Value, String> {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}; run `make test-tools`"));
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    Ok(serde_json::from_slice(&output.stdout).expect("JSON"))
}

/// `golang-golang-x-mod-dev` is source in Debian's own GOPATH, so no module is fetched.
fn go_program(world: &World) -> PathBuf {
    installed(Path::new("/usr/share/gocode/src/golang.org/x/mod/sumdb/tlog/tile.go"));
    let program = world.path("log-reader");
    let mut build = Command::new("go");
    build.args(["build", "-o"]).arg(&program).arg(root().join("tests/interop/log.go"));
    build.env("GO111MODULE", "off").env("GOPATH", "/usr/share/gocode").env("GOFLAGS", "");
    build.env("GOCACHE", root().join("target/go-cache")).env("CGO_ENABLED", "0");
    let built = build.output().unwrap_or_else(|e| panic!("{build:?}: {e}; run `make test-tools`"));
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    program
}

#[test]
fn the_tools_of_gos_checksum_database_accept_the_note_the_tiles_and_every_entry() {
    let world = log();
    let (dir, size) = (world.path("ledger"), size(&world));
    let program = go_program(&world);
    let sizes: Vec<_> = [1, 2, 255, 256, 257, 512, 1_000, size - 1, size].map(|n| n.to_string()).into();
    let check = || run(Command::new(&program).arg(&dir).arg(world.key.to_string()).args(&sizes));
    let found = check().expect("accepted");
    assert_eq!((&found["size"], &found["entries"]), (&size.into(), &size.into()), "{found}");
    assert_eq!(found["signatures"], 2, "{found}");
    // One tile of level 0 for each 256 entries begun, and the one above them.
    assert_eq!(found["tiles"], size / 256 + 2, "{found}");
    assert_eq!(found["roots"].as_object().map(serde_json::Map::len), Some(sizes.len()), "{found}");

    // It would see a change in a tile, in an entry and in the note.
    for file in ["tile/0/001", "tile/entries/002", "checkpoint"] {
        let path = dir.join(file);
        let sound = fs::read(&path).expect("readable");
        let mut bent = sound.clone();
        bent[33] ^= 1;
        replace(&path, &bent);
        check().expect_err(file);
        replace(&path, &sound);
    }
    check().expect("accepted again");
}

/// Full tiles are read-only.
fn replace(path: &Path, content: &[u8]) {
    fs::remove_file(path).expect("removed");
    fs::write(path, content).expect("written");
}

#[test]
fn sigstore_accepts_the_checkpoint_and_every_proof_and_rfc8785_writes_every_leaf_the_same() {
    let world = log();
    let proofs = write_proofs(&world);
    let (dir, size) = (world.path("ledger"), size(&world));
    let python = root().join("target/test-venv/bin/python");
    let check = |vkey: &str| {
        let mut command = Command::new(installed(&python));
        command.arg(root().join("tests/interop/proofs.py")).arg(&dir).arg(vkey).arg(&proofs);
        run(&mut command)
    };
    let found = check(&world.key.to_string()).expect("accepted");
    assert_eq!((&found["size"], &found["signatures"]), (&size.into(), &2.into()), "{found}");
    assert_eq!(found["refused"], size.div_ceil(100) * 2, "what was changed is refused: {found}");
    let types = ["admin", "decision", "epoch", "heartbeat", "key", "outcome", "policy", "refusal"];
    assert_eq!(found["types"], Value::from(types.to_vec()), "{found}");
    assert_eq!(found["forms"], Value::from(vec!["_sd", "claim", "hold"]), "{found}");
    let stranger = super::keys::generate(&world, "stranger.key");
    let told = check(&stranger.to_string()).expect_err("another key");
    assert!(told.contains("Signature not found"), "{told}");
}

/// What the ledger writes beside its frames, to the byte. Leaves of policy activations name no random id, and the clock
/// stands still.
#[tokio::test]
async fn tiles_bundles_and_proofs_have_their_golden_bytes() {
    let dir = tempfile::tempdir().expect("a directory");
    let settings = Settings {
        dir: dir.path().to_owned(),
        origin: ORIGIN.parse().expect("a name"),
        segment_bytes: SEGMENT_BYTES,
        salts: None,
        heartbeat: None,
    };
    let clock = Clock::manual(WallTime::from_unix_ns(1_763_643_600_123_456_000));
    let (ledger, _) = Ledger::open(settings, fixed_key(), clock, start()).expect("opens");
    for n in 0..257 {
        ledger.record_policy(activation(n)).await.expect("recorded");
    }
    let reader = ledger.reader();
    assert_eq!(ledger.close(Duration::ZERO).await, Closed::Clean);
    let proof = reader.proof(&reader.snapshot(), LeafIndex(257)).expect("a proof").to_string();
    let read = |name: &str| fs::read(dir.path().join(name)).expect("written at close");
    let written = [
        ("hash_tile.bin", read("tile/0/000")),
        ("hash_tile_partial.bin", read("tile/0/001.p/3")),
        ("hash_tile_above.bin", read("tile/1/000.p/1")),
        ("entry_bundle_partial.bin", read("tile/entries/001.p/3")),
        ("checkpoint_of_tiles.txt", read("checkpoint")),
        ("tlog_proof.txt", proof.into_bytes()),
    ];
    for (name, bytes) in written {
        let golden = root().join("tests/golden").join(name);
        assert!(
            fs::read(&golden).expect("the golden file is there") == bytes,
            "{name} is not what is written"
        );
    }
}

/// The same on every run. A copy, because a key file must be private.
fn fixed_key() -> Box<FileSigner> {
    let copy = tempfile::NamedTempFile::new().expect("a file");
    fs::write(copy.path(), fs::read(root().join("tests/golden/signing_key.txt")).expect("readable"))
        .expect("written");
    Box::new(FileSigner::load(copy.path()).expect("a key"))
}
