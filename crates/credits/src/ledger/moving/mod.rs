//! The way of the books from one installation to another: a file of JSON lines that has every row with its hash.
//!
//! The first line names the format and its version. Then come, wallet by wallet, the wallet's row, its grants, holds, usage
//! and transactions; then the remembered answers of all wallets, in a section of their own because they can be many more than
//! fit into memory; then a line with counts and a digest of all lines before it, so that a file that was cut off shows. The
//! order is always the same, so the same books are the same bytes.

mod export;
mod import;
pub(in crate::ledger) mod store;

pub use export::{ExportError, export};
pub use import::{ImportError, import};

use super::record::{AnswerRecord, GrantRecord, HoldRecord, LineRecord, UsageRecord, WalletRecord, hex};
use serde::{Deserialize, Serialize};

const FORMAT: &str = "mana-core-auth ledger";
const VERSION: u64 = 1;

/// The first line. Later versions may say more.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    format: String,
    version: u64,
    /// How many there are, to say how far the work is.
    #[serde(default)]
    wallets: u64,
}

/// A line after the first.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Row {
    Wallet(WalletRecord),
    Grant(GrantRecord),
    Hold(HoldRecord),
    Usage(UsageRecord),
    Transaction(LineRecord),
    Answer(AnswerRecord),
    End(End),
}

/// The last line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    rows: Counts,
    /// Of all lines before it.
    #[serde(with = "hex")]
    sha256: Vec<u8>,
}

/// How many rows were moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Wallets.
    pub wallets: u64,
    /// Grants.
    pub grants: u64,
    /// Holds, open or ended.
    pub holds: u64,
    /// Days of a wallet in an app.
    pub usage: u64,
    /// Lines of all histories.
    pub transactions: u64,
    /// Remembered answers.
    pub answers: u64,
}

impl Counts {
    fn add(&mut self, row: &Row) {
        let count = match row {
            Row::Wallet(_) => &mut self.wallets,
            Row::Grant(_) => &mut self.grants,
            Row::Hold(_) => &mut self.holds,
            Row::Usage(_) => &mut self.usage,
            Row::Transaction(_) => &mut self.transactions,
            Row::Answer(_) => &mut self.answers,
            Row::End(_) => return,
        };
        *count = count.saturating_add(1);
    }
}

impl Row {
    /// What it is, and of which wallet.
    fn name(&self) -> (&'static str, i64) {
        match self {
            Self::Wallet(row) => ("wallet", row.wallet_id),
            Self::Grant(row) => ("grant", row.wallet_id),
            Self::Hold(row) => ("hold", row.wallet_id),
            Self::Usage(row) => ("usage", row.wallet_id),
            Self::Transaction(row) => ("transaction", row.wallet_id),
            Self::Answer(row) => ("answer", row.wallet_id),
            Self::End(_) => ("end", 0),
        }
    }
}
