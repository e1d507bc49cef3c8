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
    get, path = "/login", operation_id = "login_page", tag = "auth",
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

/// Why an address was not confirmed.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct FailureParameters {
    /// `missing_token`, `verification_failed`, or else the link is not good.
    #[serde(default)]
    #[param(value_type = String, max_length = 2048)]
    error: Line<0, 2048>,
}

/// The page after an address could not be confirmed
///
/// For installations without a web app of their own: `FRONTEND_URL` leads elsewhere.
#[utoipa::path(
    get, path = "/verification-failed", tag = "auth",
    params(FailureParameters),
    responses((status = 200, description = "What to do now", content_type = "text/html", body = String)),
)]
pub(crate) async fn verification_failed(
    language: Language,
    Parameters(parameters): Parameters<FailureParameters>,
) -> Response {
    let (title, [refusal, line]) = match language {
        Language::English => (
            "The address was not confirmed",
            match parameters.error.as_str() {
                "verification_failed" => [
                    "It could not be checked now: something on our side did not answer.",
                    "Open the link of the mail again in a minute.",
                ],
                "missing_token" => {
                    ["The link is not complete.", "Open it in the mail itself, or copy all of it from there."]
                }
                _ => [
                    "The link was used, is too old, or a newer one was mailed since.",
                    "Ask in the app for the mail to be sent again.",
                ],
            },
        ),
        Language::German => (
            "Die Adresse wurde nicht bestätigt",
            match parameters.error.as_str() {
                "verification_failed" => [
                    "Sie konnte gerade nicht geprüft werden: Auf unserer Seite hat etwas nicht geantwortet.",
                    "Öffne den Link aus der Mail in einer Minute noch einmal.",
                ],
                "missing_token" => [
                    "Der Link ist nicht vollständig.",
                    "Öffne ihn in der Mail selbst, oder kopiere ihn von dort ganz.",
                ],
                _ => [
                    "Der Link wurde benutzt, ist zu alt, oder es kam seitdem ein neuerer.",
                    "Lass dir die Mail in der App noch einmal schicken.",
                ],
            },
        ),
    };
    let words = Words { title, refusal: Some(refusal.to_owned()), lines: vec![line.to_owned()] };
    respond(StatusCode::OK, language, words, None, &[])
}
