//! Whether an account gets its sign-up bonus: asked when it is made, or once its address is proven.

use super::model::{WINDOW, is_disposable, mailbox};
use super::{SignupBonus, store};
use crate::Auth;
use crate::account::model::{AccountError, User};
use crate::security_event::Origin;
use crate::token::root_secret::{Purpose, RootSecretError, RootSecrets};
use aws_lc_rs::hmac;
use mana_platform::DbError;
use mana_platform::config::DisposableAddresses;
use sqlx::PgConnection;
use time::OffsetDateTime;

/// For an account that is being made, in the same transaction.
pub(crate) async fn at_registration(
    connection: &mut PgConnection,
    auth: &Auth,
    user: &User,
    origin: &Origin,
) -> Result<SignupBonus, AccountError> {
    if auth.policy.bonus.requires_verification {
        store::insert_pending(connection, &user.id, auth.clock.now()).await?;
        return Ok(counted("pending"));
    }
    decide(connection, auth, &user.email, origin).await
}

/// For an account whose address has just been proven, in the same transaction: withheld if none was waiting.
pub(crate) async fn once_verified(
    connection: &mut PgConnection,
    auth: &Auth,
    user: &User,
    origin: &Origin,
) -> Result<SignupBonus, AccountError> {
    if store::delete_pending(connection, &user.id).await? {
        decide(connection, auth, &user.email, origin).await
    } else {
        Ok(SignupBonus::Withheld)
    }
}

/// The network's count is held before the mailbox is taken, always in this order, so that two registrations can't wait for
/// each other.
async fn decide(
    connection: &mut PgConnection,
    auth: &Auth,
    address: &str,
    origin: &Origin,
) -> Result<SignupBonus, AccountError> {
    let policy = &auth.policy.bonus;
    if policy.disposable_addresses != DisposableAddresses::Allow && is_disposable(address) {
        return Ok(counted("disposable"));
    }
    let now = auth.clock.now();
    // Under every root secret that is given: a replaced one forgets no mailbox while it stands behind the new one.
    let mailboxes = keyed(&auth.root_secrets, &format!("mailbox {}", mailbox(address)))?;
    let Some(current) = mailboxes.first() else { return Ok(counted("mailbox")) };
    if store::exists_mailbox(connection, &mailboxes).await? {
        return Ok(counted("mailbox"));
    }
    if let Some(limit) = policy.per_network {
        let network = keyed(&auth.root_secrets, &format!("network {}", origin.client().bucket().network()))?;
        let window = now.saturating_sub(WINDOW);
        let hash = network.first().map_or(&[][..], Vec::as_slice);
        if !store::hold_network(connection, hash, limit, now, window).await? {
            return Ok(counted("network"));
        }
    }
    if !store::insert_mailbox(connection, current, now).await? {
        return Ok(counted("mailbox"));
    }
    Ok(counted("given"))
}

/// Hashes of a text that nobody without a root secret can make; that of the newest secret first.
fn keyed(root_secrets: &RootSecrets, text: &str) -> Result<Vec<Vec<u8>>, RootSecretError> {
    let hash = |version| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &root_secrets.derive(version, Purpose::Bonuses)?);
        Ok(hmac::sign(&key, text.as_bytes()).as_ref().to_vec())
    };
    root_secrets.ids().map(hash).collect()
}

/// Notes that a mailbox had its bonus elsewhere.
pub(crate) async fn note_given(
    connection: &mut PgConnection,
    root_secrets: &RootSecrets,
    address: &str,
    now: OffsetDateTime,
) -> Result<(), BonusError> {
    let mailboxes = keyed(root_secrets, &format!("mailbox {}", mailbox(address)))?;
    if let Some(current) = mailboxes.first()
        && !store::exists_mailbox(connection, &mailboxes).await?
    {
        store::insert_mailbox(connection, current, now).await?;
    }
    Ok(())
}

/// Why that can't be noted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BonusError {
    /// The mailbox can't be hashed.
    #[error(transparent)]
    Key(#[from] RootSecretError),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DbError),
}

fn counted(outcome: &'static str) -> SignupBonus {
    metrics::counter!("signup_bonuses_total", "outcome" => outcome).increment(1);
    if outcome == "given" { SignupBonus::Given } else { SignupBonus::Withheld }
}
