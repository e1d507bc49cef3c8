//! The hash chain of a wallet: each transaction's hash covers itself and, through its predecessor's, all before it.

use super::model::{Account, Entry, Transaction, WalletId};
use aws_lc_rs::digest::{Context, SHA256};

/// The hash of a transaction behind `previous`: SHA-256 over every stored field, each text with its length before it,
/// so that no two different transactions are the same bytes.
pub fn link(previous: &[u8; 32], wallet: WalletId, transaction: &Transaction, entries: &[Entry]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    context.update(previous);
    context.update(transaction.stamp.id.0.as_bytes());
    for number in [
        wallet.0,
        transaction.sequence,
        transaction.amount,
        transaction.balance_after.get(),
        micros(transaction.stamp.at),
    ] {
        context.update(&number.to_be_bytes());
    }
    text(&mut context, Some(transaction.kind.as_str()));
    text(&mut context, Some(&transaction.app_id));
    text(&mut context, Some(&transaction.description));
    text(&mut context, transaction.metadata.as_deref());
    text(&mut context, transaction.idempotency_key.as_deref());
    for entry in entries {
        text(&mut context, Some(entry.account.as_str()));
        if let Account::Wallet { grant } = entry.account {
            context.update(&grant.to_be_bytes());
        }
        context.update(&entry.amount.to_be_bytes());
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

fn text(context: &mut Context, text: Option<&str>) {
    match text {
        // No text is as long as this.
        None => context.update(&u64::MAX.to_be_bytes()),
        Some(text) => {
            context.update(&u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
            context.update(text.as_bytes());
        }
    }
}

fn micros(at: time::OffsetDateTime) -> i64 {
    i64::try_from(at.unix_timestamp_nanos().div_euclid(1000)).unwrap_or(i64::MAX)
}
