//! Which spends a batch's refunds are about: looked up behind the wallets' locks, so that parallel refunds each find what is left.

use super::batch::Order;
use super::error::LedgerError;
use super::model::{Command, Wallet, refund::MAX_REFUNDED_SPENDS};
use super::store::{self, OpenSpend};
use mana_kernel::Amount;
use sqlx::PgConnection;
use std::collections::{BTreeSet, HashMap};

/// How many of a wallet's latest lines are looked through for spends that nobody names, and how many if those are not enough.
const LOOKS: [i64; 2] = [1_000, 10_000];

/// The refunds of a wallet.
#[derive(Default)]
struct Refunds<'a> {
    /// Spends that are named.
    named: BTreeSet<i64>,
    /// What apps give back without naming a spend.
    unnamed: HashMap<&'a str, Vec<i64>>,
    /// What is given back in all.
    total: i64,
    count: usize,
}

/// Has each wallet recall what its refunds are about.
pub(super) async fn recall_spends(
    connection: &mut PgConnection,
    wallets: &mut HashMap<String, Wallet>,
    orders: &[Order],
) -> Result<(), LedgerError> {
    for (user, refunds) in refunds_of(orders) {
        if let Some(wallet) = wallets.get_mut(user) {
            let mut sequences = refunds.named.clone();
            for (app, amounts) in &refunds.unnamed {
                let open = find_open(connection, wallet, app, refunds.total).await?;
                sequences.extend(choose(&open, amounts, &refunds));
            }
            let sequences: Vec<i64> = sequences.into_iter().collect();
            wallet.recalled = store::recall_spends(connection, wallet.id, &sequences).await?;
        }
    }
    Ok(())
}

fn refunds_of(orders: &[Order]) -> HashMap<&str, Refunds<'_>> {
    let mut all: HashMap<&str, Refunds<'_>> = HashMap::new();
    for order in orders {
        let amount = match &order.command {
            Some(Command::Refund { amount, .. }) => amount.map_or(0, Amount::get),
            Some(Command::RefundNewest { amount, .. }) => amount.get(),
            _ => continue,
        };
        let refunds = all.entry(order.user.as_str()).or_default();
        refunds.total = refunds.total.saturating_add(amount);
        refunds.count = refunds.count.saturating_add(1);
        match &order.command {
            Some(Command::Refund { spend, .. }) => {
                refunds.named.insert(*spend);
            }
            Some(Command::RefundNewest { note, .. }) => {
                refunds.unnamed.entry(&note.app_id).or_default().push(amount);
            }
            _ => {}
        }
    }
    all
}

/// Spends of the app of which something is left, the newest first, as far back as it takes to have `total`.
async fn find_open(
    connection: &mut PgConnection,
    wallet: &Wallet,
    app: &str,
    total: i64,
) -> Result<Vec<OpenSpend>, LedgerError> {
    let mut open = Vec::new();
    for lines in LOOKS {
        // Lines have no gaps, so that so many of the latest are a range of the primary key.
        let after = wallet.sequence.saturating_sub(lines).max(0);
        open = store::find_open_spends(connection, wallet.id, app, after).await?;
        if after == 0 || is_enough(&open, total) {
            break;
        }
    }
    Ok(open)
}

/// Whether refunds of `total` in all find enough, whatever each leaves to the next: that much is open in as many of the newest spends as one
/// refund may take.
fn is_enough(open: &[OpenSpend], total: i64) -> bool {
    let newest = open.iter().take(MAX_REFUNDED_SPENDS);
    newest.fold(0, |sum: i64, spend| sum.saturating_add(spend.rest)) >= total
}

/// Of open spends, those that the machine may want for refunds of `amounts`, whatever the batch's other refunds leave of them: the newest that
/// have enough for all of them together, and for each the newest that cover it alone, one more than the others may take from.
fn choose(open: &[OpenSpend], amounts: &[i64], refunds: &Refunds<'_>) -> BTreeSet<i64> {
    let mut sum = 0_i64;
    let most = MAX_REFUNDED_SPENDS.saturating_mul(refunds.count);
    let together = open.iter().take(most).take_while(|spend| {
        let is_missing = sum < refunds.total;
        sum = sum.saturating_add(spend.rest);
        is_missing
    });
    let mut chosen: BTreeSet<i64> = together.map(|spend| spend.sequence).collect();
    let alone = most.saturating_sub(MAX_REFUNDED_SPENDS).saturating_add(1);
    for amount in amounts {
        let covering = open.iter().filter(|spend| spend.rest >= *amount).take(alone);
        chosen.extend(covering.map(|spend| spend.sequence));
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::super::model::{GrantSource, Note, RecalledSpend, Slice, Terms, WalletId};
    use super::*;
    use mana_kernel::{Mana, TransactionId};
    use proptest::prelude::*;
    use time::OffsetDateTime;
    use time::macros::date;
    use uuid::Uuid;

    fn refunds(amounts: &[i64]) -> Refunds<'static> {
        Refunds { total: amounts.iter().sum(), count: amounts.len(), ..Refunds::default() }
    }

    fn open(rests: &[i64]) -> Vec<OpenSpend> {
        let sequences = (1..=1000).rev();
        sequences.zip(rests).map(|(sequence, rest)| OpenSpend { sequence, rest: *rest }).collect()
    }

    #[test]
    fn the_newest_that_suffice_are_recalled_and_those_that_cover_alone() {
        for (rests, amounts, expected) in [
            (&[5, 40, 7][..], &[5][..], &[1000][..]),
            (&[5, 40, 7], &[45], &[1000, 999]),
            (&[5, 6, 40], &[10], &[1000, 999, 998]),
            (&[5, 5, 5], &[5, 5], &[1000, 999, 998]),
            (&[5, 6], &[12], &[1000, 999]),
            (&[], &[1], &[]),
        ] {
            let chosen = choose(&open(rests), amounts, &refunds(amounts));
            assert_eq!(chosen, expected.iter().copied().collect(), "{amounts:?} of {rests:?}");
        }
    }

    /// What each of these refunds is taken from, one after the other, in a wallet that recalls these spends; none if that is refused.
    fn refund_all(open: &[OpenSpend], amounts: &[i64]) -> Vec<Option<Vec<(i64, i64)>>> {
        let mana = |amount: i64| Mana::new(amount).unwrap();
        let terms = Terms {
            source: GrantSource::Promotion,
            priority: 0,
            cost_micros: 0,
            effective_from: None,
            expires_at: None,
        };
        let mut wallet = Wallet::new(WalletId(1), date!(2026 - 01 - 01), OffsetDateTime::UNIX_EPOCH);
        wallet.total_spent = mana(open.iter().map(|spend| spend.rest).sum());
        let recalled = open.iter().map(|spend| RecalledSpend {
            sequence: spend.sequence,
            app_id: "app".to_owned(),
            slices: vec![Slice { grant: 1, amount: mana(spend.rest) }],
            refunded: Mana::ZERO,
            terms: vec![(1, terms)],
        });
        wallet.recalled = recalled.collect();
        let note = Note { app_id: "app".to_owned(), ..Note::default() };
        let refund = |amount: &i64| {
            let amount = Amount::try_from(*amount).unwrap();
            let command = Command::RefundNewest { amount, revives_expired: false, note: note.clone() };
            let done = wallet.apply(&command, &mut || TransactionId(Uuid::nil())).ok()?;
            Some(done.transactions.iter().map(|line| (line.reference.unwrap(), line.amount)).collect())
        };
        amounts.iter().map(refund).collect()
    }

    #[test]
    fn a_small_spend_more_or_less_is_not_enough_for_what_no_refund_may_be_put_together_from() {
        let ones = open(&[1; 1000]);
        assert!(is_enough(&ones, 100) && !is_enough(&ones, 101));
    }

    proptest! {
        #[test]
        fn refunds_are_of_the_spends_that_they_would_be_of_if_all_were_recalled(
            rests in prop::collection::vec(prop_oneof![4 => 1..4_i64, 1 => 1..300_i64], 0..350),
            amounts in prop::collection::vec(prop_oneof![1..300_i64, 1..3000_i64], 1..5),
        ) {
            let open = open(&rests);
            let chosen = choose(&open, &amounts, &refunds(&amounts));
            let recalled: Vec<_> = open.iter().filter(|spend| chosen.contains(&spend.sequence)).copied().collect();
            prop_assert_eq!(refund_all(&recalled, &amounts), refund_all(&open, &amounts));
        }

        #[test]
        fn what_is_enough_is_so_for_each_refund(
            rests in prop::collection::vec(1..50_i64, 0..200), amounts in prop::collection::vec(1..600_i64, 1..5),
        ) {
            let open = open(&rests);
            if is_enough(&open, amounts.iter().sum()) {
                prop_assert!(refund_all(&open, &amounts).iter().all(Option::is_some));
            }
        }
    }
}
