//! Orders, and what is said of their payments, as `purchase::sync` has the ledger follow it: order and wallet under their locks, in one
//! transaction.

use super::*;
use crate::ledger::model::{Bought, Counter, Note, Settled, Settlement, Terms, TransactionKind};
use mana_kernel::{Amount, Mana};

/// What every order gives.
const CREDITS: i64 = 40;
/// Orders of a world.
const ORDERS: usize = 12;

/// An order that was paid.
#[derive(Debug)]
pub(super) struct Purchase {
    user: UserId,
    /// What belongs back as things stand, and the part of it that is certain: so the payment provider says.
    due: i64,
    certain: i64,
    /// What its row says.
    row: Row,
}

/// What is committed of an order.
#[derive(Debug, Clone, Copy, Default)]
struct Row {
    grant: Option<(i64, Terms)>,
    taken: Mana,
    owed: Mana,
}

fn description(number: usize) -> String {
    format!("purchase {number}")
}

impl World {
    /// Somebody pays, or money goes back, or is contested, or the contest is won.
    pub(super) fn pay(&mut self) -> String {
        if self.purchases.len() < ORDERS && self.is_one_in(2) {
            let user = user(self.below(USERS));
            let told = format!("{user} pays for purchase {}", self.purchases.len());
            self.purchases.push(Purchase { user, due: 0, certain: 0, row: Row::default() });
            return told;
        }
        if self.purchases.is_empty() {
            return "nobody has paid".to_owned();
        }
        let number = self.below(self.purchases.len());
        let [a, b] = [(); 2].map(|()| [0, 0, 7, CREDITS / 2, CREDITS][self.below(5)]);
        let purchase = &mut self.purchases[number];
        (purchase.due, purchase.certain) = (a.max(b), a.min(b));
        format!("of purchase {number} {} is due, and {} of it for certain", purchase.due, purchase.certain)
    }

    /// A replica looks at an order, unless another has its wallet.
    pub(super) fn follow_payment(&mut self, replica: usize) -> String {
        if self.purchases.is_empty() {
            return "there is no order to look at".to_owned();
        }
        let number = self.below(self.purchases.len());
        let user = self.purchases[number].user.clone();
        let mut open = self.replicas.iter().filter_map(|replica| replica.working.as_ref());
        if open.any(|work| work.locks(&user)) {
            return format!("purchase {number} waits for a lock");
        }
        if self.is_one_in(6) {
            return format!("replica {replica} dies before it has settled purchase {number}");
        }
        self.settle_payment(number, self.replicas[replica].skew);
        format!("replica {replica} settles purchase {number}: {:?}", self.purchases[number].row)
    }

    fn settle_payment(&mut self, number: usize, skew: Duration) {
        let Purchase { user, due, certain, row } = &self.purchases[number];
        let (mana, grant) = (|value| Mana::new(value).unwrap(), row.grant);
        let bought = Bought { amount: Amount::try_from(CREDITS).unwrap(), cost_micros: 1_000_000 };
        let settlement = Settlement {
            gives: Some(bought).filter(|_| grant.is_none()),
            grant,
            taken: row.taken,
            owed: row.owed,
            due: mana(*due),
            certain: mana(*certain),
            note: Note { app_id: "app".to_owned(), description: description(number), ..Note::default() },
        };
        let ids = &mut self.ids;
        let mut new_id = || {
            *ids += 1;
            TransactionId(Uuid::from_u128(*ids))
        };
        let done = self.database.settle(user, settlement, self.now, self.now + skew, &mut new_id);
        let [Settled { grant: sequence, taken, owed }] = done.settled[..] else {
            panic!("one order, one outcome")
        };
        let given = done.new_grants.iter().find(|grant| grant.sequence == sequence);
        let grant = grant.or_else(|| given.map(|grant| (sequence, grant.terms)));
        assert_eq!(grant.map(|(sequence, _)| sequence), Some(sequence), "22");
        self.purchases[number].row = Row { grant, taken, owed };
    }

    /// Everybody has looked at every order once more.
    pub(super) fn settle_payments(&mut self) {
        for number in 0..self.purchases.len() {
            self.settle_payment(number, Duration::ZERO);
        }
    }

    /// What the orders say, and what is in the books.
    pub(super) fn check_payments(&self) {
        for (number, purchase) in self.purchases.iter().enumerate() {
            let Row { grant, taken, owed } = purchase.row;
            let (grant, _) = grant.unwrap();
            let lines = || self.database.lines(&purchase.user).iter();
            let credits = lines()
                .filter(|line| line.kind == TransactionKind::Purchase)
                .filter(|line| line.note.description == description(number));
            assert_eq!(credits.count(), 1, "22: purchase {number}");
            let cleared = lines().filter(|line| line.counter == Counter::Clearing);
            let cleared = cleared.flat_map(|line| &line.slices).filter(|slice| slice.grant == grant);
            assert_eq!(
                cleared.map(|slice| slice.amount).sum::<i64>(),
                CREDITS - taken.get(),
                "25: purchase {number}"
            );
            assert!(taken.get() <= purchase.due, "23: purchase {number}");
            assert_eq!(owed.get(), (purchase.certain - taken.get()).max(0), "25: purchase {number}");
        }
        for user in (0..USERS).map(user) {
            let owed = self.purchases.iter().filter(|purchase| purchase.user == user);
            let owed: i64 = owed.map(|purchase| purchase.row.owed.get()).sum();
            let debts = self.database.lines(&user).iter().filter(|line| line.counter == Counter::Debt);
            let repaid: i64 = debts.map(|line| line.amount).sum();
            assert_eq!(self.database.debt(&user), owed + repaid, "25: the debt of {user}");
        }
    }
}
