//! One HTTP/1.1 message, taken in exactly as a listener does it, without a connection, an actor or a log.
//!
//! The bytes go through the same guard, the same hyper and the same checks as those of a client; what comes out is
//! the request in its one form, or the refusal that the client would get. Nothing is sent on from here.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;

use super::connection::http1_builder;
use super::guard::{Guard, Heads};
use super::request::{Checked, Reading, Seen, check, received_head};
use crate::canonical::target::CanonicalTarget;
use crate::canonical::{CanonicalRequest, Malformed};
use crate::limits;
use crate::model::{ActionName, ReasonCode};
use crate::pep::{Hosts, Routes};
use crate::respond::Rejected;

/// What a surface takes, of all that it is.
pub struct Door {
    pub hosts: Hosts,
    pub routes: Routes,
}

/// A request in its one form.
pub struct Taken {
    /// The door that it came in by.
    pub door: usize,
    pub action: ActionName,
    pub trace: Option<Arc<str>>,
    pub request: CanonicalRequest,
}

/// No request came out.
#[derive(Debug)]
pub enum NotTaken {
    /// As the client would be told.
    Refused(Box<Rejected>),
    /// The bytes are not one whole message.
    NotOneMessage(&'static str),
}

/// Nobody waits for more bytes: what is there is all there is.
const READ_MAX: Duration = Duration::from_secs(10);

/// Panics if there are more bytes than [`limits::REHEARSAL_BYTES_MAX`]: callers bound what they read.
pub async fn rehearse(doors: Vec<Door>, message: &[u8]) -> Result<Taken, NotTaken> {
    assert!(message.len() <= limits::REHEARSAL_BYTES_MAX, "the caller reads no more");
    let (mut client, server) = tokio::io::duplex(message.len().max(limits::HEAD_BYTES_MAX));
    let (guard, heads) = Guard::new(server);
    let doors = Arc::new(doors);
    let bodies = Arc::new(Semaphore::new(limits::REHEARSAL_BYTES_MAX));
    let results = Arc::new(Mutex::new(Vec::new()));
    let answer = |request: Request<Incoming>| {
        let (doors, bodies, heads, results) = (doors.clone(), bodies.clone(), heads.clone(), results.clone());
        async move {
            let result = take(&doors, &bodies, &heads, request).await;
            results.lock().unwrap_or_else(PoisonError::into_inner).push(result);
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    };
    let serving = http1_builder(READ_MAX).serve_connection(TokioIo::new(guard), service_fn(answer));
    let sending = async {
        // The pipe holds all of it.
        client.write_all(message).await?;
        client.shutdown().await
    };
    // How the connection ends says nothing that the result does not.
    let (_sent, _served) = tokio::join!(sending, tokio::time::timeout(READ_MAX, serving));
    let mut results = std::mem::take(&mut *results.lock().unwrap_or_else(PoisonError::into_inner));
    match (results.pop(), results.is_empty()) {
        (Some(result), true) => result.map_err(|rejected| NotTaken::Refused(Box::new(rejected))),
        (Some(_), false) => {
            Err(NotTaken::NotOneMessage("more than one message: put each to policy on its own"))
        }
        (None, _) => Err(NotTaken::NotOneMessage(
            "no whole message: its head ends with an empty line, and every line of it with CRLF",
        )),
    }
}

async fn take(
    doors: &[Door],
    bodies: &Arc<Semaphore>,
    heads: &Heads,
    request: Request<Incoming>,
) -> Result<Taken, Rejected> {
    let head = received_head(Some(heads), &request, || {})?;
    let target = CanonicalTarget::parse(&head)?;
    let door = doors.iter().position(|door| door.hosts.fit(target.authority()));
    let not_served = || Malformed { code: ReasonCode::HostNotServed, place: None, detail: None };
    let door = door.ok_or_else(not_served)?;
    let reading = Reading { heads: Some(heads), bodies, body_max: READ_MAX };
    let routes = &doors[door].routes;
    let checked = check(reading, routes, Ok(target), head, request.into_body(), &mut Seen::default()).await?;
    let Checked { action, request, trace, .. } = checked;
    Ok(Taken { door, action, trace, request })
}
