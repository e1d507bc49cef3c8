//! Pages for developers: the rendered API at /docs, its document, and the error catalogue.

use crate::{errors, openapi};
use askama::Template;
use axum::extract::Path;
use axum::response::{Html, IntoResponse as _, Redirect, Response};
use axum::routing::get;
use axum::{Router, middleware};
use bytes::Bytes;
use http::{HeaderValue, header};
use mana_kernel::ErrorCode;
use mana_platform::http::{ApiError, codes};
use std::error::Error;
use std::sync::{Arc, LazyLock};
use utoipa_swagger_ui::Config;

/// Scripts and styles of this host, styles in place, pictures in place; no other origin.
const PAGE_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; \
     frame-ancestors 'none'; base-uri 'none'",
);

/// The document, made once: that takes long, and anybody may ask for it as often as he likes. None if it can't be written.
static DOCUMENT: LazyLock<Option<Bytes>> =
    LazyLock::new(|| written(serde_json::to_vec(&openapi::document())));
/// The page of errors, for the same reason.
static ERRORS: LazyLock<Option<Bytes>> =
    LazyLock::new(|| written(ErrorPage { codes: errors::catalogue() }.render()));

pub(crate) fn routes() -> Router {
    // An empty validator keeps the page from sending the document's address to a public checker.
    let config = Arc::new(Config::new(["/openapi.json"]).validator_url("none"));
    Router::new()
        .route("/docs", get(|| async { Redirect::to("/docs/") }))
        .route("/docs/", get(|| async { rendered(&DocumentPage {}) }))
        .route(
            "/docs/{*rest}",
            get(move |Path(rest): Path<String>| async move { part_of_page(&rest, config) }),
        )
        // Who opens the service's address in a browser wants to know what it is.
        .route("/", get(|| async { Redirect::to("/docs/") }))
        .route("/docs/errors", get(|| async { fixed(ERRORS.as_ref(), "text/html; charset=utf-8") }))
        .route("/openapi.json", get(|| async { fixed(DOCUMENT.as_ref(), "application/json") }))
        .layer(middleware::map_response(allow_page))
}

async fn allow_page(mut response: Response) -> Response {
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, PAGE_POLICY);
    response
}

#[derive(Template)]
#[template(path = "errors.html")]
struct ErrorPage {
    codes: Vec<&'static ErrorCode>,
}

/// The API as Swagger UI shows it.
#[derive(Template)]
#[template(path = "document.html")]
struct DocumentPage {}

/// A script, a style or a picture of Swagger UI.
fn part_of_page(name: &str, config: Arc<Config<'static>>) -> Result<Response, ApiError> {
    let part = utoipa_swagger_ui::serve(name, config).map_err(|error| {
        tracing::error!(error, "a part of a page could not be read");
        ApiError::new(&codes::INTERNAL)
    })?;
    let part = part.ok_or_else(|| ApiError::new(&codes::UNKNOWN_PATH))?;
    let mut response = part.bytes.into_response();
    if let Ok(media_type) = HeaderValue::from_str(&part.content_type) {
        response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    }
    if part.gzpipped {
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok(response)
}

fn rendered(page: &impl Template) -> Result<Response, ApiError> {
    let html = written(page.render()).ok_or_else(|| ApiError::new(&codes::INTERNAL))?;
    Ok(Html(html).into_response())
}

fn written<T: Into<Bytes>, E: Error + 'static>(text: Result<T, E>) -> Option<Bytes> {
    text.map(Into::into)
        .inspect_err(|error| {
            let cause: &(dyn Error + 'static) = error;
            tracing::error!(cause, "a page could not be rendered");
        })
        .ok()
}

/// What is the same as long as the program runs, and, after an upgrade, soon is another.
fn fixed(text: Option<&Bytes>, media_type: &'static str) -> Result<Response, ApiError> {
    let text = text.cloned().ok_or_else(|| ApiError::new(&codes::INTERNAL))?;
    let headers = [(header::CONTENT_TYPE, media_type), (header::CACHE_CONTROL, "public, max-age=300")];
    Ok((headers, text).into_response())
}
