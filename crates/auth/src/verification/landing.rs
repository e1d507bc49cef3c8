//! `GET /login` and `GET /verification-failed`: where the links of mails end as long as `FRONTEND_URL` names no web app.

use super::page::{Words, respond};
use axum::response::Response;
use http::StatusCode;
use mana_kernel::Line;
use mana_platform::http::{Language, Parameters};
use serde::Deserialize;
use utoipa::IntoParams;

/// Where somebody comes from.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct LandingParameters {
    /// `true` after an address was confirmed.
    #[serde(default)]
    #[param(value_type = String, max_length = 2048)]
    verified: Line<0, 2048>,
}

/// The page after an address was confirmed
///
/// For installations without a web app of their own: `FRONTEND_URL` leads elsewhere.
#[utoipa::path(
    get, path = "/login", tag = "auth",
    params(LandingParameters),
    responses((status = 200, description = "What to do now", content_type = "text/html", body = String)),
)]
pub(crate) async fn login(
    language: Language,
    Parameters(parameters): Parameters<LandingParameters>,
) -> Response {
    let is_verified = parameters.verified.as_str() == "true";
    let words = match language {
        Language::English => Words {
            title: if is_verified { "Your address is confirmed" } else { "Sign in" },
            refusal: None,
            lines: vec!["Go back to the app and sign in there.".to_owned()],
        },
        Language::German => Words {
            title: if is_verified { "Deine Adresse ist bestätigt" } else { "Anmelden" },
            refusal: None,
            lines: vec!["Geh zurück zur App und melde dich dort an.".to_owned()],
        },
    };
    respond(StatusCode::OK, language, words, None, &[])
}

/// The page after an address could not be confirmed
///
/// For installations without a web app of their own: `FRONTEND_URL` leads elsewhere.
#[utoipa::path(
    get, path = "/verification-failed", tag = "auth",
    responses((status = 200, description = "What to do now", content_type = "text/html", body = String)),
)]
pub(crate) async fn verification_failed(language: Language) -> Response {
    let words = match language {
        Language::English => Words {
            title: "The address was not confirmed",
            refusal: Some("The link was used, is too old, or a newer one was mailed since.".to_owned()),
            lines: vec!["Ask in the app for the mail to be sent again.".to_owned()],
        },
        Language::German => Words {
            title: "Die Adresse wurde nicht bestätigt",
            refusal: Some("Der Link wurde benutzt, ist zu alt, oder es kam seitdem ein neuerer.".to_owned()),
            lines: vec!["Lass dir die Mail in der App noch einmal schicken.".to_owned()],
        },
    };
    respond(StatusCode::OK, language, words, None, &[])
}
