//! What must still be so when the first byte of a permitted request leaves.
//!
//! Looked at twice: in the airlock, where a request that fails costs nothing, and at the first write, inside the gate
//! of [`Versions`]: no version changes between that look and the write.

use std::sync::Arc;
use std::time::Duration;

use crate::authority::{Moved, Versions};
use crate::clock::{Clock, WallTime};
use crate::model::ReadSet;
use crate::policy::{Evaluated, Permit};

/// The actor's credential ran out between proving it and sending: deciding again would not help.
pub const CREDENTIAL_EXPIRED: &str = "credential_expired";
/// From the capture of what was read to now is longer than a permit may take.
const PERMIT_AGE: &str = "permit_age";
/// The approvals that the decision rests on have ended, whether or not a leaf says so yet.
const APPROVALS: &str = "approvals";

pub(super) struct Conditions {
    versions: Versions,
    read_set: ReadSet,
    permit_age_max: Duration,
    /// Of the actor's credential.
    valid_until: Option<WallTime>,
    clock: Clock,
}

impl Conditions {
    pub(super) fn of(
        evaluated: &Evaluated<Permit>,
        versions: &Versions,
        permit_age_max: Duration,
        clock: &Clock,
    ) -> Self {
        Self {
            versions: versions.clone(),
            read_set: evaluated.read_set().clone(),
            permit_age_max,
            valid_until: evaluated.execution().actor.valid_until,
            clock: clock.clone(),
        }
    }

    /// `Err` names what has moved: a read item, `permit_age`, `approvals`, or [`CREDENTIAL_EXPIRED`].
    pub(super) fn check(&self) -> Result<(), Arc<str>> {
        self.versions.validate(&self.read_set).map_err(|moved| moved.name)?;
        self.check_times()
    }

    /// Writes, if all of it is still so. Nothing of it changes in between but time itself.
    pub(super) fn start<T>(&self, write: impl FnOnce() -> T) -> Result<T, Arc<str>> {
        let started = self.versions.start(&self.read_set, || self.check_times().map(|()| write()));
        started.unwrap_or_else(|Moved { name }| Err(name))
    }

    fn check_times(&self) -> Result<(), Arc<str>> {
        let now = self.clock.wall();
        if self.valid_until.is_some_and(|end| now >= end) {
            return Err(CREDENTIAL_EXPIRED.into());
        }
        if self.read_set.approvals_until.is_some_and(|end| now >= end) {
            return Err(APPROVALS.into());
        }
        if self.age() > self.permit_age_max {
            return Err(PERMIT_AGE.into());
        }
        Ok(())
    }

    pub(super) fn age(&self) -> Duration {
        self.clock.monotonic().since(self.read_set.captured_at)
    }

    /// For messages of tests: holds as long as nobody sets this version.
    #[cfg(test)]
    pub(super) fn while_unset(versions: &Versions, name: &str) -> Self {
        let clock = Clock::system();
        let read_set = versions.capture(&clock, &[name.into()]);
        let permit_age_max = Duration::from_secs(60);
        Self { versions: versions.clone(), read_set, permit_age_max, valid_until: None, clock }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn approvals_that_end_between_the_decision_and_the_first_byte_send_nothing() {
        let (clock, versions) = (Clock::manual(WallTime::from_unix_ns(1_000_000)), Versions::new());
        let mut read_set = versions.capture(&clock, &[]);
        read_set.approvals_until = Some(WallTime::from_unix_ns(2_000_000));
        let permit_age_max = Duration::from_secs(60);
        let of = Conditions { versions, read_set, permit_age_max, valid_until: None, clock: clock.clone() };
        clock.advance(Duration::from_nanos(999_999));
        assert_eq!((of.check(), of.start(|| 7)), (Ok(()), Ok(7)));
        clock.advance(Duration::from_nanos(1));
        assert_eq!((of.check(), of.start(|| 7)), (Err(APPROVALS.into()), Err(APPROVALS.into())));
    }
}
