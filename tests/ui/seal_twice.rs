//! A recorded permit is used up by the seal.

use std::time::Duration;

use interlock::authority::{Credentials, Versions};
use interlock::clock::Clock;
use interlock::ledger::Recorded;
use interlock::policy::Permit;
use interlock::upstream::seal;

fn twice(recorded: Recorded<Permit>, v: &Versions, c: &Credentials, clock: &Clock) {
    let _ = seal(recorded, v, c, Duration::from_secs(1), clock);
    let _ = seal(recorded, v, c, Duration::from_secs(1), clock);
}

fn main() {}
