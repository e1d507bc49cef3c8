//! What crosses the border between accounts and credits: each port is defined by the one and implemented here with the other.

use mana_auth::admin::{self, Act, CreditsDeed, record_credits, record_sale};
use mana_auth::auto_top_up::{self, PausedFor};
use mana_auth::bonus::SignupBonus;
use mana_auth::security_event;
use mana_auth::service_key;
use mana_auth::session::hold_live;
use mana_auth::webhook::model::EventType;
use mana_auth::webhook::{self, AppEvent, Listeners};
use mana_auth::{Auth, DataPage, OnUserDeleted, OnUserRegistered, PersonalData, WalletSummary, Wallets};
use mana_credits::auto_top_up::{PauseReason, Payers, TopUpNews};
use mana_credits::ledger::balance::{WalletTotals, find_totals};
use mana_credits::ledger::error::LedgerError;
use mana_credits::ledger::{closing, registration};
use mana_credits::purchase::{self, OnPaymentRisk, PaymentRisk};
use mana_credits::{
    AdminAct, AdminLog, Administrator, ChargedBy, CreditsEvent, Deed, HeldServices, OnCreditsEvent, Policy,
    SalesDeed, SessionGuard, personal_data,
};
use mana_kernel::{Clock, Problem, RequestId, Rng, SessionId, UserId};
use mana_platform::DbError;
use mana_platform::http::{Caller, current_request_id};
use serde_json::json;
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

    fn before_bonus<'a>(&'a self, connection: &'a mut PgConnection, user: &'a UserId) -> Port<'a, ()> {
        Box::pin(
            async move { registration::hold_wallet(connection, &self.policy, user).await.map_err(boxed) },
        )
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

/// The wallet of a user whose account ends is closed, nothing is bought for it any more, and who paid is forgotten.
#[derive(Debug)]
pub(crate) struct CloseWallet {
    pub(crate) clock: Arc<dyn Clock>,
}

impl OnUserDeleted for CloseWallet {
    fn on_user_deleted<'a>(&'a self, connection: &'a mut PgConnection, user: &'a UserId) -> Port<'a, ()> {
        Box::pin(async move {
            // Orders are locked before wallets.
            purchase::forget_payer(connection, user).await.map_err(problem)?;
            closing::close_wallet(connection, &*self.clock, user).await.map_err(problem)?;
            mana_credits::auto_top_up::end(connection, &*self.clock, user).await.map_err(problem)
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
            let page = personal_data::page(connection, user, list, after).await.map_err(problem)?;
            Ok(DataPage { rows: page.rows, next: page.next })
        })
    }
}

/// A spend asks whether its session still lives, or its app's key, and whether the user may be charged.
#[derive(Debug)]
pub(crate) struct LiveSessions {
    pub(crate) clock: Arc<dyn Clock>,
}

impl SessionGuard for LiveSessions {
    fn hold_live<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        callers: &'a [&'a Caller],
    ) -> Port<'a, HashSet<SessionId>> {
        Box::pin(async move {
            let sessions: Vec<_> =
                callers.iter().map(|caller| caller.session_id.as_str().to_owned()).collect();
            let users: Vec<_> = callers.iter().map(|caller| caller.user_id.as_str().to_owned()).collect();
            hold_live(connection, &sessions, &users, self.clock.now()).await.map_err(problem)
        })
    }

    fn hold_services<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        keys: &'a [&'a str],
        users: &'a [&'a UserId],
    ) -> Port<'a, HeldServices> {
        Box::pin(async move {
            let users: Vec<_> = users.iter().map(|user| user.as_str().to_owned()).collect();
            let failed = |error: DbError| -> Box<dyn Problem> { Box::new(error) };
            let held = service_key::hold(connection, keys, &users).await.map_err(problem)?;
            let unreadable = |_| failed(DbError::unreadable("auth.users"));
            let disabled = held.disabled.into_iter().map(|id| UserId::try_from(id).map_err(unreadable));
            Ok(HeldServices {
                keys: held.keys.into_iter().collect(),
                bound_keys: held.bound_keys.into_iter().collect(),
                disabled: disabled.collect::<Result<_, _>>()?,
            })
        })
    }
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
                .map_err(problem)
        })
    }
}

/// Who may be charged, and what the owner of an auto top-up is told.
#[derive(Debug)]
pub(crate) struct PayersAccounts(pub(crate) Arc<Auth>);

impl Payers for PayersAccounts {
    fn may_be_charged<'a>(&'a self, connection: &'a mut PgConnection, user: &'a UserId) -> Port<'a, bool> {
        Box::pin(async move { auto_top_up::may_be_charged(connection, user).await.map_err(problem) })
    }

    fn on_top_up_news<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        user: &'a UserId,
        news: TopUpNews<'a>,
    ) -> Port<'a, ()> {
        Box::pin(async move {
            let is_on = match news {
                TopUpNews::TurnedOn => true,
                TopUpNews::TurnedOff => false,
                TopUpNews::Paused { reason, till, language } => {
                    let reason = paused_for(reason);
                    let told = auto_top_up::record_paused(connection, &self.0, user, reason, till, language);
                    return told.await.map_err(problem);
                }
            };
            auto_top_up::record_turned(connection, &self.0, user, is_on).await.map_err(problem)
        })
    }
}

/// An error as a port hands it over: who asked learns its code, and not its type.
fn problem(error: impl Problem + 'static) -> Box<dyn Problem> {
    Box::new(error)
}

fn paused_for(reason: PauseReason) -> PausedFor {
    match reason {
        PauseReason::Declined => PausedFor::Declined,
        PauseReason::AuthenticationRequired => PausedFor::AuthenticationRequired,
        PauseReason::PackageChanged => PausedFor::PackageChanged,
        PauseReason::PackageGone => PausedFor::PackageGone,
        PauseReason::PaymentMethodGone => PausedFor::PaymentMethodGone,
        PauseReason::ProviderRefuses => PausedFor::ProviderRefuses,
        PauseReason::Debt => PausedFor::Debt,
        PauseReason::Disputed => PausedFor::Disputed,
        PauseReason::Refunded => PausedFor::Refunded,
        PauseReason::WalletClosed => PausedFor::WalletClosed,
        PauseReason::Uncredited => PausedFor::Uncredited,
        PauseReason::UserDisabled => PausedFor::UserDisabled,
        PauseReason::Tax => PausedFor::Tax,
    }
}

/// What an administrator does to a wallet or a purchase is an event of the account, and to what is for sale one of the installation.
#[derive(Debug)]
pub(crate) struct AdminEvents {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) rng: Arc<dyn Rng>,
}

impl AdminEvents {
    fn act<'a>(&'a self, by: &'a Administrator, request: Option<RequestId>) -> Act<'a> {
        Act::new((&*self.clock, &*self.rng), by.caller.as_ref(), &by.client, request, by.reason.clone())
    }
}

impl AdminLog for AdminEvents {
    fn hold_office<'a>(&'a self, connection: &'a mut PgConnection, by: &'a Administrator) -> Port<'a, ()> {
        Box::pin(async move {
            let held = self.act(by, current_request_id()).hold_office(connection).await;
            held.map_err(problem)
        })
    }

    fn record_sale<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        by: &'a Administrator,
        deed: SalesDeed<'a>,
    ) -> Port<'a, ()> {
        Box::pin(async move {
            let deed = match deed {
                SalesDeed::PurchaseRefunded { user, purchase, amount_cents } => {
                    admin::SalesDeed::PurchaseRefunded { user, purchase, amount_cents }
                }
                SalesDeed::PackageChanged { package } => admin::SalesDeed::PackageChanged { package },
            };
            record_sale(connection, &self.act(by, current_request_id()), &deed).await.map_err(problem)
        })
    }

    fn record<'a>(&'a self, connection: &'a mut PgConnection, acts: &'a [AdminAct]) -> Port<'a, ()> {
        Box::pin(async move {
            for AdminAct { by, request, user, deed, amount, transaction } in acts {
                let act = self.act(by, Some(request.clone()));
                let deed = match deed {
                    Deed::Granted => CreditsDeed::Granted,
                    Deed::Taken => CreditsDeed::Taken,
                    Deed::Forgiven => CreditsDeed::Forgiven,
                };
                record_credits(connection, &act, user, deed, *amount, *transaction).await.map_err(problem)?;
            }
            Ok(())
        })
    }
}

/// Apps hear of what happens to wallets and orders.
#[derive(Debug)]
pub(crate) struct AppEvents {
    /// Who listens; asked each time without, as commands do.
    pub(crate) listeners: Option<Arc<Listeners>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) rng: Arc<dyn Rng>,
}

impl OnCreditsEvent for AppEvents {
    fn may_want_spend(&self, app: &str, amount: i64) -> bool {
        self.listeners.as_ref().is_none_or(|listeners| listeners.may_want(app, amount))
    }

    fn on_credits_events<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        events: &'a [CreditsEvent],
    ) -> Port<'a, ()> {
        Box::pin(async move {
            let told: Vec<_> = events.iter().map(app_event).collect();
            webhook::announce(connection, (&*self.clock, &*self.rng), &told).await.map_err(problem)
        })
    }
}

/// What apps read of it: docs/WEBHOOKS.md describes each.
fn app_event(event: &CreditsEvent) -> AppEvent {
    match event {
        CreditsEvent::Spent { user, app, amount, transaction, hold, by } => {
            let charged_by = match by {
                ChargedBy::Service => "service",
                ChargedBy::SharedService => "shared_service",
                ChargedBy::User => "user",
            };
            let data = json!({
                "userId": user, "amount": amount, "transactionId": transaction, "holdId": hold, "chargedBy": charged_by,
            });
            AppEvent::spent(user, app, *amount, data)
        }
        CreditsEvent::Low { user, available, below } => {
            let data = json!({ "userId": user, "available": available, "below": below });
            AppEvent::new(EventType::CreditsLow, user, data)
        }
        CreditsEvent::PurchaseCompleted { user, purchase, package, credits, currency, price_cents } => {
            let data = json!({
                "userId": user, "purchaseId": purchase, "packageId": package, "credits": credits, "currency": currency,
                "priceCents": price_cents,
            });
            AppEvent::new(EventType::PurchaseCompleted, user, data)
        }
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
