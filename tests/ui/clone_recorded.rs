//! A recorded verdict cannot be copied.

use interlock::{ledger::Recorded, policy::Permit};

fn is_clone<T: Clone>() {}

fn main() {
    is_clone::<Recorded<Permit>>();
}
