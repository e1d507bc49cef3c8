//! `GET /api/v1/admin/users`: finds accounts.

use super::model::AdminUser;
use crate::AuthState;
use crate::account::model::Role;
use crate::account::store::{AccountFilter, list_accounts};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use mana_kernel::UserId;
use mana_platform::http::{
    Admin, ApiError, Parameters, ProblemBody, codes, next_link, not_a_cursor, read_cursor, within,
};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

const PATH: &str = "/api/v1/admin/users";

/// Whether an account may act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AccountState {
    /// It may.
    Active,
    /// It may not.
    Disabled,
    /// Nothing is left of it but its id.
    Deleted,
}

impl AccountState {
    fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Disabled => "disabled",
            Self::Deleted => "deleted",
        }
    }

    /// One that is deleted is disabled, too.
    pub(super) fn is_disabled(self) -> bool {
        self != Self::Active
    }

    pub(super) fn is_deleted(self) -> bool {
        self == Self::Deleted
    }
}

/// Which accounts: those that meet all that is given.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct UserParameters {
    /// The address begins so, in whatever case.
    #[param(max_length = 254)]
    email: Option<String>,
    /// The id is this.
    #[param(max_length = 64)]
    id: Option<String>,
    /// The role is this.
    #[param(inline)]
    role: Option<Role>,
    /// The account is so.
    #[param(inline)]
    state: Option<AccountState>,
    /// Accounts a page.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<i64>,
    /// Where the last page ended: as in its `Link` header.
    #[param(max_length = 400)]
    cursor: Option<String>,
}

/// Finds users
///
/// In the order of their addresses. A full page has a `Link` header with `rel="next"`, whose cursor continues after it.
#[utoipa::path(
    get, path = "/api/v1/admin/users", tag = "admin",
    params(UserParameters),
    responses(
        (status = 200, description = "A page", body = Vec<AdminUser>),
        (status = 403, description = "Not an administrator", body = ProblemBody),
    ),
    security(("bearer" = [])),
)]
pub(crate) async fn find_users(
    State(auth): State<AuthState>,
    _: Admin,
    Parameters(parameters): Parameters<UserParameters>,
) -> Result<Response, ApiError> {
    let refuse = |detail: &str| ApiError::new(&codes::INVALID_QUERY).with_detail(detail);
    let UserParameters { email, id, role, state, limit, cursor } = parameters;
    let limit = within(limit.unwrap_or(50), 1, 200, "limit")?;
    let prefix = email.map(|text| text.to_lowercase()).unwrap_or_default();
    if prefix.chars().count() > 254 || prefix.chars().any(char::is_control) {
        return Err(refuse("email must be the beginning of an address"));
    }
    let id = id.map(UserId::try_from).transpose();
    let id = id.map_err(|_| refuse("id must be 1 to 64 letters, digits, '-' or '_'"))?;
    let after = cursor.as_deref().map(read_place).transpose()?.unwrap_or_default();
    let filter = AccountFilter {
        email_prefix: &prefix,
        id: id.as_ref(),
        role,
        is_disabled: state.map(AccountState::is_disabled),
        is_deleted: state.map(AccountState::is_deleted),
        after: &after,
        limit,
    };
    let mut transaction = auth.database.begin().await?;
    let accounts = list_accounts(&mut transaction, &filter).await?;
    let is_full = i64::try_from(accounts.len()).is_ok_and(|length| length == limit);
    let limit = limit.to_string();
    let asked = [
        ("email", Some(prefix.as_str()).filter(|prefix| !prefix.is_empty())),
        ("id", id.as_ref().map(UserId::as_str)),
        ("role", role.map(Role::as_str)),
        ("state", state.map(AccountState::as_str)),
        ("limit", Some(limit.as_str())),
    ];
    let last = accounts.last().filter(|_| is_full);
    let next = last.map(|account| next_link(PATH, &asked, account.user.email.as_bytes()));
    let users: Vec<_> = accounts.into_iter().map(AdminUser::of).collect();
    Ok((next, Json(users)).into_response())
}

/// An address, or what could have been one: PostgreSQL takes no NUL in a text.
fn read_place(cursor: &str) -> Result<String, ApiError> {
    let text = String::from_utf8(read_cursor(cursor)?).map_err(|_| not_a_cursor())?;
    if text.len() > 254 || text.contains('\0') { Err(not_a_cursor()) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mana_platform::http::write_cursor;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_cursor_is_what_could_be_an_address_or_is_refused(
            bytes in prop_oneof![any::<Vec<u8>>(), "\\PC{0,140}".prop_map(String::into_bytes), "[a-z@.\\x00]{240,260}".prop_map(String::into_bytes)]
        ) {
            let address = String::from_utf8(bytes.clone()).ok();
            let address = address.filter(|text| text.len() <= 254 && !text.contains('\0'));
            prop_assert_eq!(read_place(&write_cursor(&bytes)).ok(), address);
        }

        #[test]
        fn what_is_read_as_a_cursor_was_written_as_one(text in "[A-Za-z0-9_=+/-]{0,14}|\\PC{0,20}") {
            if let Ok(address) = read_place(&text) {
                prop_assert_eq!(write_cursor(address.as_bytes()), text);
            }
        }
    }
}
