//! Pages for people: rendered here, without a script, a picture or anything of another origin.
//!
//! Who makes a page knows what stands in it. It travels in the answer's extensions; [`super::frame`] writes the body, with the look that all
//! pages share and the name of the service. A failure on the way to a page is one there, too.

use super::{ApiError, Language, codes};
use askama::Template;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use mana_kernel::{Kind, RequestId};
use std::borrow::Cow;
use std::error::Error;
use url::Url;

/// Styles in the page itself, nothing else; the form goes to this service.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'";

/// What people open in a browser, or send the form of: links of mails, buttons that lead to another service, and where those lead back to.
/// Whatever stands in their way is told to them by a page.
const OPENED_BY_PEOPLE: [&str; 12] = [
    "/api/auth/reset-password/{token}",
    "/api/auth/verify-email",
    "/api/v1/auth/oauth/{provider}",
    "/api/v1/auth/oauth/{provider}/callback",
    "/checkout/done",
    "/claim-admin",
    "/confirm-email",
    "/login",
    "/magic-link",
    "/not-me",
    "/reset-password",
    "/verification-failed",
];

/// What a page is called, and how it looks beyond what all have in common.
#[derive(Debug, Clone)]
pub struct Head {
    language: Language,
    title: Cow<'static, str>,
    style: &'static str,
}

impl Head {
    /// Of a page in the language.
    pub fn new(language: Language, title: impl Into<Cow<'static, str>>) -> Self {
        Self { language, title: title.into(), style: "" }
    }

    /// The same with styles of its own.
    #[must_use]
    pub fn with_style(mut self, style: &'static str) -> Self {
        self.style = style;
        self
    }
}

/// A page without its frame.
#[derive(Debug, Clone)]
struct Unframed {
    head: Head,
    content: String,
}

#[derive(Template)]
#[template(path = "page.html")]
struct Framed<'a> {
    service_name: &'a str,
    head: &'a Head,
    content: &'a str,
}

#[derive(Template)]
#[template(path = "failure.html")]
struct Failure {
    title: &'static str,
    what: &'static str,
    way_out: String,
}

/// What stands in a page, rendered, as an answer that no cache keeps.
pub fn page<E: Error + 'static>(status: StatusCode, head: Head, content: Result<String, E>) -> Response {
    page_leading_to(status, head, content, &[])
}

/// The same for a page whose form is answered by a redirect to one of these URLs, which browsers hold against the page's policy too.
pub fn page_leading_to<E: Error + 'static>(
    status: StatusCode,
    head: Head,
    content: Result<String, E>,
    targets: &[String],
) -> Response {
    let policy = targets
        .iter()
        .filter_map(|target| source_of(target))
        .fold(POLICY.to_owned(), |policy, source| format!("{policy} {source}"));
    let content = match content {
        Ok(content) => content,
        Err(error) => return not_rendered(&error),
    };
    let headers = [
        // An origin is always a value.
        (
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static(POLICY)),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        // With none at all, a browser sends the page's own form with `Origin: null`, and an old one says nothing else
        // by which the form could be told from a foreign page's.
        (header::REFERRER_POLICY, HeaderValue::from_static("same-origin")),
    ];
    let mut response = (status, headers).into_response();
    response.extensions_mut().insert(Unframed { head, content });
    response
}

fn not_rendered(error: &(dyn Error + 'static)) -> Response {
    tracing::error!(cause = error, "a page could not be rendered");
    ApiError::new(&codes::INTERNAL).into_response()
}

/// Gives an answer that is a page its body; leaves any other as it is.
pub(super) fn write_out(response: &mut Response, service_name: &str) {
    let Some(Unframed { head, content }) = response.extensions_mut().remove() else { return };
    match (Framed { service_name, head: &head, content: &content }).render() {
        Ok(html) => {
            let headers = response.headers_mut();
            headers.remove(header::CONTENT_LENGTH);
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
            *response.body_mut() = html.into();
        }
        Err(error) => *response = not_rendered(&error),
    }
}

/// Whether people open the route in a browser, so that its failures are pages to them.
pub fn is_opened_by_people(route: &str) -> bool {
    OPENED_BY_PEOPLE.contains(&route)
}

/// Who waits for a page at the other end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader {
    language: Language,
    /// By sending a form, and not by opening a page, which changes nothing.
    wants_a_change: bool,
}

/// The person who waits for a page at the other end; none if a program asks. Browsers that open a page say that they want HTML, scripts and
/// programs do not.
pub(super) fn reader_of(request: &Request, route: &str) -> Option<Reader> {
    let is_for_people = is_opened_by_people(route) && prefers_html(request.headers());
    is_for_people.then(|| Reader {
        language: Language::of(request.headers()),
        wants_a_change: !matches!(*request.method(), Method::GET | Method::HEAD),
    })
}

fn prefers_html(headers: &HeaderMap) -> bool {
    let accepted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let weight_of = |wanted: &str| {
        let ranges =
            super::language::weighted(accepted).filter(|(range, _)| range.eq_ignore_ascii_case(wanted));
        ranges.filter_map(|(_, weight)| weight).max().unwrap_or(0)
    };
    weight_of("text/html") > weight_of("application/json").max(weight_of("application/problem+json"))
}

/// What a person is told of a failure, and what to do; none if it says nothing to one who only opened a link.
pub(super) fn of_failure(error: &ApiError, reader: Reader, request: &RequestId) -> Option<Response> {
    let Reader { language, wants_a_change } = reader;
    let (german, wait) = (language == Language::German, error.wait_seconds());
    // The answer to a commit may be what got lost, or what took too long. Other errors come before anything is done.
    let may_be_done = wants_a_change && [&codes::UNAVAILABLE, &codes::TIMEOUT].contains(&error.code());
    let (title, what, way_out) = match (error.code().kind, german) {
        (Kind::Unavailable, false) if may_be_done => (
            "It is not certain whether this was done",
            "Something that this needs does not answer at the moment.",
            "Open the link from the mail, or the app, again in a minute: a link that no longer works has done what it is for. If it still works, try again."
                .to_owned(),
        ),
        (Kind::Unavailable, true) if may_be_done => (
            "Es ist nicht sicher, ob das geklappt hat",
            "Etwas, das dafür nötig ist, antwortet im Moment nicht.",
            "Öffne den Link aus der Mail oder die App in einer Minute noch einmal: Ein Link, der nicht mehr geht, hat schon gewirkt. Geht er noch, \
             versuch es noch einmal."
                .to_owned(),
        ),
        (Kind::TooManyRequests, false) => (
            "Too many attempts",
            "There were more attempts in a short time than are allowed.",
            format!("Wait {wait} seconds, then try again. A link from a mail is not used up by this."),
        ),
        (Kind::TooManyRequests, true) => (
            "Zu viele Versuche",
            "Es waren mehr Versuche in kurzer Zeit, als erlaubt sind.",
            format!(
                "Warte {wait} Sekunden und versuch es dann noch einmal. Ein Link aus einer Mail wird dadurch nicht verbraucht."
            ),
        ),
        (Kind::Unavailable, false) => (
            "This is not possible right now",
            "Something that this needs does not answer at the moment.",
            "Try again in a minute. A link from a mail is not used up by this.".to_owned(),
        ),
        (Kind::Unavailable, true) => (
            "Das geht gerade nicht",
            "Etwas, das dafür nötig ist, antwortet im Moment nicht.",
            "Versuch es in einer Minute noch einmal. Ein Link aus einer Mail wird dadurch nicht verbraucht."
                .to_owned(),
        ),
        (Kind::Internal, false) => (
            "Something went wrong",
            "This is not your fault.",
            format!(
                "Try again in a minute. If it stays like this, give this number to the operator of the app: {request}"
            ),
        ),
        (Kind::Internal, true) => (
            "Etwas ist schiefgegangen",
            "Das liegt nicht an dir.",
            format!(
                "Versuch es in einer Minute noch einmal. Bleibt es so, nenn dem Betreiber der App diese Nummer: {request}"
            ),
        ),
        (Kind::NotFound, false) => (
            "This is not offered here",
            "Signing in this way is not set up.",
            "Go back to the app and choose another way.".to_owned(),
        ),
        (Kind::NotFound, true) => (
            "Das gibt es hier nicht",
            "Diese Art der Anmeldung ist nicht eingerichtet.",
            "Geh zurück zur App und wähle einen anderen Weg.".to_owned(),
        ),
        (
            Kind::Invalid
            | Kind::Unauthenticated
            | Kind::Forbidden
            | Kind::MethodNotAllowed
            | Kind::Conflict
            | Kind::PreconditionFailed
            | Kind::PayloadTooLarge
            | Kind::UnsupportedMediaType
            | Kind::Unprocessable,
            _,
        ) => return None,
    };
    let content = Failure { title, what, way_out }.render();
    Some(page(error.code().kind.status(), Head::new(language, title), content))
}

/// The origin of a URL as a policy names it; none if it has a letter that means something else there.
fn source_of(url: &str) -> Option<String> {
    let origin = Url::parse(url).ok()?.origin().ascii_serialization();
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-._:/[]".contains(letter);
    origin.chars().all(is_plain).then_some(origin)
}

/// Sends a browser on to `url`, which nobody is told where it came from: this address, or the next, may hold a secret.
pub fn see_other(url: &str) -> Response {
    let Ok(location) = HeaderValue::try_from(url) else {
        return ApiError::new(&codes::INTERNAL).into_response();
    };
    let headers = [
        (header::LOCATION, location),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    (StatusCode::SEE_OTHER, headers).into_response()
}

#[cfg(test)]
mod tests {
    use super::{prefers_html, source_of};
    use http::{HeaderMap, HeaderValue, header};

    #[test]
    fn a_browser_that_opens_a_page_wants_html_and_nobody_else_does() {
        for (accept, expected) in [
            ("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8", true),
            ("text/html", true),
            ("TEXT/HTML; charset=utf-8", true),
            ("application/json;q=0.5, text/html", true),
            ("", false),
            ("*/*", false),
            ("application/json, text/plain, */*", false),
            ("application/json, text/html;q=0.9", false),
            ("application/problem+json, text/html", false),
            ("text/html;q=0", false),
            ("text/html;q=x", false),
            ("text/htmlx", false),
        ] {
            let headers: HeaderMap =
                [(header::ACCEPT, HeaderValue::from_static(accept))].into_iter().collect();
            assert_eq!(prefers_html(&headers), expected, "{accept}");
        }
        assert!(!prefers_html(&HeaderMap::new()));
    }

    #[test]
    fn a_policy_names_an_origin_and_nothing_that_could_end_it() {
        assert_eq!(
            source_of("https://app.example.com/login?a=b;c").as_deref(),
            Some("https://app.example.com")
        );
        assert_eq!(source_of("http://[::1]:3000/").as_deref(), Some("http://[::1]:3000"));
        for bad in ["https://a;script-src.example.com", "https://a,b.example.com", "/login", ""] {
            assert_eq!(source_of(bad), None, "{bad}");
        }
    }
}
