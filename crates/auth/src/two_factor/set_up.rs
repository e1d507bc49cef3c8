//! How an authenticator app is set up: a secret that opens nothing until a code of it has come back. What the routes for it share.

use super::guess;
use super::model::{BegunIn, ENROLMENT_TTL, TwoFactorError};
use super::recovery_code::{COUNT, RecoveryCode};
use super::store::{self, SealedSecret};
use super::totp::{TotpSecret, qr_code};
use crate::Auth;
use crate::account::model::User;
use crate::mail::Written;
use crate::new_device::warn;
use crate::security_event::{self, EventKind, Origin};
use crate::session::end::{Ended, end_chosen};
use crate::session::model::RevokeReason;
use crate::session::store::Choice;
use crate::token::root_secret::Purpose;
use crate::verification::ProtectionChange;
use mana_kernel::{SessionId, UserId};
use mana_platform::http::Language;
use serde::Serialize;
use sqlx::PgConnection;
use utoipa::ToSchema;

/// What the person gives to an authenticator app.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Enrolment {
    /// For typing it in (base 32).
    #[schema(max_length = 64)]
    secret: String,
    /// For a link on the device itself.
    #[schema(max_length = 2048)]
    pub(super) otpauth_url: String,
    /// The same as a picture to scan (SVG).
    #[schema(max_length = 100_000)]
    qr_code_svg: String,
}

/// Codes on paper, each good once. They are shown this one time.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RecoveryCodes {
    #[schema(value_type = Vec<mana_kernel::Line<1, 64>>, min_items = 10, max_items = 10)]
    pub(super) recovery_codes: Vec<String>,
}

/// Begins anew with a secret that was not confirmed before.
pub(super) async fn begin(
    connection: &mut PgConnection,
    auth: &Auth,
    user: &User,
    begun_in: &BegunIn,
) -> Result<Enrolment, TwoFactorError> {
    let secret = TotpSecret::generate(&*auth.rng);
    let bytes =
        auth.root_secrets.seal(secret.as_bytes(), Purpose::TotpSecrets, user.id.as_str(), &*auth.rng)?;
    let sealed = SealedSecret { bytes, version: auth.root_secrets.current_id().to_owned() };
    if !store::upsert_unconfirmed(connection, &user.id, &sealed, begun_in, auth.clock.now()).await? {
        return Err(TwoFactorError::AlreadySetUp);
    }
    let otpauth_url = secret.url(&auth.policy.name_in_authenticators, &user.email)?;
    let qr_code_svg = qr_code(&otpauth_url)?;
    Ok(Enrolment { secret: secret.base32(), otpauth_url, qr_code_svg })
}

/// Makes the secret count from now on, if the code is of it and it was begun in the same place a moment ago: who has seen another's secret,
/// or left one behind, makes nothing of it. Whoever calls has locked the user: a sign-in that was judged without the
/// factor has its session by now, or is judged anew.
pub(super) async fn confirm(
    connection: &mut PgConnection,
    auth: &Auth,
    user: &UserId,
    begun_in: &BegunIn,
    code: &str,
    origin: &Origin,
) -> Result<(), TwoFactorError> {
    let now = auth.clock.now();
    let sealed =
        store::lock_unconfirmed(connection, user, begun_in, now.saturating_sub(ENROLMENT_TTL)).await?;
    let sealed = sealed.ok_or(TwoFactorError::NotSetUp)?;
    let session = match begun_in {
        BegunIn::Session(session) => Some(session),
        BegunIn::SignIn(_) => None,
    };
    let step = guess::open(auth, user, &sealed)?.step_of(code, now)?.ok_or(TwoFactorError::WrongCode)?;
    store::update_confirmed(connection, user, session, step, now).await?;
    let kind = EventKind::SecondFactorEnabled;
    Ok(security_event::record(connection, auth, kind, Some(user), session, origin).await?)
}

/// Ends what was opened without the factor: the user's other sessions, sign-ins that wait, and trust in browsers.
pub(super) async fn end_others(
    connection: &mut PgConnection,
    auth: &Auth,
    user: &UserId,
    session: &SessionId,
    origin: &Origin,
) -> Result<Ended, TwoFactorError> {
    store::delete_half_proofs(connection, user).await?;
    let (chosen, reason) = (Choice::AllBut(session), RevokeReason::SecondFactorChanged);
    Ok(end_chosen(connection, auth, user, chosen, reason, origin).await?)
}

/// New codes on paper; those from before are void.
pub(super) async fn make_recovery_codes(
    connection: &mut PgConnection,
    auth: &Auth,
    user: &UserId,
    session: Option<&SessionId>,
    origin: &Origin,
) -> Result<RecoveryCodes, TwoFactorError> {
    let codes: Vec<_> = (0..COUNT).map(|_| RecoveryCode::generate(&*auth.rng)).collect();
    let hashes: Vec<_> = codes.iter().map(|code| code.hash(user).to_vec()).collect();
    store::replace_recovery_codes(connection, user, session, &hashes, auth.clock.now()).await?;
    let kind = EventKind::RecoveryCodesMade;
    security_event::record(connection, auth, kind, Some(user), session, origin).await?;
    Ok(RecoveryCodes { recovery_codes: codes.iter().map(RecoveryCode::expose).collect() })
}

/// Switches the factor off, and tells the owner if there was one. Whoever calls has locked the user, and holds what was written until after the commit.
pub(super) async fn remove(
    connection: &mut PgConnection,
    auth: &Auth,
    user: &User,
    session: Option<&SessionId>,
    (language, origin): (Language, &Origin),
) -> Result<Written, TwoFactorError> {
    let had_one = store::find_factors(connection, &user.id).await?.has_totp;
    store::delete_factors(connection, &user.id).await?;
    store::delete_half_proofs(connection, &user.id).await?;
    let kind = EventKind::SecondFactorDisabled;
    security_event::record(connection, auth, kind, Some(&user.id), session, origin).await?;
    if !had_one {
        return Ok(Written::nothing());
    }
    let change = ProtectionChange::SecondFactorOff;
    Ok(warn(connection, auth, user, change, session, (language, origin)).await?)
}
