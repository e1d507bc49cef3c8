//! The hash chain of a wallet: each transaction's hash covers itself and, through its predecessor's, all before it.

use super::model::{Terms, Transaction, WalletId};
use aws_lc_rs::digest::{Context, SHA256};

/// The hash of a transaction behind `previous`: SHA-256 over every stored field, each text with its length before it,
/// so that no two different transactions are the same bytes. What only some transactions have comes last, each with its
/// name; of one that makes a grant, the terms of that: `made`.
pub fn link(
    previous: &[u8; 32],
    wallet: WalletId,
    transaction: &Transaction,
    made: Option<&Terms>,
) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    context.update(previous);
    context.update(transaction.id.0.as_bytes());
    for number in [
        wallet.0,
        transaction.sequence,
        transaction.amount,
        transaction.balance_after.get(),
        micros(transaction.at),
    ] {
        context.update(&number.to_be_bytes());
    }
    let note = &transaction.note;
    text(&mut context, Some(transaction.kind.as_str()));
    text(&mut context, Some(&note.app_id));
    text(&mut context, Some(&note.description));
    text(&mut context, note.metadata.as_deref());
    text(&mut context, note.idempotency_key.as_deref());
    for slice in &transaction.slices {
        text(&mut context, Some("wallet"));
        context.update(&slice.grant.to_be_bytes());
        context.update(&slice.amount.to_be_bytes());
    }
    text(&mut context, Some(transaction.counter.as_str()));
    context.update(&0_i64.saturating_sub(transaction.amount).to_be_bytes());
    if let Some(reference) = transaction.reference {
        text(&mut context, Some("reference"));
        context.update(&reference.to_be_bytes());
    }
    if let Some(hold) = transaction.hold_id {
        text(&mut context, Some("hold"));
        context.update(hold.0.as_bytes());
    }
    if let Some(key) = &note.service_key_id {
        text(&mut context, Some("service key"));
        text(&mut context, Some(key));
    }
    if let Some(Terms { source, priority, cost_micros, effective_from, expires_at }) = made {
        text(&mut context, Some("grant"));
        text(&mut context, Some(source.as_str()));
        context.update(&priority.to_be_bytes());
        context.update(&cost_micros.to_be_bytes());
        for time in [effective_from, expires_at] {
            // No time is as late as this.
            context.update(&time.map_or(i64::MAX, micros).to_be_bytes());
        }
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
