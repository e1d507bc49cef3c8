//! `POST /api/v1/auth/oauth/{provider}/link`: sends the browser of somebody who is signed in to a provider, to link who comes back.

use super::flow::Purposed;
use super::start::{self, StartRequest, StartResponse};
use crate::AuthState;
use axum::extract::{Path, State};
use axum::response::Response;
use mana_platform::http::{ApiError, FreshCaller, ProblemBody, Valid};

/// Begins to link a service to the account
///
/// It ends at `redirectTo` with `linked` in the query, or with the code of a problem as `error`. Needs a sign-in or proof of a moment ago.
/// Ask with credentials, or the cookie gets lost.
#[utoipa::path(
    post, path = "/api/v1/auth/oauth/{provider}/link", tag = "sign-in with others",
    params(("provider" = String, Path, description = "As listed", max_length = 32)),
    request_body = StartRequest,
    responses(
        (status = 200, description = "Where to send the browser", body = StartResponse),
        (status = 403, description = "The last sign-in or proof is too old", body = ProblemBody),
        (status = 404, description = "No such provider", body = ProblemBody),
    ),
    security(("bearer" = [])),
)]
pub(crate) async fn link(
    State(auth): State<AuthState>,
    FreshCaller(caller): FreshCaller,
    Path(provider): Path<String>,
    Valid(request): Valid<StartRequest>,
) -> Result<Response, ApiError> {
    let purpose = Purposed::Link { user: caller.user_id, session: caller.session_id };
    start::answer(&auth, &provider, request, purpose).await
}
