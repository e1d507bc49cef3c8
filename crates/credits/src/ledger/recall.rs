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
        if after == 0 || open.iter().fold(0, |sum: i64, spend| sum.saturating_add(spend.rest)) >= total {
            break;
        }
    }
    Ok(open)
}

/// Of open spends, those that the machine may want for refunds of `amounts`, whatever the batch's other refunds leave of them: the newest that
/// have enough for all of them together, and for each the newest that cover it alone.
fn choose(open: &[OpenSpend], amounts: &[i64], refunds: &Refunds<'_>) -> BTreeSet<i64> {
    let mut sum = 0_i64;
    let most = MAX_REFUNDED_SPENDS.saturating_mul(refunds.count);
    let together = open.iter().take(most).take_while(|spend| {
        let is_missing = sum < refunds.total;
        sum = sum.saturating_add(spend.rest);
        is_missing
    });
    let mut chosen: BTreeSet<i64> = together.map(|spend| spend.sequence).collect();
    for amount in amounts {
        let covering = open.iter().filter(|spend| spend.rest >= *amount).take(refunds.count);
        chosen.extend(covering.map(|spend| spend.sequence));
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
            (&[5, 5, 5], &[5, 5], &[1000, 999]),
            (&[5, 6], &[12], &[1000, 999]),
            (&[], &[1], &[]),
        ] {
            let chosen = choose(&open(rests), amounts, &refunds(amounts));
            assert_eq!(chosen, expected.iter().copied().collect(), "{amounts:?} of {rests:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_recalled_suffices_if_anything_does(
            rests in prop::collection::vec(1..50_i64, 0..60), amounts in prop::collection::vec(1..200_i64, 1..5),
        ) {
            let open = open(&rests);
            let chosen = choose(&open, &amounts, &refunds(&amounts));
            let has: i64 = open.iter().filter(|spend| chosen.contains(&spend.sequence)).map(|spend| spend.rest).sum();
            let (all, wanted): (i64, i64) = (rests.iter().sum(), amounts.iter().sum());
            prop_assert!(has >= wanted.min(all), "{has} of {all} for {wanted}");
            for amount in amounts {
                let newest = open.iter().find(|spend| spend.rest >= amount);
                prop_assert!(newest.is_none_or(|spend| chosen.contains(&spend.sequence)));
            }
        }
    }
}
