//! What was judged cannot be changed afterwards.

use interlock::canonical::ExecutionRequest;
use interlock::policy::{Evaluated, Permit};

fn edit(evaluated: &mut Evaluated<Permit>, other: ExecutionRequest) {
    *evaluated.execution() = other;
}

fn main() {}
