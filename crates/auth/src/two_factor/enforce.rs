//! The pass that ends sessions which lack the second factor that the installation asks for: opened before it did, or before their user became
//! an administrator.

use crate::Auth;
use crate::security_event::{self, EventKind, Origin};
use crate::session::end::Ended;
use crate::session::model::RevokeReason;
use crate::session::store::{LackingSession, update_revoked_lacking_factor};
use mana_platform::DbError;
use mana_platform::config::TwoFactorRequired;

/// Sessions of one statement at most, so that no lock is held for long.
const BATCH: i64 = 500;

/// Ends them, a batch at a time.
///
/// # Errors
/// When the database fails; those that were ended until then stay ended.
pub async fn end_sessions_without_factor(auth: &Auth) -> Result<(), DbError> {
    let admins_only = match auth.policy.two_factor_required {
        TwoFactorRequired::None => return Ok(()),
        TwoFactorRequired::Admins => true,
        TwoFactorRequired::All => false,
    };
    let reason = RevokeReason::SecondFactorMissing;
    loop {
        let mut transaction = auth.database.begin().await?;
        let now = auth.clock.now();
        let ended = update_revoked_lacking_factor(&mut transaction, admins_only, reason, now, BATCH).await?;
        for LackingSession { id, user_id } in &ended {
            let (kind, origin) = (EventKind::of_end(reason), Origin::default());
            security_event::record(&mut transaction, auth, kind, Some(user_id), Some(id), &origin).await?;
        }
        let count = Ended::of(ended.len()).commit(transaction, auth).await?;
        if i64::try_from(count).is_ok_and(|count| count < BATCH) {
            return Ok(());
        }
    }
}
