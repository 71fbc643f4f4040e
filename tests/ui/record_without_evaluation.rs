//! What policy has not judged cannot be recorded as permitted.

use interlock::canonical::ExecutionRequest;
use interlock::ledger::Ledger;

async fn skip_policy(ledger: &Ledger, execution: ExecutionRequest) {
    let _ = ledger.record_permit(execution, None).await;
}

fn main() {}
