//! The first administrator, made by a one-time link. Owns `auth.admin_claims`.

mod claim;
pub(crate) mod store;

use crate::AuthState;
use mana_kernel::{Clock, Rng, opaque_secret};
use mana_platform::{Database, DbError};
use time::Duration;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

opaque_secret! {
    /// What makes a claim link good, once.
    ClaimToken, ClaimTokenHash, "mac_"
}

/// How long a claim link is good.
const CLAIM_TTL: Duration = Duration::hours(24);

pub(crate) fn routes() -> OpenApiRouter<AuthState> {
    OpenApiRouter::new().routes(routes!(claim::page, claim::submit))
}

/// The path and query of a new link that makes the first administrator; none when there is one already. Older links
/// are void from then on.
///
/// # Errors
/// When the database fails.
pub async fn new_claim_link(
    database: &Database,
    clock: &dyn Clock,
    rng: &dyn Rng,
) -> Result<Option<String>, DbError> {
    let mut transaction = database.begin().await?;
    store::lock_claims(&mut transaction).await?;
    if crate::account::store::exists_admin(&mut transaction).await? {
        return Ok(None);
    }
    let token = ClaimToken::generate(rng);
    let now = clock.now();
    store::replace_claims(&mut transaction, token.hash(), now, now.saturating_add(CLAIM_TTL)).await?;
    transaction.commit().await?;
    Ok(Some(format!("/claim-admin?token={}", token.expose())))
}
