//! Administrators: the first one, made by a one-time link, and what they do to accounts. Owns `auth.admin_claims`.
//!
//! Whatever an administrator does is an [`Act`]: it begins with the proof that its actor still administrates, and what it
//! does is written down, with the actor, in the same transaction. Who may use the command line does the same as an
//! [`Operator`].

mod act;
mod by_operator;
mod change;
mod claim;
mod delete;
mod demote;
mod disable;
mod enable;
mod end_sessions;
mod find_users;
mod fresh_admin;
mod measure;
pub mod model;
mod promote;
mod read_user;
mod record_credits;
mod record_sale;
mod reset_factors;
pub(crate) mod store;

pub use act::Act;
pub use by_operator::Operator;
pub use change::Change;
pub use find_users::AccountState;
pub use measure::measure;
pub use record_credits::{CreditsDeed, record_credits};
pub use record_sale::{SalesDeed, record_sale};

pub(crate) use fresh_admin::require_fresh;
pub(crate) use store::lock_claims as hold_off_others;

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
    OpenApiRouter::new()
        .routes(routes!(claim::page, claim::submit))
        .routes(routes!(find_users::find_users))
        .routes(routes!(read_user::read_user))
        .routes(routes!(disable::disable_user))
        .routes(routes!(enable::enable_user))
        .routes(routes!(delete::delete_user))
        .routes(routes!(promote::promote_user))
        .routes(routes!(demote::demote_user))
        .routes(routes!(reset_factors::reset_factors_of_user))
        .routes(routes!(end_sessions::sessions_of_user, end_sessions::end_sessions_of_user))
        .routes(routes!(end_sessions::end_session_of_user))
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
