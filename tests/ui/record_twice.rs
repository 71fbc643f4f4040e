//! A verdict is recorded once.

use interlock::ledger::Ledger;
use interlock::policy::{Evaluated, Permit};

async fn twice(ledger: &Ledger, permit: Evaluated<Permit>) {
    let _ = ledger.record_permit(permit, None).await;
    let _ = ledger.record_permit(permit, None).await;
}

fn main() {}
