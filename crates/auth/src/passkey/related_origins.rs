//! `GET /.well-known/webauthn`: the pages of other domains that may use this one's passkeys (WebAuthn level 3, 5.11). Browsers read it at the
//! relying party's id.

use crate::AuthState;
use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

/// Pages that are not of the domain.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RelatedOrigins {
    #[schema(max_items = 100, value_type = Vec<mana_kernel::Line<1, 512>>)]
    origins: Vec<String>,
}

/// Browsers look at far fewer.
const MOST: usize = 100;

/// Pages of other domains that passkeys may be used on
#[utoipa::path(
    get, path = "/.well-known/webauthn", tag = "passkeys",
    responses((status = 200, description = "Those of PASSKEY_ORIGINS that are not of PASSKEY_RP_ID", body = RelatedOrigins)),
)]
pub(super) async fn related_origins(State(auth): State<AuthState>) -> Json<RelatedOrigins> {
    let origins = auth.policy.relying_party.related_origins.iter().take(MOST).cloned();
    Json(RelatedOrigins { origins: origins.collect() })
}
