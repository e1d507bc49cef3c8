//! `GET /api/v1/admin/purchases`: what users bought, the newest first.

use super::store::{self, PurchaseFilter};
use crate::CreditsState;
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use mana_kernel::UserId;
use mana_platform::http::{
    Admin, ApiError, Parameters, ProblemBody, codes, next_link, not_a_cursor, read_cursor, within,
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};

const PATH: &str = "/api/v1/admin/purchases";

/// How far an order is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PurchaseState {
    /// Nobody was sent to the till yet.
    Created,
    /// The money has not come.
    Unpaid,
    /// It will not come.
    Failed,
    /// Nobody came.
    Expired,
    /// The mana is given.
    Paid,
    /// A part of the money went back.
    PartiallyRefunded,
    /// All of it did.
    Refunded,
}

impl PurchaseState {
    fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Unpaid => "unpaid",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Paid => "paid",
            Self::PartiallyRefunded => "partially_refunded",
            Self::Refunded => "refunded",
        }
    }
}

/// Which purchases: those that meet all that is given.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query, rename_all = "camelCase")]
pub(crate) struct PurchaseParameters {
    /// Of one user.
    #[param(max_length = 64)]
    user_id: Option<String>,
    /// In this state.
    #[param(inline)]
    state: Option<PurchaseState>,
    /// Purchases a page.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<i64>,
    /// Where the last page ended: as in its `Link` header.
    #[param(max_length = 120)]
    cursor: Option<String>,
}

/// A purchase in the list of all.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PurchaseSummary {
    #[schema(min_length = 1, max_length = 64)]
    pub(super) id: String,
    #[schema(min_length = 1, max_length = 64)]
    pub(super) user_id: String,
    #[schema(min_length = 1, max_length = 64)]
    pub(super) package_id: String,
    /// created, unpaid, failed, expired, paid, `partially_refunded` or refunded.
    #[schema(max_length = 32)]
    pub(super) state: String,
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_i64)]
    pub(super) credits: i64,
    #[schema(min_length = 3, max_length = 3)]
    pub(super) currency: String,
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_i64)]
    pub(super) price_cents: i64,
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    pub(super) refunded_cents: i64,
    /// What disputes took for good.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    pub(super) lost_cents: i64,
    pub(super) disputed: bool,
    pub(super) fraud_warned: bool,
    /// Why it is paid and not credited.
    #[schema(max_length = 64, required)]
    pub(super) problem: Option<String>,
    /// Owed, because it was spent.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    pub(super) owed_mana: i64,
    #[serde(with = "time::serde::rfc3339")]
    pub(super) created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(required)]
    pub(super) completed_at: Option<OffsetDateTime>,
}

/// Purchases of all users
///
/// The newest first. A full page has a `Link` header with `rel="next"`, whose cursor continues after it.
#[utoipa::path(
    get, path = "/api/v1/admin/purchases", tag = "admin",
    params(PurchaseParameters),
    responses(
        (status = 200, description = "A page", body = Vec<PurchaseSummary>),
        (status = 403, description = "Not an administrator", body = ProblemBody),
    ),
    security(("bearer" = [])),
)]
pub(crate) async fn purchases_of_all(
    State(credits): State<CreditsState>,
    _: Admin,
    Parameters(parameters): Parameters<PurchaseParameters>,
) -> Result<Response, ApiError> {
    let PurchaseParameters { user_id, state, limit, cursor } = parameters;
    let limit = within(limit.unwrap_or(50), 1, 200, "limit")?;
    let user = user_id.map(UserId::try_from).transpose().map_err(|_| {
        ApiError::new(&codes::INVALID_QUERY).with_detail("userId must be 1 to 64 letters, digits, '-' or '_'")
    })?;
    let before = cursor.as_deref().map(read_place).transpose()?;
    let filter = PurchaseFilter {
        user: user.as_ref().map(UserId::as_str),
        state: state.map(PurchaseState::as_str),
        before: before.as_ref().map(|(at, id)| (*at, id.as_str())),
        limit,
    };
    let mut transaction = credits.database.begin().await?;
    let purchases = store::list_all(&mut transaction, &filter).await?;
    let is_full = i64::try_from(purchases.len()).is_ok_and(|length| length == limit);
    let limit = limit.to_string();
    let asked = [("userId", filter.user), ("state", filter.state), ("limit", Some(limit.as_str()))];
    let last = purchases.last().filter(|_| is_full);
    let next = last.map(|last| next_link(PATH, &asked, &write_place(last.created_at, &last.id)));
    Ok((next, Json(purchases)).into_response())
}

fn write_place(at: OffsetDateTime, id: &str) -> Vec<u8> {
    let micros = i64::try_from(at.unix_timestamp_nanos().div_euclid(1000)).unwrap_or(i64::MAX);
    [micros.to_be_bytes().as_slice(), id.as_bytes()].concat()
}

/// A time and an id, or what could have been one: PostgreSQL takes no NUL in a text, and its times end before those of this program.
fn read_place(cursor: &str) -> Result<(OffsetDateTime, String), ApiError> {
    let place = read_cursor(cursor)?;
    let (micros, id) = place.split_first_chunk::<8>().ok_or_else(not_a_cursor)?;
    let nanos = i128::from(i64::from_be_bytes(*micros)).saturating_mul(1000);
    let at = OffsetDateTime::from_unix_timestamp_nanos(nanos).map_err(|_| not_a_cursor())?;
    let id = String::from_utf8(id.to_vec()).map_err(|_| not_a_cursor())?;
    if !(0..=9999).contains(&at.year()) || id.len() > 64 || id.contains('\0') {
        return Err(not_a_cursor());
    }
    Ok((at, id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mana_platform::http::write_cursor;
    use proptest::prelude::*;
    use time::macros::datetime;

    /// The microseconds of the times that PostgreSQL and this program have both.
    const MICROS: std::ops::RangeInclusive<i64> = -62_167_219_200_000_000..=253_402_300_799_999_999;

    #[test]
    fn a_place_reads_back_and_what_is_none_is_refused() {
        let at = datetime!(2026-01-31 12:00:00.123456 UTC);
        assert_eq!(read_place(&write_cursor(&write_place(at, "x"))).unwrap(), (at, "x".to_owned()));
        let extreme = [i64::MAX.to_be_bytes().as_slice(), b"x"].concat();
        let with_nul = write_place(at, "a\0");
        let long = write_place(at, &"x".repeat(65));
        for bad in
            ["", "AAAA", "' OR 1=1", &write_cursor(&extreme), &write_cursor(&with_nul), &write_cursor(&long)]
        {
            assert!(read_place(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn the_purchase_that_a_page_ended_with_reads_back(micros in MICROS, id in "[A-Za-z0-9_-]{1,64}") {
            let at = OffsetDateTime::UNIX_EPOCH.saturating_add(time::Duration::microseconds(micros));
            prop_assert_eq!(read_place(&write_cursor(&write_place(at, &id))).unwrap(), (at, id));
        }

        #[test]
        fn what_is_read_as_such_a_purchase_was_written_as_one(
            cursor in prop_oneof![
                "[A-Za-z0-9_=+/-]{0,110}|\\PC{0,20}",
                prop::collection::vec(any::<u8>(), 0..80).prop_map(|place| write_cursor(&place)),
                (prop_oneof![MICROS, any::<i64>()], "\\PC{0,20}|[a-z\u{0}]{0,70}")
                    .prop_map(|(micros, id)| write_cursor(&[micros.to_be_bytes().as_slice(), id.as_bytes()].concat())),
            ],
        ) {
            if let Ok((at, id)) = read_place(&cursor) {
                prop_assert!((0..=9999).contains(&at.year()) && id.len() <= 64 && !id.contains('\0'), "{at} {id:?}");
                prop_assert_eq!(write_cursor(&write_place(at, &id)), cursor);
            }
        }
    }
}
