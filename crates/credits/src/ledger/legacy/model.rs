//! Rows of the older service, as they are read from its database, and what their texts come to here.

use mana_kernel::{Line, Paragraph};
use serde::Deserialize;
use serde_json::{Map, Value};
use time::serde::rfc3339;
use time::{Date, OffsetDateTime};

time::serde::format_description!(day, Date, "[year]-[month]-[day]");

/// Bytes of a line's metadata at most: as many as an app may give.
const MOST_METADATA: usize = 8192;

/// What a wallet of the older service had.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OldBalance {
    /// Whose.
    pub user_id: String,
    /// Paid mana; all of it in versions that told nothing apart.
    pub balance: i64,
    /// Free mana; absent in those versions.
    #[serde(default)]
    pub free_credits_remaining: Option<i64>,
    /// Bought or given so far.
    #[serde(default)]
    pub total_earned: Option<i64>,
    /// Spent so far.
    #[serde(default)]
    pub total_spent: Option<i64>,
    /// The day, in the zone of the policy, for which the daily mana was given last.
    #[serde(default, with = "day::option")]
    pub daily_day: Option<Date>,
    /// When the wallet was opened.
    #[serde(default, with = "rfc3339::option")]
    pub created_at: Option<OffsetDateTime>,
}

/// A line of its history.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OldLine {
    /// Its id.
    pub id: String,
    /// What sort.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it happened.
    #[serde(default)]
    pub status: Option<String>,
    /// Change of the balance; spends are negative.
    pub amount: i64,
    /// The app that caused it.
    #[serde(default)]
    pub app_id: Option<String>,
    /// What the person read.
    #[serde(default)]
    pub description: Option<String>,
    /// What the app wanted to find again.
    #[serde(default)]
    pub metadata: Option<Value>,
    /// The client's name for the request.
    #[serde(default)]
    pub idempotency_key: Option<String>,
    /// The organisation in whose name it was.
    #[serde(default)]
    pub organization_id: Option<String>,
    /// When it happened.
    #[serde(default, with = "rfc3339::option")]
    pub created_at: Option<OffsetDateTime>,
    /// The day of that, in the zone of the policy.
    #[serde(default, with = "day::option")]
    pub day: Option<Date>,
    /// The day a minute before.
    #[serde(default, with = "day::option")]
    pub earliest_day: Option<Date>,
    /// The day a minute after.
    #[serde(default, with = "day::option")]
    pub latest_day: Option<Date>,
}

/// An order.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OldOrder {
    /// Whose.
    pub user_id: String,
    /// Its id.
    pub id: String,
    /// What was bought, if that is still known.
    #[serde(default)]
    pub package_id: Option<String>,
    /// How much mana.
    pub credits: i64,
    /// For how much.
    pub price_euro_cents: i64,
    /// `pending`, `completed`, `failed`, `cancelled`, in some versions `refunded`.
    pub status: String,
    /// The payment at Stripe.
    #[serde(default)]
    pub stripe_payment_intent_id: Option<String>,
    /// The visit to Stripe's till.
    #[serde(default)]
    pub stripe_checkout_session_id: Option<String>,
    /// Who paid.
    #[serde(default)]
    pub stripe_customer_id: Option<String>,
    /// May name the visit to the till.
    #[serde(default)]
    pub metadata: Option<Value>,
    /// When it was made.
    #[serde(default, with = "rfc3339::option")]
    pub created_at: Option<OffsetDateTime>,
    /// When it was paid.
    #[serde(default, with = "rfc3339::option")]
    pub completed_at: Option<OffsetDateTime>,
}

impl OldOrder {
    /// Whether it was paid.
    pub(super) fn is_paid(&self) -> bool {
        matches!(self.status.as_str(), "completed" | "refunded")
    }

    /// The visit to Stripe's till, wherever it is written down.
    pub(super) fn session_id(&self) -> Option<&str> {
        let in_metadata = || self.metadata.as_ref()?.get("stripeSessionId")?.as_str();
        self.stripe_checkout_session_id.as_deref().or_else(in_metadata).filter(|id| id.starts_with("cs_"))
    }
}

/// How this installation treats mana and money.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Now.
    pub now: OffsetDateTime,
    /// Whether orders were paid with real money.
    pub livemode: bool,
}

impl OldLine {
    /// Whether it happened: what was begun, failed or was given up changed no balance.
    pub(super) fn has_happened(&self) -> bool {
        self.status.as_deref().is_none_or(|status| status == "completed")
    }

    /// The app, as it can be named here.
    pub(super) fn app(&self) -> String {
        let app = self.app_id.clone().unwrap_or_default();
        match Line::<1, 128>::try_from(app) {
            Ok(app) => app.into(),
            Err(_) => "legacy".to_owned(),
        }
    }

    /// What it says, as it can be said here: without control characters, and no longer than other lines.
    pub(super) fn text(&self) -> String {
        let given = self.description.clone().unwrap_or_default();
        if let Ok(text) = Paragraph::<1, 1000>::try_from(given.clone()) {
            return text.into();
        }
        let clean = given.chars().map(|letter| if letter.is_control() { ' ' } else { letter });
        let clean: String = clean.take(1000).collect();
        if clean.trim().is_empty() { self.kind.chars().take(64).collect() } else { clean }
    }

    /// The key, if it can be one here.
    pub(super) fn key(&self) -> Option<Line<1, 255>> {
        Line::try_from(self.idempotency_key.clone()?).ok()
    }

    /// Its metadata, with what has no place of its own here. What is no object, or too large, is put aside.
    pub(super) fn members(&self) -> Map<String, Value> {
        let mut members = match self.metadata.clone() {
            Some(Value::Object(members)) if is_small(&members) => members,
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(_)) => {
                Map::from_iter([("legacyMetadata".to_owned(), "left out: too large".into())])
            }
            Some(other @ (Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_))) => {
                let kept = Map::from_iter([("legacyMetadata".to_owned(), other)]);
                if is_small(&kept) {
                    kept
                } else {
                    Map::from_iter([("legacyMetadata".to_owned(), "left out: too large".into())])
                }
            }
        };
        if let Some(organization) = &self.organization_id {
            members.insert("legacyOrganizationId".to_owned(), organization.as_str().into());
        }
        members
    }
}

fn is_small(members: &Map<String, Value>) -> bool {
    serde_json::to_string(members).is_ok_and(|text| text.len() <= MOST_METADATA)
}
