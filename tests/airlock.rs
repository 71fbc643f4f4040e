//! Between the seal and the first byte, on a real connection: the one task that could write cannot run before the test
//! lets it, so that what happens in between has happened, whatever the machine does.

use std::thread;
use std::time::{Duration, Instant};

use interlock::authority::{Credentials, Fold, Versions};
use interlock::clock::{Clock, WallTime};
use interlock::ledger::{Administration, FileSigner, Ledger, Recording, Settings, Start};
use interlock::limits;
use interlock::model::entry::{AdminAction, OperatorEntry, Role};
use interlock::model::{OutcomeStatus, ReasonCode};
use interlock::policy::{self, Judgment, Pdp};
use interlock::upstream::{self, Answer, InFlight, NoAnswer, Scheme};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::ledger_faults::start;
use crate::replay::recording::{Recorder, charge, shipped};
use crate::support::upstream::Upstream;

const FACT: &str = "fact:sample/rates";
const PERMIT_AGE_MAX: Duration = Duration::from_secs(1);
const KEEP_BYTES_MAX: usize = 4_096;

/// Everything from the decision to the wire, and nothing before it.
struct Airlock {
    recorder: Recorder,
    versions: Versions,
    clock: Clock,
    behind: Upstream,
    _dir: TempDir,
}

impl Airlock {
    async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let (versions, clock) = (Versions::new(), Clock::manual(Clock::system().wall()));
        versions.set(FACT, "one");
        let settings = Settings {
            dir: dir.path().join("ledger"),
            origin: "interlock.test/log".parse().expect("a name"),
            segment_bytes: limits::SEGMENT_BYTES_MIN,
            salts: None,
            heartbeat: None,
        };
        let (signer, _) = FileSigner::generate(settings.origin.clone()).expect("a key");
        let start = Start { follower: Fold::new(versions.clone()), ..start() };
        let (ledger, _) = Ledger::open(settings, Box::new(signer), clock.clone(), start).expect("opens");
        // On a busy machine nothing here may end in a time-out.
        let bounds =
            policy::Settings { evaluation_max: Duration::from_secs(300), ..policy::Settings::default() };
        let pdp = Pdp::start(shipped(), bounds, clock.clone(), None).expect("threads");
        let recorder = Recorder { pdp, ledger };
        recorder.record_policy().await;
        Self { recorder, versions, clock, behind: Upstream::plain(), _dir: dir }
    }

    /// A permitted request, sealed and armed. Its connection's task has not run since: whoever has this has not awaited.
    async fn armed(&self, approvals_until: Option<WallTime>) -> InFlight {
        let patience = Duration::from_secs(60);
        let settings = upstream::Settings {
            scheme: Scheme::Plain,
            host: "127.0.0.1".into(),
            port: self.behind.address().port(),
            authority: "upstream.example".into(),
            leases_max: 1,
            idle_max: patience,
            connect_max: patience,
            lease_wait_max: patience,
            response_head_max: patience,
            response_idle_max: patience,
        };
        let pool = upstream::Upstream::new(settings, self.clock.clone()).expect("no roots needed");
        let lease = pool.lease().await.expect("it listens");
        let mut question = charge(100, "cus_1").question();
        question.read_set = self.versions.capture(&self.clock, &["freezes".into(), FACT.into()]);
        question.read_set.approvals_until = approvals_until;
        let Judgment::Permit(permit) = self.recorder.pdp.judge(question).await else { panic!("no permit") };
        let ledger = &self.recorder.ledger;
        let recording = Recording::new(ledger.new_id().expect("random"), None);
        let recorded = ledger.record_permit(permit, recording).await.expect("recorded");
        let sealed =
            upstream::seal(recorded, &self.versions, &Credentials::new(), PERMIT_AGE_MAX, &self.clock);
        let Ok(permitted) = sealed else { panic!("nothing has moved before the seal") };
        permitted.forward(lease)
    }

    async fn answer(&self, in_flight: InFlight) -> Result<Answer, Box<NoAnswer>> {
        let patience = Duration::from_secs(60);
        in_flight.answer(patience, patience, Some(KEEP_BYTES_MAX)).await
    }

    /// As an operator does; it is done when this returns. This thread waits, and nothing runs on it.
    fn freeze(&self) {
        let administration = Administration {
            action: AdminAction::Freeze,
            by: OperatorEntry { id: "ann".into(), role: Role::Operator },
            surface: None,
            actor: None,
            hold: None,
            reason: "a test".into(),
        };
        let ledger = self.recorder.ledger.clone();
        let freezing = thread::spawn(move || {
            Runtime::new().expect("built").block_on(ledger.record_admin(administration)).expect("recorded");
        });
        freezing.join().expect("no panic");
    }
}

#[tokio::test]
async fn a_request_that_nothing_overtakes_leaves_the_airlock() {
    let airlock = Airlock::start().await;
    let until = WallTime::from_unix_ns(airlock.clock.wall().unix_ns() + 1_000_000);
    let in_flight = airlock.armed(Some(until)).await;
    assert!(airlock.behind.captures().is_empty(), "its connection has not run yet");
    let answer = airlock.answer(in_flight).await.expect("an answer");
    assert_eq!(answer.status(), 200);
    airlock.behind.the_one();
    drop(answer);
    airlock.recorder.close().await;
}

#[tokio::test]
async fn what_moves_or_ends_between_the_seal_and_the_first_byte_sends_nothing() {
    type Between = fn(&Airlock);
    let cases: [(&str, Between); 4] = [
        ("a freeze that has returned", Airlock::freeze),
        ("a fact that has moved", |airlock| airlock.versions.set(FACT, "two")),
        ("a permit that has grown too old", |airlock| {
            airlock.clock.advance(PERMIT_AGE_MAX + Duration::from_millis(1));
        }),
        ("approvals that have ended", |airlock| airlock.clock.advance(Duration::from_millis(1))),
    ];
    for (name, between) in cases {
        let airlock = Airlock::start().await;
        let is_of_approvals = name.starts_with("approvals");
        let until = WallTime::from_unix_ns(airlock.clock.wall().unix_ns() + 1_000_000);
        let in_flight = airlock.armed(is_of_approvals.then_some(until)).await;
        between(&airlock);
        let refused = airlock.answer(in_flight).await.err().unwrap_or_else(|| panic!("{name}: it was sent"));
        assert_eq!(
            (refused.status, refused.code),
            (OutcomeStatus::NotSent, ReasonCode::ReadSetMoved),
            "{name}"
        );
        assert!(!refused.is_violation, "{name}");
        let (_execution, outcome) = *refused.again.unwrap_or_else(|| panic!("{name}: it is decided again"));
        outcome.durable().await.expect("recorded");
        assert_eq!(airlock.recorder.ledger.statistics().open_permits, 0, "{name}");
        airlock.recorder.close().await;
        assert!(airlock.behind.captures().is_empty(), "{name}");
    }
}

/// Once the outcome is in the log, the key says that there is an answer: by then it has to be there.
#[tokio::test]
async fn an_answer_is_kept_before_its_outcome_is_queued() {
    let airlock = Airlock::start().await;
    let in_flight = airlock.armed(None).await;
    let mut answer = airlock.answer(in_flight).await.expect("an answer");
    while answer.frame().await.expect("whole").is_some() {}
    let ledger = airlock.recorder.ledger.clone();
    let mut kept = None;
    let concluded = answer.conclude(|receipt, answer| {
        // An outcome that were queued already would be durable soon.
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(500) {
            assert_eq!(ledger.statistics().open_permits, 1, "the outcome was queued first");
            thread::sleep(Duration::from_millis(5));
        }
        kept = Some((receipt, answer));
    });
    assert_eq!(concluded.status, OutcomeStatus::Confirmed);
    concluded.recorded.durable().await.expect("recorded");
    assert_eq!(ledger.statistics().open_permits, 0);
    let (_receipt, _answer) = kept.expect("it was small enough to be kept");
    airlock.recorder.close().await;
}
