//! `GET /api/v1/auth/jwks` and `GET /.well-known/jwks.json`: the public keys that verify access tokens.

use crate::AuthState;
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::header;
use serde::Serialize;
use utoipa::ToSchema;

/// A JSON Web Key Set (RFC 7517).
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JwksResponse {
    /// The keys that verify, as JWK. Fetch the set again for a `kid` that is not in it.
    #[schema(value_type = Vec<Object>)]
    keys: Vec<serde_json::Value>,
}

/// The public keys of access tokens
#[utoipa::path(
    get, path = "/api/v1/auth/jwks", tag = "auth",
    responses((status = 200, description = "The keys", body = JwksResponse)),
)]
pub(crate) async fn jwks(State(auth): State<AuthState>) -> Response {
    let keys = auth.keys.public().filter_map(|key| serde_json::to_value(key).ok()).collect();
    ([(header::CACHE_CONTROL, "public, max-age=300")], Json(JwksResponse { keys })).into_response()
}

/// The same where libraries look for it
#[utoipa::path(
    get, path = "/.well-known/jwks.json", tag = "auth",
    responses((status = 200, description = "The keys", body = JwksResponse)),
)]
pub(crate) async fn well_known_jwks(state: State<AuthState>) -> Response {
    jwks(state).await
}
