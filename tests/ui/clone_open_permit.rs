//! The duty to record an outcome cannot be copied.

use interlock::ledger::OpenPermit;

fn is_clone<T: Clone>() {}

fn main() {
    is_clone::<OpenPermit>();
}
