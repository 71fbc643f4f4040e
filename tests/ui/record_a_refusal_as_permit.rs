//! What policy refused cannot be recorded as permitted.

use interlock::ledger::{Ledger, Recording};
use interlock::policy::{Evaluated, Refusal};

async fn pretend(ledger: &Ledger, refusal: Evaluated<Refusal>, recording: Recording) {
    let _ = ledger.record_permit(refusal, recording).await;
}

fn main() {}
