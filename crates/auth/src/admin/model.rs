//! What administrators see of an account, and what may go wrong with what they do to it.

use crate::WalletSummary;
use crate::account::model::{AccountError, User};
use crate::account::store::Account;
use crate::session::model::SESSION_NOT_FOUND;
use mana_kernel::{ErrorCode, Kind, Paragraph, Problem};
use mana_platform::DbError;
use mana_platform::http::codes;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

/// Why something is done: for other administrators to read, in the account's security events. Its owner does not see it.
pub type Reason = Paragraph<1, 500>;

/// What every act needs to be told.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ActRequest {
    /// Why: for other administrators. The owner of the account does not see it.
    pub(super) reason: Reason,
}

/// A user as administrators see one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AdminUser {
    /// The user.
    #[serde(flatten)]
    pub user: User,
    /// Since when the account may not act; null if it may.
    #[serde(with = "time::serde::rfc3339::option")]
    pub disabled_at: Option<OffsetDateTime>,
    /// Since when nothing is left of the account but its id; null if it was not deleted.
    #[serde(with = "time::serde::rfc3339::option")]
    pub deleted_at: Option<OffsetDateTime>,
}

impl AdminUser {
    pub(super) fn of(account: Account) -> Self {
        let Account { user, disabled_at, deleted_at } = account;
        Self { user, disabled_at, deleted_at }
    }
}

/// How somebody can prove who they are.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FactorSummary {
    /// A password.
    pub password: bool,
    /// An authenticator app.
    pub totp: bool,
    /// Passkeys.
    pub passkey: bool,
    /// Recovery codes that are left.
    #[schema(minimum = 0, maximum = 10)]
    pub recovery_codes_left: i64,
}

/// All that administrators see of a user at once.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AdminUserDetails {
    /// The user.
    #[serde(flatten)]
    pub user: AdminUser,
    /// What is set up.
    pub factors: FactorSummary,
    /// Sessions that live.
    #[schema(minimum = 0, maximum = 10_000)]
    pub live_sessions: i64,
    /// What is in the wallet; null if there is none.
    pub wallet: Option<WalletSummary>,
}

/// What may go wrong with an act.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// No account has the id.
    #[error("there is no such user")]
    UserNotFound,
    /// No live session of the user's has the id.
    #[error("the user has no live session of this id")]
    SessionNotFound,
    /// Nobody would administrate any more.
    #[error("nobody else administrates")]
    LastAdmin,
    /// The account is disabled, or a program's.
    #[error("the account is disabled or a program's")]
    NotPromotable,
    /// The account was deleted.
    #[error("the account was deleted")]
    Deleted,
    /// The actor has ceased to be an administrator since the request came in.
    #[error("the actor administrates no longer")]
    NoLongerAdmin,
    /// The actor's session has ended since the request came in.
    #[error("the actor's session has ended")]
    ActorGone,
    /// The account could not be erased.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// The wallet could not be read.
    #[error("the wallet could not be read: {0}")]
    Wallet(crate::PortError),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DbError),
}

/// No such user.
pub static USER_NOT_FOUND: ErrorCode = ErrorCode {
    code: "admin.user_not_found",
    kind: Kind::NotFound,
    title: "There is no such user",
    word: None,
    way_out: "Take the id from GET /api/v1/admin/users, which finds accounts by the beginning of their address.",
};
/// Nobody would be left to administrate.
pub static LAST_ADMIN: ErrorCode = ErrorCode {
    code: "admin.last_admin",
    kind: Kind::Conflict,
    title: "This is the last administrator",
    word: None,
    way_out: "Promote somebody else first: without an administrator, only the command line could make one.",
};
/// Not an account that can administrate.
pub static NOT_PROMOTABLE: ErrorCode = ErrorCode {
    code: "admin.not_promotable",
    kind: Kind::Conflict,
    title: "This account can't become an administrator's",
    word: None,
    way_out: "Enable the account first if it is disabled; one of a program (role `service`) stays a program's.",
};
/// It is gone for good.
pub static USER_DELETED: ErrorCode = ErrorCode {
    code: "admin.user_deleted",
    kind: Kind::Conflict,
    title: "This account was deleted",
    word: None,
    way_out: "What was deleted is not enabled again; the person can register anew.",
};

/// The catalogue of this feature.
pub static CODES: &[&ErrorCode] = &[&USER_NOT_FOUND, &LAST_ADMIN, &NOT_PROMOTABLE, &USER_DELETED];

impl Problem for AdminError {
    fn code(&self) -> &'static ErrorCode {
        match self {
            Self::UserNotFound => &USER_NOT_FOUND,
            Self::SessionNotFound => &SESSION_NOT_FOUND,
            Self::LastAdmin => &LAST_ADMIN,
            Self::NotPromotable => &NOT_PROMOTABLE,
            Self::Deleted => &USER_DELETED,
            Self::NoLongerAdmin => &codes::ADMIN_REQUIRED,
            Self::ActorGone => &codes::UNAUTHENTICATED,
            Self::Account(error) => error.code(),
            Self::Wallet(error) => error.code(),
            Self::Database(error) => error.code(),
        }
    }
}
