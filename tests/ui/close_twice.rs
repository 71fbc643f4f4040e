//! A PERMIT has one outcome.

use interlock::ledger::{OpenPermit, Outcome};

fn twice(permit: OpenPermit, confirmed: Outcome, failed: Outcome) {
    let _ = permit.close(confirmed);
    let _ = permit.close(failed);
}

fn main() {}
