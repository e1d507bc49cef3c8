//! The pages that the links of mails lead to: a few lines and a button, or a field for a password.

use askama::Template;
use axum::response::Response;
use http::StatusCode;
use mana_platform::http::{Head, Language, page_leading_to};

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
    /// What it is for, above it.
    pub(super) lead: Option<&'static str>,
    pub(super) hidden: Vec<(&'static str, &'a str)>,
    /// What is to be typed.
    pub(super) field: Option<Field>,
    pub(super) button: &'static str,
}

/// The field of a form, with its label.
#[derive(Debug, Clone, Copy)]
pub(super) enum Field {
    /// The password of the account.
    Password(&'static str),
    /// A new one of so many characters at least.
    NewPassword(&'static str, usize),
}

#[derive(Template)]
#[template(path = "step.html")]
struct Page<'a> {
    words: Words,
    forms: Vec<Form<'a>>,
}

/// The page. `targets` are where its forms may be answered by a redirect to.
pub(super) fn respond<'a>(
    status: StatusCode,
    language: Language,
    words: Words,
    forms: impl IntoIterator<Item = Form<'a>>,
    targets: &[String],
) -> Response {
    let (head, forms) = (Head::new(language, words.title), forms.into_iter().collect());
    page_leading_to(status, head, Page { words, forms }.render(), targets)
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
