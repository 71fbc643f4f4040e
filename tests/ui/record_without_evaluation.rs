//! What policy has not judged cannot be recorded as permitted.

use interlock::canonical::ExecutionRequest;
use interlock::ledger::{Ledger, Recording};

async fn skip_policy(ledger: &Ledger, execution: ExecutionRequest, recording: Recording) {
    let _ = ledger.record_permit(execution, recording).await;
}

fn main() {}
