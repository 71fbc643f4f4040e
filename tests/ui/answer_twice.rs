//! An exchange is answered once.

use std::time::Duration;

use interlock::upstream::InFlight;

async fn twice(in_flight: InFlight) {
    let _ = in_flight.answer(Duration::from_secs(1), Duration::from_secs(1), None).await;
    let _ = in_flight.answer(Duration::from_secs(1), Duration::from_secs(1), None).await;
}

fn main() {}
