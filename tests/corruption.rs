//! Chance changes of a log as the ledger leaves it on a disk: sealed segments, full and partial tiles, restart points,
//! an index, several runs. `verification` has the same on a log made by hand, of which every byte is known; here what a
//! change means is told by what the log reads like afterwards.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use interlock::ledger::{Closed, PolicyActivation};
use interlock::merkle::note::{Signer, VerifierKey};
use interlock::model::Digest;
use interlock::model::entry::{PolicyFile, policy_revision};
use interlock::policy::BundleFile;
use interlock::verify::walk::{Step, Walk};
use interlock::verify::{Directory, verify_log};

use super::ledger_faults::{Log, activation, write};

const CHANGES: u64 = 500;
const THREADS: u64 = 2;
const RUNS: usize = 3;
const LEAVES_EACH: usize = 190;

type Files = BTreeMap<String, Vec<u8>>;
/// A file that is gone has no bytes.
type Changed = BTreeMap<String, Option<Vec<u8>>>;

/// Several runs, every full segment sealed.
async fn lived() -> Log {
    let log = Log::new();
    for run in 0..RUNS {
        let (ledger, _) = log.open().expect("opens");
        for n in 0..LEAVES_EACH {
            let text = format!("package p{}", n % 7);
            let name: std::sync::Arc<str> = "p.rego".into();
            let listed = PolicyFile { name: name.clone(), sha256: Digest::of(text.as_bytes()) };
            let file = BundleFile { name, bytes: Bytes::from(text) };
            let active = activation(n);
            let revision = policy_revision(&active.engine, &[listed]);
            let active = PolicyActivation { files: vec![file], revision, ..active };
            ledger.record_policy(active).await.expect("recorded");
        }
        let is_last = run + 1 == RUNS;
        let began = Instant::now();
        while is_last && raw_segments(&log) > 1 {
            assert!(began.elapsed() < Duration::from_secs(60), "the segments are not sealed");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(ledger.close(Duration::ZERO).await, Closed::Clean);
    }
    log
}

fn raw_segments(log: &Log) -> usize {
    let names = fs::read_dir(log.path("frames")).expect("listed").map(|e| e.expect("readable").file_name());
    names.filter(|name| name.to_str().is_some_and(|name| name.ends_with(".frames"))).count()
}

fn files_below(root: &Path, dir: &Path, found: &mut Files) {
    for entry in fs::read_dir(dir).expect("listed") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            files_below(root, &path, found);
        } else {
            let name = path.strip_prefix(root).expect("below it").to_str().expect("UTF-8").to_owned();
            found.insert(name, fs::read(&path).expect("readable"));
        }
    }
}

/// Full tiles are read-only.
fn put(dir: &Path, name: &str, bytes: &[u8]) {
    let path = dir.join(name);
    let _ = fs::remove_file(&path);
    fs::create_dir_all(path.parent().expect("it has one")).expect("made");
    write(&path, bytes);
}

/// Every leaf and every record of evidence, in order, as far as the log can be read.
fn reads(dir: &Path, key: &VerifierKey) -> io::Result<Vec<Vec<u8>>> {
    let directory = Directory::open(dir)?;
    let mut walk = Walk::new(&directory, key.name())?;
    let mut read = Vec::new();
    while let Step::Frame(frame, _) = walk.step()? {
        read.extend(frame.entries.iter().map(|leaf| leaf.to_vec()));
        read.extend(frame.evidence.iter().map(|record| record.bytes.to_vec()));
    }
    Ok(read)
}

/// Whether the file is evidence, or part of what is served as such.
fn is_evidence(name: &str) -> bool {
    name == "checkpoint"
        || name.ends_with(".frames")
        || name.ends_with(".frames.zst")
        || name.starts_with("tile/")
}

/// The kind of a file, for the counts.
fn kind(name: &str) -> &'static str {
    match name.split('/').next().expect("a part") {
        "checkpoint" => "checkpoint",
        "frames" if name.ends_with(".zst") => "sealed segment",
        "frames" if name.ends_with(".frames") => "raw segment",
        "tile" if name.contains("entries") => "entry bundle",
        "tile" => "hash tile",
        "restart" => "restart point",
        "index.redb" => "index",
        _ => "other file",
    }
}

/// xorshift64*: the same in every run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as usize % bound
    }
}

/// What a change did, and the files it did it to; a file that is gone has no bytes.
fn change(chance: &mut Chance, sound: &Files) -> Option<(&'static str, Changed)> {
    // Kinds are equally likely, so that the one checkpoint is met as often as the many tiles.
    let mut kinds: BTreeMap<&str, Vec<&String>> = BTreeMap::new();
    sound
        .keys()
        .filter(|name| !sound[*name].is_empty())
        .for_each(|n| kinds.entry(kind(n)).or_default().push(n));
    let mut pick = || {
        let of = kinds.values().nth(chance.below(kinds.len())).expect("one");
        of[chance.below(of.len())].clone()
    };
    let (name, other) = (pick(), pick());
    let mut bytes = sound[&name].clone();
    let at = chance.below(bytes.len());
    let (what, changed) = match chance.below(6) {
        0 | 1 => {
            bytes[at] ^= 1 << chance.below(8);
            ("a bit", BTreeMap::from([(name, Some(bytes))]))
        }
        2 => {
            bytes.truncate(at);
            ("a cut", BTreeMap::from([(name, Some(bytes))]))
        }
        3 => ("removed", BTreeMap::from([(name, None)])),
        4 => {
            let from = &sound[&other];
            let start = chance.below(from.len());
            let piece = &from[start..from.len().min(start + 64)];
            let end = bytes.len().min(at + piece.len());
            bytes[at..end].copy_from_slice(&piece[..end - at]);
            ("a splice", BTreeMap::from([(name, Some(bytes))]))
        }
        _ => {
            let exchanged = [(name.clone(), sound[&other].clone()), (other, bytes)];
            ("exchanged", exchanged.map(|(name, bytes)| (name, Some(bytes))).into())
        }
    };
    changed.iter().any(|(name, bytes)| bytes.as_ref() != sound.get(name)).then_some((what, changed))
}

type Counts = BTreeMap<(&'static str, &'static str, &'static str), u32>;

fn changes(sound: &Files, key: &VerifierKey, seed: u64, wanted: u64) -> Counts {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    sound.iter().for_each(|(name, bytes)| put(dir, name, bytes));
    let truth = reads(dir, key).expect("readable");
    let (mut counts, mut chance, mut made) = (Counts::new(), Chance(seed), 0);
    while made < wanted {
        let Some((what, changed)) = change(&mut chance, sound) else { continue };
        made += 1;
        for (name, bytes) in &changed {
            match bytes {
                Some(bytes) => put(dir, name, bytes),
                None => fs::remove_file(dir.join(name)).expect("removed"),
            }
        }
        let report = verify_log(&Directory::open(dir).expect("a directory"), key).expect("readable");
        let when = || format!("{what} {:?}\n{report}", changed.keys());
        let evidence: Vec<_> = changed.keys().filter(|name| is_evidence(name)).collect();
        let found = if report.passed() {
            // A tile that is gone is made again; every other pass reads to the byte as before.
            let is_derived = evidence.iter().all(|name| name.starts_with("tile/")) && what == "removed";
            let is_same = reads(dir, key).is_ok_and(|read| read == truth);
            assert!(is_same, "{}", when());
            match evidence.first() {
                None => "no evidence",
                Some(_) if is_derived => "a tile that is not there says nothing wrong",
                Some(name) => {
                    let by = ["raw segment", "sealed segment"];
                    assert!(by.contains(&kind(name)), "{}", when());
                    "bytes that hold no entry and no record"
                }
            }
        } else {
            assert_ne!(report.exit_code(), 0, "{}", when());
            let is_of = |file: &str| changed.contains_key(file);
            let located = report.problems.iter().any(|problem| {
                let file = problem.file.as_deref();
                // What is gone is missed where the log goes on without it.
                let at = file.is_some_and(|file| is_of(file) || what == "removed");
                at && (problem.index.is_some() || file == Some("checkpoint"))
            });
            // The end of the log is missed by the checkpoint alone.
            let is_cut = report.problems.iter().any(|problem| problem.what.contains("the log was cut"));
            assert!(located || is_cut || changed.contains_key("checkpoint"), "{}", when());
            "found, with file and entry"
        };
        let of =
            evidence.first().map_or_else(|| kind(changed.keys().next().expect("one")), |name| kind(name));
        *counts.entry((of, what, found)).or_default() += 1;
        for name in changed.keys() {
            put(dir, name, &sound[name]);
        }
    }
    counts
}

#[tokio::test]
async fn chance_changes_of_sealed_segments_full_tiles_and_derived_files_are_found_and_located() {
    let log = lived().await;
    let report = log.verify();
    assert!(report.passed(), "{report}");
    let began = Instant::now();
    let mut sound = Files::new();
    files_below(log.dir.path(), log.dir.path(), &mut sound);
    let of = |wanted: &str| sound.keys().filter(|name| kind(name) == wanted).count();
    assert!(of("sealed segment") >= 5 && of("restart point") >= 1 && of("index") == 1, "{:?}", sound.keys());
    for tile in ["tile/0/000", "tile/0/001", "tile/entries/000"] {
        assert!(sound.contains_key(tile), "{tile} is full");
    }
    let key = log.key.verifier();
    let mut counts = Counts::new();
    std::thread::scope(|scope| {
        let sound = &sound;
        let shards: Vec<_> = (1..=THREADS)
            .map(|shard| scope.spawn(move || changes(sound, key, shard << 32 | 1, CHANGES / THREADS)))
            .collect();
        for (what, count) in shards.into_iter().flat_map(|shard| shard.join().expect("every change is found"))
        {
            *counts.entry(what).or_default() += count;
        }
    });
    for ((of, what, found), count) in &counts {
        println!("{count:6}  {of}, {what}: {found}");
    }
    println!("{CHANGES} changes in {} s", began.elapsed().as_secs());
    let found: u32 =
        counts.iter().filter(|((.., found), _)| found.starts_with("found")).map(|(_, n)| n).sum();
    assert!(u64::from(found) >= CHANGES / 3, "most changes are to evidence: {found}");
}
