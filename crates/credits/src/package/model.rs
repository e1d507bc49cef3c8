//! A package, its prices and its versions.

use crate::ledger::Metadata;
use mana_kernel::integer::within;
use mana_kernel::{Amount, ErrorCode, Kind, Line, Mana, Paragraph, Problem};
use mana_platform::DbError;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use time::OffsetDateTime;
use utoipa::ToSchema;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};

/// Stripe takes no more at once.
const MAX_CENTS: i64 = 99_999_999;

/// What a package is called in URLs and files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9_-]{1,64}$")]
pub struct PackageId(String);

impl PackageId {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for PackageId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if (1..=64).contains(&text.len()) && text.bytes().all(is_plain) {
            Ok(Self(text))
        } else {
            Err("must be 1 to 64 letters, digits, '-' or '_'")
        }
    }
}

impl From<PackageId> for String {
    fn from(id: PackageId) -> Self {
        id.0
    }
}

/// Money in the smallest unit of its currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(into = "i64")]
#[schema(value_type = i64, minimum = 1, maximum = 99_999_999)]
pub struct Cents(i64);

impl Cents {
    /// As a number.
    pub fn get(self) -> i64 {
        self.0
    }
}

impl<'de> Deserialize<'de> for Cents {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        within(deserializer, 1, MAX_CENTS).map(Self)
    }
}

impl TryFrom<i64> for Cents {
    type Error = &'static str;

    fn try_from(value: i64) -> Result<Self, &'static str> {
        if (1..=MAX_CENTS).contains(&value) {
            Ok(Self(value))
        } else {
            Err("must be an integer from 1 to 99999999")
        }
    }
}

impl From<Cents> for i64 {
    fn from(cents: Cents) -> Self {
        cents.0
    }
}

/// A currency as Stripe writes it: three small letters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, min_length = 3, max_length = 3, pattern = "^[a-z]{3}$", examples("eur"))]
pub struct Currency(String);

impl Currency {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The one that every package has a price in.
    pub fn euro() -> Self {
        Self("eur".to_owned())
    }
}

impl TryFrom<String> for Currency {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        if text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_lowercase()) {
            Ok(Self(text))
        } else {
            Err("must be three small letters, as eur")
        }
    }
}

impl From<Currency> for String {
    fn from(currency: Currency) -> Self {
        currency.0
    }
}

/// Prices by currency, at most 20.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<Currency, Cents>")]
pub struct Prices(BTreeMap<Currency, Cents>);

impl TryFrom<BTreeMap<Currency, Cents>> for Prices {
    type Error = &'static str;

    fn try_from(prices: BTreeMap<Currency, Cents>) -> Result<Self, &'static str> {
        if prices.contains_key(&Currency::euro()) {
            Err("must not have eur: that is priceEuroCents")
        } else if prices.len() > 20 {
            Err("must have at most 20 members")
        } else {
            Ok(Self(prices))
        }
    }
}

impl utoipa::PartialSchema for Prices {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::Object)
            .additional_properties(Some(Cents::schema()))
            .max_properties(Some(20))
            .into()
    }
}

impl utoipa::ToSchema for Prices {}

/// What a package is.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PackageContent {
    /// What it is called, on the till too.
    pub name: Line<1, 100>,
    /// More about it.
    pub description: Option<Paragraph<1, 1000>>,
    /// Mana in it, a present included.
    pub credits: Amount,
    /// How much of it is a present; 0 if absent.
    pub bonus_credits: Option<Mana>,
    /// Price in EUR cents.
    pub price_euro_cents: Cents,
    /// Prices in other currencies, in the smallest unit of each, as `{"usd": 550}`.
    #[serde(default)]
    pub prices: Prices,
    /// A price that is kept at Stripe, for EUR; without it the price is sent along.
    pub stripe_price_id: Option<Line<1, 255>>,
    /// Whether it is for sale; yes if absent.
    pub active: Option<bool>,
    /// Place in the list, lowest first; 0 if absent.
    #[schema(minimum = -2_147_483_648_i64, maximum = 2_147_483_647)]
    pub sort_order: Option<i32>,
    /// Anything.
    pub metadata: Option<Metadata>,
}

/// A package of a file: its content, with its id beside it.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Map<String, Value>")]
pub struct NamedPackage {
    /// What it is called in URLs.
    pub id: PackageId,
    /// What it is.
    pub content: PackageContent,
}

impl TryFrom<Map<String, Value>> for NamedPackage {
    type Error = serde_json::Error;

    fn try_from(mut members: Map<String, Value>) -> Result<Self, serde_json::Error> {
        let id = members.remove("id").unwrap_or_default();
        Ok(Self { id: serde_json::from_value(id)?, content: serde_json::from_value(Value::Object(members))? })
    }
}

/// A package.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PackageResponse {
    #[schema(min_length = 1, max_length = 64)]
    pub(crate) id: String,
    #[schema(max_length = 100)]
    pub(crate) name: String,
    #[schema(max_length = 1000, required)]
    pub(crate) description: Option<String>,
    /// Mana in it, a present included.
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_i64)]
    pub(crate) credits: i64,
    /// How much of it is a present.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    pub(crate) bonus_credits: i64,
    /// Price in EUR cents.
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_i64)]
    pub(crate) price_euro_cents: i64,
    /// Prices in other currencies, in the smallest unit of each.
    #[schema(value_type = Prices)]
    pub(crate) prices: Value,
    #[schema(max_length = 255, required)]
    pub(crate) stripe_price_id: Option<String>,
    pub(crate) active: bool,
    /// Place in the list, lowest first.
    #[schema(minimum = -2_147_483_648_i64, maximum = 2_147_483_647)]
    pub(crate) sort_order: i32,
    #[schema(value_type = Option<crate::ledger::Metadata>, required)]
    pub(crate) metadata: Option<Value>,
    /// Counts its changes. An order keeps the version that it was sold at.
    #[schema(minimum = 1, maximum = 2_147_483_647)]
    pub(crate) version: i32,
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) created_at: OffsetDateTime,
}

impl PackageResponse {
    /// What is to be paid in a currency, if it is sold in it.
    pub(crate) fn price_in(&self, currency: &Currency) -> Option<i64> {
        if *currency == Currency::euro() {
            Some(self.price_euro_cents)
        } else {
            self.prices.get(currency.as_str())?.as_i64()
        }
    }

    /// What it is called at the command line.
    pub fn summary(&self) -> String {
        let Self { id, version, credits, bonus_credits, price_euro_cents, active, .. } = self;
        let state = if *active { "" } else { "  not for sale" };
        format!(
            "{id}  v{version}  {credits} mana ({bonus_credits} of it a present)  {price_euro_cents} EUR cents{state}"
        )
    }
}

/// What may go wrong with a package.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// The present is more than all of it.
    #[error("bonusCredits of package {0} must be at most its credits")]
    BonusBeyondCredits(String),
    /// Who asks may not, any more, or it can't be told.
    #[error("the accounts can't be told: {0}")]
    Port(crate::PortError),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DbError),
    /// It can't be written down.
    #[error("the package can't be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// More present than package.
pub static BONUS_BEYOND_CREDITS: ErrorCode = ErrorCode {
    code: "payments.bonus_beyond_credits",
    kind: Kind::Invalid,
    title: "The present is more than the package",
    word: None,
    way_out: "`credits` is all mana of the package, and `bonusCredits` the part of it that is a present.",
};

impl Problem for PackageError {
    fn code(&self) -> &'static ErrorCode {
        match self {
            Self::BonusBeyondCredits(_) => &BONUS_BEYOND_CREDITS,
            Self::Port(error) => error.code(),
            Self::Database(error) => error.code(),
            Self::Json(_) => &mana_platform::http::codes::INTERNAL,
        }
    }
}
