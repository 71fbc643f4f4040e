//! Only policy makes a permit.

use interlock::policy::Permit;

fn forge() -> Permit {
    Permit { reasons: Vec::new() }
}

fn main() {}
