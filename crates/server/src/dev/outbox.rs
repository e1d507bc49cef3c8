//! `/dev/outbox`: the mails that nobody gets, for the developer on this machine. Exists in dev mode only.
//!
//! The mails hold links that open accounts, so the page is shown to this machine alone: the connection must come from
//! it, the address in the browser must name it (a foreign site can point a name of its own at 127.0.0.1), and no proxy may
//! have passed the request on (behind one on this machine, everybody comes from here).

use askama::Template;
use axum::extract::{ConnectInfo, Path, Request, State};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::{HeaderMap, StatusCode, header};
use mana_platform::http::{ApiError, Head, Language, codes, page};
use mana_platform::mail::{KeptMail, Outbox};
use serde::Serialize;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use time::OffsetDateTime;
use uuid::Uuid;

/// What the mail brings along and nothing from elsewhere, as a page of no origin: no script, no form, no request.
const MAIL_POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; sandbox";

/// A table, or where that is too wide one line below the other.
const STYLE: &str = "body { max-width: 60rem; margin: 2rem auto }
table { width: 100%; border-collapse: collapse }
th, td { text-align: left; padding: .25rem 1rem .25rem 0; overflow-wrap: anywhere }
@media (max-width: 40rem) { thead { display: none } tr, td { display: block } tr { margin-top: 1rem } td { padding: 0 } }";

pub(crate) fn routes(outbox: Arc<Outbox>) -> Router {
    Router::new()
        .route("/dev/outbox", get(list))
        .route("/dev/outbox/{id}/html", get(html))
        .route("/dev/outbox/{id}/text", get(text))
        .layer(middleware::from_fn(for_this_machine))
        .with_state(outbox)
}

/// To anybody else there is nothing at these paths.
async fn for_this_machine(request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let is_local_peer = peer.is_some_and(|ConnectInfo(peer)| peer.ip().to_canonical().is_loopback());
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    if is_local_peer && host.is_some_and(is_local_name) && !is_passed_on(request.headers()) {
        next.run(request).await
    } else {
        ApiError::new(&codes::UNKNOWN_PATH).into_response()
    }
}

/// Whether a proxy says that it is one.
fn is_passed_on(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| {
        let name = name.as_str();
        name == "forwarded" || name == "via" || name.starts_with("x-forwarded") || name == "x-real-ip"
    })
}

fn is_local_name(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// A mail in the list.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    id: Uuid,
    #[serde(with = "time::serde::rfc3339")]
    sent_at: OffsetDateTime,
    recipient: String,
    subject: String,
    text: String,
    html: String,
}

impl Entry {
    fn of(kept: KeptMail) -> Self {
        let KeptMail { sent_at, mail } = kept;
        Self {
            id: mail.id,
            sent_at,
            recipient: mail.recipient.as_str().to_owned(),
            subject: mail.subject.as_str().to_owned(),
            text: mail.text,
            html: mail.html,
        }
    }
}

#[derive(Template)]
#[template(path = "outbox.html")]
struct Page {
    entries: Vec<Entry>,
}

async fn list(State(outbox): State<Arc<Outbox>>, headers: HeaderMap) -> Response {
    let entries: Vec<_> = outbox.mails().into_iter().map(Entry::of).collect();
    let accepted = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if accepted.contains("application/json") {
        Json(entries).into_response()
    } else {
        let head = Head::new(Language::English, "Outbox").with_style(STYLE);
        page(StatusCode::OK, head, Page { entries }.render())
    }
}

async fn html(outbox: State<Arc<Outbox>>, id: Path<String>) -> Result<Response, ApiError> {
    let policy = [(header::CONTENT_SECURITY_POLICY, MAIL_POLICY)];
    Ok((policy, Html(find(&outbox, &id)?.html)).into_response())
}

async fn text(outbox: State<Arc<Outbox>>, id: Path<String>) -> Result<String, ApiError> {
    Ok(find(&outbox, &id)?.text)
}

fn find(outbox: &Outbox, id: &str) -> Result<Entry, ApiError> {
    let found = outbox.mails().into_iter().map(Entry::of).find(|entry| entry.id.to_string() == id);
    found.ok_or_else(|| ApiError::new(&codes::UNKNOWN_PATH))
}

#[cfg(test)]
mod tests {
    use super::is_local_name;

    #[test]
    fn only_names_of_this_machine_are_local() {
        for local in
            ["localhost", "localhost:3001", "LOCALHOST", "127.0.0.1:3001", "[::1]:3001", "[::1]", "127.1.2.3"]
        {
            assert!(is_local_name(local), "{local}");
        }
        for foreign in [
            "",
            "evil.example",
            "localhost.evil.example:3001",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "localhost:x",
        ] {
            assert!(!is_local_name(foreign), "{foreign}");
        }
    }
}
