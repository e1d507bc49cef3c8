//! What the handlers of this crate share: the parts they work with, given to them by the server.

use crate::account::model::Role;
use crate::bonus::{BonusPolicy, SignupBonus};
use crate::mail::Mails;
use crate::oauth::Providers;
use crate::passkey::RelyingParty;
use crate::password::{Hasher, PasswordRules};
use crate::service_key::{self, ServiceKeys};
use crate::session::liveness::Liveness;
use crate::token::access::Issuer;
use crate::token::intact::IntactTokens;
use crate::token::keys::KeyRing;
use crate::token::root_secret::RootSecrets;
use crate::webhook::Webhooks;
use crate::{account, session, two_factor};
use axum::extract::FromRef;
use mana_kernel::{Clock, Problem, Rng, UserId};
use mana_platform::Database;
use mana_platform::config::TwoFactorRequired;
use mana_platform::http::{ApiError, Authenticate, AuthenticateService, Caller, RedirectTargets, ServiceKey};
use mana_platform::rate_limit::RateLimits;
use serde::Serialize;
use sqlx::PgConnection;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;
use utoipa::ToSchema;

/// The parts that the accounts work with.
#[derive(Debug)]
pub struct Auth {
    /// PostgreSQL.
    pub database: Database,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub rng: Arc<dyn Rng>,
    /// Password hashing, bounded.
    pub hasher: Hasher,
    /// What a new password must meet.
    pub password_rules: PasswordRules,
    /// What slows down who guesses.
    pub limits: Arc<RateLimits>,
    /// Keys of access tokens.
    pub keys: KeyRing,
    /// Which tokens they are known to have signed.
    pub intact_tokens: IntactTokens,
    /// Which sessions live, as far as is known without asking.
    pub liveness: Liveness,
    /// Which service keys are good, as far as is known without asking.
    pub service_keys: ServiceKeys,
    /// What refresh tokens are derived from.
    pub root_secrets: Arc<RootSecrets>,
    /// The way out for mails.
    pub mails: Mails,
    /// Who else acts when a user is registered.
    pub on_user_registered: Arc<dyn OnUserRegistered>,
    /// Who knows what is in wallets.
    pub wallets: Arc<dyn Wallets>,
    /// Who else acts when an account is deleted.
    pub on_user_deleted: Arc<dyn OnUserDeleted>,
    /// Who else keeps something of a person.
    pub personal_data: Arc<dyn PersonalData>,
    /// Where a browser may be sent to.
    pub redirect_targets: RedirectTargets,
    /// Who else may say who somebody is.
    pub providers: Providers,
    /// How apps are told of what happens.
    pub webhooks: Webhooks,
    /// Lifetimes and names.
    pub policy: Policy,
}

/// Lifetimes and names that an operator may choose.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Names that every access token carries.
    pub issuer: Issuer,
    /// What mails call the service.
    pub service_name: String,
    /// What authenticator apps call it.
    pub name_in_authenticators: String,
    /// URL of the service, without a trailing slash.
    pub public_url: String,
    /// URL of the web app that people end up at, without a trailing slash.
    pub frontend_url: String,
    /// Whether an address must be proven before a sign-in.
    pub require_email_verification: bool,
    /// Whether a mailed link signs in.
    pub magic_link_sign_in: bool,
    /// Whether a mailed code signs in.
    pub email_code_sign_in: bool,
    /// Domain of the session cookie; this host only when absent.
    pub cookie_domain: Option<String>,
    /// Life of an access token.
    pub access_token_ttl: Duration,
    /// Life of an unused refresh token, and so of an idle session.
    pub refresh_token_ttl: Duration,
    /// The same for a sign-in with rememberMe.
    pub remember_me_ttl: Duration,
    /// Life of a session however much it is used.
    pub session_max_age: Duration,
    /// How long the token before the newest still gets the newest again after that was seen in use.
    pub refresh_grace: Duration,
    /// Sessions of one user that may live at once.
    pub sessions_per_user: u32,
    /// How long security events are kept.
    pub security_event_retention: Duration,
    /// Who gets the sign-up bonus, and when.
    pub bonus: BonusPolicy,
    /// How young a sign-in or proof must be for what changes the account's protection.
    pub fresh_authentication: Duration,
    /// Whose sign-ins need a second factor.
    pub two_factor_required: TwoFactorRequired,
    /// How long a browser is trusted with the first factor alone.
    pub trusted_device_ttl: Duration,
    /// Whom passkeys are for.
    pub relying_party: RelyingParty,
}

impl Policy {
    /// Whether browsers reach the service over https.
    pub(crate) fn is_https(&self) -> bool {
        self.public_url.starts_with("https://")
    }

    /// Whether a proof from `at` is young enough for what changes an account's protection. One that a clock ahead of this server's wrote counts
    /// as of now.
    pub(crate) fn is_fresh(&self, at: OffsetDateTime, now: OffsetDateTime) -> bool {
        let oldest = now.checked_sub(self.fresh_authentication.try_into().unwrap_or_default());
        oldest.is_some_and(|oldest| at > oldest)
    }

    /// When a session ends that is used now and not again.
    pub(crate) fn session_end(
        &self,
        created_at: OffsetDateTime,
        now: OffsetDateTime,
        remember_me: bool,
    ) -> OffsetDateTime {
        let idle = if remember_me { self.remember_me_ttl } else { self.refresh_token_ttl };
        let after =
            |start: OffsetDateTime, ttl: Duration| start.saturating_add(ttl.try_into().unwrap_or_default());
        after(now, idle).min(after(created_at, self.session_max_age))
    }
}

/// What a port's implementation met; already in the shape that a client may see.
pub type PortError = Box<dyn Problem>;

/// Port: acts in the transaction that deletes an account. Both happen or neither.
pub trait OnUserDeleted: Send + Sync + std::fmt::Debug {
    /// Called before the account itself is touched.
    fn on_user_deleted<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        user: &'a UserId,
    ) -> Pin<Box<dyn Future<Output = Result<(), PortError>> + Send + 'a>>;
}

/// Port: what others than the accounts keep of a person, list by list, for the person's own export.
pub trait PersonalData: Send + Sync + std::fmt::Debug {
    /// Names of the lists.
    fn lists(&self) -> &'static [&'static str];

    /// A page of a list, from where the page before it ended, read as the user.
    fn page<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        user: &'a UserId,
        list: &'a str,
        after: Option<&'a str>,
    ) -> Pin<Box<dyn Future<Output = Result<DataPage, PortError>> + Send + 'a>>;
}

/// A part of a list of what is kept of a person.
#[derive(Debug, Default)]
pub struct DataPage {
    /// As the person reads them.
    pub rows: Vec<serde_json::Value>,
    /// Where it ended, if there may be more.
    pub next: Option<String>,
}

impl DataPage {
    /// Rows of a page at most.
    pub const ROWS: i64 = 500;

    /// Of rows of which the last is named `last`; there may be more if the page is full.
    pub fn of(rows: Vec<serde_json::Value>, last: Option<String>) -> Self {
        let is_full = i64::try_from(rows.len()).is_ok_and(|length| length >= Self::ROWS);
        Self { rows, next: last.filter(|_| is_full) }
    }
}

/// Port: acts in the transaction that registers a user. Both happen or neither.
pub trait OnUserRegistered: Send + Sync + std::fmt::Debug {
    /// Called once for each new user, before the commit.
    fn on_user_registered<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        user: &'a UserId,
        bonus: SignupBonus,
    ) -> Pin<Box<dyn Future<Output = Result<(), PortError>> + Send + 'a>>;

    /// Called before a user is locked whose bonus may come in this transaction: what [`Self::on_bonus_due`] locks is locked before users,
    /// everywhere.
    fn before_bonus<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        user: &'a UserId,
    ) -> Pin<Box<dyn Future<Output = Result<(), PortError>> + Send + 'a>>;

    /// Called once for a user whose bonus had been withheld until now, in the transaction that proves the address.
    fn on_bonus_due<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        user: &'a UserId,
    ) -> Pin<Box<dyn Future<Output = Result<(), PortError>> + Send + 'a>>;
}

/// Port: what a wallet holds, for administrators to see.
pub trait Wallets: Send + Sync + std::fmt::Debug {
    /// What is in a user's wallet; none without a wallet.
    fn find_wallet<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        user: &'a UserId,
    ) -> Pin<Box<dyn Future<Output = Result<Option<WalletSummary>, PortError>> + Send + 'a>>;
}

/// What is in a wallet, under the names that its owner sees.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WalletSummary {
    /// Paid mana that can be spent.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    pub balance: i64,
    /// Free mana that can be spent, without daily credits that nobody has asked for yet.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    pub free_credits_remaining: i64,
    /// Set aside by open holds.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    pub held_credits: i64,
    /// Bought or given so far, without bonuses.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    pub total_earned: i64,
    /// Spent so far, less what was given back.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    pub total_spent: i64,
}

/// [`Auth`], shared by all requests.
#[derive(Debug, Clone)]
pub struct AuthState(pub Arc<Auth>);

impl std::ops::Deref for AuthState {
    type Target = Auth;

    fn deref(&self) -> &Auth {
        &self.0
    }
}

impl FromRef<AuthState> for Arc<dyn Authenticate> {
    fn from_ref(state: &AuthState) -> Self {
        state.0.clone()
    }
}

impl Authenticate for Auth {
    fn authenticate<'a>(
        &'a self,
        bearer: &'a str,
    ) -> Pin<Box<dyn Future<Output = Result<Caller, ApiError>> + Send + 'a>> {
        Box::pin(crate::token::access::authenticate(self, bearer))
    }

    fn is_admin<'a>(
        &'a self,
        caller: &'a Caller,
    ) -> Pin<Box<dyn Future<Output = Result<bool, ApiError>> + Send + 'a>> {
        Box::pin(async move {
            let mut transaction = self.database.begin_as(&caller.user_id).await?;
            let user = account::store::find_user(&mut transaction, &caller.user_id).await?;
            if !user.is_some_and(|user| user.role == Role::Admin) {
                return Ok(false);
            }
            let is_factor_required =
                two_factor::model::is_required(Role::Admin, self.policy.two_factor_required);
            let proof = session::store::find_proof(&mut transaction, &caller.session_id).await?;
            let is_minted = session::store::is_minted(&mut transaction, &caller.session_id).await?;
            Ok(!is_minted && (!is_factor_required || proof.has_second_factor()))
        })
    }

    fn require_fresh<'a>(
        &'a self,
        caller: &'a Caller,
    ) -> Pin<Box<dyn Future<Output = Result<(), ApiError>> + Send + 'a>> {
        Box::pin(session::fresh::require_fresh(self, caller))
    }

    fn require_fresh_admin<'a>(
        &'a self,
        admin: &'a Caller,
    ) -> Pin<Box<dyn Future<Output = Result<(), ApiError>> + Send + 'a>> {
        Box::pin(crate::admin::require_fresh(self, admin))
    }
}

impl FromRef<AuthState> for Arc<dyn AuthenticateService> {
    fn from_ref(state: &AuthState) -> Self {
        state.0.clone()
    }
}

impl AuthenticateService for Auth {
    fn authenticate_service<'a>(
        &'a self,
        secret: &'a str,
    ) -> Pin<Box<dyn Future<Output = Result<Arc<ServiceKey>, ApiError>> + Send + 'a>> {
        Box::pin(service_key::authenticate(self, secret))
    }
}
