//! There is no permit by default.

use interlock::policy::Permit;

fn forge() -> Permit {
    Permit::default()
}

fn main() {}
