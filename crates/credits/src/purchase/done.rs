//! `GET /checkout/done`: where the browser lands after the till when the app named no page of its own.

use crate::CreditsState;
use axum::extract::State;
use axum::response::{Html, IntoResponse as _, Response};
use http::{StatusCode, header};
use mana_kernel::Line;
use mana_platform::http::Parameters;
use serde::Deserialize;
use utoipa::IntoParams;

/// Nothing but its own style.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// How the visit went.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct DoneParameters {
    /// `cancelled`, `saved` (a card, and nothing was paid), or else it was paid.
    #[param(value_type = Option<String>, max_length = 64)]
    state: Option<Line<0, 64>>,
    /// The purchase; not shown.
    #[param(value_type = Option<String>, max_length = 64)]
    purchase: Option<Line<0, 64>>,
}

/// The page after the till
#[utoipa::path(
    get, path = "/checkout/done", tag = "pages",
    params(DoneParameters),
    responses((status = 200, description = "A page", body = String, content_type = "text/html")),
)]
pub(crate) async fn checkout_done(
    State(credits): State<CreditsState>,
    Parameters(DoneParameters { state, purchase }): Parameters<DoneParameters>,
) -> Response {
    let state = state.as_ref().map(Line::as_str);
    if let Some(purchase) =
        purchase.filter(|purchase| state != Some("cancelled") && !purchase.as_str().is_empty())
    {
        credits.payments.errands.look_at(purchase.as_str());
    }
    let (title, text) = match state {
        Some("cancelled") => ("Nothing was bought", "You left without paying. You can close this page."),
        Some("saved") => ("Your card is saved", "Nothing was charged. You can close this page."),
        _ => (
            "Thank you",
            "Your mana is in your wallet as soon as the payment has arrived. You can close this page.",
        ),
    };
    let html = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width, initial-scale=1\">\
         <title>{title}</title><style>body{{font:1.1rem/1.5 system-ui,sans-serif;max-width:30rem;margin:4rem auto;padding:0 1rem}}</style>\
         <main><h1>{title}</h1><p>{text}</p></main></html>"
    );
    let mut response = (StatusCode::OK, Html(html)).into_response();
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, header::HeaderValue::from_static(POLICY));
    response
}
