//! An identity comes: whose account it is, which one it gets, or why it gets none.

use super::exchange::ProviderTokens;
use super::model::{Arrival, Identity, OAuthError, arrival};
use super::provider::Provider;
use super::store;
use crate::Auth;
use crate::account::model::{AccountError, Role, User};
use crate::account::{self, register};
use crate::mail::Written;
use crate::new_device::warn;
use crate::security_event::{self, EventKind, Origin};
use crate::session::model::SessionError;
use crate::token::root_secret::Purpose;
use crate::verification::ProtectionChange;
use mana_kernel::id::new_uuid;
use mana_kernel::{Line, SessionId, UserId};
use mana_platform::db::Transaction;
use mana_platform::http::Language;
use sqlx::PgConnection;
use uuid::Uuid;

/// How often it is looked again after somebody else's registration or link was faster.
const LOOKS: usize = 3;

/// The user of an identity, in an open transaction in which the link is noted as used. Hold what was written until after the commit.
pub(super) async fn arrive(
    auth: &Auth,
    provider: &Provider,
    identity: &Identity,
    tokens: Option<&ProviderTokens>,
    by: (Language, &Origin),
) -> Result<(Transaction, User, Written), OAuthError> {
    for _ in 1..LOOKS {
        match look(auth, provider, identity, tokens, by).await {
            Ok(None) => {}
            Ok(Some(found)) => return Ok(found),
            Err(error) if is_race(&error) => {}
            Err(error) => return Err(error),
        }
    }
    look(auth, provider, identity, tokens, by).await?.ok_or(OAuthError::EmailTaken)
}

/// Whether the same person, or somebody with the same address, came through another door at the same time.
fn is_race(error: &OAuthError) -> bool {
    is_of_another(error) || matches!(error, OAuthError::Account(AccountError::EmailTaken))
}

/// One look. None if the account, or its link, became another's while this waited for it.
async fn look(
    auth: &Auth,
    provider: &Provider,
    identity: &Identity,
    tokens: Option<&ProviderTokens>,
    by: (Language, &Origin),
) -> Result<Option<(Transaction, User, Written)>, OAuthError> {
    let mut transaction = auth.database.begin().await?;
    let found = store::find_account(&mut transaction, &identity.issuer, &identity.subject).await?;
    let (id, user, mail) = match found {
        Some(found) if found.is_disabled => return Err(SessionError::AccountDisabled.into()),
        Some(found) => {
            let user = account::store::lock_user(&mut transaction, &found.user.id).await?;
            (found.id, user.ok_or(SessionError::AccountDisabled)?, Written::nothing())
        }
        None => match settle(&mut transaction, auth, provider, identity, by).await? {
            Some(settled) => settled,
            None => return Ok(None),
        },
    };
    // Under the account's lock: whoever takes the link away has done so by now, or waits.
    let is_there = note_use(&mut transaction, auth, id, identity, tokens).await?;
    Ok(is_there.then_some((transaction, user, mail)))
}

/// Lets an identity that has no link in by its address, if that can be. None if the address is not the account's any more.
async fn settle(
    connection: &mut PgConnection,
    auth: &Auth,
    provider: &Provider,
    identity: &Identity,
    (language, origin): (Language, &Origin),
) -> Result<Option<(Uuid, User, Written)>, OAuthError> {
    let told = identity.email.as_ref().ok_or(OAuthError::NoEmail)?;
    let local = account::store::find_by_email(connection, &told.address).await?;
    let has_proven = local.as_ref().map(|local| local.user.email_verified);
    let is_known = local.is_some();
    let user = match (arrival(told.standing, has_proven), local) {
        (Arrival::Register { is_verified }, None) => {
            let name = identity.name.clone().and_then(|name| Line::try_from(name).ok());
            let mut user = register::new_user(auth, &told.address, name, Role::User);
            user.email_verified = is_verified;
            user.image.clone_from(&identity.image);
            register::create_without_password(connection, auth, &user, origin).await?;
            user
        }
        (Arrival::Link, Some(local)) if local.is_disabled => {
            return Err(SessionError::AccountDisabled.into());
        }
        (Arrival::Link, Some(local)) => {
            let held = account::store::lock_user(connection, &local.user.id).await?;
            let Some(user) = held.filter(|held| held.email == local.user.email && held.email_verified) else {
                return Ok(None);
            };
            // The issuer knows the account's owner as somebody else: the mailbox has changed hands.
            if store::exists_account_of(connection, &user.id, &identity.issuer).await? {
                return taken(connection, identity).await;
            }
            user
        }
        (Arrival::Register { .. } | Arrival::Link | Arrival::Refuse, _) => {
            return taken(connection, identity).await;
        }
    };
    let id = link(connection, auth, provider, identity, &user.id, None, origin).await?;
    let mail = if is_known {
        let change = ProtectionChange::ServiceLinked(&provider.title);
        warn(connection, auth, &user, change, None, (language, origin)).await?
    } else {
        Written::nothing()
    };
    Ok(Some((id, user, mail)))
}

/// The address is another's, unless the identity came through another door since its link was looked for: then it is to be looked for again.
async fn taken<T>(connection: &mut PgConnection, identity: &Identity) -> Result<Option<T>, OAuthError> {
    let linked = store::find_account(connection, &identity.issuer, &identity.subject).await?;
    if linked.is_some() { Ok(None) } else { Err(OAuthError::EmailTaken) }
}

/// Links an identity to an account.
pub(super) async fn link(
    connection: &mut PgConnection,
    auth: &Auth,
    provider: &Provider,
    identity: &Identity,
    user: &UserId,
    session: Option<&SessionId>,
    origin: &Origin,
) -> Result<Uuid, OAuthError> {
    let id = new_uuid(&*auth.clock, &*auth.rng);
    let account = store::NewAccount {
        id,
        user,
        provider: &provider.id,
        issuer: &identity.issuer,
        subject: &identity.subject,
        email: identity.email.as_ref().map(|told| told.address.as_str()),
        linked_in: session,
        now: auth.clock.now(),
    };
    store::insert_account(connection, &account).await?;
    let kind = EventKind::ProviderLinked(provider.kind);
    security_event::record(connection, auth, kind, Some(user), session, origin).await?;
    Ok(id)
}

/// Notes that a link was used, with the tokens of this time. False if it is gone.
pub(super) async fn note_use(
    connection: &mut PgConnection,
    auth: &Auth,
    id: Uuid,
    identity: &Identity,
    tokens: Option<&ProviderTokens>,
) -> Result<bool, OAuthError> {
    let sealed = match tokens {
        Some(tokens) => {
            let plain = serde_json::to_vec(tokens).unwrap_or_default();
            Some(auth.root_secrets.seal(&plain, Purpose::ProviderTokens, &sealed_as(id), &*auth.rng)?)
        }
        None => None,
    };
    let sealed = sealed.as_deref().map(|sealed| (sealed, auth.root_secrets.current_id()));
    let email = identity.email.as_ref().map(|told| told.address.as_str());
    Ok(store::update_used(connection, id, email, sealed, auth.clock.now()).await?)
}

/// What sealed tokens are bound to: another link's do not open.
pub(super) fn sealed_as(id: Uuid) -> String {
    format!("account {id}")
}

/// Whether the identity has a link already.
pub(super) fn is_of_another(error: &OAuthError) -> bool {
    matches!(error, OAuthError::Database(error) if error.constraint() == Some("accounts_issuer_subject_key"))
}

/// Commits.
pub(super) async fn commit(transaction: Transaction) -> Result<(), OAuthError> {
    Ok(transaction.commit().await?)
}
