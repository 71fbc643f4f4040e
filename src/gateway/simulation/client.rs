//! Those who ask: each sends one request, waits for what comes, and may go before.

use std::sync::Arc;
use std::time::Duration;

use http::Response;
use http_body_util::BodyExt;
use tokio::time::{sleep, timeout};

use super::journal::{Told, What};
use super::life::Life;
use super::script::{ACTORS, Ask, SURFACE, Wish};
use super::wirings::Wiring;
use super::world::START;
use crate::authority::ProvedUnder;
use crate::canonical::ExecutionRequest;
use crate::canonical::testing::{JSON, read, received, rules};
use crate::clock::WallTime;
use crate::ingress::run_admissible;
use crate::model::{Actor, AuthenticationMethod, Json};
use crate::respond::{REPLAYED_HEADER, ResponseBody};

pub const AUTHORITY: &str = "upstream.example";
pub const SECRET: &str = "sk_simulated_1234567890";

pub async fn ask(life: Arc<Life>, number: usize, ask: Ask) {
    let world = &life.world;
    let wish = &world.script.wishes[ask.wish];
    let proved = ProvedUnder::now(&life.listener().gate.versions);
    world.journal.add(What::Proved { ask: number, wish: wish.number });
    if !ask.arrives.is_zero() {
        sleep(ask.arrives).await;
    }
    world.journal.add(What::Asked { ask: number, wish: wish.number });
    let ends = wish.credential_ends.filter(|_| world.wiring != Wiring::CredentialsHaveNoEnd);
    let running =
        run_admissible(life.listener(), life.surface.clone(), execution(wish, ends), proved, ask.wait);
    let told = async {
        let response = running.await;
        told((number, wish.number), response).await
    };
    match ask.hangs_up {
        None => world.journal.add(What::Answered(told.await)),
        Some(after) => match timeout(after, told).await {
            Ok(told) => world.journal.add(What::Answered(told)),
            Err(_gone) => world.journal.add(What::Gone { ask: number }),
        },
    }
}

async fn told((ask, wish): (usize, usize), response: Response<ResponseBody>) -> Told {
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = response.into_body().collect().await.ok().map(|whole| whole.to_bytes().to_vec());
    let header =
        |name: &http::HeaderName| headers.get(name).map(|value| value.to_str().expect("visible").to_owned());
    let problem = body.as_deref().and_then(|body| serde_json::from_slice::<serde_json::Value>(body).ok());
    Told {
        ask,
        wish,
        status,
        reason: problem.and_then(|problem| Some(problem.get("reason")?.as_str()?.to_owned())),
        receipt: header(&crate::respond::RECEIPT_HEADER),
        is_replayed: header(&REPLAYED_HEADER).is_some(),
        body,
    }
}

pub fn body(wish: &Wish) -> String {
    format!("{{\"amount\":{},\"currency\":\"EUR\"}}", wish.amount)
}

/// As the gateway's edge makes it of what came in.
pub fn execution(wish: &Wish, credential_ends: Option<Duration>) -> ExecutionRequest {
    let mut headers = vec![("content-type", "application/json")];
    headers.extend(wish.key.as_deref().map(|key| ("idempotency-key", key)));
    // Early in the message, so that messages that break off can be told apart.
    let target = format!("/v1/charges/{}", wish.number);
    let received = received("POST", &target, &headers, &body(wish));
    let request = read(received, &rules(JSON)).expect("a canonical request");
    let ends = |after: Duration| WallTime::from_unix_ns(START.unix_ns() + after.as_nanos() as u64);
    let actor = Actor {
        id: ACTORS[wish.actor].parse().expect("an id"),
        method: AuthenticationMethod::ApiKey,
        credential_digest: None,
        claims: Json::object([]),
        valid_until: credential_ends.map(ends),
    };
    ExecutionRequest {
        surface: SURFACE.parse().expect("a name"),
        action: "charge.create".parse().expect("a name"),
        actor: actor.into(),
        trace: None,
        request,
    }
}
