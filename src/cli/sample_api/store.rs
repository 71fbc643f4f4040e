//! What the sample API knows and does: charges, refunds, exports and settings, all in memory.

use std::collections::BTreeMap;

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};

use interlock::canonical::{encode_component, form};

/// A charge for this customer is made, and nobody is told.
pub const DYING_CUSTOMER: &str = "cus_dies";
/// There from the start.
const EXAMPLE_EXPORT: &str = "exp_1";
const EXPORT_ROWS: u32 = 5;
/// Of each kind; the oldest go first.
const KEPT_MAX: usize = 10_000;

/// What is answered.
pub enum Reply {
    Json(StatusCode, Value),
    Rows(Export),
    /// The connection ends.
    Nothing,
}

/// A body that comes piece by piece.
pub struct Export {
    pub media_type: &'static str,
    pub pieces: Vec<String>,
}

pub struct Store {
    made: BTreeMap<String, Value>,
    /// What was made under an `Idempotency-Key`, by the key as it stands in a path. A key alone makes nothing once only:
    /// that is the gateway's business.
    by_key: BTreeMap<String, Value>,
    settings: BTreeMap<String, Value>,
    effects: u64,
}

impl Default for Store {
    fn default() -> Self {
        let export = json!({ "id": EXAMPLE_EXPORT, "dataset": "orders", "rows": EXPORT_ROWS });
        Self {
            made: BTreeMap::from([(EXAMPLE_EXPORT.to_owned(), export)]),
            by_key: BTreeMap::new(),
            settings: BTreeMap::from([("feature.x".to_owned(), json!("off"))]),
            effects: 0,
        }
    }
}

impl Store {
    pub fn effects(&self) -> u64 {
        self.effects
    }

    pub fn act(&mut self, method: &Method, path: &str, headers: &HeaderMap, body: &[u8]) -> Reply {
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        let is = |wanted: Method| *method == wanted;
        match parts[..] {
            ["v1", "charges"] if is(Method::POST) => self.charge(headers, body),
            ["v1", "charges"] if is(Method::GET) => self.list("ch_"),
            ["v1", "charges", id] if is(Method::GET) => self.read(id, "ch_"),
            ["v1", "refunds"] if is(Method::POST) => self.refund(headers, body),
            ["v1", "by-key", key] if is(Method::GET) => match self.by_key.get(key) {
                Some(made) => Reply::Json(StatusCode::OK, made.clone()),
                None => missing("nothing was made under this key"),
            },
            ["exports"] if is(Method::POST) => self.export(headers, body),
            ["exports", id] if is(Method::GET) => self.rows(id, headers),
            ["config", key] if is(Method::GET) => match self.settings.get(key) {
                Some(value) => Reply::Json(StatusCode::OK, json!({ "key": key, "value": value })),
                None => missing("no such setting"),
            },
            ["config", key] if is(Method::PUT) => self.set(key, headers, body),
            _ => missing("no such resource"),
        }
    }

    fn charge(&mut self, headers: &HeaderMap, body: &[u8]) -> Reply {
        let Some(asked) = members(headers, body) else { return unreadable() };
        if asked.get("amount").is_none() {
            return invalid("a charge has an amount");
        }
        let dies = asked.get("customer").and_then(Value::as_str) == Some(DYING_CUSTOMER);
        let made = self.make("ch_", headers, &asked, &["amount", "currency", "customer"]);
        if dies { Reply::Nothing } else { Reply::Json(StatusCode::OK, made) }
    }

    fn refund(&mut self, headers: &HeaderMap, body: &[u8]) -> Reply {
        let Some(asked) = members(headers, body) else { return unreadable() };
        let charge = asked.get("charge").and_then(Value::as_str).unwrap_or_default();
        if !self.made.contains_key(charge) {
            return missing("no such charge");
        }
        let names = ["charge", "amount", "currency", "metadata"];
        Reply::Json(StatusCode::OK, self.make("re_", headers, &asked, &names))
    }

    fn export(&mut self, headers: &HeaderMap, body: &[u8]) -> Reply {
        let Some(asked) = members(headers, body) else { return unreadable() };
        let names = ["dataset", "rows_max", "format"];
        Reply::Json(StatusCode::ACCEPTED, self.make("exp_", headers, &asked, &names))
    }

    fn set(&mut self, key: &str, headers: &HeaderMap, body: &[u8]) -> Reply {
        let value = members(headers, body).and_then(|asked| asked.get("value").cloned());
        let Some(value) = value else { return unreadable() };
        if self.settings.len() == KEPT_MAX && !self.settings.contains_key(key) {
            return invalid("there are too many settings");
        }
        self.effects += 1;
        self.settings.insert(key.to_owned(), value.clone());
        Reply::Json(StatusCode::OK, json!({ "key": key, "value": value }))
    }

    /// Something new, with the members that were asked for.
    fn make(&mut self, prefix: &str, headers: &HeaderMap, asked: &Value, names: &[&str]) -> Value {
        self.effects += 1;
        let id = format!("{prefix}{:06}", self.effects);
        let mut made = json!({ "id": id, "status": "succeeded" });
        for name in names {
            if let Some(value) = asked.get(*name) {
                made[*name] = value.clone();
            }
        }
        if self.made.len() == KEPT_MAX {
            self.made.pop_first();
        }
        self.made.insert(id, made.clone());
        if let Some(key) = headers.get("idempotency-key").and_then(|key| key.to_str().ok()) {
            if self.by_key.len() == KEPT_MAX {
                self.by_key.pop_first();
            }
            let mut known = made.clone();
            known["idempotency_key"] = json!(key);
            self.by_key.insert(encode_component(key), known);
        }
        made
    }

    fn list(&self, prefix: &str) -> Reply {
        let all: Vec<_> = self.made.iter().filter(|(id, _)| id.starts_with(prefix)).map(|(_, v)| v).collect();
        Reply::Json(StatusCode::OK, json!({ "data": all }))
    }

    fn read(&self, id: &str, prefix: &str) -> Reply {
        match self.made.get(id).filter(|_| id.starts_with(prefix)) {
            Some(made) => Reply::Json(StatusCode::OK, made.clone()),
            None => missing("no such charge"),
        }
    }

    fn rows(&self, id: &str, headers: &HeaderMap) -> Reply {
        if !id.starts_with("exp_") || !self.made.contains_key(id) {
            return missing("no such export");
        }
        let accepts = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
        let events = accepts == "text/event-stream";
        let row = |n| match events {
            true => format!("id: {n}\nevent: row\ndata: {{\"order\":{n}}}\n\n"),
            false => format!("{n},order-{n}\n"),
        };
        let media_type = if events { "text/event-stream" } else { "text/csv" };
        Reply::Rows(Export { media_type, pieces: (1..=EXPORT_ROWS).map(row).collect() })
    }
}

/// A JSON or form body as one object.
fn members(headers: &HeaderMap, body: &[u8]) -> Option<Value> {
    let media_type = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let value = match media_type.split(';').next()?.trim() {
        "application/json" => serde_json::from_slice(body).ok()?,
        "application/x-www-form-urlencoded" => serde_json::to_value(form::parse(body).ok()?.value).ok()?,
        _ => return None,
    };
    Some(value).filter(Value::is_object)
}

fn missing(what: &str) -> Reply {
    Reply::Json(StatusCode::NOT_FOUND, json!({ "error": what }))
}

fn invalid(what: &str) -> Reply {
    Reply::Json(StatusCode::BAD_REQUEST, json!({ "error": what }))
}

fn unreadable() -> Reply {
    invalid("the body is neither a JSON object nor a form")
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn headers(name: http::HeaderName, value: &'static str) -> HeaderMap {
        [(name, HeaderValue::from_static(value))].into_iter().collect()
    }

    fn post(store: &mut Store, path: &str, media_type: &'static str, body: &str) -> (u16, Value) {
        match store.act(&Method::POST, path, &headers(CONTENT_TYPE, media_type), body.as_bytes()) {
            Reply::Json(status, value) => (status.as_u16(), value),
            Reply::Rows(_) | Reply::Nothing => (0, Value::Null),
        }
    }

    #[test]
    fn a_charge_is_made_from_json_and_refunded_from_a_form() {
        let mut store = Store::default();
        let (status, made) = post(&mut store, "/v1/charges", "application/json", r#"{"amount":4200}"#);
        assert_eq!((status, made["amount"].as_u64()), (200, Some(4200)));
        let form = format!("charge={}&amount=100&metadata[order]=7", made["id"].as_str().expect("an id"));
        let (status, made) = post(&mut store, "/v1/refunds", "application/x-www-form-urlencoded", &form);
        assert_eq!((status, made["metadata"]["order"].as_str()), (200, Some("7")));
        assert_eq!(store.effects(), 2);
    }

    #[test]
    fn what_cannot_be_read_or_found_has_no_effect() {
        let mut store = Store::default();
        for (path, media_type, body, status) in [
            ("/v1/charges", "application/json", "[1]", 400),
            ("/v1/charges", "application/json", "{}", 400),
            ("/v1/charges", "text/plain", "amount=1", 400),
            ("/v1/refunds", "application/json", r#"{"charge":"ch_none"}"#, 404),
            ("/v1/nothing", "application/json", "{}", 404),
        ] {
            assert_eq!(post(&mut store, path, media_type, body).0, status, "{path} {body}");
        }
        assert_eq!(store.effects(), 0);
    }

    #[test]
    fn the_dying_customer_is_charged_and_gets_no_answer() {
        let mut store = Store::default();
        let body = format!(r#"{{"amount":1,"customer":"{DYING_CUSTOMER}"}}"#);
        assert_eq!(post(&mut store, "/v1/charges", "application/json", &body).0, 0);
        assert_eq!(store.effects(), 1);
    }

    #[test]
    fn what_was_made_under_a_key_is_found_by_it() {
        let mut store = Store::default();
        let mut charging = headers(CONTENT_TYPE, "application/json");
        charging.insert("idempotency-key", HeaderValue::from_static("order:7"));
        let body = format!(r#"{{"amount":1,"customer":"{DYING_CUSTOMER}"}}"#);
        assert!(matches!(
            store.act(&Method::POST, "/v1/charges", &charging, body.as_bytes()),
            Reply::Nothing
        ));
        let mut find =
            |key: &str| match store.act(&Method::GET, &format!("/v1/by-key/{key}"), &HeaderMap::new(), b"") {
                Reply::Json(status, value) => (status.as_u16(), value),
                Reply::Rows(_) | Reply::Nothing => (0, Value::Null),
            };
        let (status, found) = find("order%3A7");
        assert_eq!(
            (status, &found["status"], &found["idempotency_key"]),
            (200, &json!("succeeded"), &json!("order:7"))
        );
        assert_eq!(find("order-8").0, 404);
    }

    #[test]
    fn an_export_is_rows_of_text_or_events_as_asked() {
        let store = Store::default();
        for (accept, media_type, first) in
            [("text/event-stream", "text/event-stream", "id: 1\n"), ("*/*", "text/csv", "1,order-1\n")]
        {
            let Reply::Rows(export) = store.rows(EXAMPLE_EXPORT, &headers(ACCEPT, accept)) else {
                panic!("rows")
            };
            assert_eq!((export.media_type, export.pieces.len()), (media_type, EXPORT_ROWS as usize));
            assert!(export.pieces[0].starts_with(first));
        }
    }

    #[test]
    fn a_setting_changes_and_is_read_back() {
        let mut store = Store::default();
        let put = store.act(
            &Method::PUT,
            "/config/feature.x",
            &headers(CONTENT_TYPE, "application/json"),
            br#"{"value":"on"}"#,
        );
        assert!(matches!(put, Reply::Json(StatusCode::OK, _)));
        let Reply::Json(_, read) = store.act(&Method::GET, "/config/feature.x", &HeaderMap::new(), b"")
        else {
            panic!("a setting")
        };
        assert_eq!(read["value"], "on");
    }
}
