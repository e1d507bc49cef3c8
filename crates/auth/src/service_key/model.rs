//! What a service key is.

use mana_kernel::integer::within;
use mana_kernel::{ErrorCode, Kind, Line, Problem, opaque_secret};
use mana_platform::DbError;
use mana_platform::http::{Scope, Scopes};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::OffsetDateTime;
use utoipa::ToSchema;

opaque_secret! {
    /// A service key. Its hash needs neither salt nor stretching: 256 random bits can't be guessed, and a slow hash on every
    /// request of a backend would be a way to stop the service.
    ServiceKeySecret, ServiceKeyHash, "mana_sk_"
}

/// How often a key's use is written down: the list tells it to the minute.
pub(super) const USE_STEP: time::Duration = time::Duration::minutes(1);

/// A key that is to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(examples(json!({"name": "Chat backend", "appId": "chat", "scopes": ["credits:read", "credits:spend", "credits:refund"]})))]
pub struct NewServiceKey {
    /// What its owner knows it by.
    pub name: Line<1, 100>,
    /// The only app that it acts as; without it, each request names the app, in `X-App-Id` or as its `appId`.
    pub app_id: Option<Line<1, 128>>,
    /// What it allows.
    #[schema(value_type = Vec<Scope>, min_items = 1, max_items = 16)]
    pub scopes: SomeScopes,
    /// Requests a minute at most; without it, as many as it likes. Ten charges of a batch are one.
    #[schema(value_type = Option<i32>, minimum = 1, maximum = 10_000_000)]
    pub limit_per_minute: Option<PerMinute>,
}

/// At least one scope.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "Scopes")]
pub struct SomeScopes(Scopes);

/// A key that allows nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must have at least one scope")]
pub struct NoScope;

impl TryFrom<Scopes> for SomeScopes {
    type Error = NoScope;

    fn try_from(scopes: Scopes) -> Result<Self, NoScope> {
        if scopes.is_empty() { Err(NoScope) } else { Ok(Self(scopes)) }
    }
}

impl SomeScopes {
    /// The scopes.
    pub fn scopes(&self) -> &Scopes {
        &self.0
    }
}

/// A limit of requests a minute, 1 to 10,000,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PerMinute(i32);

/// A limit out of bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 10000000")]
pub struct InvalidPerMinute;

impl<'de> Deserialize<'de> for PerMinute {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::try_from(within(deserializer, 1, 10_000_000)?).map_err(D::Error::custom)
    }
}

impl TryFrom<i64> for PerMinute {
    type Error = InvalidPerMinute;

    fn try_from(number: i64) -> Result<Self, InvalidPerMinute> {
        let number = i32::try_from(number).map_err(|_| InvalidPerMinute)?;
        if (1..=10_000_000).contains(&number) { Ok(Self(number)) } else { Err(InvalidPerMinute) }
    }
}

impl PerMinute {
    /// For the database.
    pub(super) fn number(self) -> i32 {
        self.0
    }
}

/// A key as administrators see it. Not the key itself: that is not stored.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceKeyDetails {
    /// Its id, which is no secret.
    #[schema(min_length = 1, max_length = 64)]
    pub id: String,
    /// What its owner knows it by.
    #[schema(min_length = 1, max_length = 100)]
    pub name: String,
    /// The only app that it acts as; null if each request names the app.
    #[schema(max_length = 128)]
    pub app_id: Option<String>,
    /// What it allows.
    #[schema(value_type = Vec<Scope>, max_items = 16)]
    pub scopes: Scopes,
    /// Requests a minute at most; null for as many as it likes.
    #[schema(minimum = 1, maximum = 10_000_000)]
    pub limit_per_minute: Option<i32>,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// The administrator who made it; null if it was made at the command line.
    #[schema(min_length = 1, max_length = 64)]
    pub created_by: Option<String>,
    /// When it was last used, to the minute.
    #[serde(with = "time::serde::rfc3339::option")]
    pub last_used_at: Option<OffsetDateTime>,
    /// Since when it is not accepted.
    #[serde(with = "time::serde::rfc3339::option")]
    pub revoked_at: Option<OffsetDateTime>,
}

/// A key that was just made.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreatedServiceKey {
    /// The key, for `X-Service-Key`. It is told this once.
    #[schema(value_type = String, max_length = 64)]
    #[serde(serialize_with = "in_clear")]
    pub key: ServiceKeySecret,
    /// About it.
    #[serde(flatten)]
    pub details: ServiceKeyDetails,
}

fn in_clear<S: Serializer>(key: &ServiceKeySecret, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(key.expose())
}

/// What may go wrong with a key.
#[derive(Debug, thiserror::Error)]
pub enum ServiceKeyError {
    /// No key that is accepted has this id.
    #[error("there is no such service key, or it was revoked before")]
    NotFound,
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DbError),
}

/// No such key, or not any more.
pub static SERVICE_KEY_NOT_FOUND: ErrorCode = ErrorCode {
    code: "service.key_not_found",
    kind: Kind::NotFound,
    title: "There is no such service key, or it was revoked before",
    word: None,
    way_out: "Take the id from GET /api/v1/admin/service-keys. One that was revoked stays revoked: there is nothing left to do.",
};

/// The catalogue of this feature.
pub static CODES: &[&ErrorCode] = &[&SERVICE_KEY_NOT_FOUND];

impl Problem for ServiceKeyError {
    fn code(&self) -> &'static ErrorCode {
        match self {
            Self::NotFound => &SERVICE_KEY_NOT_FOUND,
            Self::Database(error) => error.code(),
        }
    }
}
