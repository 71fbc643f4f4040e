//! Nobody but policy pairs a request with a verdict.

use interlock::policy::{Evaluated, Permit, Refusal};

fn turn_around(refusal: Evaluated<Refusal>, verdict: Permit) -> Evaluated<Permit> {
    Evaluated { verdict, ..refusal }
}

fn main() {}
