//! Pages for developers: the rendered API at /docs, its document, and the error catalogue.

use crate::{errors, openapi};
use askama::Template;
use axum::response::{Html, IntoResponse as _, Redirect, Response};
use axum::routing::get;
use axum::{Json, Router, middleware};
use http::{HeaderValue, header};
use mana_kernel::ErrorCode;
use mana_platform::http::{ApiError, codes};
use utoipa_swagger_ui::{Config, SwaggerUi};

/// Scripts and styles of this host, styles in place, pictures in place; no other origin.
const PAGE_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; \
     frame-ancestors 'none'; base-uri 'none'",
);

pub(crate) fn routes() -> Router {
    // An empty validator keeps the page from sending the document's address to a public checker.
    let page = SwaggerUi::new("/docs").config(Config::new(["/openapi.json"]).validator_url("none"));
    Router::new()
        .merge(page)
        // Who opens the service's address in a browser wants to know what it is.
        .route("/", get(|| async { Redirect::to("/docs/") }))
        .route("/docs/errors", get(error_page))
        .route("/openapi.json", get(|| async { Json(openapi::document()) }))
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

async fn error_page() -> Result<Response, ApiError> {
    let page = ErrorPage { codes: errors::catalogue() };
    page.render().map(|html| Html(html).into_response()).map_err(|error| {
        let cause: &(dyn std::error::Error + 'static) = &error;
        tracing::error!(cause, "a page could not be rendered");
        ApiError::new(&codes::INTERNAL)
    })
}
