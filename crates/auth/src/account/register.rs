//! `POST /api/v1/auth/register`: a new account, with everything that comes with one, or nothing.

use super::model::{AccountError, Email, Role, User};
use super::store;
use crate::password::{self, NewPassword};
use crate::security_event::{self, EventKind, Origin};
use crate::verification::{self, AppUrl};
use crate::{Auth, AuthState, bonus};
use axum::Json;
use axum::extract::State;
use http::StatusCode;
use mana_kernel::{Line, UserId};
use mana_platform::config::DisposableAddresses;
use mana_platform::http::{ApiError, ClientInfo, Language, ProblemBody, Valid};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use time::OffsetDateTime;
use utoipa::ToSchema;

/// Who wants an account.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(examples(json!({"email": "ada@example.com", "password": "correct horse battery", "name": "Ada"})))]
pub(crate) struct RegisterRequest {
    email: Email,
    password: NewPassword,
    name: Option<Line<0, 255>>,
    /// The app that the person comes from, and that the mail which confirms the address leads back to.
    #[schema(value_type = Option<String>, format = "uri", max_length = 2048)]
    source_app_url: Option<AppUrl>,
}

/// The new account: flat, as older clients read it, and as `user`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RegisterResponse {
    #[schema(value_type = String, min_length = 1, max_length = 64)]
    id: UserId,
    #[schema(min_length = 3, max_length = 254)]
    email: String,
    #[schema(max_length = 255)]
    name: Option<String>,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    email_verified: bool,
    user: User,
}

/// Makes an account
///
/// The sign-up bonus of free mana is booked in the same transaction, once for each mailbox; where addresses must be proven for
/// it, it waits until then.
/// A mail to confirm the address is on its way.
#[utoipa::path(
    post, path = "/api/v1/auth/register", tag = "auth",
    request_body = RegisterRequest,
    responses(
        (status = 201, description = "The new account", body = RegisterResponse),
        (status = 409, description = "The address has an account", body = ProblemBody),
    ),
)]
pub(crate) async fn register(
    State(auth): State<AuthState>,
    client: ClientInfo,
    language: Language,
    Valid(request): Valid<RegisterRequest>,
) -> Result<(StatusCode, Json<RegisterResponse>), ApiError> {
    let RegisterRequest { email, password, name, source_app_url } = request;
    if auth.policy.bonus.disposable_addresses == DisposableAddresses::Refuse
        && bonus::is_disposable(email.as_str())
    {
        return Err(AccountError::DisposableAddress.into());
    }
    let hash = password::choose(&auth, password, email.as_str(), "/password", client.bucket())
        .await
        .map_err(AccountError::from)?;
    let user = new_user(&auth, &email, name, Role::User);

    let mut transaction = auth.database.begin().await?;
    create(&mut transaction, &auth, &user, &hash, &Origin::of_request(&client)).await?;
    let app = source_app_url.as_ref();
    let mail = verification::send_first(&mut transaction, &auth, &user, language, app).await?;
    transaction.commit().await?;
    drop(mail);

    let response = RegisterResponse {
        id: user.id.clone(),
        email: user.email.clone(),
        name: user.name.clone(),
        created_at: user.created_at,
        email_verified: user.email_verified,
        user,
    };
    Ok((StatusCode::CREATED, Json(response)))
}

/// A user that is not stored yet.
pub(crate) fn new_user(auth: &Auth, email: &Email, name: Option<Line<0, 255>>, role: Role) -> User {
    User {
        id: UserId::new(&*auth.clock, &*auth.rng),
        email: email.as_str().to_owned(),
        name: name.map(String::from).filter(|name| !name.is_empty()),
        role,
        email_verified: false,
        image: None,
        created_at: auth.clock.now(),
        ways_in_epoch: 0,
    }
}

/// Stores the account with its password, all in `connection`'s transaction.
pub(crate) async fn create(
    connection: &mut PgConnection,
    auth: &Auth,
    user: &User,
    password_hash: &str,
    origin: &Origin,
) -> Result<(), AccountError> {
    create_without_password(connection, auth, user, origin).await?;
    Ok(password::store::insert_password(connection, &user.id, password_hash, user.created_at).await?)
}

/// Stores the account, its first security event, and lets the port act, all in `connection`'s transaction.
pub(crate) async fn create_without_password(
    connection: &mut PgConnection,
    auth: &Auth,
    user: &User,
    origin: &Origin,
) -> Result<(), AccountError> {
    store::insert_user(connection, user).await.map_err(|error| match error.constraint() {
        Some("users_email_key") => AccountError::EmailTaken,
        _ => AccountError::Database(error),
    })?;
    security_event::record(connection, auth, EventKind::Registered, Some(&user.id), None, origin).await?;
    let bonus = bonus::at_registration(connection, auth, user, origin).await?;
    auth.on_user_registered.on_user_registered(connection, &user.id, bonus).await.map_err(AccountError::Port)
}
