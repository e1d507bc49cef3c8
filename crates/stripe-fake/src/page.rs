//! The till: a page with a button for each way a payment can go.

use crate::{Fake, Outcome};
use axum::Router;
use axum::extract::{Path, State};
use axum::response::{Html, IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use http::StatusCode;
use serde_json::Value;

pub(crate) fn routes() -> Router<Fake> {
    Router::new().route("/pay/{id}", get(show)).route("/pay/{id}/{button}", post(press))
}

async fn show(State(fake): State<Fake>, Path(id): Path<String>) -> Response {
    match fake.find(&id).filter(|session| session["object"] == "checkout.session") {
        Some(session) => Html(page(&session, "")).into_response(),
        None => (StatusCode::NOT_FOUND, Html("<p>There is no such session.".to_owned())).into_response(),
    }
}

async fn press(State(fake): State<Fake>, Path((id, button)): Path<(String, String)>) -> Response {
    let outcome = match button.as_str() {
        "pay" => Outcome::Pay,
        "fail" => Outcome::Fail,
        "later" => Outcome::Later,
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    let session = match fake.act(&id, outcome) {
        Ok(session) => session,
        Err(message) => {
            return (StatusCode::CONFLICT, Html(format!("<p>{}", escaped(&message)))).into_response();
        }
    };
    let was_open = session["status"] == "open";
    match session["success_url"].as_str().filter(|_| !was_open) {
        Some(url) => Redirect::to(url).into_response(),
        None => Html(page(&session, "Your card was declined.")).into_response(),
    }
}

fn page(session: &Value, notice: &str) -> String {
    let text = |name: &str| escaped(session[name].as_str().unwrap_or_default());
    let id = text("id");
    let cents = session["amount_total"].as_i64().unwrap_or_default();
    let (whole, rest) = (cents / 100, cents % 100);
    let currency = text("currency").to_uppercase();
    let is_setup = session["mode"] == "setup";
    let title = if is_setup { "Save a card".to_owned() } else { format!("{whole}.{rest:02} {currency}") };
    let is_open = session["status"] == "open";
    let is_waiting = session["status"] == "complete" && session["payment_status"] == "unpaid";
    let buttons: &[(&str, &str)] = if is_open && is_setup {
        &[("pay", "Save"), ("fail", "Fail")]
    } else if is_open {
        &[("pay", "Pay"), ("fail", "Fail"), ("later", "Later")]
    } else if is_waiting {
        &[("pay", "The money arrives"), ("fail", "The money does not arrive")]
    } else {
        &[]
    };
    let buttons = buttons.iter().fold(String::new(), |html, (name, label)| {
        format!(
            "{html}<form method=post action=\"/pay/{id}/{name}\"><button id={name}>{label}</button></form>"
        )
    });
    let state = if buttons.is_empty() { "<p>This session is over.</p>" } else { "" };
    let cancel = match session["cancel_url"].as_str() {
        Some(url) if is_open => format!("<p><a href=\"{}\">Back without paying</a></p>", escaped(url)),
        _ => String::new(),
    };
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\"><title>Pretend to pay</title>\
         <style>body{{font:1.1rem/1.5 system-ui;max-width:26rem;margin:4rem auto;padding:0 1rem}}form{{display:inline-block;margin:0 .5rem .5rem 0}}\
         button{{font:inherit;padding:.5rem 1.2rem}}</style>\
         <h1>{title}</h1><p>This is not Stripe and moves no money: choose how the payment goes.</p>\
         <p><strong>{}</strong></p>{buttons}{state}{cancel}",
        escaped(notice)
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
