//! Holds: mana that is set aside until an app knows what a piece of work costs.
//!
//! Who may touch a hold: its user, if the user's own session opened it; else the app that did, by any of its service keys.

pub mod capture;
pub mod extend;
pub mod find;
pub mod open;
pub mod release;

use super::batch::Outcome;
use super::charge::{NewBalance, Payer};
use super::error::LedgerError;
use super::model::{Hold, HoldChange, HoldEnd};
use super::store::{self, HoldRow};
use crate::Credits;
use crate::idempotency::{Answer, IdempotencyKey};
use http::StatusCode;
use mana_kernel::integer::within;
use mana_kernel::{HoldId, UserId};
use mana_platform::http::{ApiError, Principal, Scope};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use time::{Duration, OffsetDateTime};
use utoipa::ToSchema;

/// A hold lasts this long at most before it is extended, in seconds: 30 days.
const MAX_SECONDS: i64 = 30 * 24 * 3600;

/// A hold.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HoldResponse {
    #[schema(value_type = String, format = "uuid")]
    id: HoldId,
    /// The app that set it aside.
    #[schema(max_length = 128)]
    app_id: String,
    /// Mana set aside.
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_i64)]
    amount: i64,
    /// Mana charged of it.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    captured: i64,
    /// open, captured, released or expired.
    #[schema(max_length = 16)]
    status: &'static str,
    /// When it is released by itself.
    #[serde(with = "time::serde::rfc3339")]
    expires_at: OffsetDateTime,
}

/// A hold after it was opened, released or extended.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HoldAnswer {
    success: bool,
    hold: HoldResponse,
    new_balance: NewBalance,
}

/// Seconds from now, 1 to 2,592,000 (30 days).
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(into = "i64")]
#[schema(value_type = i64, minimum = 1, maximum = 2_592_000)]
pub(crate) struct HoldSeconds(i64);

impl Default for HoldSeconds {
    fn default() -> Self {
        Self(900)
    }
}

impl<'de> Deserialize<'de> for HoldSeconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        within(deserializer, 1, MAX_SECONDS).map(Self)
    }
}

impl From<HoldSeconds> for i64 {
    fn from(seconds: HoldSeconds) -> Self {
        seconds.0
    }
}

impl HoldSeconds {
    fn after(self, now: OffsetDateTime) -> OffsetDateTime {
        now.saturating_add(Duration::seconds(self.0))
    }
}

/// A request about a hold that says nothing more.
#[derive(Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct HoldRequest {
    /// Name of this request, as the `Idempotency-Key` header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) idempotency_key: Option<IdempotencyKey>,
}

/// The hold that a path names, if whoever asks may see it.
async fn find_seen(credits: &Credits, principal: &Principal, id: &str) -> Result<HoldRow, ApiError> {
    let id = HoldId(id.parse().map_err(|_| LedgerError::NoSuchHold)?);
    let mut connection = credits.database.acquire().await?;
    let row = store::find_hold(&mut connection, id).await?.ok_or(LedgerError::NoSuchHold)?;
    let may_see = match principal {
        Principal::User(caller) => caller.user_id.as_str() == row.user_id,
        Principal::Service(service) => service.app_of(&row.app_id) == row.app_id,
    };
    if may_see { Ok(row) } else { Err(LedgerError::NoSuchHold.into()) }
}

/// The same, if whoever asks may also change it, and in whose name that is.
async fn find_own(credits: &Credits, principal: Principal, id: &str) -> Result<(HoldRow, Payer), ApiError> {
    let row = find_seen(credits, &principal, id).await?;
    let user: UserId = row.user_id.parse().map_err(|_| LedgerError::NoSuchHold)?;
    if matches!(principal, Principal::Service(_)) != row.is_of_service {
        return Err(LedgerError::NoSuchHold.into());
    }
    let payer = Payer::of(principal, Some(user), Scope::CreditsSpend, &row.app_id)?;
    Ok((row, payer))
}

impl HoldResponse {
    fn of_row(row: &HoldRow, now: OffsetDateTime) -> Self {
        let status = match row.status.as_str() {
            "captured" => "captured",
            "released" => "released",
            "open" if now < row.expires_at => "open",
            _ => "expired",
        };
        Self {
            id: row.id,
            app_id: row.app_id.clone(),
            amount: row.amount,
            captured: row.captured,
            status,
            expires_at: row.expires_at,
        }
    }

    /// As a command left it.
    pub(super) fn of(outcome: &Outcome<'_>) -> Result<Self, serde_json::Error> {
        let missing = || serde::ser::Error::custom("a change of a hold without a hold");
        let amount_of = |hold: &Hold| hold.slices.iter().map(|slice| slice.amount.get()).sum();
        let find = |holds: &[Hold], id: HoldId| holds.iter().find(|hold| hold.id == id).cloned();
        let (id, end) = match outcome.effects.holds.first().ok_or_else(missing)? {
            HoldChange::Opened { hold, .. } => (hold.id, None),
            HoldChange::Extended { id, .. } => (*id, None),
            HoldChange::Ended { id, end, .. } => (*id, Some(*end)),
        };
        let hold = find(&outcome.wallet.holds, id).or_else(|| find(&outcome.before.holds, id));
        let hold = hold.ok_or_else(missing)?;
        Ok(Self {
            id,
            amount: amount_of(&hold),
            captured: match end {
                Some(HoldEnd::Captured { amount, .. }) => amount.get(),
                Some(HoldEnd::Released | HoldEnd::Expired) | None => 0,
            },
            status: end.map_or("open", HoldEnd::as_str),
            app_id: hold.app_id,
            expires_at: hold.expires_at,
        })
    }
}

/// The hold and the wallet.
fn held(outcome: &Outcome<'_>) -> Result<Answer, serde_json::Error> {
    let answer = HoldAnswer {
        success: true,
        hold: HoldResponse::of(outcome)?,
        new_balance: NewBalance::of(outcome.wallet)?,
    };
    Answer::json(StatusCode::CREATED, &answer)
}

/// Metadata of a hold, as a capture repeats it.
fn text_of(metadata: Option<&Value>) -> Option<String> {
    metadata.map(ToString::to_string)
}
