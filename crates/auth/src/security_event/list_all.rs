//! `GET /api/v1/admin/security-events`: what happened to all accounts, and to the installation.

use super::store::{self, AdminSecurityEvent, EventFilter};
use crate::AuthState;
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use mana_kernel::{Timestamp, UserId};
use mana_platform::DbError;
use mana_platform::http::{
    Admin, ApiError, Parameters, ProblemBody, codes, next_link, not_a_cursor, read_cursor, within,
};
use serde::Deserialize;
use sqlx::PgConnection;
use time::OffsetDateTime;
use utoipa::IntoParams;
use uuid::Uuid;

const PATH: &str = "/api/v1/admin/security-events";
/// Events that a page looks through for those of a type.
const WINDOW: i64 = 10_000;

/// Which events.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query, rename_all = "camelCase")]
pub(crate) struct AllEventParameters {
    /// Of one type, as `sign_in_failed`.
    #[param(max_length = 64)]
    r#type: Option<String>,
    /// Of one user.
    #[param(max_length = 64)]
    user_id: Option<String>,
    /// From this time on (RFC 3339).
    #[param(format = DateTime)]
    since: Option<String>,
    /// Events a page.
    #[param(minimum = 1, maximum = 500, default = 50)]
    limit: Option<i64>,
    /// Where the last page ended: as in its `Link` header.
    #[param(max_length = 64)]
    cursor: Option<String>,
}

/// Security events of all
///
/// Newest first. While there may be more, the answer has a `Link` header with `rel="next"`; with a type and without a user, a page may
/// be short or empty and yet have one.
#[utoipa::path(
    get, path = "/api/v1/admin/security-events", tag = "admin",
    params(AllEventParameters),
    responses(
        (status = 200, description = "A page", body = Vec<AdminSecurityEvent>),
        (status = 403, description = "Not an administrator", body = ProblemBody),
    ),
    security(("bearer" = [])),
)]
pub(crate) async fn all_security_events(
    State(auth): State<AuthState>,
    _: Admin,
    Parameters(parameters): Parameters<AllEventParameters>,
) -> Result<Response, ApiError> {
    let refuse = |detail: &str| ApiError::new(&codes::INVALID_QUERY).with_detail(detail);
    let AllEventParameters { r#type: kind, user_id, since, limit, cursor } = parameters;
    let limit = within(limit.unwrap_or(50), 1, 500, "limit")?;
    let user = user_id.map(UserId::try_from).transpose();
    let user = user.map_err(|_| refuse("userId must be 1 to 64 letters, digits, '-' or '_'"))?;
    if kind.as_ref().is_some_and(|kind| kind.len() > 64 || kind.contains('\0')) {
        return Err(refuse("type must be at most 64 characters"));
    }
    let at = since.as_deref().map(str::parse::<Timestamp>).transpose();
    let at = at.map_err(|error| refuse(&format!("since {error}")))?.map(Timestamp::get);
    let before = cursor.as_deref().map(read_place).transpose()?;
    let filter = EventFilter { kind: kind.as_deref(), since: at, before, limit };

    let mut transaction = auth.database.begin().await?;
    let events = page(&mut transaction, user.as_ref(), &filter).await?;
    let is_full = i64::try_from(events.len()).is_ok_and(|length| length == limit);
    let last = match events.last() {
        Some(last) if is_full => Some((last.created_at, last.id)),
        Some(_) | None if user.is_none() && filter.kind.is_some() => {
            store::find_end_of_window(&mut transaction, &filter, WINDOW).await?
        }
        Some(_) | None => None,
    };
    let limit = limit.to_string();
    let asked = [
        ("type", kind.as_deref()),
        ("userId", user.as_ref().map(UserId::as_str)),
        ("since", since.as_deref()),
        ("limit", Some(limit.as_str())),
    ];
    let next = last.map(|place| next_link(PATH, &asked, &write_place(place)));
    Ok((next, Json(events)).into_response())
}

async fn page(
    connection: &mut PgConnection,
    user: Option<&UserId>,
    filter: &EventFilter<'_>,
) -> Result<Vec<AdminSecurityEvent>, DbError> {
    match user {
        Some(user) => store::list_events_of(connection, user, filter).await,
        None => store::list_events_of_all(connection, filter, WINDOW).await,
    }
}

/// The last so many events, as a first page has them.
pub(crate) async fn newest(
    connection: &mut PgConnection,
    user: Option<&UserId>,
    kind: Option<&str>,
    limit: i64,
) -> Result<Vec<AdminSecurityEvent>, DbError> {
    page(connection, user, &EventFilter { kind, since: None, before: None, limit }).await
}

/// Time and id: the one of a user are in the order of both, those of all in the order of ids.
fn write_place((at, id): (OffsetDateTime, Uuid)) -> Vec<u8> {
    let micros = i64::try_from(at.unix_timestamp_nanos().div_euclid(1000)).unwrap_or(i64::MAX);
    [micros.to_be_bytes().as_slice(), id.as_bytes()].concat()
}

fn read_place(cursor: &str) -> Result<(OffsetDateTime, Uuid), ApiError> {
    let place = read_cursor(cursor)?;
    let (micros, id) = place.split_first_chunk::<8>().ok_or_else(not_a_cursor)?;
    let nanos = i128::from(i64::from_be_bytes(*micros)).saturating_mul(1000);
    let at = OffsetDateTime::from_unix_timestamp_nanos(nanos).map_err(|_| not_a_cursor())?;
    // PostgreSQL's times end before those of this program.
    if !(0..=9999).contains(&at.year()) {
        return Err(not_a_cursor());
    }
    Ok((at, Uuid::from_slice(id).map_err(|_| not_a_cursor())?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mana_platform::http::write_cursor;
    use proptest::prelude::*;
    use time::macros::datetime;

    #[test]
    fn a_place_reads_back_and_what_is_none_is_refused() {
        for at in [datetime!(2026-01-31 12:00:00.123456 UTC), OffsetDateTime::UNIX_EPOCH] {
            let place = (at, Uuid::from_u128(7));
            assert_eq!(read_place(&write_cursor(&write_place(place))).unwrap(), place);
        }
        let extreme = [i64::MAX.to_be_bytes().as_slice(), &[0; 16]].concat();
        for bad in [
            "",
            "AAAA",
            "' OR 1=1",
            &write_cursor(&[0; 23]),
            &write_cursor(&[0; 25]),
            &write_cursor(&extreme),
        ] {
            assert!(read_place(bad).is_err(), "{bad}");
        }
    }
    /// Microseconds from 0000 to 9999, which PostgreSQL has too.
    const TIMES: std::ops::RangeInclusive<i64> = -62_167_219_200_000_000..=253_402_300_799_999_999;

    proptest! {
        #[test]
        fn a_cursor_is_a_place_or_is_refused(
            micros in prop_oneof![
                any::<i64>(),
                TIMES,
                -62_167_219_200_000_002..=-62_167_219_199_999_998_i64,
                253_402_300_799_999_997..=253_402_300_800_000_001_i64,
            ],
            id in prop_oneof![proptest::collection::vec(any::<u8>(), 16), proptest::collection::vec(any::<u8>(), 0..40)],
        ) {
            let bytes = [micros.to_be_bytes().as_slice(), &id].concat();
            let read = read_place(&write_cursor(&bytes)).ok();
            let is_place = id.len() == 16 && TIMES.contains(&micros);
            prop_assert_eq!(read.map(write_place), is_place.then_some(bytes));
        }

        #[test]
        fn what_is_read_as_a_cursor_was_written_as_one(text in "[A-Za-z0-9_-]{32}|[A-Za-z0-9_=+/-]{0,40}|\\PC{0,40}") {
            if let Ok(place) = read_place(&text) {
                prop_assert_eq!(write_cursor(&write_place(place)), text);
            }
        }
    }
}
