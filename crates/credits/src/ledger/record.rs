//! Rows of the ledger as they stand, for whoever reads all of them: the proof, and the way in and out of an installation.
//! Nothing is taken for true: what a column says may have been written by anybody.

use super::model::{Change, Counter, Grant, GrantSource, Note, Slice, Terms, Transaction, TransactionKind};
use mana_kernel::{HoldId, Mana, TransactionId};
use serde::{Deserialize, Serialize};
use time::{Date, OffsetDateTime};
use uuid::Uuid;

time::serde::format_description!(pub(crate) day, Date, "[year]-[month]-[day]");

/// A wallet.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WalletRecord {
    pub(crate) wallet_id: i64,
    pub(crate) user_id: String,
    pub(crate) version: i64,
    pub(crate) sequence: i64,
    #[serde(with = "hex")]
    pub(crate) head: Vec<u8>,
    pub(crate) free: i64,
    pub(crate) paid: i64,
    pub(crate) held: i64,
    pub(crate) total_earned: i64,
    pub(crate) total_spent: i64,
    /// Absent in exports of before there were debts.
    #[serde(default)]
    pub(crate) debt: i64,
    #[serde(with = "day")]
    pub(crate) daily_granted_on: Date,
    /// JSON text.
    #[serde(with = "json_text")]
    pub(crate) grants: String,
    /// JSON text.
    #[serde(with = "json_text")]
    pub(crate) holds: String,
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) updated_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    pub(crate) closed_at: Option<OffsetDateTime>,
}

/// What a grant is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrantRecord {
    pub(crate) wallet_id: i64,
    pub(crate) grant_sequence: i64,
    pub(crate) source: String,
    pub(crate) priority: i16,
    pub(crate) cost_micros: i64,
    #[serde(with = "time::serde::rfc3339::option")]
    pub(crate) effective_from: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub(crate) expires_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) created_at: OffsetDateTime,
}

/// A hold, open or ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HoldRecord {
    pub(crate) wallet_id: i64,
    pub(crate) id: Uuid,
    pub(crate) app_id: String,
    pub(crate) description: String,
    /// JSON text.
    pub(crate) metadata: Option<String>,
    pub(crate) amount: i64,
    pub(crate) captured: i64,
    pub(crate) slice_grants: Vec<i64>,
    pub(crate) slice_amounts: Vec<i64>,
    pub(crate) status: String,
    pub(crate) service_key_id: Option<String>,
    pub(crate) capture_sequence: Option<i64>,
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) expires_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    pub(crate) ended_at: Option<OffsetDateTime>,
}

/// A line of a wallet's history.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LineRecord {
    pub(crate) wallet_id: i64,
    pub(crate) sequence: i64,
    pub(crate) id: Uuid,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) amount: i64,
    pub(crate) balance_after: i64,
    pub(crate) counter: String,
    pub(crate) slice_grants: Vec<i64>,
    pub(crate) slice_amounts: Vec<i64>,
    pub(crate) reference: Option<i64>,
    pub(crate) hold_id: Option<Uuid>,
    pub(crate) app_id: String,
    pub(crate) description: String,
    /// JSON text, as the hash covers it.
    pub(crate) metadata: Option<String>,
    pub(crate) idempotency_key: Option<String>,
    pub(crate) service_key_id: Option<String>,
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) created_at: OffsetDateTime,
    #[serde(with = "hex")]
    pub(crate) hash: Vec<u8>,
}

/// Spends and refunds of a wallet in an app on a day of the policy's zone.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UsageRecord {
    pub(crate) wallet_id: i64,
    #[serde(with = "day")]
    pub(crate) day: Date,
    pub(crate) app_id: String,
    pub(crate) spends: i64,
    pub(crate) spent: i64,
    pub(crate) refunded: i64,
}

/// What is answered to a request that is sent again with its key.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AnswerRecord {
    pub(crate) wallet_id: i64,
    pub(crate) key_digest: Uuid,
    #[serde(with = "hex")]
    pub(crate) request_digest: Vec<u8>,
    pub(crate) status: i16,
    pub(crate) body: String,
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) created_at: OffsetDateTime,
}

/// Spends and refunds of a wallet in an app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct UsageSums {
    pub(crate) spends: i64,
    pub(crate) spent: i64,
    pub(crate) refunded: i64,
}

impl UsageSums {
    /// Adds a day.
    pub(crate) fn add(&mut self, day: &UsageRecord) {
        self.spends = self.spends.saturating_add(day.spends);
        self.spent = self.spent.saturating_add(day.spent);
        self.refunded = self.refunded.saturating_add(day.refunded);
    }
}

impl GrantRecord {
    /// As the state machine made it.
    pub(crate) fn of(wallet_id: i64, grant: &Grant, created_at: OffsetDateTime) -> Self {
        let Terms { source, priority, cost_micros, effective_from, expires_at } = grant.terms;
        Self {
            wallet_id,
            grant_sequence: grant.sequence,
            source: source.as_str().to_owned(),
            priority,
            cost_micros,
            effective_from,
            expires_at,
            created_at,
        }
    }

    /// As the state machine knows it; none if a word is unknown.
    pub(crate) fn terms(&self) -> Option<Terms> {
        Some(Terms {
            source: GrantSource::from_database(&self.source)?,
            priority: self.priority,
            cost_micros: self.cost_micros,
            effective_from: self.effective_from,
            expires_at: self.expires_at,
        })
    }
}

impl HoldRecord {
    /// What it took; none if that is no mana.
    pub(crate) fn slices(&self) -> Option<Vec<Slice>> {
        if self.slice_grants.len() != self.slice_amounts.len() {
            return None;
        }
        let pairs = self.slice_grants.iter().zip(&self.slice_amounts);
        pairs.map(|(grant, amount)| Some(Slice { grant: *grant, amount: Mana::new(*amount)? })).collect()
    }
}

/// What a spend with these slices took; none if that is no mana.
pub(crate) fn taken(grants: &[i64], amounts: &[i64]) -> Option<Vec<Slice>> {
    let slices = grants.iter().zip(amounts);
    slices
        .map(|(grant, amount)| Some(Slice { grant: *grant, amount: Mana::new(0_i64.checked_sub(*amount)?)? }))
        .collect()
}

impl LineRecord {
    /// As the state machine posted it.
    pub(crate) fn of(wallet_id: i64, line: &Transaction) -> Self {
        let note = line.note.clone();
        Self {
            wallet_id,
            sequence: line.sequence,
            id: line.id.0,
            kind: line.kind.as_str().to_owned(),
            amount: line.amount,
            balance_after: line.balance_after.get(),
            counter: line.counter.as_str().to_owned(),
            slice_grants: line.slices.iter().map(|slice| slice.grant).collect(),
            slice_amounts: line.slices.iter().map(|slice| slice.amount).collect(),
            reference: line.reference,
            hold_id: line.hold_id.map(|hold| hold.0),
            app_id: note.app_id,
            description: note.description,
            metadata: note.metadata,
            idempotency_key: note.idempotency_key,
            service_key_id: note.service_key_id,
            created_at: line.at,
            hash: line.hash.to_vec(),
        }
    }

    /// What it took, if it is a spend.
    pub(crate) fn taken(&self) -> Option<Vec<Slice>> {
        taken(&self.slice_grants, &self.slice_amounts)
    }

    /// As the state machine posted it; none if a column holds what it never posts.
    pub(crate) fn transaction(&self) -> Option<Transaction> {
        if self.slice_grants.len() != self.slice_amounts.len() {
            return None;
        }
        let slices = self.slice_grants.iter().zip(&self.slice_amounts);
        Some(Transaction {
            id: TransactionId(self.id),
            at: self.created_at,
            sequence: self.sequence,
            kind: TransactionKind::from_database(&self.kind)?,
            amount: self.amount,
            balance_after: Mana::new(self.balance_after)?,
            counter: Counter::from_database(&self.counter)?,
            slices: slices.map(|(grant, amount)| Change { grant: *grant, amount: *amount }).collect(),
            reference: self.reference,
            hold_id: self.hold_id.map(HoldId),
            note: Note {
                app_id: self.app_id.clone(),
                description: self.description.clone(),
                metadata: self.metadata.clone(),
                idempotency_key: self.idempotency_key.clone(),
                service_key_id: self.service_key_id.clone(),
            },
            hash: self.hash.as_slice().try_into().ok()?,
        })
    }
}

/// Bytes as people read them.
pub(crate) mod hex {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};
    use std::fmt::Write as _;

    pub(crate) fn write(bytes: &[u8]) -> String {
        bytes.iter().fold(String::new(), |mut text, byte| {
            // Writing to a text can't fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    pub(crate) fn read(text: &str) -> Option<Vec<u8>> {
        let digits: Vec<u32> = text.chars().map(|digit| digit.to_digit(16)).collect::<Option<_>>()?;
        let (pairs, []) = digits.as_chunks::<2>() else { return None };
        pairs.iter().map(|[high, low]| u8::try_from(high.checked_mul(16)?.checked_add(*low)?).ok()).collect()
    }

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&write(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        read(&text).ok_or_else(|| D::Error::custom("bytes are written as pairs of hexadecimal digits"))
    }
}

/// A column of JSON: its text inside, a value outside.
mod json_text {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer, ser::Error as _};
    use serde_json::Value;

    pub(super) fn serialize<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
        serde_json::from_str::<Value>(text).map_err(S::Error::custom)?.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
        Ok(Value::deserialize(deserializer)?.to_string())
    }
}
