//! `GET /api/v1/auth/jwks` and `GET /.well-known/jwks.json`: the public keys that verify access tokens.

use crate::AuthState;
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::header;
use jsonwebtoken::jwk::Jwk;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::schema::{AdditionalProperties, ArrayBuilder, ObjectBuilder, Schema, Type};

/// A JSON Web Key Set (RFC 7517).
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JwksResponse {
    /// The keys that verify, as JWK: the current one, the next one, and earlier ones whose tokens still live. Fetch the set
    /// again for a `kid` that is not in it.
    #[schema(schema_with = some_keys)]
    keys: Vec<Jwk>,
}

/// Of RSA `n` and `e`, of the curves `crv`, `x` and, where a point needs it, `y`.
fn some_keys() -> Schema {
    let one_of = |words: &[&str]| {
        ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words.iter().copied()))
    };
    let encoded = |most| ObjectBuilder::new().schema_type(Type::String).max_length(Some(most));
    let key = ObjectBuilder::new()
        .property("kty", one_of(&["RSA", "EC", "OKP"]))
        .required("kty")
        .property("use", one_of(&["sig"]))
        .required("use")
        .property("alg", one_of(&["RS256", "ES256", "EdDSA"]))
        .required("alg")
        .property("kid", encoded(64))
        .required("kid")
        .property("n", encoded(1366))
        .property("e", encoded(8))
        .property("crv", one_of(&["P-256", "Ed25519"]))
        .property("x", encoded(43))
        .property("y", encoded(43))
        .additional_properties(Some(AdditionalProperties::FreeForm(false)));
    ArrayBuilder::new().items(key).max_items(Some(1_000)).into()
}

/// The public keys of access tokens
#[utoipa::path(
    get, path = "/api/v1/auth/jwks", tag = "auth",
    responses((status = 200, description = "The keys", body = JwksResponse)),
)]
pub(crate) async fn jwks(State(auth): State<AuthState>) -> Response {
    // A key is published for at least twice as long before it signs (`keys/model.rs`).
    let cache = [(header::CACHE_CONTROL, "public, max-age=300")];
    (cache, Json(JwksResponse { keys: auth.keys.public() })).into_response()
}

/// The same where libraries look for it
#[utoipa::path(
    get, path = "/.well-known/jwks.json", tag = "auth",
    responses((status = 200, description = "The keys", body = JwksResponse)),
)]
pub(crate) async fn well_known_jwks(state: State<AuthState>) -> Response {
    jwks(state).await
}
