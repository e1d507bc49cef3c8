//! Who asks: users that registered, and many more that are copies of one.

use super::Arguments;
use crate::connection::Connection;
use crate::error::BenchError;
use crate::script::{Script as _, Spend};
use crate::seed;
use crate::stage::Stage;
use crate::wallets::{self, Signer};
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// Sessions of each user that registered.
const SESSIONS_EACH: usize = 2;
/// As much as may be given, so that no spend is refused.
pub(super) const BONUS: (&str, &str) = ("CREDITS_SIGNUP_BONUS", "1000000000");

/// Users of a stage and what they have.
#[derive(Debug)]
pub(super) struct People {
    /// How many registered, and sign in by their numbers.
    pub(super) registered: usize,
    /// The first of them, of whom others are copies.
    pub(super) pattern: String,
    /// Access tokens of the sessions that registered users opened.
    pub(super) access_tokens: Vec<String>,
    /// Access tokens of the copies, each with a wallet.
    pub(super) wallet_tokens: Vec<String>,
    /// The newest refresh token of each session; taken out while they are rotated.
    pub(super) refresh_tokens: RefCell<Vec<String>>,
    /// Numbers of idempotency keys.
    pub(super) keys: Arc<AtomicU64>,
    /// Numbers of addresses that are new.
    pub(super) addresses: Arc<AtomicU64>,
}

impl People {
    /// Registers some, signs them in, lets the first spend once, and copies wallets.
    pub(super) async fn settle_in(
        stage: &Stage,
        arguments: &Arguments,
        signer: &Signer,
    ) -> Result<Self, BenchError> {
        let server = stage.server.address;
        let registered = usize::try_from(arguments.registered).unwrap_or(usize::MAX);
        let sessions = seed::sessions(server, 0..registered, SESSIONS_EACH).await?;
        let first = sessions.first().ok_or(BenchError::NotUnderstood("a registration"))?;
        let wallet_tokens = wallets::spread(server, &stage.postgres, signer, first, arguments.users).await?;
        let keys = Arc::default();
        for script in &mut Spend::share(vec![first.access_token.clone()], 1, &keys) {
            let mut connection = Connection::open(server).await?;
            let answer = connection.exchange(script.request()).await?;
            if !script.accepts(answer) {
                return Err(BenchError::unexpected("a spend", answer));
            }
        }
        Ok(Self {
            registered,
            pattern: first.user_id.clone(),
            access_tokens: sessions.iter().map(|session| session.access_token.clone()).collect(),
            wallet_tokens,
            refresh_tokens: sessions
                .into_iter()
                .map(|session| session.refresh_token)
                .collect::<Vec<_>>()
                .into(),
            keys,
            addresses: Arc::default(),
        })
    }
}
