//! A collector that takes batches by HTTP POST, as `application/x-ndjson`.

use super::{Batch, Sink, Undelivered};
use crate::upstream::Client;

pub struct Http(pub Box<Client>);

impl Sink for Http {
    async fn deliver(&mut self, batch: &Batch) -> Result<(), Undelivered> {
        let answer = self.0.post("application/x-ndjson", batch.lines.clone()).await;
        let status = answer.map_err(|error| Undelivered::Unavailable(with_sources(&error)))?;
        match status.as_u16() {
            200..=299 => Ok(()),
            // RFC 9110 section 15.5.9, RFC 6585 section 4: these ask for the same once more.
            408 | 429 => Err(Undelivered::Unavailable(format!("the collector answered {status}"))),
            400..=499 => Err(Undelivered::Refused(format!("the collector answered {status}"))),
            _ => Err(Undelivered::Unavailable(format!("the collector answered {status}"))),
        }
    }
}

/// hyper tells what it was doing, and only its source tells what went wrong.
fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
