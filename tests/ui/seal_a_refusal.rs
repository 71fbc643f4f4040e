//! A recorded refusal is no permit.

use std::time::Duration;

use interlock::authority::{Credentials, Versions};
use interlock::clock::Clock;
use interlock::ledger::Recorded;
use interlock::policy::Refusal;
use interlock::upstream::seal;

fn send_anyway(refusal: Recorded<Refusal>, v: &Versions, c: &Credentials, clock: &Clock) {
    let _ = seal(refusal, v, c, Duration::from_secs(1), clock);
}

fn main() {}
