//! A verdict stays with the request it is about.

use interlock::policy::{Evaluated, Permit};

fn take(evaluated: Evaluated<Permit>) -> Permit {
    evaluated.verdict
}

fn main() {}
