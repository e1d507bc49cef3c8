//! `POST /api/v1/admin/users/{userId}/credits/grant`, `…/take` and `…/forgive-debt`: an administrator puts a wallet right by hand.

use super::batch::{self, Actor, Books, LookUp, Order};
use super::charge::{PostedResponse, RequestContext, count, posted};
use super::error::LedgerError;
use super::model::{Charge, Command, Gift, GrantSource, Note, Terms};
use crate::idempotency::{Answer, IdempotencyKey, RequestKey};
use crate::{Administrator, CreditsState};
use axum::extract::{Path, State};
use mana_kernel::{Amount, Paragraph, RequestId, UserId};
use mana_platform::http::{ApiError, ClientInfo, FreshAdmin, ProblemBody, Valid};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// What lines say that nobody wrote anything for, and whom they name as the app.
const DESCRIPTION: &str = "Adjustment";
const FORGIVEN: &str = "Debt forgiven";
const APP_ID: &str = "admin";

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Into the wallet.
    Grant,
    /// Out of it: free mana first, and never what is not there or set aside.
    Take,
    /// Into the wallet, and out of it at once for what is owed.
    Forgive,
}

impl Direction {
    fn name(self) -> &'static str {
        match self {
            Self::Grant => "grant",
            Self::Take => "take",
            Self::Forgive => "forgive",
        }
    }

    fn command(self, amount: Amount, note: Note) -> Command {
        let source = GrantSource::Adjustment;
        match self {
            Self::Grant => Command::Give(Gift { amount, terms: Terms { source, ..Terms::ALLOWANCE }, note }),
            Self::Take => Command::Take(Charge { amount, note }),
            Self::Forgive => Command::Forgive(Charge { amount, note }),
        }
    }

    /// What a line says, for its owner to read.
    fn note(self, description: Option<Paragraph<1, 1000>>) -> Note {
        let otherwise = if self == Self::Forgive { FORGIVEN } else { DESCRIPTION };
        Note {
            app_id: APP_ID.to_owned(),
            description: description.map_or_else(|| otherwise.to_owned(), String::from),
            ..Note::default()
        }
    }
}

/// How much, and why.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(examples(json!({"amount": 50, "reason": "Ticket 4711", "description": "For the outage on Monday"})))]
pub(crate) struct AdjustRequest {
    /// Mana.
    amount: Amount,
    /// For other administrators: it goes into the account's security event, and its owner does not see it.
    reason: Paragraph<1, 500>,
    /// What the owner reads in the list of transactions; `Adjustment`, or `Debt forgiven`, if absent.
    description: Option<Paragraph<1, 1000>>,
    /// Name of this request, as the `Idempotency-Key` header.
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<IdempotencyKey>,
}

/// Gives a user mana
///
/// It is free mana that does not expire. For administrators, with a proof that is fresh.
#[utoipa::path(
    post, path = "/api/v1/admin/users/{userId}/credits/grant", tag = "admin",
    request_body = AdjustRequest,
    params(
        ("userId" = String, Path, description = "The user", min_length = 1, max_length = 64),
    ),
    responses(
        (status = 201, description = "Given", body = PostedResponse),
        (status = 400, description = "More than a wallet can hold, or a body that does not fit", body = ProblemBody),
        (status = 403, description = "Not an administrator, or none who has just proven it", body = ProblemBody),
        (status = 404, description = "No such user", body = ProblemBody),
        (status = 409, description = "Too many different grants, or the account is closed", body = ProblemBody),
        (status = 422, description = "The key was used for another request", body = ProblemBody),
    ),
    security(("bearer" = [])),
)]
pub(crate) async fn grant_credits(
    state: State<CreditsState>,
    admin: FreshAdmin,
    user: Path<String>,
    client: ClientInfo,
    context: RequestContext,
    body: Valid<AdjustRequest>,
) -> Result<Answer, ApiError> {
    adjust(Direction::Grant, state, admin, user, client, context, body).await
}

/// Takes mana from a user
///
/// In the order in which it would be spent, and never more than can be spent. For administrators, with a proof that is fresh.
#[utoipa::path(
    post, path = "/api/v1/admin/users/{userId}/credits/take", tag = "admin",
    request_body = AdjustRequest,
    params(
        ("userId" = String, Path, description = "The user", min_length = 1, max_length = 64),
    ),
    responses(
        (status = 201, description = "Taken", body = PostedResponse),
        (status = 400, description = "More than there is, or a body that does not fit", body = ProblemBody),
        (status = 403, description = "Not an administrator, or none who has just proven it", body = ProblemBody),
        (status = 404, description = "No such user", body = ProblemBody),
        (status = 409, description = "The account is closed", body = ProblemBody),
        (status = 422, description = "The key was used for another request", body = ProblemBody),
    ),
    security(("bearer" = [])),
)]
pub(crate) async fn take_credits(
    state: State<CreditsState>,
    admin: FreshAdmin,
    user: Path<String>,
    client: ClientInfo,
    context: RequestContext,
    body: Valid<AdjustRequest>,
) -> Result<Answer, ApiError> {
    adjust(Direction::Take, state, admin, user, client, context, body).await
}

/// Forgives a user's debt
///
/// What is forgiven is given to the wallet and paid back with it at once: two lines, after which the balance is what it was. For
/// administrators, with a proof that is fresh.
#[utoipa::path(
    post, path = "/api/v1/admin/users/{userId}/credits/forgive-debt", tag = "admin",
    request_body = AdjustRequest,
    params(
        ("userId" = String, Path, description = "The user", min_length = 1, max_length = 64),
    ),
    responses(
        (status = 201, description = "Forgiven", body = PostedResponse),
        (status = 400, description = "More than a wallet can hold, or a body that does not fit", body = ProblemBody),
        (status = 403, description = "Not an administrator, or none who has just proven it", body = ProblemBody),
        (status = 404, description = "No such user", body = ProblemBody),
        (status = 409, description = "More than is owed, or the account is closed", body = ProblemBody),
        (status = 422, description = "The key was used for another request", body = ProblemBody),
    ),
    security(("bearer" = [])),
)]
pub(crate) async fn forgive_debt(
    state: State<CreditsState>,
    admin: FreshAdmin,
    user: Path<String>,
    client: ClientInfo,
    context: RequestContext,
    body: Valid<AdjustRequest>,
) -> Result<Answer, ApiError> {
    adjust(Direction::Forgive, state, admin, user, client, context, body).await
}

async fn adjust(
    direction: Direction,
    State(credits): State<CreditsState>,
    FreshAdmin(caller): FreshAdmin,
    Path(user): Path<String>,
    client: ClientInfo,
    context: RequestContext,
    Valid(mut request): Valid<AdjustRequest>,
) -> Result<Answer, ApiError> {
    let user: UserId = user.parse().map_err(|_| LedgerError::NoSuchUser)?;
    let key = context.key(request.idempotency_key.take())?;
    let scope = format!("admin {}", caller.user_id);
    let request_key = key
        .as_ref()
        .map(|key| RequestKey::new(&scope, key, direction.name(), &request))
        .transpose()
        .map_err(LedgerError::from)?;
    let AdjustRequest { amount, reason, description, .. } = request;
    let by = Administrator { caller: Some(caller), client, reason: Some(reason.into()) };
    let note = Note { idempotency_key: key.map(String::from), ..direction.note(description) };
    let order = order(user, by, context, request_key, direction.command(amount, note));
    let answer = credits.ledger.submit(order).await?;
    count(direction.name(), &answer);
    Ok(answer)
}

/// What came of an adjustment at the command line.
#[derive(Debug)]
pub enum Adjusted {
    /// Done: the line and the new balance, as the API tells it.
    Posted(Value),
    /// The ledger refuses it: the problem, as the API tells it.
    Refused(Value),
}

/// Does the same for whoever may use the command line.
///
/// # Errors
/// When the database fails, the user has no wallet, or what is done can't be written down.
pub async fn adjust_as_operator(
    books: &Books,
    direction: Direction,
    user: UserId,
    amount: Amount,
    reason: String,
    description: Option<Paragraph<1, 1000>>,
) -> Result<Adjusted, LedgerError> {
    let context = RequestContext::of_operator(RequestId::new(&*books.clock, &*books.rng));
    let by = Administrator { reason: Some(reason), ..Administrator::operator() };
    let order = order(user, by, context, None, direction.command(amount, direction.note(description)));
    let answer = batch::commit(&mut books.database.batch_connection(), books, &[order], LookUp::All)
        .await?
        .pop()
        .ok_or(LedgerError::Stopped)??;
    let told = serde_json::from_str(answer.body())?;
    Ok(if answer.status().is_success() { Adjusted::Posted(told) } else { Adjusted::Refused(told) })
}

fn order(
    user: UserId,
    by: Administrator,
    context: RequestContext,
    key: Option<RequestKey>,
    command: Command,
) -> Order {
    Order {
        user,
        actor: Actor::Admin(Box::new(by)),
        key,
        if_version: None,
        request: context.id,
        command: Some(command),
        is_dry_run: false,
        render: posted,
    }
}
