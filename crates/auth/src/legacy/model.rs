//! Rows of the older service, as they are read from its database.

use serde::Deserialize;
use serde_json::Value;
use std::fmt;
use time::OffsetDateTime;
use time::serde::rfc3339;

/// A user.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OldUser {
    /// Opaque id.
    pub id: String,
    /// The address.
    #[serde(default)]
    pub email: Option<String>,
    /// Whether its owner has proven it.
    #[serde(default)]
    pub email_verified: Option<bool>,
    /// Name to show.
    #[serde(default)]
    pub name: Option<String>,
    /// URL of a picture.
    #[serde(default)]
    pub image: Option<String>,
    /// `user`, `admin` or `service`.
    #[serde(default)]
    pub role: Option<String>,
    /// Whether a second factor is asked for.
    #[serde(default)]
    pub two_factor_enabled: Option<bool>,
    /// When the account was made.
    #[serde(default, with = "rfc3339::option")]
    pub created_at: Option<OffsetDateTime>,
    /// When it was deleted.
    #[serde(default, with = "rfc3339::option")]
    pub deleted_at: Option<OffsetDateTime>,
}

/// A way to sign in: a password, or an account elsewhere.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OldAccount {
    /// Whose.
    pub user_id: String,
    /// `credential`, or the other service.
    pub provider_id: String,
    /// The id there.
    pub account_id: String,
    /// The password's hash.
    #[serde(default)]
    pub password: Option<String>,
    /// When it was added.
    #[serde(default, with = "rfc3339::option")]
    pub created_at: Option<OffsetDateTime>,
}

impl fmt::Debug for OldAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OldAccount").field("provider_id", &self.provider_id).finish_non_exhaustive()
    }
}

/// A password that stands by itself, as the first versions had it.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OldPassword {
    /// Whose.
    pub user_id: String,
    /// Its hash.
    #[serde(default)]
    pub hashed_password: Option<String>,
}

impl fmt::Debug for OldPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OldPassword").finish_non_exhaustive()
    }
}

/// A second factor.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OldFactor {
    /// Whose.
    pub user_id: String,
    /// The secret of an authenticator app, closed.
    pub secret: String,
    /// Whether it counts; the user says so where this does not.
    #[serde(default)]
    pub enabled: Option<bool>,
    /// Codes on paper, closed.
    #[serde(default)]
    pub backup_codes: Option<Value>,
}

impl fmt::Debug for OldFactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OldFactor").field("enabled", &self.enabled).finish_non_exhaustive()
    }
}

/// What happened to an account.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OldEvent {
    /// Whose.
    #[serde(default)]
    pub user_id: Option<String>,
    /// What.
    pub event_type: String,
    /// From where.
    #[serde(default)]
    pub ip_address: Option<String>,
    /// By which client.
    #[serde(default)]
    pub user_agent: Option<String>,
    /// When.
    #[serde(default, with = "rfc3339::option")]
    pub created_at: Option<OffsetDateTime>,
}

/// What comes with a user.
#[derive(Debug, Default)]
pub struct With {
    /// Ways to sign in.
    pub accounts: Vec<OldAccount>,
    /// The password that stands by itself.
    pub password: Option<OldPassword>,
    /// The second factor.
    pub factor: Option<OldFactor>,
}

impl With {
    /// The hash that the older service verified: that of the credential account, where there is one.
    pub(super) fn hash(&self) -> Option<String> {
        let credential = self.accounts.iter().find(|account| account.provider_id == "credential");
        let hash = credential.and_then(|account| account.password.clone());
        let is_hash = |hash: &String| !hash.is_empty();
        hash.filter(is_hash).or_else(|| self.password.as_ref()?.hashed_password.clone()).filter(is_hash)
    }
}
