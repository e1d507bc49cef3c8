//! The API under `/v1`, and the levers under `/fake`.

use crate::state::{Fields, Kept, Refused, metadata};
use crate::{Fake, Knobs};
use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::{HeaderMap, Method, StatusCode, Uri};
use serde_json::{Value, json};
use std::time::Duration;

pub(crate) fn routes() -> Router<Fake> {
    Router::new()
        .route("/v1/{*path}", get(read).post(write))
        .route("/fake/knobs", post(turn))
        .route("/fake/payments/{id}/dispute", post(dispute))
        .route("/fake/payments/{id}/refund", post(refund))
        .route("/fake/payments/{id}/fraud-warning", post(warn))
        .route("/fake/disputes/{id}/{status}", post(close))
        .route("/fake/sessions/{id}/expire", post(expire))
        .route("/fake/payment-methods/{id}/decline/{code}", post(decline))
        .route("/fake/customers/{id}/delete", post(delete_customer))
}

fn fields(encoded: &[u8]) -> Fields {
    url::form_urlencoded::parse(encoded).into_owned().collect()
}

/// Whether the caller has a secret key, and of which mode.
fn mode(headers: &HeaderMap) -> Result<bool, Refused> {
    let bearer = headers.get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let key = bearer.and_then(|bearer| bearer.strip_prefix("Bearer ")).unwrap_or_default();
    if key.starts_with("sk_test_") {
        Ok(false)
    } else if key.starts_with("sk_live_") {
        Ok(true)
    } else {
        Err(Refused::new(401, "api_key_invalid", "Invalid API Key provided."))
    }
}

fn answer(outcome: Result<Value, Refused>) -> (u16, Value) {
    match outcome {
        Ok(value) => (200, without_private(value)),
        Err(Refused { status, kind, code, message, parameter, declined }) => {
            let mut error = json!({"code": code, "message": message, "param": parameter, "type": kind});
            if let Some((payment, word)) = declined.map(|declined| *declined) {
                error["decline_code"] = json!(word);
                error["payment_intent"] = without_private(payment);
            }
            (status, json!({"error": error}))
        }
    }
}

/// What is kept for ourselves is not shown.
fn without_private(mut value: Value) -> Value {
    if let Some(members) = value.as_object_mut() {
        members.retain(|name, _| !name.starts_with('_'));
    }
    value
}

fn respond((status, body): (u16, Value)) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, Json(body)).into_response()
}

async fn read(State(fake): State<Fake>, headers: HeaderMap, uri: Uri, RawQuery(query): RawQuery) -> Response {
    let mut state = fake.lock();
    state.calls.push(format!("{} {}", Method::GET, uri.path()));
    if state.is_broken {
        return respond((500, json!({"error": {"type": "api_error", "message": "Broken"}})));
    }
    if let Some(refused) = state.refusal(uri.path()) {
        return respond(answer(Err(refused)));
    }
    let query = fields(query.unwrap_or_default().as_bytes());
    respond(answer(mode(&headers).and_then(|_| find(&state, uri.path(), &query))))
}

fn find(state: &crate::state::State, path: &str, query: &Fields) -> Result<Value, Refused> {
    let path = path.trim_start_matches("/v1/");
    let lists = [
        ("checkout/sessions", "checkout.session"),
        ("payment_intents", "payment_intent"),
        ("charges", "charge"),
        ("refunds", "refund"),
        ("disputes", "dispute"),
        ("customers", "customer"),
        ("payment_methods", "payment_method"),
        ("setup_intents", "setup_intent"),
        ("events", "event"),
        ("radar/early_fraud_warnings", "radar.early_fraud_warning"),
    ];
    if let Some((_, object)) = lists.iter().find(|(name, _)| *name == path) {
        return Ok(list(state, object, query));
    }
    let (folder, id) = path.rsplit_once('/').unwrap_or(("", path));
    let object = lists.iter().find(|(name, _)| *name == folder).map(|(_, object)| *object);
    let found = state.find(id).filter(|found| object.is_some_and(|object| found["object"] == object));
    let mut found = found.cloned().ok_or_else(|| Refused::missing(id))?;
    for (_, name) in query.iter().filter(|(name, _)| name.starts_with("expand[")) {
        let expanded = found[name.as_str()].as_str().and_then(|id| state.find(id)).cloned();
        if let Some(expanded) = expanded {
            found[name.as_str()] = expanded;
        }
    }
    Ok(found)
}

fn list(state: &crate::state::State, object: &str, query: &Fields) -> Value {
    let limit = query.get("limit").and_then(|limit| limit.parse().ok()).unwrap_or(10_usize).min(100);
    let since = query.get("created[gte]").and_then(|since| since.parse::<i64>().ok());
    let after = query.get("starting_after");
    let mut rows: Vec<Value> = state
        .list(object)
        .filter(|row| {
            since.is_none_or(|since| row["created"].as_i64().is_some_and(|created| created >= since))
        })
        .filter(|row| query.get("payment_intent").is_none_or(|payment| row["payment_intent"] == *payment))
        .skip_while(|row| after.is_some_and(|after| row["id"] != *after))
        .skip(usize::from(after.is_some()))
        .take(limit.saturating_add(1))
        .cloned()
        .map(without_private)
        .collect();
    let has_more = rows.len() > limit;
    rows.truncate(limit);
    json!({"object": "list", "data": rows, "has_more": has_more, "url": format!("/v1/{object}")})
}

async fn write(State(fake): State<Fake>, headers: HeaderMap, uri: Uri, body: Bytes) -> Response {
    let response = carry_out(&fake, &headers, &uri, &body);
    fake.keep_back(uri.path()).await;
    response
}

fn carry_out(fake: &Fake, headers: &HeaderMap, uri: &Uri, body: &[u8]) -> Response {
    let now = fake.now();
    let mut state = fake.lock();
    state.calls.push(format!("{} {}", Method::POST, uri.path()));
    if state.is_broken {
        return respond((500, json!({"error": {"type": "api_error", "message": "Broken"}})));
    }
    if let Some(refused) = state.refusal(uri.path()) {
        return respond(answer(Err(refused)));
    }
    let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok()).map(str::to_owned);
    let request = format!("{} {}", uri.path(), String::from_utf8_lossy(body));
    let is_lost = state.loses.is_some_and(|end| uri.path().ends_with(end));
    if let Some(kept) = key.as_ref().and_then(|key| state.kept(key, now)) {
        if kept.request != request {
            let message = "Keys for idempotent requests can only be used with the same parameters they were first used with.";
            let refused =
                Refused { kind: "idempotency_error", ..Refused::new(400, "idempotency_error", message) };
            return respond(answer(Err(refused)));
        }
        if is_lost {
            return respond((500, json!({"error": {"type": "api_error", "message": "Lost"}})));
        }
        let mut response = respond((kept.status, kept.body.clone()));
        response.headers_mut().insert("idempotent-replayed", http::HeaderValue::from_static("true"));
        return response;
    }
    let fields = fields(body);
    let url = fake.0.options.url.clone();
    let outcome =
        mode(headers).and_then(|is_live| create(&mut state, uri.path(), &fields, &url, is_live, now));
    let (status, body) = answer(outcome);
    if let Some(key) = key {
        state.kept.insert(key, Kept { since: now, request, status, body: body.clone() });
    }
    drop(state);
    fake.0.has_deliveries.notify_one();
    if is_lost {
        return respond((500, json!({"error": {"type": "api_error", "message": "Lost"}})));
    }
    respond((status, body))
}

/// Parameters that each call takes, by their first part.
const PARAMETERS: [(&str, &[&str]); 8] = [
    ("/v1/customers", &["email", "metadata"]),
    ("/v1/refunds", &["payment_intent", "amount", "reason", "metadata"]),
    ("/v1/payment_intents", &["amount", "currency", "customer", "payment_method_types", "metadata"]),
    ("/v1/payment_intents/{id}/confirm", &["payment_method", "off_session"]),
    ("/v1/payment_intents/{id}/cancel", &[]),
    ("/v1/payment_methods/{id}/detach", &[]),
    ("/v1/checkout/sessions/{id}/expire", &[]),
    (
        "/v1/checkout/sessions",
        &[
            "mode",
            "line_items",
            "success_url",
            "cancel_url",
            "return_url",
            "ui_mode",
            "client_reference_id",
            "metadata",
            "customer",
            "payment_intent_data",
            "setup_intent_data",
            "payment_method_types",
            "automatic_tax",
            "tax_id_collection",
            "customer_update",
            "expires_at",
        ],
    ),
];

fn create(
    state: &mut crate::state::State,
    path: &str,
    fields: &Fields,
    url: &str,
    is_live: bool,
    now: i64,
) -> Result<Value, Refused> {
    let (id, template) = match path.trim_start_matches("/v1/").split('/').collect::<Vec<_>>()[..] {
        [folder @ ("payment_intents" | "payment_methods"), id, verb] => {
            (id, format!("/v1/{folder}/{{id}}/{verb}"))
        }
        ["checkout", "sessions", id, verb] => (id, format!("/v1/checkout/sessions/{{id}}/{verb}")),
        _ => ("", path.to_owned()),
    };
    let known = PARAMETERS.iter().find(|(known, _)| *known == template).map(|(_, parameters)| *parameters);
    let known = known.ok_or_else(|| {
        Refused::new(404, "url_invalid", format!("Unrecognized request URL (POST: {path})."))
    })?;
    for name in fields.keys() {
        let first = name.split('[').next().unwrap_or_default();
        if !known.contains(&first) {
            return Err(Refused::about(
                name,
                "parameter_unknown",
                format!("Received unknown parameter: {name}"),
            ));
        }
    }
    match template.as_str() {
        "/v1/payment_intents" => state.create_payment(fields, is_live, now),
        "/v1/payment_intents/{id}/confirm" => state.confirm(id, fields, now),
        "/v1/payment_intents/{id}/cancel" => state.cancel(id, now),
        "/v1/payment_methods/{id}/detach" => state.detach(id, now),
        "/v1/checkout/sessions/{id}/expire" => state.expire_by_call(id, now),
        "/v1/customers" => Ok(state.create_customer(fields, is_live, now)),
        "/v1/checkout/sessions" => state.create_session(fields, url, is_live, now),
        _ => {
            let payment = fields.get("payment_intent").map(String::as_str).unwrap_or_default();
            let amount = fields.get("amount").map(|amount| amount.parse().unwrap_or(0));
            state.refund(payment, amount, &metadata(fields, "metadata"), now)
        }
    }
}

fn done<T>(outcome: Result<T, String>) -> Response {
    match outcome {
        Ok(_) => StatusCode::NO_CONTENT.into_response(),
        Err(message) => (StatusCode::CONFLICT, message).into_response(),
    }
}

/// `{"duplicates": 1, "reorder": true, "delayMs": 500, "drop": false, "wrongSignature": false}`
async fn turn(State(fake): State<Fake>, Json(knobs): Json<Value>) -> Response {
    let is_on = |name: &str| knobs[name] == true;
    let number = |name: &str| knobs[name].as_u64().unwrap_or_default();
    fake.turn(Knobs {
        duplicates: usize::try_from(number("duplicates").min(100)).unwrap_or(0),
        reorder: is_on("reorder"),
        delay: Duration::from_millis(number("delayMs").min(60_000)),
        drop: is_on("drop"),
        wrong_signature: is_on("wrongSignature"),
    });
    StatusCode::NO_CONTENT.into_response()
}

async fn dispute(State(fake): State<Fake>, Path(id): Path<String>) -> Response {
    match fake.dispute(&id, None, "needs_response") {
        Ok(id) => Json(json!({"id": id})).into_response(),
        Err(message) => (StatusCode::CONFLICT, message).into_response(),
    }
}

async fn refund(State(fake): State<Fake>, Path(id): Path<String>) -> Response {
    done(fake.refund(&id, None))
}

async fn warn(State(fake): State<Fake>, Path(id): Path<String>) -> Response {
    done(fake.warn_of_fraud(&id))
}

async fn close(State(fake): State<Fake>, Path((id, status)): Path<(String, String)>) -> Response {
    done(fake.close_dispute(&id, &status))
}

/// The code `none` has the card pay again.
async fn decline(State(fake): State<Fake>, Path((id, code)): Path<(String, String)>) -> Response {
    fake.decline(&id, Some(code.as_str()).filter(|code| *code != "none"));
    StatusCode::NO_CONTENT.into_response()
}

async fn delete_customer(State(fake): State<Fake>, Path(id): Path<String>) -> Response {
    done(fake.delete_customer(&id))
}

async fn expire(State(fake): State<Fake>, Path(id): Path<String>) -> Response {
    done(fake.expire(&id))
}
