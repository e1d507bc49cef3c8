//! `POST /api/v1/credits/use`: an app charges the caller's wallet.

use super::balance::{daily_credits, lock_or_open};
use super::error::LedgerError;
use super::model::{Command, Posting, Refusal, Spend, Stamp, Wallet};
use super::store;
use super::transactions::TransactionResponse;
use crate::idempotency::{self, Answer, IdempotencyKey, Stored};
use crate::{Credits, CreditsState};
use axum::extract::State;
use http::{HeaderMap, StatusCode};
use mana_kernel::{Amount, Line, Paragraph, TransactionId};
use mana_platform::DbError;
use mana_platform::http::{ApiError, Caller, ProblemBody, Valid};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sqlx::PgConnection;
use utoipa::ToSchema;

/// What to charge, and for what.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct SpendRequest {
    /// Mana to take.
    amount: Amount,
    /// The app that charges.
    app_id: Line<1, 128>,
    /// What the person reads in the list of transactions.
    description: Paragraph<1, 1000>,
    /// Name of this request: sent again under the same name, it is answered again and charged once. The
    /// `Idempotency-Key` header does the same.
    idempotency_key: Option<IdempotencyKey>,
    /// Anything the app wants to find again.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Metadata>,
}

/// A JSON object of at most 8 KiB, kept in the order given.
#[derive(Debug, Deserialize, Serialize)]
#[serde(try_from = "Map<String, Value>")]
pub(crate) struct Metadata(Map<String, Value>);

impl TryFrom<Map<String, Value>> for Metadata {
    type Error = &'static str;

    fn try_from(members: Map<String, Value>) -> Result<Self, &'static str> {
        let is_small = serde_json::to_string(&members).is_ok_and(|text| text.len() <= 8192);
        if is_small { Ok(Self(members)) } else { Err("must be at most 8192 bytes of JSON") }
    }
}

/// What was charged, and what is left.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SpendResponse {
    success: bool,
    transaction: TransactionResponse,
    new_balance: NewBalance,
}

/// The wallet after a spend.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NewBalance {
    /// Paid mana.
    balance: i64,
    /// Free mana.
    free_credits_remaining: i64,
    /// Spent so far.
    total_spent: i64,
}

/// Spends mana
///
/// Free mana goes before paid. With an idempotency key the outcome is remembered, a refusal too, and the same request
/// gets the same bytes again.
#[utoipa::path(
    post, path = "/api/v1/credits/use", tag = "credits",
    request_body = SpendRequest,
    params(("Idempotency-Key" = Option<String>, Header, description = "Name of this request, as `idempotencyKey` in the body", min_length = 1, max_length = 255)),
    responses(
        (status = 201, description = "Charged", body = SpendResponse),
        (status = 400, description = "Not enough mana, or a body that does not fit", body = ProblemBody),
        (status = 422, description = "The key was used for another request", body = ProblemBody),
    ),
    security(("bearer" = [])),
)]
pub(crate) async fn spend(
    State(credits): State<CreditsState>,
    caller: Caller,
    headers: HeaderMap,
    Valid(mut request): Valid<SpendRequest>,
) -> Result<Answer, ApiError> {
    let key = idempotency::key_of(&headers, request.idempotency_key.take())?;
    let mut transaction = credits.database.begin().await?;
    let answer = spend_once(&mut transaction, &credits, &caller, request, key).await?;
    transaction.commit().await.map_err(DbError::from)?;
    let outcome = answer.outcome();
    metrics::counter!("ledger_commands_total", "command" => "spend", "outcome" => outcome).increment(1);
    Ok(answer)
}

/// The wallet's lock comes first: whoever sends the same key at the same time waits here and finds the answer. Then
/// the session is held, so that it can't end between this look and the commit.
async fn spend_once(
    connection: &mut PgConnection,
    credits: &Credits,
    caller: &Caller,
    request: SpendRequest,
    key: Option<IdempotencyKey>,
) -> Result<Answer, LedgerError> {
    let (mut wallet, today) = lock_or_open(connection, credits, &caller.user_id).await?;
    if !credits.session_guard.hold_live(connection, caller).await.map_err(LedgerError::Port)? {
        return Err(LedgerError::SessionEnded);
    }
    let digest = idempotency::digest("credits.use", &request)?;
    if let Some(key) = &key
        && let Some(stored) = idempotency::store::find_answer(connection, &caller.user_id, key).await?
    {
        return Ok(stored.replay(&digest)?);
    }
    let mut postings: Vec<Posting> = daily_credits(&mut wallet, credits, today).into_iter().collect();
    let now = credits.clock.now();
    let stamp = Stamp { id: TransactionId::new(&*credits.clock, &*credits.rng), at: now };
    let answer = match wallet.apply(&command(request, key.as_ref())?, stamp) {
        Ok(posting) => {
            let answer = charged(&wallet, &posting, caller)?;
            postings.push(posting);
            answer
        }
        Err(refusal @ (Refusal::InsufficientFunds | Refusal::OutOfRange(_))) => {
            Answer::problem(&ApiError::from(LedgerError::from(refusal)))?
        }
        Err(refusal @ Refusal::AlreadyGranted) => return Err(refusal.into()),
    };
    if !postings.is_empty() {
        store::write(connection, &wallet, &postings, now).await?;
    }
    if let Some(key) = &key {
        let stored = Stored { digest, answer: answer.clone() };
        idempotency::store::insert_answer(connection, &caller.user_id, key, &stored, now).await?;
    }
    Ok(answer)
}

fn command(request: SpendRequest, key: Option<&IdempotencyKey>) -> Result<Command, LedgerError> {
    Ok(Command::Spend(Spend {
        amount: request.amount,
        app_id: request.app_id.into(),
        description: request.description.into(),
        metadata: request.metadata.as_ref().map(serde_json::to_string).transpose()?,
        idempotency_key: key.map(|key| key.as_str().to_owned()),
    }))
}

fn charged(wallet: &Wallet, posting: &Posting, caller: &Caller) -> Result<Answer, LedgerError> {
    let response = SpendResponse {
        success: true,
        transaction: TransactionResponse::of_posting(&posting.transaction, &caller.user_id)?,
        new_balance: NewBalance {
            balance: wallet.paid.get(),
            free_credits_remaining: wallet.free.get(),
            total_spent: wallet.total_spent.get(),
        },
    };
    Ok(Answer::json(StatusCode::CREATED, &response)?)
}
