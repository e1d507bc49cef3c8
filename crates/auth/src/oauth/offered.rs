//! `GET /api/v1/auth/oauth`: whom people may sign in with.

use crate::AuthState;
use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

/// A service to sign in with.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OfferedProvider {
    /// For the paths below this one.
    #[schema(min_length = 1, max_length = 32, pattern = "^[a-z0-9-]+$", examples("google"))]
    id: String,
    /// For people.
    #[schema(max_length = 255, examples("Google"))]
    name: String,
}

/// The services that people may sign in with
#[utoipa::path(
    get, path = "/api/v1/auth/oauth", tag = "sign-in with others",
    responses((status = 200, description = "Those that are set up", body = Vec<OfferedProvider>)),
)]
pub(crate) async fn offered(State(auth): State<AuthState>) -> Json<Vec<OfferedProvider>> {
    let offered = auth.providers.for_browsers();
    Json(
        offered
            .map(|provider| OfferedProvider { id: provider.id.clone(), name: provider.title.clone() })
            .collect(),
    )
}
