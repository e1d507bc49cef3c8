//! Whether an account gets its sign-up bonus: asked when it is made, or once its address is proven.

use super::model::{WINDOW, is_disposable, mailbox};
use super::{SignupBonus, store};
use crate::Auth;
use crate::account::model::{AccountError, User};
use crate::security_event::Origin;
use crate::token::root_secret::Purpose;
use aws_lc_rs::hmac;
use mana_platform::config::DisposableAddresses;
use sqlx::PgConnection;

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
    let mailboxes = keyed(auth, &format!("mailbox {}", mailbox(address)))?;
    let Some(current) = mailboxes.first() else { return Ok(counted("mailbox")) };
    if store::exists_mailbox(connection, &mailboxes).await? {
        return Ok(counted("mailbox"));
    }
    if let Some(limit) = policy.per_network {
        let network = keyed(auth, &format!("network {}", origin.client().bucket().network()))?;
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
fn keyed(auth: &Auth, text: &str) -> Result<Vec<Vec<u8>>, AccountError> {
    let hash = |version| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &auth.root_secrets.derive(version, Purpose::Bonuses)?);
        Ok(hmac::sign(&key, text.as_bytes()).as_ref().to_vec())
    };
    auth.root_secrets.ids().map(hash).collect()
}

fn counted(outcome: &'static str) -> SignupBonus {
    metrics::counter!("signup_bonuses_total", "outcome" => outcome).increment(1);
    if outcome == "given" { SignupBonus::Given } else { SignupBonus::Withheld }
}
