//! `GET /checkout/done`: where the browser lands after the till when the app named no page of its own.

use crate::CreditsState;
use askama::Template;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use mana_kernel::Line;
use mana_platform::http::{Head, Language, Parameters, page};
use serde::Deserialize;
use utoipa::IntoParams;

#[derive(Template)]
#[template(path = "done.html")]
struct Page {
    title: &'static str,
    text: &'static str,
}

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
    language: Language,
    Parameters(DoneParameters { state, purchase }): Parameters<DoneParameters>,
) -> Response {
    let state = state.as_ref().map(Line::as_str);
    if let Some(purchase) =
        purchase.filter(|purchase| state != Some("cancelled") && !purchase.as_str().is_empty())
    {
        credits.payments.errands.look_at(purchase.as_str());
    }
    let (title, text) = match (state, language) {
        (Some("cancelled"), Language::English) => {
            ("Nothing was bought", "You left without paying. You can close this page.")
        }
        (Some("cancelled"), Language::German) => (
            "Es wurde nichts gekauft",
            "Du bist gegangen, ohne zu bezahlen. Du kannst diese Seite schließen.",
        ),
        (Some("saved"), Language::English) => {
            ("Your card is saved", "Nothing was charged. You can close this page.")
        }
        (Some("saved"), Language::German) => {
            ("Deine Karte ist gespeichert", "Es wurde nichts abgebucht. Du kannst diese Seite schließen.")
        }
        (_, Language::English) => (
            "Thank you",
            "Your mana is in your wallet as soon as the payment has arrived. You can close this page.",
        ),
        (_, Language::German) => (
            "Danke",
            "Dein Mana ist in deinem Guthaben, sobald die Zahlung angekommen ist. Du kannst diese Seite schließen.",
        ),
    };
    page(StatusCode::OK, Head::new(language, title), Page { title, text }.render())
}
