//! What happened, in the order in which it did: one thread runs it all, so there is one order.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::script::{Event, Frozen};
use crate::clock::{Clock, Moment, WallTime};

#[derive(Clone, Debug)]
#[expect(dead_code, reason = "some of it is for those who read a trace")]
pub enum What {
    /// A gateway runs from here on.
    Started,
    Ended(How),
    /// Of what the script says, as it begins.
    Scripted(Event),
    /// A sync said that these bytes of a segment are durable.
    Durable(Vec<u8>),
    /// What a PERMIT with this id takes is taken: what it rests on was read before.
    Reserved(String),
    /// The gateway has connected.
    Connected(usize),
    /// Bytes left the gateway on this connection.
    Left(usize, Vec<u8>),
    /// The upstream has read a whole message, and does what it says; how it goes on.
    Executed(usize, Conduct),
    /// It was proved who asks, as the n-th of all that is asked.
    Proved {
        ask: usize,
        wish: usize,
    },
    /// The last byte of it has come.
    Asked {
        ask: usize,
        wish: usize,
    },
    Answered(Told),
    /// A client went before there was an answer.
    Gone {
        ask: usize,
    },
    FreezeReturned(Frozen),
    UnfreezeAsked(Frozen),
    QuarantineReturned(usize),
    ReleaseAsked(usize),
    /// Of the two policies, the one with this number; between the two steps either judges.
    ReloadAsked(usize),
    InForce(usize),
    IdentityMoved,
    /// Set so many nanoseconds away from the clock of the start.
    ClockIs(i64),
    /// What the state says at the end of a life, and of the run.
    State(Sums),
    Panicked(String),
    Hung(usize),
    /// Why the log does not open, or what ended otherwise than it should.
    Broken(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    Stopped,
    /// And is down for so many milliseconds.
    Killed(u64),
    Poisoned,
}

/// What the upstream does once it has read a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Conduct {
    Answers,
    Streams,
    Refuses,
    Fails,
    /// And the connection ends.
    LosesReply,
    /// The connection stays, and nothing comes.
    Silent,
    Late,
    Cuts,
    Stalls,
    Garbles,
    SaysClose,
    Promises,
}

/// What a client was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub ask: usize,
    pub wish: usize,
    pub status: u16,
    /// A problem's.
    pub reason: Option<String>,
    /// The receipt's header.
    pub receipt: Option<String>,
    pub is_replayed: bool,
    /// As far as it came; `None` if it was cut.
    pub body: Option<Vec<u8>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sums {
    /// Of the one budget, at this time.
    pub at: WallTime,
    pub spent: String,
    pub in_flight: String,
    pub open: usize,
    pub unknown: usize,
    pub frozen: usize,
}

#[derive(Clone, Debug)]
pub struct Happened {
    /// Of the run.
    pub at: Duration,
    /// By the clock that can be set.
    pub wall: WallTime,
    pub what: What,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Journal {
    clock: Clock,
    zero: Moment,
    all: Arc<Mutex<Vec<Happened>>>,
}

impl Journal {
    pub fn new(clock: Clock) -> Self {
        Self { zero: clock.monotonic(), clock, all: Arc::default() }
    }

    pub fn add(&self, what: What) {
        let happened = Happened { at: self.now(), wall: self.clock.wall(), what };
        self.all().push(happened);
    }

    /// Time of the run.
    pub fn now(&self) -> Duration {
        self.clock.monotonic().since(self.zero)
    }

    pub fn take(&self) -> Vec<Happened> {
        std::mem::take(&mut self.all())
    }

    fn all(&self) -> MutexGuard<'_, Vec<Happened>> {
        self.all.lock().expect("nothing panics in here")
    }
}

/// Equal runs have equal ones.
pub fn digest_of(happened: &[Happened]) -> String {
    let mut digest = Sha256::new();
    for Happened { at, wall, what } in happened {
        digest.update(format!("{at:?} {wall:?} "));
        match what {
            What::Durable(bytes) => digest.update(bytes),
            What::Left(_, bytes) => digest.update(bytes),
            other => digest.update(format!("{other:?}")),
        }
        digest.update("\n");
    }
    hex(&digest.finalize())
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// For people: what a run did, a line each, without the bytes.
pub fn trace_of(happened: &[Happened]) -> String {
    let line = |happened: &Happened| {
        let what = match &happened.what {
            What::Durable(bytes) => format!("Durable {} bytes", bytes.len()),
            What::Left(connection, bytes) => format!("Left {connection}: {} bytes", bytes.len()),
            What::Answered(told) => format!(
                "Answered ask {} wish {}: {} {:?} {:?}{}",
                told.ask,
                told.wish,
                told.status,
                told.reason,
                told.receipt.as_deref().map(|receipt| receipt.split(", size").next().unwrap_or_default()),
                if told.body.is_none() { " CUT" } else { "" },
            ),
            other => format!("{other:?}"),
        };
        format!("{:>9.3} s  {what}\n", happened.at.as_secs_f64())
    };
    happened.iter().map(line).collect()
}
