//! Only the ledger says that something is recorded.

use interlock::ledger::{OpenPermit, Receipt, Recorded};
use interlock::policy::{Evaluated, Permit};

fn forge(evaluated: Evaluated<Permit>, receipt: Receipt, obligation: OpenPermit) -> Recorded<Permit> {
    Recorded::new(evaluated, receipt, obligation)
}

fn main() {}
