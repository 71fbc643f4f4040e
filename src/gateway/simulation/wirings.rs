//! Wirings that are wrong, each in one way: a simulation that finds nothing in them would find nothing at all.
//!
//! Nothing of the product has a switch for this. What is wrong is what it is wired with: a disk that lies, a state that
//! takes less than it was asked to, a follower that is late, versions that stand still.

use std::sync::{Arc, Mutex};

use tokio::sync::mpsc;

use super::journal::{Journal, What};
use crate::authority::{Answer, Asked, Fold, Intent, NotReserved, State, Ticket, Versions, View};
use crate::clock::WallTime;
use crate::ledger::Follower;
use crate::model::{Change, LeafIndex, ReadItem, ReceiptId, TreeSize};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wiring {
    Right,
    /// A sync returns, and nothing is durable: bytes leave before their PERMIT is.
    DiskLies,
    /// The airlock and the first byte do not look at freezes.
    FreezesAreNotWatched,
    /// Nor at which policy judged.
    PolicyIsNotWatched,
    /// Nor at whether the actor would be proved again.
    IdentityIsNotWatched,
    /// Nor at anything: the versions they look at never move.
    VersionsStandStill,
    /// A permit is good for a minute.
    PermitsNeverAge,
    /// What was taken for a PERMIT is given back before its leaf is durable.
    TakenIsGivenBack,
    /// A PERMIT does not take the approvals that it rests on.
    ApprovalsAreNotTaken,
    /// It is not known when approvals end.
    ApprovalsHaveNoEnd,
    /// A key claims nothing.
    KeysAreNotTaken,
    /// What a PERMIT draws is not reserved.
    BudgetsAreNotTaken,
    /// Outcomes settle nothing.
    OutcomesAreNotFolded,
    /// The state hears of a batch when the next one is durable.
    FollowerIsLate,
    /// A wall clock that was set is believed.
    ClockIsTrusted,
    /// It is not known when credentials end.
    CredentialsHaveNoEnd,
    /// Something between gateway and upstream sends again what had no answer.
    UpstreamIsSentAgain,
    /// A bundle judges before the log has it.
    PolicyIsActiveBeforeItsLeaf,
}

/// The state as the gate has it.
#[derive(Debug)]
pub struct Seen {
    pub fold: Arc<Fold>,
    pub wiring: Wiring,
    pub journal: Journal,
    /// Told of each reservation, and whether it takes approvals.
    pub reserved: mpsc::UnboundedSender<bool>,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Journal")
    }
}

impl Seen {
    fn asked<'a>(&self, asked: Asked<'a>) -> Asked<'a> {
        match self.wiring {
            Wiring::KeysAreNotTaken => Asked { key: None, ..asked },
            _ => asked,
        }
    }
}

impl State for Seen {
    fn read<'s>(&'s self, asked: Asked<'s>) -> Answer<'s, View> {
        Box::pin(async move {
            let mut view = self.fold.read(self.asked(asked)).await;
            if self.wiring == Wiring::ApprovalsHaveNoEnd
                && let Some(hold) = &mut view.hold
            {
                hold.until = WallTime::from_unix_ns(u64::MAX);
            }
            view
        })
    }

    fn reserve<'s>(&'s self, id: ReceiptId, intent: Intent<'s>) -> Answer<'s, Result<Ticket, NotReserved>> {
        Box::pin(async move {
            let mut intent = Intent { asked: self.asked(intent.asked), ..intent };
            let is_approved = intent.approved_hold.is_some();
            match self.wiring {
                Wiring::ApprovalsAreNotTaken => intent.approved_hold = None,
                Wiring::BudgetsAreNotTaken => intent.asked.draws = &[],
                _ => {}
            }
            let ticket = self.fold.reserve(id, intent).await?;
            self.journal.add(What::Reserved(id.to_string()));
            // Nobody listens before the first request and after the last.
            let _ = self.reserved.send(is_approved);
            if self.wiring == Wiring::TakenIsGivenBack {
                let reserves = ticket.reserves.clone();
                return Ok(Ticket::new(id, reserves, Box::new(|| ())));
            }
            Ok(ticket)
        })
    }

    fn open_hold<'s>(
        &'s self,
        id: ReceiptId,
        asked: Asked<'s>,
        read: &'s [ReadItem],
    ) -> Answer<'s, Result<Ticket, NotReserved>> {
        self.fold.open_hold(id, self.asked(asked), read)
    }
}

/// The follower as the ledger has it.
pub struct Hears {
    pub fold: Arc<Fold>,
    pub wiring: Wiring,
    late: Mutex<Vec<Heard>>,
}

/// What one batch changed, and the log's size with it.
type Heard = (Vec<(LeafIndex, Change)>, TreeSize);

impl Hears {
    pub fn new(fold: Arc<Fold>, wiring: Wiring) -> Self {
        Self { fold, wiring, late: Mutex::default() }
    }
}

impl Follower for Hears {
    fn apply(&self, mut changes: Vec<(LeafIndex, Change)>, size: TreeSize) {
        match self.wiring {
            Wiring::OutcomesAreNotFolded => {
                changes.retain(|(_, change)| !matches!(change, Change::Settled(_)));
                self.fold.apply(changes, size);
            }
            Wiring::FollowerIsLate => {
                let mut late = self.late.lock().expect("nothing panics in here");
                for (changes, size) in late.drain(..) {
                    self.fold.apply(changes, size);
                }
                late.push((changes, size));
            }
            _ => self.fold.apply(changes, size),
        }
    }

    fn snapshot(&self) -> Box<dyn FnOnce() -> Vec<u8> + Send> {
        self.fold.snapshot()
    }

    fn restore(&self, snapshot: &[u8]) -> Result<(), String> {
        self.fold.restore(snapshot)
    }

    fn clear(&self) {
        self.fold.clear();
    }
}

/// What the airlock looks at.
pub fn watched(wiring: Wiring) -> Arc<[Arc<str>]> {
    let not = match wiring {
        Wiring::FreezesAreNotWatched => "freezes",
        Wiring::PolicyIsNotWatched => "policy",
        Wiring::IdentityIsNotWatched => "identity",
        _ => "",
    };
    ["freezes", "identity", "policy"].into_iter().filter(|name| *name != not).map(Arc::from).collect()
}

/// The versions as the gate has them.
pub fn versions(wiring: Wiring, versions: &Versions) -> Versions {
    if wiring != Wiring::VersionsStandStill {
        return versions.clone();
    }
    let still = Versions::new();
    for name in ["freezes", "identity", "policy"] {
        still.set(name, &versions.version(name).unwrap_or_default());
    }
    still
}
