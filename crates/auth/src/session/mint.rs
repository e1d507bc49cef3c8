//! `POST /api/v1/internal/sessions`: the backend of an app opens a session for a user, who proves nothing by it.
//!
//! Such a session reads and spends as its user. It is never fresh, has no cookie, no second factor and an end that no use puts off, and changes
//! nothing of how the account is protected ([`super::hold`]).

use super::login::TokenResponse;
use super::model::{Session, SessionCookie, SessionError};
use super::open::{end_surplus, shown_name};
use super::proof::Proof;
use super::store;
use crate::account::model::{Role, User};
use crate::mail::MailError;
use crate::security_event::{self, EventKind, Origin};
use crate::token::refresh::model::RefreshError;
use crate::token::{AppId, refresh};
use crate::{Auth, AuthState, account, new_device, service_key, two_factor};
use axum::Json;
use axum::extract::State;
use http::StatusCode;
use mana_kernel::integer::within;
use mana_kernel::{ErrorCode, Kind, Line, Problem, SessionId, UserId};
use mana_platform::DbError;
use mana_platform::http::{ApiError, ClientInfo, Language, ProblemBody, Scope, ServiceCaller, Valid, codes};
use mana_platform::rate_limit::RouteClass;
use serde::{Deserialize, Deserializer};
use sqlx::PgConnection;
use time::Duration;
use utoipa::ToSchema;

/// Sessions that one app may have open for one user; of more, the one that rested longest ends.
const PER_APP: u32 = 10;
/// How long one lives that was asked for without saying it.
const USUAL_LIFE: Duration = Duration::HOUR;

/// How long a session is to live: a minute to a day.
#[derive(Debug, Clone, Copy)]
struct Life(Duration);

impl<'de> Deserialize<'de> for Life {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        within(deserializer, 60, 86_400).map(|seconds| Self(Duration::seconds(seconds)))
    }
}

/// For whom.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct MintRequest {
    /// The user.
    #[schema(value_type = String, min_length = 1, max_length = 64)]
    user_id: UserId,
    /// Where the session is used, for the user's list of devices; it stands behind the app's name.
    device_name: Option<Line<1, 100>>,
    /// Until the session ends, whatever it is used for; 3,600 if absent.
    #[schema(value_type = Option<i64>, minimum = 60, maximum = 86_400)]
    expires_in_seconds: Option<Life>,
}

/// Why no session is opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MintError {
    /// Nobody has the id, or who has it may not act.
    #[error("no user who may act has this id")]
    NoSuchUser,
    /// An administrator's or a program's account.
    #[error("the account is not an ordinary user's")]
    NotForRole,
    /// Sign-ins of this account ask for a second factor, which a backend can't give.
    #[error("the account's sign-ins ask for a second factor")]
    FactorNeeded,
    /// The key was revoked since the request came in.
    #[error("the service key was revoked")]
    KeyGone,
    /// As at a sign-in.
    #[error(transparent)]
    Session(#[from] SessionError),
}

impl From<DbError> for MintError {
    fn from(error: DbError) -> Self {
        SessionError::from(error).into()
    }
}

impl From<MailError> for MintError {
    fn from(error: MailError) -> Self {
        SessionError::from(error).into()
    }
}

impl From<RefreshError> for MintError {
    fn from(error: RefreshError) -> Self {
        SessionError::from(error).into()
    }
}

/// No such user.
pub(crate) static NO_SUCH_USER: ErrorCode = ErrorCode {
    code: "auth.no_such_user",
    kind: Kind::NotFound,
    title: "There is no such user",
    word: None,
    way_out: "Use the `id` or `sub` of a user who is registered and not disabled.",
};
/// Not for this sort of account.
pub(crate) static NOT_MINTED_FOR_ROLE: ErrorCode = ErrorCode {
    code: "auth.not_minted_for_role",
    kind: Kind::Forbidden,
    title: "No app opens a session for this account",
    word: None,
    way_out: "It is an administrator's or a program's: those sign in themselves.",
};
/// Not in place of a second factor.
pub(crate) static NOT_MINTED_WITHOUT_FACTOR: ErrorCode = ErrorCode {
    code: "auth.not_minted_without_factor",
    kind: Kind::Forbidden,
    title: "This account is opened with a second factor only",
    word: None,
    way_out: "Let the person sign in: what a backend vouches for is no second factor.",
};

/// The catalogue of this feature.
pub(crate) static CODES: &[&ErrorCode] = &[&NO_SUCH_USER, &NOT_MINTED_FOR_ROLE, &NOT_MINTED_WITHOUT_FACTOR];

impl Problem for MintError {
    fn code(&self) -> &'static ErrorCode {
        match self {
            Self::NoSuchUser => &NO_SUCH_USER,
            Self::NotForRole => &NOT_MINTED_FOR_ROLE,
            Self::FactorNeeded => &NOT_MINTED_WITHOUT_FACTOR,
            Self::KeyGone => &codes::SERVICE_UNAUTHENTICATED,
            Self::Session(error) => error.code(),
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            Self::NoSuchUser | Self::NotForRole | Self::FactorNeeded | Self::KeyGone => None,
            Self::Session(error) => error.detail(),
        }
    }

    fn retry_after_seconds(&self) -> Option<u64> {
        match self {
            Self::NoSuchUser | Self::NotForRole | Self::FactorNeeded | Self::KeyGone => None,
            Self::Session(error) => error.retry_after_seconds(),
        }
    }
}

/// Opens a session for a user
///
/// For service keys of one app with the scope `sessions:mint`. The user is told as of a sign-in from a new device, sees the session with the app's
/// name and may end it. It reads and spends as the user; nothing in it counts as a proof of the user's, so it changes no password, address, factor
/// or other session, exports and deletes nothing. `Accept-Language` is the person's.
#[utoipa::path(
    post, path = "/api/v1/internal/sessions", tag = "auth",
    request_body = MintRequest,
    responses(
        (status = 201, description = "Opened", body = TokenResponse),
        (status = 403, description = "The key is no one app's or lacks the scope; the user administrates, is asked for a second factor, or has not verified the address", body = ProblemBody),
        (status = 404, description = "No such user", body = ProblemBody),
    ),
    security(("serviceKey" = [])),
)]
pub(crate) async fn mint(
    State(auth): State<AuthState>,
    service: ServiceCaller,
    client: ClientInfo,
    language: Language,
    Valid(request): Valid<MintRequest>,
) -> Result<(StatusCode, Json<TokenResponse>), ApiError> {
    service.require(Scope::SessionsMint)?;
    let by = Minter { key: &service.key_id, app: service.own_app()? };
    auth.limits.count_about(RouteClass::Mint, &request.user_id, &client).await?;
    Ok((StatusCode::CREATED, Json(open(&auth, by, &request, client, language).await?)))
}

/// Who opens it.
#[derive(Debug, Clone, Copy)]
struct Minter<'a> {
    key: &'a str,
    app: &'a str,
}

async fn open(
    auth: &Auth,
    by: Minter<'_>,
    request: &MintRequest,
    client: ClientInfo,
    language: Language,
) -> Result<TokenResponse, MintError> {
    let origin = Origin::of_request(&client);
    let mut transaction = auth.database.begin().await?;
    let user = hold_user(&mut transaction, auth, &request.user_id).await?;
    // Until the commit, no revocation of the key is answered.
    if service_key::hold(&mut transaction, &[by.key], &[]).await?.keys.is_empty() {
        return Err(MintError::KeyGone);
    }
    let session = session_of(auth, by, request, client);
    // Never sent: nobody has the cookie of this session.
    let cookie = SessionCookie::generate(&*auth.rng);
    store::insert_session(&mut transaction, &session, cookie.hash(), &Proof::nothing()).await?;
    let ended = end_surplus(&mut transaction, auth, &session, PER_APP, &origin).await?;
    let kind = EventKind::SessionMinted { key: by.key.to_owned(), app: by.app.to_owned() };
    let (owner, id) = (Some(&user.id), Some(&session.id));
    security_event::record(&mut transaction, auth, kind, owner, id, &origin).await?;
    let mail =
        new_device::announce_if_new(&mut transaction, auth, &user, &session, language, &origin).await?;
    let app = AppId::of_service(by.app);
    let tokens = refresh::open_chain(&mut transaction, auth, &user, &session, &app).await?;
    ended.commit(transaction, auth).await?;
    drop(mail);
    Ok(tokens)
}

/// The user, if a session may be opened without a sign-in; nobody signs in, sets a factor up or is promoted until the transaction ends.
async fn hold_user(connection: &mut PgConnection, auth: &Auth, id: &UserId) -> Result<User, MintError> {
    let user = account::store::lock_user(connection, id).await?.ok_or(MintError::NoSuchUser)?;
    match user.role {
        Role::User => {}
        Role::Admin | Role::Service => return Err(MintError::NotForRole),
    }
    if auth.policy.require_email_verification && !user.email_verified {
        return Err(SessionError::EmailNotVerified.into());
    }
    let factors = two_factor::store::find_factors(connection, &user.id).await?;
    if !factors.demanded(user.role, auth.policy.two_factor_required).is_empty() {
        return Err(MintError::FactorNeeded);
    }
    Ok(user)
}

/// The app's name comes first, whatever it says of the device: no session of an app looks like one of the user's.
fn session_of(auth: &Auth, by: Minter<'_>, request: &MintRequest, client: ClientInfo) -> Session {
    let now = auth.clock.now();
    let life = request.expires_in_seconds.map_or(USUAL_LIFE, |Life(life)| life);
    let device =
        request.device_name.iter().fold(by.app.to_owned(), |app, name| format!("{app}: {}", name.as_str()));
    Session {
        id: SessionId::new(&*auth.clock, &*auth.rng),
        user_id: request.user_id.clone(),
        device_id: Some(format!("app:{}", by.app)),
        device_name: Some(shown_name(&device)),
        user_agent: client.user_agent,
        ip_address: client.ip_address.map(|address| address.to_string()),
        remember_me: false,
        created_at: now,
        last_activity_at: now,
        expires_at: now.saturating_add(life),
        opened_by_app: Some(by.app.to_owned()),
    }
}
