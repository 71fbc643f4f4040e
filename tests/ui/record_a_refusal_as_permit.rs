//! What policy refused cannot be recorded as permitted.

use interlock::ledger::Ledger;
use interlock::policy::{Evaluated, Refusal};

async fn pretend(ledger: &Ledger, refusal: Evaluated<Refusal>) {
    let _ = ledger.record_permit(refusal, None).await;
}

fn main() {}
