//! What crosses the border between accounts and credits: each port is defined by the one and implemented here with the other.

use mana_auth::admin::{Act, record_credits};
use mana_auth::bonus::SignupBonus;
use mana_auth::security_event;
use mana_auth::session::{find_live, hold_live};
use mana_auth::{DataPage, OnUserDeleted, OnUserRegistered, PersonalData, WalletSummary, Wallets};
use mana_credits::ledger::balance::{WalletTotals, find_totals};
use mana_credits::ledger::error::LedgerError;
use mana_credits::ledger::{closing, registration};
use mana_credits::purchase::{OnPaymentRisk, PaymentRisk};
use mana_credits::{AdminAct, AdminLog, Policy, SessionGuard, personal_data};
use mana_kernel::{Clock, Problem, Rng, SessionId, UserId};
use mana_platform::http::Caller;
use sqlx::PgConnection;
use std::collections::HashSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

type Port<'a, T> = Pin<Box<dyn Future<Output = Result<T, Box<dyn Problem>>> + Send + 'a>>;

/// A new user gets a wallet and the sign-up bonus.
#[derive(Debug)]
pub(crate) struct OpenWallet {
    pub(crate) policy: Policy,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) rng: Arc<dyn Rng>,
}

impl OnUserRegistered for OpenWallet {
    fn on_user_registered<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        user: &'a UserId,
        bonus: SignupBonus,
    ) -> Port<'a, ()> {
        Box::pin(async move {
            registration::open_wallet(connection, &self.policy, &*self.clock, user).await.map_err(boxed)?;
            match bonus {
                SignupBonus::Given => self.on_bonus_due(connection, user).await,
                SignupBonus::Withheld => Ok(()),
            }
        })
    }

    fn on_bonus_due<'a>(&'a self, connection: &'a mut PgConnection, user: &'a UserId) -> Port<'a, ()> {
        Box::pin(async move {
            registration::give_bonus(connection, &self.policy, &*self.clock, &*self.rng, user)
                .await
                .map_err(boxed)
        })
    }
}

fn boxed(error: LedgerError) -> Box<dyn Problem> {
    Box::new(error)
}

/// The wallet of a user whose account ends is closed.
#[derive(Debug)]
pub(crate) struct CloseWallet {
    pub(crate) clock: Arc<dyn Clock>,
}

impl OnUserDeleted for CloseWallet {
    fn on_user_deleted<'a>(&'a self, connection: &'a mut PgConnection, user: &'a UserId) -> Port<'a, ()> {
        Box::pin(async move {
            closing::close_wallet(connection, &*self.clock, user)
                .await
                .map_err(|error| -> Box<dyn Problem> { Box::new(error) })
        })
    }
}

/// What the ledger keeps of a person.
#[derive(Debug)]
pub(crate) struct LedgerOfPerson;

impl PersonalData for LedgerOfPerson {
    fn lists(&self) -> &'static [&'static str] {
        personal_data::LISTS
    }

    fn page<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        user: &'a UserId,
        list: &'a str,
        after: Option<&'a str>,
    ) -> Port<'a, DataPage> {
        Box::pin(async move {
            let page = personal_data::page(connection, user, list, after)
                .await
                .map_err(|error| -> Box<dyn Problem> { Box::new(error) })?;
            Ok(DataPage { rows: page.rows, next: page.next })
        })
    }
}

/// A spend asks whether its session still lives.
#[derive(Debug)]
pub(crate) struct LiveSessions {
    pub(crate) clock: Arc<dyn Clock>,
}

impl SessionGuard for LiveSessions {
    fn find_live<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        callers: &'a [&'a Caller],
    ) -> Port<'a, HashSet<SessionId>> {
        Box::pin(async move {
            let (sessions, users) = names(callers);
            find_live(connection, &sessions, &users, self.clock.now())
                .await
                .map_err(|error| -> Box<dyn Problem> { Box::new(error) })
        })
    }

    fn hold_live<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        callers: &'a [&'a Caller],
    ) -> Port<'a, HashSet<SessionId>> {
        Box::pin(async move {
            let (sessions, users) = names(callers);
            hold_live(connection, &sessions, &users, self.clock.now())
                .await
                .map_err(|error| -> Box<dyn Problem> { Box::new(error) })
        })
    }
}

fn names(callers: &[&Caller]) -> (Vec<String>, Vec<String>) {
    callers
        .iter()
        .map(|caller| (caller.session_id.as_str().to_owned(), caller.user_id.as_str().to_owned()))
        .unzip()
}

/// Bad news about a payer is written on the user's account.
#[derive(Debug)]
pub(crate) struct PaymentRisks {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) rng: Arc<dyn Rng>,
}

impl OnPaymentRisk for PaymentRisks {
    fn on_payment_risk<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        user: &'a UserId,
        risk: PaymentRisk,
        order: &'a str,
    ) -> Port<'a, ()> {
        Box::pin(async move {
            let kind = match risk {
                PaymentRisk::FraudWarning => security_event::PaymentNews::FraudWarning,
                PaymentRisk::DisputeLost => security_event::PaymentNews::DisputeLost,
            };
            security_event::record_payment_news(connection, &*self.clock, &*self.rng, user, kind, order)
                .await
                .map_err(|error| -> Box<dyn Problem> { Box::new(error) })
        })
    }
}

/// What an administrator does to a wallet is an event of the account.
#[derive(Debug)]
pub(crate) struct AdminEvents {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) rng: Arc<dyn Rng>,
}

impl AdminLog for AdminEvents {
    fn record<'a>(&'a self, connection: &'a mut PgConnection, acts: &'a [AdminAct]) -> Port<'a, ()> {
        Box::pin(async move {
            for AdminAct { by, request, user, amount, transaction } in acts {
                let (tools, reason) = ((&*self.clock, &*self.rng), by.reason.clone());
                let act =
                    Act::new(tools, by.caller.as_ref(), &by.client, Some(request.clone()), Some(reason));
                record_credits(connection, &act, user, *amount, *transaction)
                    .await
                    .map_err(|error| -> Box<dyn Problem> { Box::new(error) })?;
            }
            Ok(())
        })
    }
}

/// Administrators see what is in a wallet.
#[derive(Debug)]
pub(crate) struct ShownWallets {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) zone: String,
}

impl Wallets for ShownWallets {
    fn find_wallet<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        user: &'a UserId,
    ) -> Port<'a, Option<WalletSummary>> {
        Box::pin(async move {
            let totals = find_totals(connection, &*self.clock, &self.zone, user).await.map_err(boxed)?;
            Ok(totals.map(|WalletTotals { paid, free, held, total_earned, total_spent }| WalletSummary {
                balance: paid,
                free_credits_remaining: free,
                held_credits: held,
                total_earned,
                total_spent,
            }))
        })
    }
}
