//! The fold as bytes, and back.
//!
//! Out: a line that names the version, then the parts of [`Folded`], each list with its length before it. Numbers are
//! big-endian, texts have their length before them, a value that may be absent has a byte 0 or 1 before it. Equal states
//! have equal bytes: every list is in the order of its keys. Digests that leaves keep out are not in it.
//!
//! In: the same. Every length is held against what is left of the input before anything is made of it; an order that is
//! not strictly ascending, a value out of its range and a byte too many are refused.

use std::str::FromStr;
use std::sync::Arc;

use rust_decimal::Decimal;

use super::budgets::{BudgetKey, Budgets, Sums, Taken, Tally, Window};
use super::claims::{Claim, ClaimKey, Claims, Executed, Progress, RequestDigest};
use super::fold::{Folded, Open, Unknown};
use super::holds::{Hold, Holds};
use super::restrictions::{Cause, Freeze, Quarantine, Restrictions};
use super::{Approval, Scope};
use crate::clock::WallTime;
use crate::limits;
use crate::model::entry::Role;
use crate::model::{Activations, Digest, Highest, LeafIndex, OutcomeStatus, ReceiptId};

const SPEC: &[u8] = b"interlock-state/3\n";

/// The bytes are no snapshot of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    #[error("it is longer than a snapshot of the state can be")]
    Long,
    #[error("it is no snapshot of this version")]
    Version,
    #[error("it ends too early")]
    Short,
    #[error("it goes on after its end")]
    Rest,
    #[error("`{0}` is out of order")]
    Order(&'static str),
    #[error("`{0}` is not what a snapshot holds there")]
    Value(&'static str),
}

pub fn write(folded: &Folded) -> Vec<u8> {
    // Most of it are claims; their records have at most so many bytes.
    let mut out = Writer(Vec::with_capacity(4_096 + folded.claims.len() * 160));
    out.0.extend_from_slice(SPEC);
    let Folded { applied, claims, budgets, holds, restrictions, forgotten, open, unknown, activations } =
        folded;
    out.optional(*applied, |out, index| out.u64(index.0));
    out.list(claims.len(), claims.iter(), |out, (key, claim)| {
        out.digest(&key.0);
        out.claim(claim);
    });
    out.list(budgets.len(), budgets.iter(), |out, (key, tally)| {
        out.budget_key(key);
        out.list(tally.len(), tally.iter(), |out, Window { until, sums }| {
            out.time(*until);
            out.decimal(sums.spent);
            out.decimal(sums.in_flight);
        });
    });
    out.list(holds.len(), holds.iter(), |out, (id, hold)| {
        out.id(*id);
        out.hold(hold);
    });
    out.restrictions(restrictions);
    out.time(*forgotten);
    out.list(open.len(), open.iter(), |out, (index, open)| {
        out.u64(index.0);
        out.open(open);
    });
    out.list(unknown.len(), unknown.iter(), |out, (index, Unknown { id, at })| {
        out.u64(index.0);
        out.id(*id);
        out.time(*at);
    });
    out.activations(*activations);
    out.0
}

pub fn read(bytes: &[u8]) -> Result<Folded, Unreadable> {
    if bytes.len() > limits::STATE_BYTES_MAX {
        return Err(Unreadable::Long);
    }
    let mut reader = Reader(bytes.strip_prefix(SPEC).ok_or(Unreadable::Version)?);
    let folded = Folded {
        applied: reader.optional("applied", |reader| reader.index())?,
        claims: reader.claims()?,
        budgets: reader.budgets()?,
        holds: reader.holds()?,
        restrictions: reader.restrictions()?,
        forgotten: reader.time()?,
        open: reader.ascending("open", |reader| Ok((reader.index()?, reader.open()?)))?.into_iter().collect(),
        unknown: reader
            .ascending("unknown", |reader| {
                Ok((reader.index()?, Unknown { id: reader.id()?, at: reader.time()? }))
            })?
            .into_iter()
            .collect(),
        activations: reader.activations()?,
    };
    if reader.0.is_empty() { Ok(folded) } else { Err(Unreadable::Rest) }
}

struct Writer(Vec<u8>);

impl Writer {
    fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    fn time(&mut self, time: WallTime) {
        self.u64(time.unix_ns());
    }

    fn digest(&mut self, digest: &Digest) {
        self.0.extend_from_slice(digest.as_bytes());
    }

    fn id(&mut self, id: ReceiptId) {
        self.0.extend_from_slice(id.as_bytes());
    }

    fn text(&mut self, text: &str) {
        self.u64(text.len() as u64);
        self.0.extend_from_slice(text.as_bytes());
    }

    fn decimal(&mut self, decimal: Decimal) {
        self.0.extend_from_slice(&decimal.serialize());
    }

    fn optional<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.u8(u8::from(value.is_some()));
        if let Some(value) = value {
            write(self, value);
        }
    }

    fn list<T>(&mut self, len: usize, items: impl Iterator<Item = T>, write: impl Fn(&mut Self, T)) {
        self.u64(len as u64);
        items.for_each(|item| write(self, item));
    }

    fn claim(&mut self, claim: &Claim) {
        let Claim { id, decision, digest, at, until, progress } = claim;
        self.id(*id);
        self.u64(decision.0);
        self.optional(digest.logged(), |out, digest| out.digest(&digest));
        self.time(*at);
        self.time(*until);
        match progress {
            Progress::Running => self.u8(0),
            Progress::Unknown => self.u8(1),
            Progress::Executed(Executed { status, outcome, answer }) => {
                self.u8(2);
                self.u8(status_byte(*status));
                self.u64(outcome.0);
                self.optional(*answer, |out, answer| out.digest(&answer));
            }
        }
    }

    fn budget_key(&mut self, key: &BudgetKey) {
        self.text(key.surface.as_str());
        self.text(key.budget.as_str());
        self.digest(&key.key);
    }

    fn hold(&mut self, hold: &Hold) {
        let Hold { surface, action, actor, request, opened, changed, at, until, approvals, refused, used_by } =
            hold;
        self.text(surface.as_str());
        self.text(action.as_str());
        self.text(actor.as_str());
        self.optional(request.logged(), |out, digest| out.digest(&digest));
        self.u64(opened.0);
        self.u64(changed.0);
        self.time(*at);
        self.time(*until);
        self.list(approvals.len(), approvals.iter(), Self::approval);
        self.optional(refused.as_ref(), Self::approval);
        self.optional(*used_by, Self::id);
    }

    fn approval(&mut self, approval: &Approval) {
        let Approval { by, role, at, reason } = approval;
        self.text(by);
        self.u8(role_byte(*role));
        self.time(*at);
        self.text(reason);
    }

    fn restrictions(&mut self, restrictions: &Restrictions) {
        let Restrictions { freezes, quarantines, changed } = restrictions;
        self.optional(*changed, |out, index| out.u64(index.0));
        self.list(freezes.len(), freezes.iter(), |out, (scope, Freeze { by, reason, at, index })| {
            match scope {
                Scope::All => out.u8(0),
                Scope::Surface(surface) => {
                    out.u8(1);
                    out.text(surface.as_str());
                }
                Scope::Actor(actor) => {
                    out.u8(2);
                    out.text(actor.as_str());
                }
            }
            out.text(by);
            out.text(reason);
            out.time(*at);
            out.u64(index.0);
        });
        self.list(quarantines.len(), quarantines.iter(), |out, ((surface, actor), quarantine)| {
            out.text(surface.as_str());
            out.text(actor.as_str());
            match &quarantine.cause {
                Cause::Decision(id) => {
                    out.u8(0);
                    out.id(*id);
                }
                Cause::Operator { by, reason } => {
                    out.u8(1);
                    out.text(by);
                    out.text(reason);
                }
            }
            out.time(quarantine.at);
            out.u64(quarantine.index.0);
        });
    }

    fn activations(&mut self, Activations { highest, last }: Activations) {
        self.optional(highest, |out, Highest { version, revision, entry }| {
            out.u64(version);
            out.digest(&revision);
            out.u64(entry.0);
        });
        self.optional(last, |out, last| out.digest(&last));
    }

    fn open(&mut self, open: &Open) {
        let Open { id, claim, reserves, approved_hold } = open;
        self.id(*id);
        self.optional(*claim, |out, key| out.digest(&key.0));
        self.list(reserves.len(), reserves.iter(), |out, Taken { key, amount, until }| {
            out.budget_key(key);
            out.decimal(*amount);
            out.time(*until);
        });
        self.optional(*approved_hold, Self::id);
    }
}

/// What a claim that is executed can say.
fn status_byte(status: OutcomeStatus) -> u8 {
    match status {
        OutcomeStatus::NotSent => 0,
        OutcomeStatus::Confirmed => 1,
        OutcomeStatus::Failed => 2,
        OutcomeStatus::Indeterminate => 3,
    }
}

fn role_byte(role: Role) -> u8 {
    match role {
        Role::Viewer => 0,
        Role::Approver => 1,
        Role::Operator => 2,
        Role::Administrator => 3,
    }
}

/// What is left to be read.
struct Reader<'b>(&'b [u8]);

type Read<T> = Result<T, Unreadable>;

impl<'b> Reader<'b> {
    fn take(&mut self, len: u64) -> Read<&'b [u8]> {
        let len = usize::try_from(len).map_err(|_| Unreadable::Short)?;
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Unreadable::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Unreadable::Short)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u8(&mut self) -> Read<u8> {
        self.array().map(|[byte]| byte)
    }

    fn activations(&mut self) -> Read<Activations> {
        let highest = self.optional("highest", |reader| {
            Ok(Highest { version: reader.u64()?, revision: reader.digest()?, entry: reader.index()? })
        })?;
        Ok(Activations { highest, last: self.optional("last", Self::digest)? })
    }

    fn u64(&mut self) -> Read<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn index(&mut self) -> Read<LeafIndex> {
        self.u64().map(LeafIndex)
    }

    fn time(&mut self) -> Read<WallTime> {
        self.u64().map(WallTime::from_unix_ns)
    }

    fn digest(&mut self) -> Read<Digest> {
        self.array().map(Digest::from_bytes)
    }

    fn id(&mut self) -> Read<ReceiptId> {
        ReceiptId::from_bytes(self.array()?).ok_or(Unreadable::Value("id"))
    }

    fn str(&mut self) -> Read<&'b str> {
        let len = self.u64()?;
        std::str::from_utf8(self.take(len)?).map_err(|_| Unreadable::Value("text"))
    }

    fn text(&mut self) -> Read<Arc<str>> {
        self.str().map(Arc::from)
    }

    fn name<N: FromStr>(&mut self, kind: &'static str) -> Read<N> {
        self.str()?.parse().map_err(|_| Unreadable::Value(kind))
    }

    /// Zero or more.
    fn decimal(&mut self) -> Read<Decimal> {
        let bytes: [u8; 16] = self.array()?;
        let decimal = Decimal::deserialize(bytes);
        // Bits that have no meaning, and scales past 28, do not come back as they were.
        let is_valid = decimal.serialize() == bytes && decimal.scale() <= 28 && decimal.is_sign_positive();
        if is_valid { Ok(decimal) } else { Err(Unreadable::Value("decimal")) }
    }

    fn optional<T>(&mut self, of: &'static str, read: impl FnOnce(&mut Self) -> Read<T>) -> Read<Option<T>> {
        match self.u8()? {
            0 => Ok(None),
            1 => read(self).map(Some),
            _ => Err(Unreadable::Value(of)),
        }
    }

    fn list<T>(&mut self, mut read: impl FnMut(&mut Self) -> Read<T>) -> Read<Vec<T>> {
        let len = self.u64()?;
        // No room is made for what a length promises: each item must have been read first.
        (0..len).map(|_| read(self)).collect()
    }

    fn ascending<K: Ord, V>(
        &mut self,
        of: &'static str,
        read: impl FnMut(&mut Self) -> Read<(K, V)>,
    ) -> Read<Vec<(K, V)>> {
        let items = self.list(read)?;
        let is_ascending = items.windows(2).all(|pair| pair[0].0 < pair[1].0);
        if is_ascending { Ok(items) } else { Err(Unreadable::Order(of)) }
    }

    fn claims(&mut self) -> Read<Claims> {
        let (mut claims, mut last) = (Claims::default(), None);
        for _ in 0..self.u64()? {
            let key = ClaimKey(self.digest()?);
            if last >= Some(key) {
                return Err(Unreadable::Order("claims"));
            }
            last = Some(key);
            claims.insert(key, self.claim()?);
        }
        Ok(claims)
    }

    fn claim(&mut self) -> Read<Claim> {
        Ok(Claim {
            id: self.id()?,
            decision: self.index()?,
            digest: RequestDigest::new(self.optional("claim.digest", Self::digest)?, None),
            at: self.time()?,
            until: self.time()?,
            progress: match self.u8()? {
                0 => Progress::Running,
                1 => Progress::Unknown,
                2 => Progress::Executed(Executed {
                    status: match self.u8()? {
                        1 => OutcomeStatus::Confirmed,
                        2 => OutcomeStatus::Failed,
                        _ => return Err(Unreadable::Value("claim.status")),
                    },
                    outcome: self.index()?,
                    answer: self.optional("claim.answer", Self::digest)?,
                }),
                _ => return Err(Unreadable::Value("claim.progress")),
            },
        })
    }

    fn budget_key(&mut self) -> Read<BudgetKey> {
        Ok(BudgetKey { surface: self.name("surface")?, budget: self.name("budget")?, key: self.digest()? })
    }

    fn budgets(&mut self) -> Read<Budgets> {
        let mut budgets = Budgets::default();
        let all = self.ascending("budgets", |reader| Ok((reader.budget_key()?, reader.tally()?)))?;
        for (key, tally) in all {
            budgets.restore(key, tally).ok_or(Unreadable::Order("windows"))?;
        }
        Ok(budgets)
    }

    fn tally(&mut self) -> Read<Tally> {
        self.list(|reader| {
            let until = reader.time()?;
            let sums = Sums { spent: reader.decimal()?, in_flight: reader.decimal()? };
            Ok(Window { until, sums })
        })
    }

    fn holds(&mut self) -> Read<Holds> {
        let mut holds = Holds::default();
        for (id, hold) in self.ascending("holds", |reader| Ok((reader.id()?, reader.hold()?)))? {
            holds.insert(id, hold);
        }
        Ok(holds)
    }

    fn hold(&mut self) -> Read<Hold> {
        Ok(Hold {
            surface: self.name("surface")?,
            action: self.name("action")?,
            actor: self.name("actor")?,
            request: RequestDigest::new(self.optional("hold.digest", Self::digest)?, None),
            opened: self.index()?,
            changed: self.index()?,
            at: self.time()?,
            until: self.time()?,
            approvals: self.list(Self::approval)?,
            refused: self.optional("hold.refused", Self::approval)?,
            used_by: self.optional("hold.used_by", Self::id)?,
        })
    }

    fn approval(&mut self) -> Read<Approval> {
        Ok(Approval {
            by: self.text()?,
            role: match self.u8()? {
                0 => Role::Viewer,
                1 => Role::Approver,
                2 => Role::Operator,
                3 => Role::Administrator,
                _ => return Err(Unreadable::Value("role")),
            },
            at: self.time()?,
            reason: self.text()?,
        })
    }

    fn restrictions(&mut self) -> Read<Restrictions> {
        let changed = self.optional("restrictions.changed", Self::index)?;
        let freezes = self.ascending("freezes", |reader| {
            let scope = match reader.u8()? {
                0 => Scope::All,
                1 => Scope::Surface(reader.name("surface")?),
                2 => Scope::Actor(reader.name("actor")?),
                _ => return Err(Unreadable::Value("scope")),
            };
            let (by, reason) = (reader.text()?, reader.text()?);
            Ok((scope, Freeze { by, reason, at: reader.time()?, index: reader.index()? }))
        })?;
        let quarantines = self.ascending("quarantines", |reader| {
            let of = (reader.name("surface")?, reader.name("actor")?);
            let cause = match reader.u8()? {
                0 => Cause::Decision(reader.id()?),
                1 => Cause::Operator { by: reader.text()?, reason: reader.text()? },
                _ => return Err(Unreadable::Value("cause")),
            };
            Ok((of, Quarantine { cause, at: reader.time()?, index: reader.index()? }))
        })?;
        let (freezes, quarantines) = (freezes.into_iter().collect(), quarantines.into_iter().collect());
        Ok(Restrictions { freezes, quarantines, changed })
    }

    fn open(&mut self) -> Read<Open> {
        Ok(Open {
            id: self.id()?,
            claim: self.optional("open.claim", |reader| reader.digest().map(ClaimKey))?,
            reserves: self.list(|reader| {
                Ok(Taken { key: reader.budget_key()?, amount: reader.decimal()?, until: reader.time()? })
            })?,
            approved_hold: self.optional("open.approved_hold", Self::id)?,
        })
    }
}
