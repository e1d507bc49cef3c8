//! What becomes of an account that nobody had proven to own when the owner of its address comes.

use super::store;
use crate::account::model::{AccountError, User};
use crate::account::verify::mark_verified;
use crate::security_event::{self, EventKind, Origin};
use crate::session::end::{Ended, end_chosen};
use crate::session::model::RevokeReason;
use crate::session::store::Choice;
use crate::{Auth, account, password};
use sqlx::PgConnection;

/// The user as the proven owner of the address, and what ended with that.
///
/// Who made the account may have been somebody else, who waits for the owner to use it: whatever opens it, sessions, password, factors,
/// mailed links, is gone with the proof. Of an account whose address was proven before, nothing changes.
pub(super) async fn adopt(
    connection: &mut PgConnection,
    auth: &Auth,
    user: User,
    origin: &Origin,
) -> Result<(User, Ended), AccountError> {
    if user.email_verified {
        return Ok((user, Ended::default()));
    }
    let reason = RevokeReason::AddressProven;
    let ended = end_chosen(connection, auth, &user.id, Choice::All, reason, origin).await?;
    password::store::delete_password(connection, &user.id).await?;
    let ways_in_epoch = account::store::update_ways_in(connection, &user.id).await?;
    store::delete_tokens(connection, &user.id).await?;
    account::remove_ways_in(connection, &user.id).await?;
    mark_verified(connection, auth, &user, origin).await?;
    security_event::record(connection, auth, EventKind::EmailVerified, Some(&user.id), None, origin).await?;
    Ok((User { email_verified: true, ways_in_epoch, ..user }, ended))
}
