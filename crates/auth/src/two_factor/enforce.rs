//! The passes that end sessions which lack the second factor that the installation asks for: opened before it did, or before their user became
//! an administrator.

use crate::Auth;
use crate::security_event::{self, EventKind, Origin};
use crate::session::end::Ended;
use crate::session::model::RevokeReason;
use crate::session::store::{LackingSession, update_revoked_lacking_factor};
use mana_kernel::id::first_uuid_at;
use mana_platform::DbError;
use mana_platform::config::TwoFactorRequired;
use time::Duration;

/// Sessions of one statement at most, so that no lock is held for long.
const BATCH: i64 = 500;
/// Sessions that are younger are looked at again and again: a replica that is still to be restarted may open them without the factor.
const YOUNG: Duration = Duration::minutes(10);

/// Ends those of administrators; where everybody must have the factor, those that were opened within the last minutes. What is looked at does
/// not grow with the sessions that are there.
///
/// # Errors
/// When the database fails; those that were ended until then stay ended.
pub async fn end_sessions_without_factor(auth: &Auth) -> Result<(), DbError> {
    match auth.policy.two_factor_required {
        TwoFactorRequired::None => Ok(()),
        TwoFactorRequired::Admins => end_sessions(auth, true, String::new()).await,
        TwoFactorRequired::All => {
            let young = auth.clock.now().saturating_sub(YOUNG);
            end_sessions(auth, false, first_uuid_at(young).to_string()).await
        }
    }
}

/// Goes through all sessions, where everybody must have the factor.
///
/// # Errors
/// When the database fails; those that were ended until then stay ended.
pub async fn end_old_sessions_without_factor(auth: &Auth) -> Result<(), DbError> {
    match auth.policy.two_factor_required {
        TwoFactorRequired::None | TwoFactorRequired::Admins => Ok(()),
        TwoFactorRequired::All => end_sessions(auth, false, String::new()).await,
    }
}

/// Ends them from `after` on, a batch at a time.
async fn end_sessions(auth: &Auth, admins_only: bool, mut after: String) -> Result<(), DbError> {
    let reason = RevokeReason::SecondFactorMissing;
    loop {
        let mut transaction = auth.database.begin().await?;
        let now = auth.clock.now();
        let ended =
            update_revoked_lacking_factor(&mut transaction, admins_only, &after, reason, now, BATCH).await?;
        for LackingSession { id, user_id } in &ended {
            let (kind, origin) = (EventKind::of_end(reason), Origin::default());
            security_event::record(&mut transaction, auth, kind, Some(user_id), Some(id), &origin).await?;
        }
        let last = ended.iter().map(|session| session.id.as_str()).max().map(str::to_owned);
        let count = Ended::of(ended.len()).commit(transaction, auth).await?;
        match last {
            Some(last) if i64::try_from(count).is_ok_and(|count| count >= BATCH) => after = last,
            _ => return Ok(()),
        }
    }
}
