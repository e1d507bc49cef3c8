//! How deliveries stand, for `/metrics`.

use super::store;
use crate::Auth;
use mana_platform::DbError;

/// Counts what waits and what fails.
///
/// # Errors
/// When the database fails.
pub async fn measure(auth: &Auth) -> Result<(), DbError> {
    let now = auth.clock.now();
    let standing = store::find_standing(&mut *auth.database.acquire().await?, now).await?;
    let count = |number: i64| u32::try_from(number).unwrap_or(u32::MAX);
    let since = |instant: Option<time::OffsetDateTime>| {
        instant.map_or(0, |at| {
            u32::try_from(now.unix_timestamp().saturating_sub(at.unix_timestamp())).unwrap_or(0)
        })
    };
    metrics::gauge!("webhook_deliveries_waiting").set(count(standing.waiting));
    metrics::gauge!("webhook_deliveries_dead").set(count(standing.dead));
    metrics::gauge!("webhook_deliveries_oldest_due_seconds").set(since(standing.oldest_due));
    metrics::gauge!("webhook_endpoints_failing_seconds").set(since(standing.failing_since));
    metrics::gauge!("webhook_endpoints", "state" => "enabled").set(count(standing.enabled));
    metrics::gauge!("webhook_endpoints", "state" => "disabled").set(count(standing.disabled));
    Ok(())
}
