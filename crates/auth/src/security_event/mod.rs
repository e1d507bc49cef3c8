//! What happened to an account, for its owner and the operator. Owns `auth.security_events`, to which is only added
//! until what is old is deleted, and `auth.erasures`.

mod list;
mod list_all;
pub(crate) mod store;

pub(crate) use list_all::newest;
pub use store::AdminSecurityEvent;

use crate::auto_top_up::PausedFor;
use crate::oauth::ProviderKind;
use crate::session::model::RevokeReason;
use crate::webhook::{self, AppEvent};
use crate::{Auth, AuthState};
use mana_kernel::{Clock, RequestId, Rng, SessionId, TransactionId, UserId};
use mana_platform::DbError;
use mana_platform::http::{ClientInfo, current_request_id};
use mana_platform::rate_limit::RateLimitHit;
use sqlx::PgConnection;
use std::borrow::Cow;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

pub(crate) fn routes() -> OpenApiRouter<AuthState> {
    OpenApiRouter::new().routes(routes!(list::security_events)).routes(routes!(list_all::all_security_events))
}

/// Those that somebody is called for.
pub(crate) fn count_from_zero() {
    for kind in [EventKind::BecameAdmin, EventKind::RefreshReplayed] {
        metrics::counter!("security_events_total", "type" => kind.as_str()).increment(0);
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventKind {
    /// The account was made.
    Registered,
    /// The account was brought here from another installation.
    Imported,
    /// Somebody signed in with the right credentials.
    SignedIn,
    /// The backend of an app opened a session for the user, who has proven nothing by it.
    SessionMinted {
        /// By which service key.
        key: String,
        /// Of which app.
        app: String,
    },
    /// A wrong password, an account that is disabled, or an address without an account: then the event has no user.
    SignInFailed,
    /// A session was ended by its owner, from within.
    SignedOut,
    /// A session was ended by somebody or something else, and why.
    SessionRevoked(RevokeReason),
    /// A refresh token that had been replaced long ago was presented: theft; the session was ended.
    RefreshReplayed,
    /// Somebody signed in from a device that was not seen before.
    NewDevice,
    /// The owner of the address has proven to be it.
    EmailVerified,
    /// Somebody signed in asked for another address; it is to be confirmed from there.
    EmailChangeRequested,
    /// The account has another address.
    EmailChanged,
    /// The password was changed by somebody who knew it.
    PasswordChanged,
    /// The password was set anew by a link that was mailed to the address.
    PasswordReset,
    /// The account was deleted by its owner.
    AccountDeleted,
    /// The account became an administrator's.
    BecameAdmin,
    /// It is no administrator's any more.
    NoLongerAdmin,
    /// An administrator shut the account.
    AccountDisabled,
    /// An administrator opened it again.
    AccountEnabled,
    /// An administrator ended the sessions of the account, so many.
    SessionsEnded(usize),
    /// An administrator took away what makes up the second factor.
    SecondFactorReset,
    /// An administrator gave mana.
    CreditsGranted {
        /// How much.
        amount: i64,
        /// The line of the ledger.
        transaction: TransactionId,
    },
    /// An administrator took mana.
    CreditsTaken {
        /// How much.
        amount: i64,
        /// The line of the ledger.
        transaction: TransactionId,
    },
    /// An administrator forgave what was owed.
    DebtForgiven {
        /// How much.
        amount: i64,
        /// The line of the ledger.
        transaction: TransactionId,
    },
    /// Sign-ins ask for a second factor from now on.
    SecondFactorEnabled,
    /// They do no more.
    SecondFactorDisabled,
    /// A wrong code, of somebody who had the first factor right.
    SecondFactorFailed,
    /// There are new recovery codes; older ones are void.
    RecoveryCodesMade,
    /// A recovery code was used up.
    RecoveryCodeUsed,
    /// The owner has confirmed within a session to be it.
    Reauthenticated,
    /// A passkey signs in from now on.
    PasskeyAdded(Uuid),
    /// It does no more.
    PasskeyRemoved(Uuid),
    /// A passkey says that it has signed less often than it has: there are two of it, and this one was refused.
    PasskeyCloned,
    /// Another key signs access tokens from now on. Has no user.
    KeyRotated,
    /// A service key was made, by an administrator or at the command line: then the event has no user.
    ServiceKeyCreated(Uuid),
    /// A service key was revoked, likewise.
    ServiceKeyRevoked(Uuid),
    /// An endpoint of an app was added, likewise.
    WebhookAdded(Uuid),
    /// Its secret was replaced.
    WebhookSecretRotated(Uuid),
    /// It is told again what waits for it.
    WebhookEnabled(Uuid),
    /// It is told again what happened before.
    WebhookReplayed(Uuid),
    /// It hears of nothing any more.
    WebhookRemoved(Uuid),
    /// An administrator, or somebody at the command line, made a package or changed it; which. In the latter case without a user.
    PackageChanged(String),
    /// An administrator gave back what was paid for mana.
    PurchaseRefunded {
        /// How much, in the smallest unit of the purchase's currency.
        amount_cents: i64,
        /// Which purchase.
        purchase: String,
    },
    /// A card that paid for mana was reported by its issuer; which purchase it was.
    PaymentFraudWarning(String),
    /// What was paid for mana was charged back; which purchase it was.
    PaymentDisputeLost(String),
    /// Mana is bought by itself from now on, with a saved card.
    AutoTopUpOn,
    /// It is not any more.
    AutoTopUpOff,
    /// It is not until its owner sees to it, and why.
    AutoTopUpPaused(PausedFor),
    /// A service to sign in with was linked to the account.
    ProviderLinked(ProviderKind),
    /// A service to sign in with was unlinked from the account.
    ProviderUnlinked(ProviderKind),
    /// Somebody ran into a limit; a sample. Without a user, unless an account's own limit was met.
    RateLimited,
}

impl EventKind {
    /// What tells of a session's end.
    pub(crate) fn of_end(reason: RevokeReason) -> Self {
        match reason {
            RevokeReason::SignedOut => Self::SignedOut,
            RevokeReason::RefreshReplayed => Self::RefreshReplayed,
            RevokeReason::RevokedByOwner
            | RevokeReason::TooMany
            | RevokeReason::Disowned
            | RevokeReason::PasswordChanged
            | RevokeReason::PasswordReset
            | RevokeReason::AddressProven
            | RevokeReason::AccountDeleted
            | RevokeReason::SecondFactorChanged
            | RevokeReason::SecondFactorMissing
            | RevokeReason::EndedByAdmin
            | RevokeReason::UserDisabled
            | RevokeReason::RoleChanged => Self::SessionRevoked(reason),
        }
    }

    /// As in the database and the API.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Imported => "imported",
            Self::SignedIn => "signed_in",
            Self::SessionMinted { .. } => "session_minted",
            Self::SignInFailed => "sign_in_failed",
            Self::SignedOut => "signed_out",
            Self::SessionRevoked(_) => "session_revoked",
            Self::RefreshReplayed => "refresh_replayed",
            Self::NewDevice => "new_device",
            Self::EmailVerified => "email_verified",
            Self::EmailChangeRequested => "email_change_requested",
            Self::EmailChanged => "email_changed",
            Self::PasswordChanged => "password_changed",
            Self::PasswordReset => "password_reset",
            Self::AccountDeleted => "account_deleted",
            Self::BecameAdmin => "became_admin",
            Self::NoLongerAdmin => "no_longer_admin",
            Self::AccountDisabled => "account_disabled",
            Self::AccountEnabled => "account_enabled",
            Self::SessionsEnded(_) => "sessions_ended",
            Self::SecondFactorReset => "second_factor_reset",
            Self::CreditsGranted { .. } => "credits_granted",
            Self::CreditsTaken { .. } => "credits_taken",
            Self::DebtForgiven { .. } => "debt_forgiven",
            Self::SecondFactorEnabled => "second_factor_enabled",
            Self::SecondFactorDisabled => "second_factor_disabled",
            Self::SecondFactorFailed => "second_factor_failed",
            Self::RecoveryCodesMade => "recovery_codes_made",
            Self::RecoveryCodeUsed => "recovery_code_used",
            Self::Reauthenticated => "reauthenticated",
            Self::PasskeyAdded(_) => "passkey_added",
            Self::PasskeyRemoved(_) => "passkey_removed",
            Self::PasskeyCloned => "passkey_cloned",
            Self::KeyRotated => "key_rotated",
            Self::ServiceKeyCreated(_) => "service_key_created",
            Self::ServiceKeyRevoked(_) => "service_key_revoked",
            Self::WebhookAdded(_) => "webhook_added",
            Self::WebhookSecretRotated(_) => "webhook_secret_rotated",
            Self::WebhookEnabled(_) => "webhook_enabled",
            Self::WebhookReplayed(_) => "webhook_replayed",
            Self::WebhookRemoved(_) => "webhook_removed",
            Self::PackageChanged(_) => "package_changed",
            Self::PurchaseRefunded { .. } => "purchase_refunded",
            Self::PaymentFraudWarning(_) => "payment_fraud_warning",
            Self::PaymentDisputeLost(_) => "payment_dispute_lost",
            Self::AutoTopUpOn => "auto_top_up_on",
            Self::AutoTopUpOff => "auto_top_up_off",
            Self::AutoTopUpPaused(_) => "auto_top_up_paused",
            Self::ProviderLinked(_) => "provider_linked",
            Self::ProviderUnlinked(_) => "provider_unlinked",
            Self::RateLimited => "rate_limited",
        }
    }

    /// What apps are told of it, if anything.
    fn for_apps(&self, user: &UserId, session: Option<&str>) -> Option<AppEvent> {
        if *self == Self::AccountDeleted {
            return Some(AppEvent::user_deleted(user));
        }
        let reason = if let Self::SessionRevoked(reason) = self {
            Some(*reason)
        } else {
            let own = [RevokeReason::SignedOut, RevokeReason::RefreshReplayed];
            own.into_iter().find(|reason| Self::of_end(*reason) == *self)
        };
        Some(AppEvent::session_revoked(user, session?, reason?))
    }

    /// What the type alone does not say.
    fn detail(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::SessionRevoked(reason) => Some(reason.as_str().into()),
            Self::ProviderLinked(kind) | Self::ProviderUnlinked(kind) => Some(kind.as_str().into()),
            Self::ServiceKeyCreated(id)
            | Self::ServiceKeyRevoked(id)
            | Self::WebhookAdded(id)
            | Self::WebhookSecretRotated(id)
            | Self::WebhookEnabled(id)
            | Self::WebhookReplayed(id)
            | Self::WebhookRemoved(id) => Some(id.to_string().into()),
            Self::PaymentFraudWarning(purchase) | Self::PaymentDisputeLost(purchase) => Some(purchase.into()),
            Self::PackageChanged(package) => Some(package.into()),
            Self::PurchaseRefunded { amount_cents, purchase } => {
                Some(format!("{amount_cents} {purchase}").into())
            }
            Self::AutoTopUpPaused(reason) => Some(reason.as_str().into()),
            Self::SessionMinted { key, app } => Some(format!("{key} {app}").into()),
            Self::SessionsEnded(count) => Some(count.to_string().into()),
            Self::CreditsGranted { amount, transaction }
            | Self::CreditsTaken { amount, transaction }
            | Self::DebtForgiven { amount, transaction } => {
                Some(format!("{amount} {}", transaction.0).into())
            }
            Self::PasskeyAdded(passkey) | Self::PasskeyRemoved(passkey) => Some(passkey.to_string().into()),
            Self::Registered
            | Self::Imported
            | Self::SignedIn
            | Self::SignInFailed
            | Self::SignedOut
            | Self::RefreshReplayed
            | Self::NewDevice
            | Self::EmailVerified
            | Self::EmailChangeRequested
            | Self::EmailChanged
            | Self::PasswordChanged
            | Self::PasswordReset
            | Self::AccountDeleted
            | Self::BecameAdmin
            | Self::NoLongerAdmin
            | Self::AccountDisabled
            | Self::AccountEnabled
            | Self::SecondFactorReset
            | Self::SecondFactorEnabled
            | Self::SecondFactorDisabled
            | Self::SecondFactorFailed
            | Self::RecoveryCodesMade
            | Self::RecoveryCodeUsed
            | Self::Reauthenticated
            | Self::PasskeyCloned
            | Self::KeyRotated
            | Self::AutoTopUpOn
            | Self::AutoTopUpOff
            | Self::RateLimited => None,
        }
    }
}

/// Who acts on an account that is not theirs.
#[derive(Debug, Clone)]
pub(crate) enum Actor {
    /// An administrator.
    Administrator(UserId),
    /// Whoever may use the command line.
    Operator,
}

impl Actor {
    /// As in the database and the API.
    fn as_str(&self) -> &'static str {
        match self {
            Self::Administrator(_) => "administrator",
            Self::Operator => "operator",
        }
    }

    /// Which one.
    fn id(&self) -> Option<&str> {
        match self {
            Self::Administrator(user) => Some(user.as_str()),
            Self::Operator => None,
        }
    }
}

/// Which request, from where; and by whom and why, where that is not the account's owner.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    client: ClientInfo,
    request_id: Option<RequestId>,
    actor: Option<Actor>,
    reason: Option<String>,
}

impl Origin {
    /// Of the request that this task serves.
    pub fn of_request(client: &ClientInfo) -> Self {
        Self { client: client.clone(), request_id: current_request_id(), ..Self::default() }
    }

    /// Of somebody who acts on an account that is not theirs.
    pub(crate) fn of_actor(
        actor: Actor,
        client: &ClientInfo,
        request_id: Option<RequestId>,
        reason: Option<String>,
    ) -> Self {
        Self { client: client.clone(), request_id, actor: Some(actor), reason }
    }

    /// From where.
    pub(crate) fn client(&self) -> &ClientInfo {
        &self.client
    }
}

/// Writes an event in the transaction of what it tells of, so that neither can be without the other.
pub(crate) async fn record(
    connection: &mut PgConnection,
    auth: &Auth,
    kind: EventKind,
    user: Option<&UserId>,
    session: Option<&SessionId>,
    origin: &Origin,
) -> Result<(), DbError> {
    record_by(connection, (&*auth.clock, &*auth.rng), kind, user, session, origin).await
}

/// The same by another clock and other randomness than a server's.
pub(crate) async fn record_by(
    connection: &mut PgConnection,
    (clock, rng): (&dyn Clock, &dyn Rng),
    kind: EventKind,
    user: Option<&UserId>,
    session: Option<&SessionId>,
    origin: &Origin,
) -> Result<(), DbError> {
    let session = session.map(|session| session.as_str().to_owned());
    write(connection, clock, rng, kind, user, &[session], origin).await
}

/// Writes an event of the installation as a whole, which no request and no user stands behind.
pub(crate) async fn record_of_service(
    connection: &mut PgConnection,
    clock: &dyn Clock,
    rng: &dyn Rng,
    kind: EventKind,
) -> Result<(), DbError> {
    write(connection, clock, rng, kind, None, &[None], &Origin::default()).await
}

/// Bad news about a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PaymentNews {
    /// The card's issuer thinks that it was not its owner.
    FraudWarning,
    /// The money was charged back.
    DisputeLost,
}

/// Writes bad news about a payment on the account of whoever paid, in the transaction that learns of it.
///
/// # Errors
/// When the database fails.
pub async fn record_payment_news(
    connection: &mut PgConnection,
    clock: &dyn Clock,
    rng: &dyn Rng,
    user: &UserId,
    news: PaymentNews,
    purchase: &str,
) -> Result<(), DbError> {
    let purchase = purchase.to_owned();
    let kind = match news {
        PaymentNews::FraudWarning => EventKind::PaymentFraudWarning(purchase),
        PaymentNews::DisputeLost => EventKind::PaymentDisputeLost(purchase),
    };
    record_by_command(connection, clock, rng, kind, user).await
}

/// Writes an event of a user that no request stands behind.
pub(crate) async fn record_by_command(
    connection: &mut PgConnection,
    clock: &dyn Clock,
    rng: &dyn Rng,
    kind: EventKind,
    user: &UserId,
) -> Result<(), DbError> {
    write(connection, clock, rng, kind, Some(user), &[None], &Origin::default()).await
}

/// Writes an event for each of a user's sessions.
pub(crate) async fn record_each_by(
    connection: &mut PgConnection,
    (clock, rng): (&dyn Clock, &dyn Rng),
    kind: EventKind,
    user: &UserId,
    sessions: &[String],
    origin: &Origin,
) -> Result<(), DbError> {
    let sessions: Vec<_> = sessions.iter().cloned().map(Some).collect();
    write(connection, clock, rng, kind, Some(user), &sessions, origin).await
}

/// Writes down who ran into limits since the last time.
///
/// # Errors
/// When the database fails. What was not written by then is lost.
pub async fn record_rate_limit_hits(auth: &Auth) -> Result<(), DbError> {
    for hit in auth.limits.take_hits() {
        record_hit(auth, hit).await?;
    }
    Ok(())
}

async fn record_hit(auth: &Auth, hit: RateLimitHit) -> Result<(), DbError> {
    let RateLimitHit { client, request_id, user_id } = hit;
    let origin = Origin { client, request_id, ..Origin::default() };
    let mut transaction = auth.database.begin().await?;
    record(&mut transaction, auth, EventKind::RateLimited, user_id.as_ref(), None, &origin).await?;
    transaction.commit().await
}

async fn write(
    connection: &mut PgConnection,
    clock: &dyn Clock,
    rng: &dyn Rng,
    kind: EventKind,
    user: Option<&UserId>,
    sessions: &[Option<String>],
    origin: &Origin,
) -> Result<(), DbError> {
    let ids: Vec<_> = sessions.iter().map(|_| mana_kernel::id::new_uuid(clock, rng)).collect();
    let detail = kind.detail();
    let events = store::EventRows {
        ids: &ids,
        sessions,
        user_id: user.map(UserId::as_str),
        kind: kind.as_str(),
        detail: detail.as_deref(),
        ip_address: origin.client.ip_address.map(|address| address.to_string()),
        user_agent: origin.client.user_agent.as_deref(),
        request_id: origin.request_id.as_ref().map(RequestId::as_str),
        created_at: clock.now(),
        actor: origin.actor.as_ref().map(Actor::as_str),
        actor_id: origin.actor.as_ref().and_then(Actor::id),
        reason: origin.reason.as_deref(),
    };
    store::insert_events(connection, &events).await?;
    if let Some(user) = user {
        let told: Vec<_> =
            sessions.iter().filter_map(|session| kind.for_apps(user, session.as_deref())).collect();
        webhook::announce(connection, (clock, rng), &told).await?;
    }
    let count = u64::try_from(sessions.len()).unwrap_or(u64::MAX);
    metrics::counter!("security_events_total", "type" => kind.as_str()).increment(count);
    Ok(())
}
