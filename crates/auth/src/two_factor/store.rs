//! All SQL of `auth.two_factor_auth`, `auth.recovery_codes`, `auth.pending_sign_ins` and `auth.trusted_devices`.

use super::model::{BegunIn, ChallengeTokenHash, Factors, TrustedDeviceTokenHash};
use crate::session::proof::Proof;
use mana_kernel::{SessionId, UserId};
use mana_platform::DbError;
use serde::Serialize;
use sqlx::PgConnection;
use time::OffsetDateTime;
use utoipa::ToSchema;

/// What a user has set up.
pub(crate) async fn find_factors(connection: &mut PgConnection, user: &UserId) -> Result<Factors, DbError> {
    let row = sqlx::query!(
        r#"SELECT EXISTS (SELECT FROM auth.two_factor_auth WHERE user_id = $1 AND confirmed_at IS NOT NULL) AS "has_totp!",
                  (SELECT count(*) FROM auth.recovery_codes WHERE user_id = $1) AS "recovery_codes!",
                  EXISTS (SELECT FROM auth.passkeys WHERE user_id = $1) AS "has_passkey!""#,
        user.as_str(),
    )
    .fetch_one(connection)
    .await?;
    Ok(Factors { has_totp: row.has_totp, recovery_codes: row.recovery_codes, has_passkey: row.has_passkey })
}

/// An authenticator app, as its owner's export shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SecondFactorExport {
    #[serde(with = "time::serde::rfc3339")]
    set_up_at: OffsetDateTime,
    recovery_codes_left: i64,
}

/// A user's authenticator app, if one is set up.
pub(crate) async fn list_second_factor(
    connection: &mut PgConnection,
    user: &UserId,
) -> Result<Vec<SecondFactorExport>, DbError> {
    Ok(sqlx::query_as!(
        SecondFactorExport,
        r#"SELECT confirmed_at AS "set_up_at!",
               (SELECT count(*) FROM auth.recovery_codes WHERE user_id = $1) AS "recovery_codes_left!"
           FROM auth.two_factor_auth WHERE user_id = $1 AND confirmed_at IS NOT NULL"#,
        user.as_str(),
    )
    .fetch_all(connection)
    .await?)
}

/// A secret as stored.
#[derive(Debug)]
pub(super) struct SealedSecret {
    pub(super) bytes: Vec<u8>,
    pub(super) version: String,
}

/// A user's secret as stored.
pub(super) struct SealedSecretOf {
    pub(super) user_id: String,
    pub(super) bytes: Vec<u8>,
    pub(super) version: String,
}

/// Secrets of users behind `after` that are sealed under another version than `version`, at most `limit`. Nobody else changes them until the
/// transaction ends.
pub(super) async fn lock_sealed_otherwise(
    connection: &mut PgConnection,
    version: &str,
    after: &str,
    limit: i64,
) -> Result<Vec<SealedSecretOf>, DbError> {
    Ok(sqlx::query_as!(
        SealedSecretOf,
        "SELECT user_id, secret_sealed AS bytes, secret_version AS version FROM auth.two_factor_auth
         WHERE secret_version <> $1 AND user_id > $2 ORDER BY user_id LIMIT $3 FOR UPDATE",
        version,
        after,
        limit,
    )
    .fetch_all(connection)
    .await?)
}

/// Replaces a sealed secret.
pub(super) async fn update_sealed(
    connection: &mut PgConnection,
    user_id: &str,
    sealed: &[u8],
    version: &str,
) -> Result<(), DbError> {
    sqlx::query!(
        "UPDATE auth.two_factor_auth SET secret_sealed = $2, secret_version = $3 WHERE user_id = $1",
        user_id,
        sealed,
        version,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Stores a secret that opens nothing yet, in place of one that was not confirmed. False if one is confirmed.
pub(super) async fn upsert_unconfirmed(
    connection: &mut PgConnection,
    user: &UserId,
    secret: &SealedSecret,
    begun_in: &BegunIn,
    now: OffsetDateTime,
) -> Result<bool, DbError> {
    let done = sqlx::query!(
        "INSERT INTO auth.two_factor_auth AS known (user_id, secret_sealed, secret_version, created_at, attempts_began_at, begun_in)
         VALUES ($1, $2, $3, $4, $4, $5)
         ON CONFLICT (user_id) DO UPDATE SET secret_sealed = $2, secret_version = $3, created_at = $4, begun_in = $5
             WHERE known.confirmed_at IS NULL",
        user.as_str(),
        secret.bytes,
        secret.version,
        now,
        begun_in.as_text(),
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Adds a secret that was confirmed elsewhere.
pub(crate) async fn insert_confirmed(
    connection: &mut PgConnection,
    user: &UserId,
    sealed: &[u8],
    version: &str,
    now: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "INSERT INTO auth.two_factor_auth (user_id, secret_sealed, secret_version, created_at, confirmed_at, attempts_began_at)
         VALUES ($1, $2, $3, $4, $4, $4)",
        user.as_str(),
        sealed,
        version,
        now,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The secret that waits to be confirmed where it was begun, since `after`; nobody else can confirm or replace it until the transaction ends.
pub(super) async fn lock_unconfirmed(
    connection: &mut PgConnection,
    user: &UserId,
    begun_in: &BegunIn,
    after: OffsetDateTime,
) -> Result<Option<SealedSecret>, DbError> {
    Ok(sqlx::query_as!(
        SealedSecret,
        "SELECT secret_sealed AS bytes, secret_version AS version FROM auth.two_factor_auth
         WHERE user_id = $1 AND confirmed_at IS NULL AND begun_in = $2 AND created_at > $3 FOR UPDATE",
        user.as_str(),
        begun_in.as_text(),
        after,
    )
    .fetch_optional(connection)
    .await?)
}

/// Makes the secret count; the code of `step`, and older ones, are used up.
pub(super) async fn update_confirmed(
    connection: &mut PgConnection,
    user: &UserId,
    session: Option<&SessionId>,
    step: i64,
    now: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "UPDATE auth.two_factor_auth SET confirmed_at = $3, last_step = $2, attempts = 0, confirmed_in = $4 WHERE user_id = $1",
        user.as_str(),
        step,
        now,
        session.map(SessionId::as_str),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Notes the session that opened with the secret's confirmation.
pub(super) async fn update_confirmed_in(
    connection: &mut PgConnection,
    user: &UserId,
    session: &SessionId,
) -> Result<(), DbError> {
    sqlx::query!(
        "UPDATE auth.two_factor_auth SET confirmed_in = $2 WHERE user_id = $1",
        user.as_str(),
        session.as_str(),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// What was deleted of a second factor; more is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LostFactor {
    /// Codes on paper alone.
    RecoveryCodes,
    /// The app, which counted, and all codes on paper.
    App,
}

/// Deletes of a user's second factor what was made within sessions since `since`: the codes on paper, and the app with all codes.
pub(crate) async fn delete_factors_of_sessions(
    connection: &mut PgConnection,
    user: &UserId,
    sessions: &[String],
    since: OffsetDateTime,
) -> Result<Option<LostFactor>, DbError> {
    let app = sqlx::query!(
        "DELETE FROM auth.two_factor_auth WHERE user_id = $1 AND confirmed_in = ANY($2) AND confirmed_at >= $3",
        user.as_str(),
        sessions,
        since,
    )
    .execute(&mut *connection)
    .await?;
    let has_lost_app = app.rows_affected() == 1;
    let codes = sqlx::query!(
        "DELETE FROM auth.recovery_codes WHERE user_id = $1 AND ($4 OR (made_in = ANY($2) AND created_at >= $3))",
        user.as_str(),
        sessions,
        since,
        has_lost_app,
    )
    .execute(connection)
    .await?;
    let has_lost_codes = codes.rows_affected() > 0;
    Ok(has_lost_app.then_some(LostFactor::App).or(has_lost_codes.then_some(LostFactor::RecoveryCodes)))
}

/// Deletes an app that a user was setting up within sessions. It opened nothing yet.
pub(crate) async fn delete_unconfirmed_of_sessions(
    connection: &mut PgConnection,
    user: &UserId,
    sessions: &[String],
) -> Result<(), DbError> {
    sqlx::query!(
        "DELETE FROM auth.two_factor_auth WHERE user_id = $1 AND begun_in = ANY($2) AND confirmed_at IS NULL",
        user.as_str(),
        sessions,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// What a guess is judged by.
#[derive(Debug)]
pub(super) struct Guessable {
    pub(super) secret: SealedSecret,
    pub(super) last_step: i64,
    /// Guesses in this window, this one among them.
    pub(super) attempts: i32,
    pub(super) attempts_began_at: OffsetDateTime,
}

/// Counts a guess before it is looked at; whoever guesses at the same account waits here. None if there is nothing to guess.
pub(super) async fn count_guess(
    connection: &mut PgConnection,
    user: &UserId,
    now: OffsetDateTime,
    window_start: OffsetDateTime,
) -> Result<Option<Guessable>, DbError> {
    let row = sqlx::query!(
        "UPDATE auth.two_factor_auth SET
             attempts = CASE WHEN attempts = 0 OR attempts_began_at <= $3 THEN 1 ELSE attempts + 1 END,
             attempts_began_at = CASE WHEN attempts = 0 OR attempts_began_at <= $3 THEN $2 ELSE attempts_began_at END
         WHERE user_id = $1 AND confirmed_at IS NOT NULL
         RETURNING secret_sealed, secret_version, last_step, attempts, attempts_began_at",
        user.as_str(),
        now,
        window_start,
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|row| Guessable {
        secret: SealedSecret { bytes: row.secret_sealed, version: row.secret_version },
        last_step: row.last_step,
        attempts: row.attempts,
        attempts_began_at: row.attempts_began_at,
    }))
}

/// Notes a right guess: the count begins anew, and codes up to `step` are used up.
pub(super) async fn update_guessed(
    connection: &mut PgConnection,
    user: &UserId,
    step: i64,
) -> Result<(), DbError> {
    sqlx::query!(
        "UPDATE auth.two_factor_auth SET last_step = $2, attempts = 0 WHERE user_id = $1",
        user.as_str(),
        step,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Uses up a recovery code. False if it was none.
pub(super) async fn delete_recovery_code(
    connection: &mut PgConnection,
    user: &UserId,
    hash: &[u8; 32],
) -> Result<bool, DbError> {
    let done = sqlx::query!(
        "DELETE FROM auth.recovery_codes WHERE user_id = $1 AND code_hash = $2",
        user.as_str(),
        hash.as_slice(),
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Gives a user other recovery codes.
///
/// Two at once take turns by the row of the factor: a DELETE that waits for another one does not see what that one's
/// transaction has put in place of what it deleted, and both would leave their codes.
pub(crate) async fn replace_recovery_codes(
    connection: &mut PgConnection,
    user: &UserId,
    session: Option<&SessionId>,
    hashes: &[Vec<u8>],
    now: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!("SELECT user_id FROM auth.two_factor_auth WHERE user_id = $1 FOR UPDATE", user.as_str())
        .fetch_optional(&mut *connection)
        .await?;
    sqlx::query!("DELETE FROM auth.recovery_codes WHERE user_id = $1", user.as_str())
        .execute(&mut *connection)
        .await?;
    sqlx::query!(
        "INSERT INTO auth.recovery_codes (user_id, code_hash, created_at, made_in) SELECT $1, hash, $3, $4 FROM unnest($2::bytea[]) AS hash",
        user.as_str(),
        hashes,
        now,
        session.map(SessionId::as_str),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Deletes what makes up a user's second factor.
pub(crate) async fn delete_factors(connection: &mut PgConnection, user: &UserId) -> Result<(), DbError> {
    sqlx::query!("DELETE FROM auth.two_factor_auth WHERE user_id = $1", user.as_str())
        .execute(&mut *connection)
        .await?;
    sqlx::query!("DELETE FROM auth.recovery_codes WHERE user_id = $1", user.as_str())
        .execute(connection)
        .await?;
    Ok(())
}

/// A sign-in whose first factor was right.
#[derive(Debug)]
pub(crate) struct PendingSignIn {
    pub(crate) user_id: UserId,
    pub(crate) proof: Proof,
    pub(crate) device_id: Option<String>,
    pub(crate) device_name: Option<String>,
    pub(crate) remember_me: bool,
}

struct PendingRow {
    user_id: String,
    proven_by: Vec<String>,
    device_id: Option<String>,
    device_name: Option<String>,
    remember_me: bool,
}

impl PendingRow {
    fn into_pending(self) -> Option<PendingSignIn> {
        Some(PendingSignIn {
            user_id: self.user_id.try_into().ok()?,
            proof: Proof::from_names(&self.proven_by),
            device_id: self.device_id,
            device_name: self.device_name,
            remember_me: self.remember_me,
        })
    }
}

/// The user whose sign-in waits under a token at `now`.
pub(super) async fn find_pending(
    connection: &mut PgConnection,
    token: ChallengeTokenHash,
    now: OffsetDateTime,
) -> Result<Option<UserId>, DbError> {
    let user = sqlx::query_scalar!(
        "SELECT user_id FROM auth.pending_sign_ins WHERE token_hash = $1 AND expires_at > $2",
        token.as_bytes(),
        now,
    )
    .fetch_optional(connection)
    .await?;
    Ok(user.and_then(|user| user.try_into().ok()))
}

/// Uses up a sign-in that waits. None if it waits no longer, or somebody else was faster.
pub(super) async fn delete_pending(
    connection: &mut PgConnection,
    token: ChallengeTokenHash,
    now: OffsetDateTime,
) -> Result<Option<PendingSignIn>, DbError> {
    let row = sqlx::query_as!(
        PendingRow,
        "DELETE FROM auth.pending_sign_ins WHERE token_hash = $1 AND expires_at > $2
         RETURNING user_id, proven_by, device_id, device_name, remember_me",
        token.as_bytes(),
        now,
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.and_then(PendingRow::into_pending))
}

/// Adds a sign-in that waits.
pub(super) async fn insert_pending(
    connection: &mut PgConnection,
    token: ChallengeTokenHash,
    pending: &PendingSignIn,
    now: OffsetDateTime,
    expires_at: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "INSERT INTO auth.pending_sign_ins (token_hash, user_id, proven_by, device_id, device_name, remember_me, created_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        token.as_bytes(),
        pending.user_id.as_str(),
        &pending.proof.names(),
        pending.device_id,
        pending.device_name,
        pending.remember_me,
        now,
        expires_at,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Whether one of the tokens marks a browser that the user trusts at `now`.
pub(super) async fn is_trusted_device(
    connection: &mut PgConnection,
    user: &UserId,
    tokens: &[Vec<u8>],
    now: OffsetDateTime,
) -> Result<bool, DbError> {
    Ok(sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM auth.trusted_devices WHERE token_hash = ANY($1) AND user_id = $2 AND expires_at > $3) AS "is_trusted!""#,
        tokens,
        user.as_str(),
        now,
    )
    .fetch_one(connection)
    .await?)
}

/// Forgets which browsers are trusted and which sign-ins wait: for when a password or a factor changes, or the account ends.
pub(crate) async fn delete_half_proofs(connection: &mut PgConnection, user: &UserId) -> Result<(), DbError> {
    sqlx::query!("DELETE FROM auth.pending_sign_ins WHERE user_id = $1", user.as_str())
        .execute(&mut *connection)
        .await?;
    sqlx::query!("DELETE FROM auth.trusted_devices WHERE user_id = $1", user.as_str())
        .execute(connection)
        .await?;
    Ok(())
}

/// A browser that is not asked for the second factor.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TrustedDevice {
    #[schema(min_length = 1, max_length = 64)]
    pub(super) id: String,
    /// What the browser called itself.
    #[schema(max_length = 512)]
    pub(super) user_agent: Option<String>,
    #[serde(with = "time::serde::rfc3339")]
    pub(super) created_at: OffsetDateTime,
    /// From when on it is asked again.
    #[serde(with = "time::serde::rfc3339")]
    pub(super) expires_at: OffsetDateTime,
}

/// Adds a trusted browser.
pub(super) async fn insert_trusted_device(
    connection: &mut PgConnection,
    user: &UserId,
    token: TrustedDeviceTokenHash,
    device: &TrustedDevice,
) -> Result<(), DbError> {
    sqlx::query!(
        "INSERT INTO auth.trusted_devices (id, user_id, token_hash, user_agent, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6)",
        device.id,
        user.as_str(),
        token.as_bytes(),
        device.user_agent,
        device.created_at,
        device.expires_at,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// A user's trusted browsers at `now`, the newest first; the first 100.
pub(crate) async fn list_trusted_devices(
    connection: &mut PgConnection,
    user: &UserId,
    now: OffsetDateTime,
) -> Result<Vec<TrustedDevice>, DbError> {
    Ok(sqlx::query_as!(
        TrustedDevice,
        "SELECT id, user_agent, created_at, expires_at FROM auth.trusted_devices
         WHERE user_id = $1 AND expires_at > $2 ORDER BY created_at DESC, id DESC LIMIT 100",
        user.as_str(),
        now,
    )
    .fetch_all(connection)
    .await?)
}

/// Trusts a browser no more. False if the user has none of the id.
pub(super) async fn delete_trusted_device(
    connection: &mut PgConnection,
    user: &UserId,
    id: &str,
) -> Result<bool, DbError> {
    let done =
        sqlx::query!("DELETE FROM auth.trusted_devices WHERE user_id = $1 AND id = $2", user.as_str(), id)
            .execute(connection)
            .await?;
    Ok(done.rows_affected() == 1)
}

/// Deletes waiting sign-ins and trust in browsers that are past their time, at most `limit` of each; says how many there were of the more
/// numerous.
pub(crate) async fn delete_expired(
    connection: &mut PgConnection,
    now: OffsetDateTime,
    limit: i64,
) -> Result<u64, DbError> {
    let pending = sqlx::query!(
        "DELETE FROM auth.pending_sign_ins WHERE token_hash IN (
             SELECT token_hash FROM auth.pending_sign_ins WHERE expires_at <= $1 LIMIT $2)",
        now,
        limit,
    )
    .execute(&mut *connection)
    .await?;
    let trusted = sqlx::query!(
        "DELETE FROM auth.trusted_devices WHERE id IN (
             SELECT id FROM auth.trusted_devices WHERE expires_at <= $1 LIMIT $2)",
        now,
        limit,
    )
    .execute(connection)
    .await?;
    Ok(pending.rows_affected().max(trusted.rows_affected()))
}
