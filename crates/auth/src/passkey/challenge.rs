//! Challenges: given out for one purpose, and used up by the first answer, whichever replica gets it.

use super::client_data::ClientData;
use super::model::{CHALLENGE_TTL, Challenge, ChallengeHash, PasskeyError, Purpose};
use super::store;
use crate::Auth;
use mana_kernel::UserId;

/// Whose answer is waited for, and within what: a session, or a sign-in that waits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bound<'a> {
    pub(crate) user: &'a UserId,
    pub(crate) within: &'a [u8],
}

/// Gives a challenge out.
pub(super) async fn give(
    auth: &Auth,
    purpose: Purpose,
    bound: Option<Bound<'_>>,
) -> Result<Challenge, PasskeyError> {
    let challenge = Challenge::generate(&*auth.rng);
    let expires_at = auth.clock.now().saturating_add(CHALLENGE_TTL);
    let mut transaction = auth.database.begin().await?;
    store::insert_challenge(&mut transaction, challenge.hash(), purpose, bound, expires_at).await?;
    transaction.commit().await?;
    Ok(challenge)
}

/// Uses a challenge up, whatever comes of the answer: committed at once, so that no second answer is ever looked at.
pub(super) async fn use_up(
    auth: &Auth,
    data: &ClientData,
    purpose: Purpose,
    bound: Option<Bound<'_>>,
) -> Result<ChallengeHash, PasskeyError> {
    let hash = data.challenge.ok_or(PasskeyError::DeadChallenge)?.hash();
    let mut transaction = auth.database.begin().await?;
    let waited = store::delete_challenge(&mut transaction, hash, purpose, bound, auth.clock.now()).await?;
    transaction.commit().await?;
    if waited { Ok(hash) } else { Err(PasskeyError::DeadChallenge) }
}
