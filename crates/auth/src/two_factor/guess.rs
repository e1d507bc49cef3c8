//! Whether a code is the account's: counted before it is looked at, and good once.

use super::model::{GUESS_WINDOW, GUESSES, TwoFactorError};
use super::recovery_code::RecoveryCode;
use super::store::{self, Guessable};
use super::totp::TotpSecret;
use crate::Auth;
use crate::security_event::{self, EventKind, Origin};
use crate::session::proof::Method;
use crate::token::root_secret::Purpose;
use mana_kernel::UserId;
use mana_platform::db::Transaction;

/// Takes a code of the account, of its authenticator app or one on paper, and says which it was; it is used up if the transaction that comes
/// back commits. All guesses at one account take turns at its row and share one budget, whatever session or route they come by: a wrong
/// one is committed here.
pub(super) async fn take_code(
    mut transaction: Transaction,
    auth: &Auth,
    user: &UserId,
    code: &str,
    origin: &Origin,
) -> Result<(Transaction, Method), TwoFactorError> {
    let now = auth.clock.now();
    let window_start = now.saturating_sub(GUESS_WINDOW);
    let guessable = store::count_guess(&mut transaction, user, now, window_start).await?;
    let Guessable { secret, last_step, attempts, attempts_began_at } =
        guessable.ok_or(TwoFactorError::NotSetUp)?;
    if attempts > GUESSES {
        let end = attempts_began_at.saturating_add(GUESS_WINDOW);
        let wait = end.unix_timestamp().saturating_sub(now.unix_timestamp());
        let retry_after_seconds = u64::try_from(wait).unwrap_or(0).max(1);
        return Err(TwoFactorError::TooManyGuesses { retry_after_seconds });
    }
    let secret = open(auth, user, &secret)?;
    let right = secret.step_of(code, now)?;
    if let Some(step) = right.filter(|step| *step > last_step) {
        store::update_guessed(&mut transaction, user, step).await?;
        return Ok((transaction, Method::Code));
    }
    if let Some(code) = RecoveryCode::parse(code).or_else(|| RecoveryCode::parse_older(code))
        && store::delete_recovery_code(&mut transaction, user, &code.hash(user)).await?
    {
        store::update_guessed(&mut transaction, user, last_step).await?;
        let kind = EventKind::RecoveryCodeUsed;
        security_event::record(&mut transaction, auth, kind, Some(user), None, origin).await?;
        return Ok((transaction, Method::RecoveryCode));
    }
    let kind = EventKind::SecondFactorFailed;
    security_event::record(&mut transaction, auth, kind, Some(user), None, origin).await?;
    transaction.commit().await?;
    // Whoever hears that a code was used had the right one, which opens nothing any more.
    Err(if right.is_some() { TwoFactorError::UsedCode } else { TwoFactorError::WrongCode })
}

/// The secret of an account, in clear.
pub(super) fn open(
    auth: &Auth,
    user: &UserId,
    sealed: &store::SealedSecret,
) -> Result<TotpSecret, TwoFactorError> {
    let plain =
        auth.root_secrets.open(&sealed.bytes, Purpose::TotpSecrets, user.as_str(), &sealed.version)?;
    TotpSecret::from_bytes(&plain).ok_or(TwoFactorError::Damaged)
}
