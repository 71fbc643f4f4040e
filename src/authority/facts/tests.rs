use std::collections::VecDeque;
use std::sync::Mutex;

use super::keep::UNAVAILABLE;
use super::*;
use crate::clock::WallTime;
use crate::model::ReadSet;

const MAX_AGE: Duration = Duration::from_secs(10);
const ITEM: &str = "fact:payments/rates";

/// Answers in turn; asked once more than it has answers, it says nothing for ever.
#[derive(Clone, Debug, Default)]
struct Scripted {
    answers: Arc<Mutex<VecDeque<Result<Bytes, Unread>>>>,
    asked: Arc<Mutex<u32>>,
}

impl Scripted {
    fn says(&self, document: &'static str) {
        self.answers.lock().expect("no panic").push_back(Ok(Bytes::from_static(document.as_bytes())));
    }

    fn fails(&self) {
        self.answers.lock().expect("no panic").push_back(Err(Unread::Late));
    }
}

impl FactSource for Scripted {
    fn read(&mut self) -> Answer<'_, Result<Bytes, Unread>> {
        *self.asked.lock().expect("no panic") += 1;
        let next = self.answers.lock().expect("no panic").pop_front();
        Box::pin(async move {
            match next {
                Some(answer) => answer,
                None => std::future::pending().await,
            }
        })
    }
}

struct World {
    source: Scripted,
    clock: Clock,
    versions: Versions,
    metrics: Arc<Metrics>,
}

impl World {
    fn new() -> Self {
        Self {
            source: Scripted::default(),
            clock: Clock::manual(WallTime::from_unix_ns(0)),
            versions: Versions::new(),
            metrics: Arc::new(Metrics::new().expect("valid names")),
        }
    }

    fn spec(&self) -> FactSpec {
        FactSpec {
            name: "rates".parse().expect("a name"),
            source: Box::new(self.source.clone()),
            parse: parse_json,
            bytes_max: 64,
            max_age: MAX_AGE,
            refresh_every: MAX_AGE / limits::FACT_REFRESH_PARTS,
        }
    }

    fn keeper(&self) -> (Keeper, Facts) {
        let surface = surface();
        let metrics = self.metrics.clone();
        let keeper = Keeper::new(&surface, self.spec(), self.clock.clone(), self.versions.clone(), metrics);
        let facts = Facts(Arc::new(Kept { cells: vec![keeper.cell()], _keepers: Vec::new() }));
        (keeper, facts)
    }

    fn value(&self, facts: &Facts) -> Result<(Json, u64), FactUnavailable> {
        let read = facts.read(self.clock.monotonic())?;
        let [only] = &read[..] else { panic!("one fact") };
        Ok((Json::clone(&only.value), only.age_ms))
    }

    /// A read set that rests on what the facts say now.
    fn consulted(&self, facts: &Facts) -> ReadSet {
        let read = facts.read(self.clock.monotonic()).expect("available");
        let watched = read.iter().map(FactRead::item).collect();
        ReadSet { watched, state: Vec::new(), captured_at: self.clock.monotonic(), approvals_until: None }
    }

    fn metric(&self, name: &str) -> String {
        let text = String::from_utf8(self.metrics.render().expect("renders")).expect("text");
        let start = format!("interlock_{name}{{fact=\"rates\",surface=\"payments\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&start)).expect("declared").to_owned()
    }
}

fn surface() -> SurfaceName {
    "payments".parse().expect("a name")
}

fn number(n: f64) -> Json {
    Json::Number(crate::model::Number::new(n).expect("finite"))
}

fn unavailable() -> FactUnavailable {
    FactUnavailable { name: "rates".parse().expect("a name") }
}

#[tokio::test]
async fn a_value_is_read_with_its_digest_and_its_age() {
    let world = World::new();
    let (mut keeper, facts) = world.keeper();
    assert_eq!(facts.read(world.clock.monotonic()), Err(unavailable()));
    world.source.says("{\"b\": 1.50, \"a\": []}");
    keeper.refresh().await.expect("read");
    world.clock.advance(Duration::from_millis(1_234));
    let read = facts.read(world.clock.monotonic()).expect("available");
    assert_eq!(*read[0].digest, *Digest::of(b"{\"a\":[],\"b\":1.5}").to_string());
    assert_eq!((&*read[0].version_name, read[0].age_ms), (ITEM, 1_234));
    assert_eq!(facts.available(world.clock.monotonic()), Ok(()));
}

#[tokio::test]
async fn a_failed_refresh_keeps_the_last_good_value_until_it_is_too_old() {
    let world = World::new();
    let (mut keeper, facts) = world.keeper();
    world.source.says("1");
    keeper.refresh().await.expect("read");
    let permit = world.consulted(&facts);
    world.clock.advance(MAX_AGE - Duration::from_millis(1));
    world.source.fails();
    assert_eq!(keeper.refresh().await, Err(Unread::Late));
    assert_eq!(world.value(&facts), Ok((number(1.0), 9_999)));
    assert_eq!(world.versions.validate(&permit), Ok(()));
    assert_eq!(
        (world.metric("fact_failures_total"), world.metric("fact_available")),
        ("1".into(), "1".into())
    );
    world.clock.advance(Duration::from_millis(1));
    assert_eq!(world.value(&facts), Err(unavailable()));
    assert_eq!(facts.available(world.clock.monotonic()), Err(unavailable()));
    world.source.fails();
    assert_eq!(keeper.refresh().await, Err(Unread::Late));
    assert!(world.versions.validate(&permit).is_err(), "what rests on a value that is too old is not sent");
    assert_eq!(world.metric("fact_available"), "0");
}

#[tokio::test]
async fn a_change_supersedes_what_rests_on_the_earlier_value_and_the_same_value_does_not() {
    let world = World::new();
    let (mut keeper, facts) = world.keeper();
    world.source.says("{\"a\": 1, \"b\": 2}");
    keeper.refresh().await.expect("read");
    let permit = world.consulted(&facts);
    world.clock.advance(Duration::from_secs(3));
    // The same value, written in another way.
    world.source.says("{\"b\":2,\"a\":1.0}");
    keeper.refresh().await.expect("read");
    assert_eq!(world.versions.validate(&permit), Ok(()));
    assert_eq!(world.value(&facts).expect("available").1, 0, "it is as young as its last read");
    world.source.says("{\"a\": 1, \"b\": 3}");
    keeper.refresh().await.expect("read");
    let moved = world.versions.validate(&permit).expect_err("another value");
    assert_eq!(&*moved.name, ITEM);
    assert_eq!(world.versions.validate(&world.consulted(&facts)), Ok(()));
}

#[tokio::test]
async fn a_value_that_comes_back_after_it_was_too_old_is_available_again() {
    let world = World::new();
    let (mut keeper, facts) = world.keeper();
    for _ in 0..2 {
        world.source.says("true");
        keeper.refresh().await.expect("read");
        assert_eq!(world.value(&facts), Ok((Json::Bool(true), 0)));
        assert_eq!(world.versions.validate(&world.consulted(&facts)), Ok(()));
        world.clock.advance(MAX_AGE);
        world.source.fails();
        keeper.refresh().await.expect_err("no answer");
        assert_eq!(world.value(&facts), Err(unavailable()));
    }
}

#[tokio::test]
async fn a_document_that_is_not_accepted_changes_nothing() {
    let world = World::new();
    let (mut keeper, facts) = world.keeper();
    world.source.says("[1]");
    keeper.refresh().await.expect("read");
    let deep: &'static str = Box::leak(format!("{}{}", "[".repeat(33), "]".repeat(33)).into_boxed_str());
    let large: &'static str = Box::leak(format!("\"{}\"", "x".repeat(63)).into_boxed_str());
    for document in [
        "",
        "{\"a\":1,\"a\":1}",
        "[1",
        "[1] [2]",
        "NaN",
        "0.1e-400",
        "\u{feff}1",
        deep,
        large,
        "1e20000",
        "{\"_sd\": 1}",
    ] {
        world.source.says(document);
        assert!(keeper.refresh().await.is_err(), "{document}");
        assert_eq!(world.value(&facts), Ok((Json::Array(vec![number(1.0)]), 0)), "{document}");
    }
    // Few bytes may be many once they are written in full.
    world.source.says("[1e20,1e20,1e20,1e20]");
    assert_eq!(keeper.refresh().await, Err(Unread::TooLarge(64)));
}

#[tokio::test]
async fn the_age_counts_from_the_beginning_of_a_read() {
    #[derive(Debug)]
    struct Slow(Clock);
    impl FactSource for Slow {
        fn read(&mut self) -> Answer<'_, Result<Bytes, Unread>> {
            self.0.advance(Duration::from_secs(4));
            Box::pin(async { Ok(Bytes::from_static(b"1")) })
        }
    }
    let world = World::new();
    let spec = FactSpec { source: Box::new(Slow(world.clock.clone())), ..world.spec() };
    let facts = Facts::start(&surface(), vec![spec], &world.clock, &world.versions, &world.metrics).await;
    assert_eq!(world.value(&facts), Ok((number(1.0), 4_000)));
}

#[tokio::test]
async fn a_source_that_hangs_makes_the_fact_too_old_without_any_request() {
    let world = World { clock: Clock::system(), ..World::new() };
    let (max_age, refresh_every) = (Duration::from_millis(400), Duration::from_millis(1));
    let spec = FactSpec { max_age, refresh_every, ..world.spec() };
    world.source.says("1");
    let began = world.clock.monotonic();
    let facts = Facts::start(&surface(), vec![spec], &world.clock, &world.versions, &world.metrics).await;
    let permit = world.consulted(&facts);
    // The second read never ends.
    while world.versions.validate(&permit).is_ok() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(world.clock.monotonic().since(began) >= max_age);
    assert_eq!(*world.source.asked.lock().expect("no panic"), 2);
    let now = world.versions.capture(&world.clock, &[Arc::from(ITEM)]);
    assert_eq!(&*now.watched[0].version, UNAVAILABLE);
}

#[tokio::test]
async fn a_source_is_asked_once_however_many_requests_read_its_fact() {
    let world = World::new();
    world.source.says("1");
    let refresh_every = Duration::from_millis(20);
    let spec = FactSpec { refresh_every, ..world.spec() };
    let facts = Facts::start(&surface(), vec![spec], &world.clock, &world.versions, &world.metrics).await;
    for _ in 0..1_000 {
        world.value(&facts).expect("available");
    }
    assert_eq!(*world.source.asked.lock().expect("no panic"), 1);
    drop(facts);
    tokio::time::sleep(2 * refresh_every).await;
    assert_eq!(*world.source.asked.lock().expect("no panic"), 1, "nobody needs it any more");
}

#[tokio::test]
async fn facts_are_read_in_the_order_of_their_names_and_one_that_is_missing_is_named() {
    let world = World::new();
    world.source.says("1");
    let other = Scripted::default();
    other.fails();
    let named = |name: &str, source: &Scripted| FactSpec {
        name: name.parse().expect("a name"),
        source: Box::new(source.clone()),
        ..world.spec()
    };
    let specs = vec![named("rates", &world.source), named("limits", &other)];
    let facts = Facts::start(&surface(), specs, &world.clock, &world.versions, &world.metrics).await;
    let missing = facts.read(world.clock.monotonic()).expect_err("one failed");
    assert_eq!(missing.to_string(), "the fact `limits` is not available");
    assert_eq!(Facts::none().read(world.clock.monotonic()), Ok(Vec::new()));
}

mod files {
    use super::*;
    use std::path::Path;

    #[expect(clippy::disallowed_methods, reason = "a test's own files")]
    fn write(path: &Path, text: &str) {
        std::fs::write(path, text).expect("written");
    }

    fn source(path: &Path) -> FileSource {
        FileSource::new(path.to_owned(), 16, Duration::from_secs(5))
    }

    #[tokio::test]
    async fn a_file_that_is_replaced_and_a_link_that_is_turned_are_seen() {
        let dir = tempfile::tempdir().expect("a directory");
        // As Kubernetes mounts a ConfigMap: the file is a link into a directory that is itself a link.
        let at = |name: &str| dir.path().join(name);
        for (version, text) in [("v1", "1"), ("v2", "2")] {
            std::fs::create_dir(at(version)).expect("made");
            write(&at(version).join("rates.json"), text);
        }
        std::os::unix::fs::symlink("v1", at("..data")).expect("linked");
        std::os::unix::fs::symlink("..data/rates.json", at("rates.json")).expect("linked");
        let mut source = source(&at("rates.json"));
        assert_eq!(source.read().await, Ok(Bytes::from_static(b"1")));
        std::os::unix::fs::symlink("v2", at("..data_tmp")).expect("linked");
        #[expect(clippy::disallowed_methods, reason = "a test's own files")]
        std::fs::rename(at("..data_tmp"), at("..data")).expect("turned");
        assert_eq!(source.read().await, Ok(Bytes::from_static(b"2")));
        write(&at("v2").join("rates.json"), "3");
        assert_eq!(source.read().await, Ok(Bytes::from_static(b"3")));
    }

    #[tokio::test]
    async fn what_is_not_a_regular_file_of_bounded_size_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("f");
        assert!(matches!(source(&path).read().await, Err(Unread::Unreachable(_))), "missing");
        assert!(matches!(source(dir.path()).read().await, Err(Unread::Refused(_))), "a directory");
        write(&path, "0123456789abcdef");
        assert!(source(&path).read().await.is_ok(), "at the bound");
        write(&path, "0123456789abcdefg");
        assert_eq!(source(&path).read().await, Err(Unread::TooLarge(16)));
        let pipe = dir.path().join("pipe");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).expect("made");
        assert!(matches!(source(&pipe).read().await, Err(Unread::Refused(_))), "a pipe, without waiting");
    }
}
