//! `DELETE /api/v1/credits/auto-top-up`: turns it off.

use super::TopUpNews;
use super::store;
use crate::CreditsState;
use crate::purchase::PaymentError;
use axum::extract::State;
use http::StatusCode;
use mana_kernel::{Clock, UserId};
use mana_platform::http::{ApiError, Caller};
use mana_platform::{DbError, hold_briefly};
use sqlx::PgConnection;

/// Turns the auto top-up off
///
/// Nothing more is charged, but for what is being charged this moment, the saved card is forgotten, and none is saved any more at a
/// `setupUrl` of before. Also if it is off already.
#[utoipa::path(
    delete, path = "/api/v1/credits/auto-top-up", tag = "credits",
    responses((status = 204, description = "It is off")),
    security(("bearer" = [])),
)]
pub(crate) async fn turn_off(
    State(credits): State<CreditsState>,
    caller: Caller,
) -> Result<StatusCode, ApiError> {
    let mut transaction = credits.database.begin().await?;
    hold_briefly(&mut transaction).await?;
    store::update_threshold(&mut transaction, &caller.user_id, None).await?;
    if store::update_off(&mut transaction, &caller.user_id, credits.clock.now()).await? {
        let told = credits.payers.on_top_up_news(&mut transaction, &caller.user_id, TopUpNews::TurnedOff);
        told.await.map_err(PaymentError::Port)?;
    }
    transaction.commit().await?;
    credits.payments.errands.top_ups.notify_one();
    Ok(StatusCode::NO_CONTENT)
}

/// Ends the auto top-up of a user whose account ends, in the transaction in which it does and the wallet was closed.
///
/// # Errors
/// When the database fails; the deletion must roll back then.
pub async fn end(connection: &mut PgConnection, clock: &dyn Clock, user: &UserId) -> Result<(), DbError> {
    store::update_threshold(connection, user, None).await?;
    store::update_off(connection, user, clock.now()).await.map(drop)
}
