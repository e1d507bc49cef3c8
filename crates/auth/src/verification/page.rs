//! The pages that the links of mails lead to: a few lines and a button, or a field for a new password.

use askama::Template;
use axum::response::Response;
use http::StatusCode;
use mana_platform::http::{Language, page_leading_to};

/// What a page says.
#[derive(Debug, Default)]
pub(super) struct Words {
    pub(super) title: &'static str,
    /// Why what was tried did not happen.
    pub(super) refusal: Option<String>,
    pub(super) lines: Vec<String>,
}

/// What can be sent from it.
#[derive(Debug, Default)]
pub(super) struct Form<'a> {
    pub(super) action: &'static str,
    pub(super) hidden: Vec<(&'static str, &'a str)>,
    /// The label of the field for a new password, and how long that must be.
    pub(super) password: Option<(&'static str, usize)>,
    pub(super) button: &'static str,
}

#[derive(Template)]
#[template(path = "step.html")]
struct Page<'a> {
    language: Language,
    words: Words,
    form: Option<Form<'a>>,
}

/// The page. `targets` are where its form may be answered by a redirect to.
pub(super) fn respond(
    status: StatusCode,
    language: Language,
    words: Words,
    form: Option<Form<'_>>,
    targets: &[String],
) -> Response {
    page_leading_to(status, Page { language, words, form }.render(), targets)
}

/// Of a link that is not good.
pub(super) fn link_is_void(language: Language) -> Response {
    let words = match language {
        Language::English => Words {
            title: "This link is not good any more",
            refusal: Some("It was used, is too old, or a newer one was mailed since.".to_owned()),
            lines: vec!["Ask for another one in the app.".to_owned()],
        },
        Language::German => Words {
            title: "Dieser Link gilt nicht mehr",
            refusal: Some("Er wurde benutzt, ist zu alt, oder es kam seitdem ein neuerer.".to_owned()),
            lines: vec!["Fordere in der App einen anderen an.".to_owned()],
        },
    };
    respond(StatusCode::NOT_FOUND, language, words, None, &[])
}
