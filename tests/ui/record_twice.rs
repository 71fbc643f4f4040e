//! A verdict is recorded once.

use interlock::ledger::{Ledger, Recording};
use interlock::policy::{Evaluated, Permit};

async fn twice(ledger: &Ledger, permit: Evaluated<Permit>, two: [Recording; 2]) {
    let [first, second] = two;
    let _ = ledger.record_permit(permit, first).await;
    let _ = ledger.record_permit(permit, second).await;
}

fn main() {}
