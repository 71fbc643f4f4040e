//! The archive on real directories, against what is computed from the entries alone.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use redb::{ReadableTable, TableDefinition};
use serde_json::Value;

use super::session::Session;
use super::{Archiver, End, Feed, Halt, Index, Written};
use crate::clock::WallTime;
use crate::ledger::full::FullSegments;
use crate::ledger::queue::Shared;
use crate::ledger::reader::{ReadError, Reader, Search, Snapshot};
use crate::ledger::recovery::Fold;
use crate::ledger::seal::SealerThread;
use crate::ledger::simulated::Simulated;
use crate::ledger::tests::{
    ORIGIN, clock, confirmed, decision_entry, open, rejection, settings, signer, start,
};
use crate::ledger::{Closed, Ledger, Settings};
use crate::limits::{self, ARCHIVE_HANDED_BYTES_MAX};
use crate::merkle::checkpoint::{Checkpoint, parse_checkpoint};
use crate::merkle::note::Signer;
use crate::merkle::proof::verify_inclusion;
use crate::merkle::tile::tests::levels_by_pairs;
use crate::merkle::tile::{TILE_WIDTH, TileKind, TilePath, hash_bytes, partial_tiles, push_entry};
use crate::merkle::tree::{RightEdge, leaf_hash};
use crate::model::entry::Entry;
use crate::model::{Decision, Digest, Epoch, LeafIndex, ReceiptId, TreeSize};
use crate::verify::walk::{Spot, Step, Walk};
use crate::verify::{Directory, Form};

/// xorshift64*: the same on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % bound
    }
}

/// The frames of a log, and nothing that is derived from them.
struct Frames {
    dir: tempfile::TempDir,
    leaves: Vec<Vec<u8>>,
    /// Signed after each frame.
    checkpoints: Vec<(TreeSize, Arc<str>)>,
    /// First entry, fold and chain at each later segment's beginning.
    boundaries: Vec<(LeafIndex, Fold, Digest)>,
}

impl Frames {
    /// About so many leaves of all sorts: several actors, keys that repeat, a clock that jumps years both ways,
    /// outcomes long after their decisions.
    async fn written(leaves: u64, seed: u64) -> Self {
        Self::written_in_batches(leaves, seed, BATCH_MAX).await
    }

    async fn written_in_batches(leaves: u64, seed: u64, batch_max: u64) -> Self {
        let written = tempfile::tempdir().expect("a directory");
        let (ledger, _) = open(written.path());
        write_batches(&ledger, leaves, &mut Random(seed), batch_max).await;
        ledger.close(Duration::ZERO).await;
        Self::of(written.path())
    }

    /// What lies in this directory.
    fn of(written: &Path) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        copy(&written.join("frames"), &dir.path().join("frames"));
        let source = Directory::open(dir.path()).expect("a log");
        let signer = signer();
        let mut walk = Walk::new(&source, &ORIGIN.parse().expect("a name")).expect("readable");
        let (mut leaves, mut checkpoints, mut boundaries) = (Vec::new(), Vec::new(), Vec::new());
        let (mut edge, mut fold) = (RightEdge::empty(), Fold::default());
        loop {
            let chain = walk.chain();
            let Step::Frame(frame, spot) = walk.step().expect("readable") else { break };
            if spot.offset == 0 && spot.segment.0 > 0 {
                boundaries.push((frame.first, fold.clone(), chain));
            }
            for entry in &frame.entries {
                fold.add(LeafIndex(edge.size().0), entry).expect("an entry");
                edge.append(leaf_hash(entry));
                leaves.push(entry.to_vec());
            }
            let origin = ORIGIN.parse().expect("a name");
            let checkpoint = Checkpoint { origin, size: edge.size(), root: edge.root() };
            checkpoints.push((edge.size(), checkpoint.sign(&*signer).expect("signs").into()));
        }
        drop(walk);
        Self { dir, leaves, checkpoints, boundaries }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn last(&self) -> Arc<str> {
        Arc::clone(&self.checkpoints.last().expect("a frame").1)
    }

    /// Another directory with the same frames.
    fn again(&self) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        copy(&self.path().join("frames"), &dir.path().join("frames"));
        dir
    }
}

/// With those that are open, as many permits as the small segments of these tests allow.
const BATCH_MAX: u64 = 19;

async fn write_leaves(ledger: &Ledger, leaves: u64, random: &mut Random) {
    write_batches(ledger, leaves, random, BATCH_MAX).await;
}

async fn write_batches(ledger: &Ledger, leaves: u64, random: &mut Random, batch_max: u64) {
    let mut open_permits = Vec::new();
    let mut ms = 1_763_643_600_123u64;
    while ledger.statistics().leaves < leaves {
        let batch = 1 + random.below(batch_max);
        let mut answers = tokio::task::JoinSet::new();
        for _ in 0..batch {
            ms = match random.below(400) {
                0 => ms - 86_400_000 * 365 * 3,
                1 => ms + 86_400_000 * 365 * 4,
                2..200 => ms,
                _ => ms + random.below(30),
            };
            let time = WallTime::from_unix_ns(ms * 1_000_000 + random.below(1_000) * 1_000);
            let id = ReceiptId::new(
                time,
                random.below(u64::MAX).to_be_bytes().repeat(2)[..10].try_into().expect("10"),
            );
            let decision = if random.below(2) == 0 { Decision::Permit } else { Decision::Deny };
            let input = bytes::Bytes::from(format!("{{\"n\":{}}}", random.below(1_000)));
            let mut entry = decision_entry(id, decision, ledger.epoch(), &input);
            entry.time = time.rfc3339().into();
            entry.actor.id =
                ["agent-7", "agent-77", "agent\"7", "a"][random.below(4) as usize].parse().expect("an id");
            if random.below(3) == 0 {
                entry.idempotency_key = Some(format!("key-{}\\", random.below(60)).parse().expect("a key"));
            }
            let ledger = ledger.clone();
            answers.spawn(async move {
                let evidence = (Digest::of(&input), input);
                ledger.append_decision(Entry::Decision(Box::new(entry)), (id, decision), evidence, None).await
            });
        }
        while let Some(answer) = answers.join_next().await {
            open_permits.extend(answer.expect("no panic").expect("recorded").open);
        }
        if random.below(8) == 0 {
            ledger
                .record_rejection(rejection(&format!("agent-{}", random.below(10))))
                .await
                .expect("recorded");
        }
        while open_permits.len() > 12 {
            let at = random.below(open_permits.len() as u64) as usize;
            open_permits.swap_remove(at).close(confirmed()).durable().await.expect("recorded");
        }
    }
    for permit in open_permits {
        permit.close(confirmed()).durable().await.expect("recorded");
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("readable") {
        let entry = entry.expect("readable");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            match fs::copy(entry.path(), target) {
                // It was given another name meanwhile: what is copied while it runs may lack it.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                copied => drop(copied.expect("copied")),
            }
        }
    }
}

/// The files below `tile/`.
fn tiles_in(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    fn walk(dir: &Path, root: &Path, found: &mut BTreeMap<String, Vec<u8>>) {
        for entry in fs::read_dir(dir).expect("readable") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                walk(&path, root, found);
            } else {
                let name = path.strip_prefix(root).expect("below it").to_str().expect("UTF-8").to_owned();
                found.insert(name, fs::read(&path).expect("readable"));
            }
        }
    }
    let mut found = BTreeMap::new();
    let root = dir.join("tile");
    if root.exists() {
        walk(&root, &root, &mut found);
    }
    found
}

/// The bytes of one tile of the tree of these leaves, from nothing else.
fn tile_of(leaves: &[Vec<u8>], path: &TilePath) -> Vec<u8> {
    let start = path.number as usize * TILE_WIDTH;
    match path.kind {
        TileKind::Entries => {
            let mut bundle = Vec::new();
            leaves[start..start + path.width()].iter().for_each(|entry| push_entry(&mut bundle, entry));
            bundle
        }
        TileKind::Hashes { level } => {
            let hashes: Vec<Digest> = leaves.iter().map(|leaf| leaf_hash(leaf)).collect();
            hash_bytes(&levels_by_pairs(&hashes)[usize::from(level)][start..start + path.width()])
        }
    }
}

fn full_tiles(leaves: &[Vec<u8>]) -> BTreeMap<String, Vec<u8>> {
    let mut paths = Vec::new();
    let mut hashes = leaves.len();
    paths.extend((0..(hashes / TILE_WIDTH) as u64).map(TilePath::entries));
    for level in 0.. {
        hashes /= TILE_WIDTH;
        if hashes == 0 {
            break;
        }
        paths.extend((0..hashes as u64).map(|number| TilePath::hashes(level, number)));
    }
    paths.into_iter().map(|path| (path.to_string(), tile_of(leaves, &path))).collect()
}

fn shared() -> Arc<Shared> {
    let checkpoint = Checkpoint {
        origin: ORIGIN.parse().expect("a name"),
        size: TreeSize(0),
        root: RightEdge::empty().root(),
    };
    let nothing = checkpoint.sign(&*signer()).expect("signs");
    Arc::new(Shared::new(clock(), Epoch(1), None, Feed::new(nothing.into()), 16, 1 << 20))
}

/// What becomes of full segments is tried elsewhere; here it is told to a storage of its own.
fn full_segments() -> Arc<FullSegments> {
    let (origin, key) = (ORIGIN.parse().expect("a name"), signer().frame_key().expect("a key"));
    let known = (TreeSize(0), Fold::default());
    let queue = SealerThread::new(false).queue();
    Arc::new(FullSegments::new(Arc::new(Simulated::new()), origin, key, queue, known))
}

fn resume(shared: &Arc<Shared>, dir: &Path) -> Result<Session, Halt> {
    Session::resume(Arc::clone(shared), dir, &ORIGIN.parse().expect("a name"), Some(full_segments()))
}

/// An archive of all of it, as a run leaves it that is not closed.
fn archived(frames: &Frames, dir: &Path) -> (Arc<Shared>, Session) {
    let shared = shared();
    let mut session = resume(&shared, dir).expect("resumes");
    let source = Directory::open(dir).expect("a log");
    let mut walk = session.walk(&source).expect("walks");
    assert!(session.follow_to(&mut walk, frames.last()).expect("archived"));
    drop(walk);
    (shared, session)
}

/// The snapshot of everything that is durable now.
async fn caught_up(ledger: &Ledger) -> Arc<Snapshot> {
    let leaves = ledger.statistics().leaves;
    let mut snapshots = ledger.reader().subscribe();
    let limit = Duration::from_secs(60);
    let reached = tokio::time::timeout(limit, snapshots.wait_for(|s| s.size().0 >= leaves)).await;
    reached.expect("the archive follows").expect("the sender lives").clone()
}

async fn failed_more_often_than(failures: u64, ledger: &Ledger) {
    let failed = async {
        while ledger.statistics().archive_failures <= failures {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), failed).await.expect("the archive fails");
}

fn leaves_in(dir: &Path) -> Vec<Vec<u8>> {
    Frames::of(dir).leaves
}

#[tokio::test]
async fn every_tile_on_disk_is_the_one_computed_from_the_entries() {
    let frames = Frames::written(1_100, 1).await;
    let (_, mut session) = archived(&frames, frames.path());
    let mut expected = full_tiles(&frames.leaves);
    assert!(expected.len() >= 8);
    assert_eq!(tiles_in(frames.path()), expected);
    for name in expected.keys() {
        let mode = fs::metadata(frames.path().join("tile").join(name)).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o440, "{name}");
    }
    session.write_partial_tiles().expect("written");
    for path in partial_tiles(TreeSize(frames.leaves.len() as u64)) {
        expected.insert(path.to_string(), tile_of(&frames.leaves, &path));
    }
    assert_eq!(tiles_in(frames.path()), expected);
}

#[tokio::test]
async fn tiles_are_served_at_every_width_that_a_snapshot_has_and_at_no_other() {
    let frames = Frames::written_in_batches(600, 2, 1).await;
    let shared = shared();
    let mut session = resume(&shared, frames.path()).expect("resumes");
    let source = Directory::open(frames.path()).expect("a log");
    let mut walk = session.walk(&source).expect("walks");
    let reader = Reader::new(Arc::clone(&shared), frames.path());
    let key = signer();
    let mut seen = Vec::new();
    for (size, checkpoint) in &frames.checkpoints {
        assert!(session.follow_to(&mut walk, Arc::clone(checkpoint)).expect("archived"));
        let at = reader.snapshot();
        assert_eq!(at.size(), *size);
        let signed = parse_checkpoint(at.checkpoint().as_bytes(), key.verifier()).expect("signed");
        assert_eq!((signed.checkpoint().size, signed.checkpoint().root), (*size, at.root()));
        seen.push(at);
    }
    assert!((1..=600).all(|size| seen.iter().any(|at| at.size().0 == size)), "a snapshot of every size");
    // Older snapshots are served from newer files.
    for at in seen {
        let leaves = &frames.leaves[..at.size().0 as usize];
        for kind in
            [TilePath::entries(0), TilePath::hashes(0, 0), TilePath::hashes(1, 0), TilePath::hashes(2, 0)]
        {
            for number in 0..4 {
                let tile = TilePath { number, ..kind };
                let available = tile.available(at.size());
                for width in [1, 2, available / 2, available, available + 1, 255, 256] {
                    let Some(path) = tile.with_width(width) else { continue };
                    let served = reader.tile(&at, &path).expect("read");
                    let expected = (width <= available).then(|| tile_of(leaves, &path));
                    assert_eq!(served.as_deref(), expected.as_deref(), "{path} of {}", at.size());
                }
            }
        }
    }
}

#[tokio::test]
async fn every_leaf_of_many_snapshots_is_proved_against_its_checkpoint() {
    let frames = Frames::written(560, 3).await;
    let shared = shared();
    let mut session = resume(&shared, frames.path()).expect("resumes");
    let source = Directory::open(frames.path()).expect("a log");
    let mut walk = session.walk(&source).expect("walks");
    let reader = Reader::new(Arc::clone(&shared), frames.path());
    for (_, checkpoint) in frames.checkpoints.iter().skip(1).step_by(9) {
        assert!(session.follow_to(&mut walk, Arc::clone(checkpoint)).expect("archived"));
        let at = reader.snapshot();
        for index in 0..at.size().0 {
            let (index, leaf) = (LeafIndex(index), leaf_hash(&frames.leaves[index as usize]));
            let proof = reader.proof(&at, index).expect("proved");
            assert_eq!((proof.index, &*proof.checkpoint), (index, &**checkpoint));
            assert_eq!(verify_inclusion(leaf, index, at.size(), &proof.path, at.root()), Ok(()));
        }
        let past = reader.proof(&at, LeafIndex(at.size().0));
        assert!(matches!(past, Err(ReadError::OutOfRange { .. })), "{past:?}");
    }
}

#[tokio::test]
async fn a_kill_at_any_point_costs_nothing_but_time() {
    let frames = Frames::written(1_400, 4).await;
    let expected = full_tiles(&frames.leaves);
    for seed in 1..=4 {
        let mut random = Random(seed);
        let dir = frames.again();
        let source = Directory::open(dir.path()).expect("a log");
        let (mut at, mut resumed) = (0, 0);
        while at < frames.checkpoints.len() {
            let shared = shared();
            let mut session = resume(&shared, dir.path()).expect("resumes");
            let mut walk = session.walk(&source).expect("walks");
            resumed += 1;
            // However far it had come, what is durable is not past the newest checkpoint.
            let until = (at + 1 + random.below(12) as usize).min(frames.checkpoints.len());
            while at < until {
                assert!(
                    session.follow_to(&mut walk, Arc::clone(&frames.checkpoints[at].1)).expect("archived")
                );
                at += 1 + random.below(2) as usize;
                if random.below(3) == 0 {
                    session.sync().expect("durable");
                }
            }
            if random.below(4) == 0 {
                session.write_partial_tiles().expect("written");
            }
            drop((session, shared));
            if random.below(2) == 0 {
                lose_what_is_not_durable(dir.path(), &mut random);
            }
        }
        assert!(resumed > 5);
        let (shared, _session) = archived(&frames, dir.path());
        let mut found = tiles_in(dir.path());
        found.retain(|name, _| !name.contains(".p/"));
        assert_eq!(found, expected, "seed {seed}");
        answers_like_a_scan(&frames, &Reader::new(shared, dir.path()), &mut random);
    }
}

/// A power cut: files past the durable position may be gone, empty or cut.
fn lose_what_is_not_durable(dir: &Path, random: &mut Random) {
    let index = Index::open(&dir.join("index.redb")).expect("opens");
    let durable = index.position().expect("readable").expect("written at the first start").size;
    drop(index);
    for (name, bytes) in tiles_in(dir) {
        let Ok(path) = name.parse::<TilePath>() else { continue };
        if path.width() <= path.available(durable) {
            continue;
        }
        let place = dir.join("tile").join(&name);
        fs::remove_file(&place).expect("removed");
        match random.below(4) {
            0 => write(&place, b""),
            1 => write(&place, &bytes[..bytes.len() / 2]),
            2 => write(&place, &vec![0; bytes.len()]),
            _ => {}
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the tests change files")]
fn write(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).expect("written");
}

struct Scanned {
    actor: Option<String>,
    key: Option<String>,
    time: WallTime,
    id: Option<ReceiptId>,
    decision_index: Option<u64>,
}

fn scanned(leaf: &[u8]) -> Scanned {
    let value: Value = serde_json::from_slice(leaf).expect("json");
    let text = |value: &Value| value.as_str().map(str::to_owned);
    Scanned {
        actor: text(&value["actor"]["id"]),
        key: text(&value["idempotency_key"]),
        time: WallTime::parse_rfc3339(value["time"].as_str().expect("a time")).expect("a time"),
        id: value["id"].as_str().map(|id| id.parse().expect("an id")),
        decision_index: value["decision_index"].as_u64(),
    }
}

/// Compares lookups in the newest snapshot with a look at every leaf.
fn answers_like_a_scan(frames: &Frames, reader: &Reader, random: &mut Random) {
    let at = reader.snapshot();
    let leaves = &frames.leaves[..at.size().0 as usize];
    let all: Vec<Scanned> = leaves.iter().map(|leaf| scanned(leaf)).collect();
    for _ in 0..150 {
        let index = random.below(all.len() as u64) as usize;
        let leaf = &all[index];
        if let Some(id) = leaf.id {
            let (found, bytes) = reader.find(&at, id).expect("looked up").expect("found");
            assert_eq!((found.0 as usize, &bytes[..]), (index, &leaves[index][..]));
        }
        let outcome = all.iter().position(|of| of.decision_index == Some(index as u64));
        let found = reader.outcome(&at, LeafIndex(index as u64)).expect("looked up");
        assert_eq!(found.as_ref().map(|(index, _)| index.0 as usize), outcome);
        assert!(found.is_none_or(|(index, bytes)| bytes[..] == leaves[index.0 as usize][..]));
    }
    let unknown = ReceiptId::new(all[1].time, [7; 10]);
    assert!(reader.find(&at, unknown).expect("looked up").is_none());
    let mut hits = 0;
    for _ in 0..60 {
        let some = &all[random.below(all.len() as u64) as usize];
        let other = &all[random.below(all.len() as u64) as usize];
        let (since, until) = (some.time.min(other.time), some.time.max(other.time));
        let query = Search {
            actor: some.actor.clone().filter(|_| random.below(2) == 0).map(|a| a.parse().expect("an id")),
            idempotency_key: some
                .key
                .clone()
                .filter(|_| random.below(3) == 0)
                .map(|k| k.parse().expect("a key")),
            since: (random.below(2) == 0).then_some(since),
            until: (random.below(2) == 0).then_some(until),
            from: LeafIndex(random.below(all.len() as u64 + 10)),
            max: 1 + random.below(50) as usize,
        };
        let expected: Vec<usize> = (query.from.0 as usize..all.len())
            .filter(|&index| {
                let leaf = &all[index];
                query.actor.as_ref().is_none_or(|a| leaf.actor.as_deref() == Some(a.as_str()))
                    && query.idempotency_key.as_ref().is_none_or(|k| leaf.key.as_deref() == Some(k.as_str()))
                    && query.since.is_none_or(|since| leaf.time >= since)
                    && query.until.is_none_or(|until| leaf.time < until)
            })
            .collect();
        let mut found = Vec::new();
        let mut page = query.clone();
        loop {
            let more = reader.search(&at, &page).expect("searched");
            assert!(more.leaves.len() <= page.max && more.next >= page.from);
            for (index, bytes) in more.leaves {
                assert!(index < more.next);
                assert_eq!(bytes[..], leaves[index.0 as usize][..]);
                found.push(index.0 as usize);
            }
            if more.next >= LeafIndex(at.size().0) {
                break;
            }
            page.from = more.next;
        }
        hits += found.len();
        assert_eq!(found, expected, "{query:?}");
    }
    assert!(hits > 100, "the questions have answers");
}

#[tokio::test]
async fn lookups_in_an_older_snapshot_see_nothing_newer() {
    let frames = Frames::written(900, 5).await;
    let shared = shared();
    let mut session = resume(&shared, frames.path()).expect("resumes");
    let source = Directory::open(frames.path()).expect("a log");
    let mut walk = session.walk(&source).expect("walks");
    let reader = Reader::new(Arc::clone(&shared), frames.path());
    let half = frames.checkpoints.len() / 2;
    session.follow_to(&mut walk, Arc::clone(&frames.checkpoints[half].1)).expect("archived");
    let old = reader.snapshot();
    session.follow_to(&mut walk, frames.last()).expect("archived");
    let newer = frames.leaves[old.size().0 as usize..].iter().map(|leaf| scanned(leaf));
    let mut compared = 0;
    for id in newer.filter_map(|leaf| leaf.id) {
        assert!(reader.find(&old, id).expect("looked up").is_none());
        assert!(reader.find(&reader.snapshot(), id).expect("looked up").is_some());
        compared += 1;
    }
    assert!(compared > 50);
    let found = reader.search(&old, &Search::from(LeafIndex(0), usize::MAX)).expect("searched");
    assert_eq!((found.leaves.len() as u64, found.next.0), (old.size().0, old.size().0));
    let entries = reader.entries(&old, LeafIndex(old.size().0 - 3), 10).expect("read");
    assert_eq!(entries, frames.leaves[old.size().0 as usize - 3..][..3]);
    assert!(reader.entries(&old, LeafIndex(old.size().0), 10).expect("read").is_empty());
    assert!(reader.entries(&old, LeafIndex(u64::MAX), 10).expect("read").is_empty());
}

#[tokio::test]
async fn one_search_reads_some_bundles_and_says_where_to_go_on() {
    let bound = (limits::SEARCH_BUNDLES_MAX * TILE_WIDTH) as u64;
    let frames = Frames::written(bound + 300, 12).await;
    let (shared, _session) = archived(&frames, frames.path());
    let reader = Reader::new(shared, frames.path());
    let at = reader.snapshot();
    let actor = "agent-7".parse().expect("an id");
    let query = Search { actor: Some(actor), ..Search::from(LeafIndex(0), usize::MAX) };
    let first = reader.search(&at, &query).expect("searched");
    assert_eq!(first.next, LeafIndex(bound), "it is in every bundle");
    assert!(!first.leaves.is_empty() && first.leaves.len() < limits::READ_ENTRIES_MAX);
    let rest = reader.search(&at, &Search { from: first.next, ..query.clone() }).expect("searched");
    assert_eq!(rest.next.0, at.size().0);
    let found: Vec<usize> =
        [first.leaves, rest.leaves].concat().iter().map(|(at, _)| at.0 as usize).collect();
    let is_of = |leaf: &Vec<u8>| scanned(leaf).actor.as_deref() == Some("agent-7");
    let expected: Vec<usize> =
        frames.leaves.iter().enumerate().filter(|(_, leaf)| is_of(leaf)).map(|(at, _)| at).collect();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn the_fold_at_each_segment_boundary_is_that_of_all_entries_before_it() {
    let frames = Frames::written(1_000, 6).await;
    assert!(frames.boundaries.len() > 2, "{}", frames.boundaries.len());
    let dir = frames.again();
    let source = Directory::open(dir.path()).expect("a log");
    let mut open_permits = 0;
    for (first, fold, chain) in &frames.boundaries {
        // Each after a resume of its own.
        let mut session = resume(&shared(), dir.path()).expect("resumes");
        let mut walk = session.walk(&source).expect("walks");
        let before =
            frames.checkpoints.iter().find(|(size, _)| size.0 == first.0).expect("a frame ends here");
        assert!(session.follow_to(&mut walk, Arc::clone(&before.1)).expect("archived"));
        let boundary = session.boundary(*first, walk.on_disk().expect("a walk").chain()).expect("a boundary");
        assert_eq!((boundary.chain, &boundary.fold), (*chain, fold));
        let mut edge = RightEdge::empty();
        frames.leaves[..first.0 as usize].iter().for_each(|leaf| edge.append(leaf_hash(leaf)));
        assert_eq!(boundary.edge, edge);
        open_permits += fold.open.len();
        session.sync().expect("durable");
    }
    assert!(open_permits > 0, "some permit is open across a boundary");
}

/// What the committer hands over of each frame.
fn handed_over(frames: &Frames) -> Vec<Written> {
    let source = Directory::open(frames.path()).expect("a log");
    let mut walk = Walk::new(&source, &ORIGIN.parse().expect("a name")).expect("readable");
    let mut handed = Vec::new();
    loop {
        let previous = walk.chain();
        let Step::Frame(frame, spot) = walk.step().expect("readable") else { return handed };
        let leaves = frame.entries.iter().map(|entry| (entry.to_vec(), leaf_hash(entry))).collect();
        let (first, root, chain) = (frame.first, frame.root, frame.digest);
        let end = spot.offset + frame.padded_bytes as u64;
        handed.push(Written { first, leaves, root, spot, end, previous, chain });
    }
}

#[tokio::test]
async fn tiles_are_the_same_whichever_frames_were_handed_over() {
    let frames = Frames::written_in_batches(3_000, 11, 30).await;
    assert!(frames.boundaries.len() > 2, "{}", frames.boundaries.len());
    let mut random = Random(5);
    for _ in 0..6 {
        let dir = frames.again();
        let source = Directory::open(dir.path()).expect("a log");
        let half = random.below(frames.checkpoints.len() as u64) as usize;
        // The second session begins again in the midst of a frame, as a rule.
        for (_, target) in [&frames.checkpoints[half], frames.checkpoints.last().expect("a frame")] {
            let shared = shared();
            let mut session = resume(&shared, dir.path()).expect("resumes");
            let mut walk = session.walk(&source).expect("walks");
            for (written, (_, checkpoint)) in handed_over(&frames).into_iter().zip(&frames.checkpoints) {
                if random.below(3) > 0 {
                    shared.archive.offer_frame(Arc::clone(checkpoint), written);
                }
            }
            assert!(session.follow_to(&mut walk, Arc::clone(target)).expect("archived"));
            session.sync().expect("durable");
        }
        assert_eq!(tiles_in(dir.path()), full_tiles(&frames.leaves));
    }
}

#[tokio::test]
async fn a_frame_that_was_handed_over_is_not_read() {
    let frames = Frames::written(1_000, 12).await;
    let dir = frames.again();
    let shared = shared();
    let mut session = resume(&shared, dir.path()).expect("resumes");
    let source = Directory::open(dir.path()).expect("a log");
    let mut walk = session.walk(&source).expect("walks");
    for (written, (_, checkpoint)) in handed_over(&frames).into_iter().zip(&frames.checkpoints) {
        shared.archive.offer_frame(Arc::clone(checkpoint), written);
    }
    fs::remove_dir_all(dir.path().join("frames")).expect("removed");
    assert!(session.follow_to(&mut walk, frames.last()).expect("archived"));
    assert_eq!(tiles_in(dir.path()), full_tiles(&frames.leaves));
}

#[tokio::test]
async fn a_leaf_that_is_not_what_was_signed_is_not_archived() {
    let frames = Frames::written(1_000, 13).await;
    let dir = frames.again();
    let shared = shared();
    let mut session = resume(&shared, dir.path()).expect("resumes");
    let source = Directory::open(dir.path()).expect("a log");
    let mut walk = session.walk(&source).expect("walks");
    let mut written = handed_over(&frames).remove(0);
    written.leaves[0].1 = Digest::of(b"another leaf");
    shared.archive.offer_frame(frames.last(), written);
    let halted = session.follow_to(&mut walk, frames.last());
    assert!(matches!(halted, Err(Halt::Unfit(_))), "{halted:?}");
}

#[test]
fn what_is_handed_over_is_bounded_and_the_rest_is_read_from_the_frames() {
    let feed = Feed::new("nothing".into());
    let frame = |first: u64| Written {
        first: LeafIndex(first),
        leaves: vec![(Vec::with_capacity(ARCHIVE_HANDED_BYTES_MAX / 3), Digest::of(b"a leaf"))],
        root: Digest::of(b"a root"),
        spot: Spot { segment: LeafIndex(0), offset: 0, form: Form::Raw },
        end: 0,
        previous: Digest::of(b"before"),
        chain: Digest::of(b"this one"),
    };
    (0..4).for_each(|first| feed.offer_frame("signed".into(), frame(first)));
    let taken = |size| feed.frame_at(TreeSize(size)).map(|frame| frame.first.0);
    assert_eq!(taken(0), Some(0));
    feed.offer_frame("signed".into(), frame(4));
    assert_eq!(taken(1), Some(1));
    // Those that had no room, until one that had.
    assert_eq!((taken(2), taken(3), taken(4), taken(5)), (None, None, Some(4), None));
}

/// Runs the archiver's thread until it has caught up, as a start does; the directory as a stop leaves it.
fn run_to(frames: &Frames, dir: &Path) -> Arc<Shared> {
    let shared = shared();
    shared.archive.offer(frames.last());
    let archiver =
        Archiver::new(Arc::clone(&shared), dir, ORIGIN.parse().expect("a name"), Some(full_segments()));
    let thread = std::thread::spawn(move || archiver.run());
    let size = TreeSize(frames.leaves.len() as u64);
    for _ in 0..600 {
        if shared.archive.archived() == size {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(shared.archive.archived(), size);
    shared.archive.end(End::CatchUp);
    thread.join().expect("no panic");
    shared
}

/// Form 1 of the index: a row of times for each bundle, and none for more than one.
fn make_older(index: &Path) {
    const TIMES: TableDefinition<'_, (u32, u64), (u64, u64)> = TableDefinition::new("times");
    const TIMES_BEFORE: TableDefinition<'_, u64, (u64, u64)> = TableDefinition::new("times");
    const STATE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("state");
    let database = redb::Database::open(index).expect("an index");
    let write = database.begin_write().expect("writable");
    assert!(write.delete_table(TIMES).expect("deleted"));
    write.open_table(TIMES_BEFORE).expect("made").insert(0, (1, 2)).expect("written");
    {
        let mut state = write.open_table(STATE).expect("there");
        let position = state.get("position").expect("read").expect("there").value().to_vec();
        let position = String::from_utf8(position).expect("JSON");
        let older = position.replace("\"form\":2,", "\"form\":1,");
        assert_ne!(older, position);
        state.insert("position", older.as_bytes()).expect("written");
    }
    write.commit().expect("durable");
}

#[tokio::test]
async fn what_is_lost_or_changed_or_of_another_log_is_made_again_the_same() {
    let frames = Frames::written(700, 7).await;
    let other = Frames::written(1_100, 8).await;
    run_to(&frames, frames.path());
    run_to(&other, other.path());
    let expected = tiles_in(frames.path());
    assert!(expected.len() > 6);
    type Change = fn(&Path, &Path);
    let changes: [(&str, Change); 12] = [
        ("nothing", |_, _| {}),
        ("no index", |dir, _| fs::remove_file(dir.join("index.redb")).expect("removed")),
        ("no tiles", |dir, _| fs::remove_dir_all(dir.join("tile")).expect("removed")),
        ("an empty index", |dir, _| write(&dir.join("index.redb"), b"")),
        ("no index at all", |dir, _| {
            write(&dir.join("index.redb"), b"not a database, by any measure".repeat(999).as_slice())
        }),
        ("half an index", |dir, _| {
            let bytes = fs::read(dir.join("index.redb")).expect("readable");
            write(&dir.join("index.redb"), &bytes[..bytes.len() / 2]);
        }),
        ("an index of the form before", |dir, _| make_older(&dir.join("index.redb"))),
        ("one tile gone", |dir, _| fs::remove_file(dir.join("tile/0/001")).expect("removed")),
        ("one tile cut", |dir, _| {
            fs::remove_file(dir.join("tile/0/000")).expect("removed");
            write(&dir.join("tile/0/000"), &[7; 8_000]);
        }),
        ("one tile changed", |dir, _| {
            let mut bytes = fs::read(dir.join("tile/0/000")).expect("readable");
            bytes[77] ^= 1;
            fs::remove_file(dir.join("tile/0/000")).expect("removed");
            write(&dir.join("tile/0/000"), &bytes);
        }),
        ("the archive of a longer log", |dir, other| {
            fs::remove_dir_all(dir.join("tile")).expect("removed");
            copy(&other.join("tile"), &dir.join("tile"));
            fs::copy(other.join("index.redb"), dir.join("index.redb")).expect("copied");
        }),
        ("the index of a longer log", |dir, other| {
            fs::copy(other.join("index.redb"), dir.join("index.redb")).expect("copied");
        }),
    ];
    for (name, change) in changes {
        let dir = tempfile::tempdir().expect("a directory");
        copy(frames.path(), dir.path());
        change(dir.path(), other.path());
        run_to(&frames, dir.path());
        assert_eq!(tiles_in(dir.path()), expected, "{name}");
        let (shared, _session) = archived(&frames, dir.path());
        answers_like_a_scan(&frames, &Reader::new(shared, dir.path()), &mut Random(9));
    }
}

#[tokio::test]
async fn a_stopped_log_is_a_whole_static_log_and_old_partial_tiles_go_when_the_full_one_is_there() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut partials = 0;
    for round in 0..4 {
        let (ledger, _) = open(dir.path());
        let leaves = ledger.statistics().leaves;
        write_leaves(&ledger, leaves + 110, &mut Random(round + 20)).await;
        assert_eq!(ledger.close(Duration::ZERO).await, Closed::Clean);
        let leaves = leaves_in(dir.path());
        let found = tiles_in(dir.path());
        let size = TreeSize(leaves.len() as u64);
        for path in partial_tiles(size) {
            assert_eq!(found.get(&path.to_string()), Some(&tile_of(&leaves, &path)), "{path}");
        }
        for (name, bytes) in full_tiles(&leaves) {
            assert_eq!(found.get(&name), Some(&bytes), "{name}");
        }
        for name in found.keys() {
            let path: TilePath = name.parse().expect("only tiles are there");
            let is_full = path.with_width(TILE_WIDTH).expect("a width").available(size) == TILE_WIDTH;
            assert!(path.partial.is_none() || !is_full, "{name} of {size} leaves");
            partials += usize::from(path.partial.is_some());
        }
        let checkpoint = fs::read(dir.path().join("checkpoint")).expect("readable");
        let signed = parse_checkpoint(&checkpoint, signer().verifier()).expect("signed");
        assert_eq!(signed.checkpoint().size, size);
    }
    assert!(partials > 8, "some partial tiles stand beside each other");
}

#[tokio::test]
async fn what_is_appended_can_be_read_within_moments_while_more_is_appended() {
    let dir = tempfile::tempdir().expect("a directory");
    let (ledger, _) = open(dir.path());
    let reader = ledger.reader();
    assert!(reader.snapshot().size().0 <= 1);
    let writing = tokio::spawn({
        let ledger = ledger.clone();
        async move { write_leaves(&ledger, 1_500, &mut Random(30)).await }
    });
    let (mut snapshots, mut read) = (reader.subscribe(), Vec::new());
    let mut sizes = 0;
    while read.len() < 1_500 {
        let newer = tokio::time::timeout(Duration::from_secs(30), snapshots.changed()).await;
        newer.expect("more comes").expect("the sender lives");
        let at = Arc::clone(&snapshots.borrow_and_update());
        sizes += 1;
        loop {
            let more = reader.entries(&at, LeafIndex(read.len() as u64), 100).expect("read");
            if more.is_empty() {
                break;
            }
            read.extend(more);
        }
        assert_eq!(read.len() as u64, at.size().0);
        let index = LeafIndex(at.size().0 / 2);
        let proof = reader.proof(&at, index).expect("proved");
        let leaf = leaf_hash(&read[index.0 as usize]);
        assert_eq!(verify_inclusion(leaf, index, at.size(), &proof.path, at.root()), Ok(()));
    }
    writing.await.expect("no panic");
    assert!(sizes > 10, "{sizes}");
    let at = caught_up(&ledger).await;
    assert_eq!(reader.lag(), 0);
    let done = ledger.decide(Decision::Deny).await.expect("recorded");
    assert_eq!(done.receipt.index.0, at.size().0);
    let at = caught_up(&ledger).await;
    let (index, _) = reader.find(&at, done.receipt.id.expect("an id")).expect("looked up").expect("found");
    assert_eq!(index, done.receipt.index);
    ledger.close(Duration::ZERO).await;
    // What was read goes on to be read; lookups end with the archiver.
    let leaves = leaves_in(dir.path());
    assert_eq!(reader.entries(&at, LeafIndex(0), 1_000).expect("read"), leaves[..1_000]);
    assert!(matches!(reader.find(&at, done.receipt.id.expect("an id")), Err(ReadError::Index(_))));
}

#[tokio::test]
async fn a_disk_that_does_not_take_tiles_stops_nothing_and_is_tried_again() {
    let dir = tempfile::tempdir().expect("a directory");
    // Where the directory of tiles should be.
    write(&dir.path().join("tile"), b"in the way");
    let (ledger, _) = open(dir.path());
    let mut random = Random(40);
    write_leaves(&ledger, 700, &mut random).await;
    failed_more_often_than(0, &ledger).await;
    let statistics = ledger.statistics();
    assert!(statistics.archive_lag > 400, "{statistics:?}");
    assert_eq!(ledger.reader().lag(), statistics.archive_lag);
    fs::remove_file(dir.path().join("tile")).expect("removed");
    let at = caught_up(&ledger).await;
    let leaves = leaves_in(dir.path());
    assert_eq!(ledger.reader().entries(&at, LeafIndex(0), 4_096).expect("read"), leaves);
    // And once more while it runs.
    let (tile, aside) = (dir.path().join("tile"), dir.path().join("aside"));
    rename(&tile, &aside);
    write(&tile, b"in the way");
    let failures = ledger.statistics().archive_failures;
    write_leaves(&ledger, at.size().0 + 600, &mut random).await;
    failed_more_often_than(failures, &ledger).await;
    // A close does not wait for the disk.
    assert_eq!(ledger.close(Duration::ZERO).await, Closed::Clean);
    fs::remove_file(&tile).expect("removed");
    rename(&aside, &tile);
    let (ledger, opened) = open(dir.path());
    assert!(opened.clean);
    caught_up(&ledger).await;
    drop(ledger);
    let mut found = tiles_in(dir.path());
    found.retain(|name, _| !name.contains(".p/"));
    assert_eq!(found, full_tiles(&leaves_in(dir.path())));
}

#[expect(clippy::disallowed_methods, reason = "the tests change files")]
fn rename(from: &Path, to: &Path) {
    fs::rename(from, to).expect("renamed");
}

#[tokio::test]
async fn a_copy_taken_while_it_runs_is_made_whole() {
    let dir = tempfile::tempdir().expect("a directory");
    let (ledger, _) = open(dir.path());
    let writing = tokio::spawn({
        let ledger = ledger.clone();
        async move { write_leaves(&ledger, 2_000, &mut Random(50)).await }
    });
    let mut copies = Vec::new();
    while !writing.is_finished() {
        tokio::time::sleep(Duration::from_millis(150)).await;
        let copied = tempfile::tempdir().expect("a directory");
        // In the order in which a backup should: nothing copied later is older than the checkpoint.
        fs::copy(dir.path().join("checkpoint"), copied.path().join("checkpoint")).expect("copied");
        let _ = fs::copy(dir.path().join("index.redb"), copied.path().join("index.redb"));
        copy(&dir.path().join("frames"), &copied.path().join("frames"));
        if dir.path().join("tile").exists() {
            copy(&dir.path().join("tile"), &copied.path().join("tile"));
        }
        copies.push(copied);
    }
    writing.await.expect("no panic");
    ledger.close(Duration::ZERO).await;
    assert!(!copies.is_empty());
    for copied in copies.iter().take(6) {
        let (ledger, _) = open(copied.path());
        caught_up(&ledger).await;
        ledger.close(Duration::ZERO).await;
        let leaves = leaves_in(copied.path());
        let mut found = tiles_in(copied.path());
        found.retain(|name, _| !name.contains(".p/"));
        assert_eq!(found, full_tiles(&leaves));
    }
}

#[tokio::test]
async fn tiles_that_are_gone_or_changed_are_errors_and_never_answers() {
    let frames = Frames::written(700, 60).await;
    let (shared, _session) = archived(&frames, frames.path());
    let reader = Reader::new(shared, frames.path());
    let at = reader.snapshot();
    let tile = frames.path().join("tile");
    let mut bytes = fs::read(tile.join("0/000")).expect("readable");
    bytes[40] ^= 1;
    fs::remove_file(tile.join("0/000")).expect("removed");
    write(&tile.join("0/000"), &bytes);
    for index in 0..at.size().0 {
        let index = LeafIndex(index);
        // A changed tile may still serve paths that do not go through it; none that it gives is wrong.
        match reader.proof(&at, index) {
            Err(ReadError::OtherRoot { index: named }) => assert_eq!(named, index),
            Ok(proof) => {
                let leaf = leaf_hash(&frames.leaves[index.0 as usize]);
                assert_eq!(verify_inclusion(leaf, index, at.size(), &proof.path, at.root()), Ok(()));
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(reader.proof(&at, LeafIndex(0)).is_err());
    fs::remove_file(tile.join("0/000")).expect("removed");
    assert!(matches!(reader.proof(&at, LeafIndex(0)), Err(ReadError::Tile(_))));
    for wrong in [&b"\x00\x05abc"[..], b"", &[0; 2 * 255], &[0; 2 * 257]] {
        fs::remove_file(tile.join("entries/000")).expect("removed");
        write(&tile.join("entries/000"), wrong);
        assert!(matches!(reader.entries(&at, LeafIndex(0), 1), Err(ReadError::Tile(_))));
        assert!(matches!(reader.tile(&at, &TilePath::entries(0)), Err(ReadError::Tile(_))));
    }
    // Of the right form, and not entries.
    write(&tile.join("entries/000"), &[0; 2 * 256]);
    let found = reader.search(&at, &Search::from(LeafIndex(0), 1));
    assert!(matches!(found, Err(ReadError::OtherRoot { index: LeafIndex(0) })), "{found:?}");
    assert!(reader.entries(&at, LeafIndex(256), 1).is_ok());
}

#[tokio::test]
async fn entries_that_were_forged_with_all_tiles_above_them_are_never_given_out() {
    let frames = Frames::written(700, 61).await;
    let (shared, _session) = archived(&frames, frames.path());
    let reader = Reader::new(shared, frames.path());
    let at = reader.snapshot();
    let (victim, id) = (0..256)
        .find_map(|n| match Entry::from_bytes_unverified(&frames.leaves[n]) {
            Ok(Entry::Decision(d)) if d.decision == Decision::Deny => Some((n, d.id)),
            _ => None,
        })
        .expect("a refusal in the first bundle");
    assert!(reader.find(&at, id).expect("readable").is_some());
    let text = String::from_utf8(frames.leaves[victim].clone()).expect("JSON");
    let mut forged = frames.leaves[..256].to_vec();
    forged[victim] = text.replace("\"decision\":\"DENY\"", "\"decision\":\"PERMIT\"").into_bytes();
    assert_ne!(forged[victim], frames.leaves[victim]);
    for path in [TilePath::entries(0), TilePath::hashes(0, 0)] {
        let place = frames.path().join("tile").join(path.to_string());
        fs::remove_file(&place).expect("removed");
        write(&place, &tile_of(&forged, &path));
        let refused = |error: ReadError| assert!(matches!(error, ReadError::OtherRoot { .. }), "{error}");
        refused(reader.find(&at, id).expect_err("forged"));
        refused(reader.entries(&at, LeafIndex(0), 1).expect_err("forged"));
        refused(reader.search(&at, &Search::from(LeafIndex(0), 1)).expect_err("forged"));
        refused(reader.tile(&at, &TilePath::entries(0)).expect_err("forged"));
    }
    let later = reader.entries(&at, LeafIndex(256), 1).expect("the other bundles stand");
    assert_eq!(later[0], frames.leaves[256]);
}

/// Resident memory of this process that belongs to no file.
fn resident_kib() -> usize {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("a line");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}

/// Each test runs in a process of its own, so the memory is the ledger's.
#[tokio::test]
async fn memory_does_not_grow_with_the_log() {
    const FIRST: usize = 10_000;
    const MORE: usize = 50_000;
    /// A sixth of the bytes of the leaves that came after.
    const GROWTH_KIB_MAX: usize = 4 * 1024;
    let dir = tempfile::tempdir().expect("a directory");
    let settings = Settings { segment_bytes: 4 * 1024 * 1024, ..settings(dir.path()) };
    let (ledger, _) = Ledger::open(settings, signer(), clock(), start()).expect("opens");
    let append = async |leaves: usize| {
        for _ in 0..leaves / 500 {
            for done in join_all((0..500).map(|_| ledger.decide(Decision::Deny))).await {
                done.expect("recorded");
            }
        }
        caught_up(&ledger).await;
        resident_kib()
    };
    let before = append(FIRST).await;
    let after = append(MORE).await;
    let reader = ledger.reader();
    let leaf = reader.entries(&reader.snapshot(), LeafIndex(FIRST as u64), 1).expect("read").remove(0);
    assert!(leaf.len() * MORE > 6 * 1024 * GROWTH_KIB_MAX, "{}", leaf.len());
    assert!(after < before + GROWTH_KIB_MAX, "{before} KiB, and {after} KiB after {MORE} leaves more");
    assert_eq!(ledger.close(Duration::ZERO).await, Closed::Clean);
}
