//! A fact from an HTTP endpoint that answers a GET with a JSON document.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::{Client, Endpoint, InvalidRoots, NoDocument};
use crate::authority::{Answer, FactSource, Unread};

pub struct HttpSource {
    endpoint: Arc<Endpoint>,
    client: Client,
    bytes_max: usize,
}

impl HttpSource {
    /// The endpoint's own time bounds each read.
    pub fn new(endpoint: Arc<Endpoint>, bytes_max: usize) -> Result<Self, InvalidRoots> {
        Ok(Self { client: Client::new(endpoint.clone())?, endpoint, bytes_max })
    }
}

impl FactSource for HttpSource {
    fn read(&mut self) -> Answer<'_, Result<Bytes, Unread>> {
        Box::pin(async move {
            self.client.json_document(&["application/json"], self.bytes_max).await.map_err(|why| match why {
                NoDocument::Late => Unread::Late,
                NoDocument::TooLarge(bytes_max) => Unread::TooLarge(bytes_max),
                NoDocument::Unreachable(_) => Unread::Unreachable(why.to_string()),
                NoDocument::Status(_)
                | NoDocument::MediaType
                | NoDocument::Encoded
                | NoDocument::Undelimited => Unread::Refused(why.to_string()),
            })
        })
    }
}

impl fmt::Debug for HttpSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpSource").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}
