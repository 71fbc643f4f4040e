//! A durable receipt is not yet a permission to send: only a sealed request can be forwarded.

use interlock::ledger::Recorded;
use interlock::policy::Permit;
use interlock::upstream::Lease;

fn skip_the_seal(recorded: Recorded<Permit>, lease: Lease) {
    recorded.forward(lease);
}

fn main() {}
