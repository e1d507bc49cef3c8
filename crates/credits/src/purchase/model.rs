//! An order, and what is known of its payment.
//!
//! Whatever makes the service look at Stripe, an event, a person who comes back from the till, the regular comparison,
//! what it sees there is [`Facts`]: of this moment, or of an earlier one that was overtaken on its way. Facts are merged:
//! each part only moves on, so that any order of arrival comes to the same. State and settlement follow from them.

use crate::ledger::model::{Bought, Note, Settlement, Terms};
use crate::stripe::StripeError;
use crate::stripe::object::{
    Address, CheckoutSession, CustomerDetails, Dispute, Expandable, FraudWarning, Metadata, PaymentIntent,
    Refund,
};
use mana_kernel::{Amount, ErrorCode, Kind, Line, Mana, Problem};
use mana_platform::DbError;
use mana_platform::http::codes;
use std::collections::BTreeMap;
use time::OffsetDateTime;

/// An order as its row has it.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) id: String,
    pub(crate) user_id: String,
    pub(crate) package_id: String,
    pub(crate) credits: i64,
    pub(crate) currency: String,
    pub(crate) price_cents: i64,
    /// Whether Stripe was asked for tax.
    pub(crate) is_taxed: bool,
    /// Tax beside the price.
    pub(crate) added_tax_cents: i64,
    pub(crate) origin: OrderOrigin,
    pub(crate) livemode: bool,
    pub(crate) customer_id: Option<String>,
    pub(crate) session_id: Option<String>,
    pub(crate) payment_id: Option<String>,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) captured_cents: i64,
    pub(crate) fraud_warned: bool,
    pub(crate) problem: Option<String>,
    pub(crate) granted_mana: i64,
    pub(crate) grant_sequence: Option<i64>,
    pub(crate) taken_mana: i64,
    pub(crate) owed_mana: i64,
    pub(crate) completed_at: Option<OffsetDateTime>,
}

/// Who asked for an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OrderOrigin {
    /// Somebody who pays at the till.
    Person,
    /// The auto top-up that somebody has turned on.
    AutoTopUp,
}

impl OrderOrigin {
    /// As in the database.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Person => "person",
            Self::AutoTopUp => "auto_top_up",
        }
    }

    /// From the database; none for a word that this version does not know.
    pub(crate) fn from_database(text: &str) -> Option<Self> {
        [Self::Person, Self::AutoTopUp].into_iter().find(|origin| origin.as_str() == text)
    }
}

/// How far the visit to the till is. Only moves down this list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum Lifecycle {
    /// Nobody was sent there yet.
    #[default]
    Created,
    /// The till waits.
    Open,
    /// Left, and the money is on its way.
    Complete,
    /// The money did not come.
    Failed,
    /// Nobody came.
    Expired,
}

impl Lifecycle {
    const ALL: [Self; 5] = [Self::Created, Self::Open, Self::Complete, Self::Failed, Self::Expired];

    /// As in the database.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Open => "open",
            Self::Complete => "complete",
            Self::Failed => "failed",
            Self::Expired => "expired",
        }
    }

    /// From the database; none for a word that this version does not know.
    pub(crate) fn from_database(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|lifecycle| lifecycle.as_str() == text)
    }
}

/// How far a refund is. Only moves down this list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RefundStatus {
    /// Stripe has not been told yet, or has not answered.
    Wanted,
    /// On its way.
    Pending,
    /// Done.
    Succeeded,
    /// Refused, or it came back: the money is here.
    Failed,
}

impl RefundStatus {
    const ALL: [Self; 4] = [Self::Wanted, Self::Pending, Self::Succeeded, Self::Failed];

    /// As in the database and the API.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Wanted => "wanted",
            Self::Pending => "pending",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
        }
    }

    /// From the database; none for a word that this version does not know.
    pub(crate) fn from_database(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }

    fn of_stripe(word: Option<&str>) -> Self {
        match word {
            Some("succeeded") => Self::Succeeded,
            Some("failed" | "canceled") => Self::Failed,
            _ => Self::Pending,
        }
    }
}

/// How far a dispute is. Only moves down this list: a lost one may still be won, not the other way about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum DisputeStatus {
    /// A bank asks; no money has moved.
    Inquiry,
    /// The money is withdrawn until it is decided.
    Open,
    /// It is gone.
    Lost,
    /// It is back, or never went.
    Won,
}

impl DisputeStatus {
    const ALL: [Self; 4] = [Self::Inquiry, Self::Open, Self::Lost, Self::Won];

    /// As in the database.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Inquiry => "inquiry",
            Self::Open => "open",
            Self::Lost => "lost",
            Self::Won => "won",
        }
    }

    /// From the database; none for a word that this version does not know.
    pub(crate) fn from_database(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }

    fn of_stripe(word: &str) -> Self {
        match word {
            "won" | "warning_closed" => Self::Won,
            "lost" => Self::Lost,
            word if word.starts_with("warning") => Self::Inquiry,
            _ => Self::Open,
        }
    }
}

/// What is known of a payment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Facts {
    pub(crate) lifecycle: Lifecycle,
    pub(crate) captured_cents: i64,
    /// By our id, or Stripe's where it was not wanted here.
    pub(crate) refunds: BTreeMap<String, (RefundStatus, i64)>,
    pub(crate) disputes: BTreeMap<String, (DisputeStatus, i64)>,
    pub(crate) fraud_warned: bool,
}

impl Facts {
    /// Both. The order does not matter, nor how often.
    pub(crate) fn merge(mut self, other: &Self) -> Self {
        self.lifecycle = self.lifecycle.max(other.lifecycle);
        self.captured_cents = self.captured_cents.max(other.captured_cents);
        self.fraud_warned |= other.fraud_warned;
        for (id, fact) in &other.refunds {
            let known = self.refunds.entry(id.clone()).or_insert(*fact);
            *known = (*known).max(*fact);
        }
        for (id, fact) in &other.disputes {
            let known = self.disputes.entry(id.clone()).or_insert(*fact);
            *known = (*known).max(*fact);
        }
        self
    }

    /// Money that went back, or is about to.
    pub(crate) fn refunded_cents(&self) -> i64 {
        let back = self.refunds.values().filter(|(status, _)| *status != RefundStatus::Failed);
        self.capped(back.map(|(_, cents)| *cents))
    }

    /// Money that disputes took for good.
    pub(crate) fn lost_cents(&self) -> i64 {
        let lost = self.disputes.values().filter(|(status, _)| *status == DisputeStatus::Lost);
        self.capped(lost.map(|(_, cents)| *cents))
    }

    /// Whether a bank contests it and nothing is decided.
    pub(crate) fn is_disputed(&self) -> bool {
        self.disputes.values().any(|(status, _)| *status == DisputeStatus::Open)
    }

    /// Whether all that came in went back for good.
    pub(crate) fn is_returned(&self) -> bool {
        self.captured_cents > 0 && self.certain_cents() >= self.captured_cents
    }

    /// Money that is not here for good.
    fn certain_cents(&self) -> i64 {
        self.capped([self.refunded_cents(), self.lost_cents()])
    }

    /// The same, with what is contested.
    fn due_cents(&self) -> i64 {
        let open = self.disputes.values().filter(|(status, _)| *status == DisputeStatus::Open);
        self.capped(open.map(|(_, cents)| *cents).chain([self.certain_cents()]))
    }

    fn capped(&self, cents: impl IntoIterator<Item = i64>) -> i64 {
        cents.into_iter().fold(0_i64, i64::saturating_add).min(self.captured_cents)
    }

    /// The word for it all. What was paid and could not be credited is not paid for the one who waits.
    pub(crate) fn state(&self, is_credited: bool) -> &'static str {
        if is_credited {
            let refunded = self.certain_cents();
            return match refunded {
                0 => "paid",
                cents if cents >= self.captured_cents => "refunded",
                _ => "partially_refunded",
            };
        }
        match self.lifecycle {
            _ if self.is_returned() => "refunded",
            _ if self.captured_cents > 0 => "unpaid",
            Lifecycle::Created => "created",
            Lifecycle::Open | Lifecycle::Complete => "unpaid",
            Lifecycle::Failed => "failed",
            Lifecycle::Expired => "expired",
        }
    }
}

/// What Stripe says of an order at a moment.
#[derive(Debug, Clone)]
pub(crate) struct Observation {
    /// The till; none of an order that is paid without one.
    pub(crate) session: Option<CheckoutSession>,
    pub(crate) payment: Option<PaymentIntent>,
    pub(crate) refunds: Vec<Refund>,
    pub(crate) disputes: Vec<Dispute>,
    pub(crate) warnings: Vec<FraudWarning>,
}

/// Why a payment is not credited, in a word for the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mismatch {
    /// The session or the payment names another order.
    Order,
    /// Another amount than was asked for.
    Amount,
    /// Another currency.
    Currency,
    /// Pretended money for a real order, or the other way about.
    Livemode,
    /// Somebody else paid.
    Customer,
}

impl Mismatch {
    /// As in the database.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Order => "order_mismatch",
            Self::Amount => "amount_mismatch",
            Self::Currency => "currency_mismatch",
            Self::Livemode => "livemode_mismatch",
            Self::Customer => "customer_mismatch",
        }
    }
}

impl Observation {
    /// What it says.
    pub(crate) fn facts(&self) -> Facts {
        let captured = self.payment.as_ref().filter(|payment| payment.status == "succeeded");
        let is_refused = self
            .payment
            .as_ref()
            .is_some_and(|payment| matches!(payment.status.as_str(), "requires_payment_method" | "canceled"));
        let lifecycle = match &self.session {
            Some(session) => match session.status.as_deref() {
                Some("expired") => Lifecycle::Expired,
                Some("complete") if is_refused => Lifecycle::Failed,
                Some("complete") => Lifecycle::Complete,
                _ => Lifecycle::Open,
            },
            None => match self.payment.as_ref().map(|payment| payment.status.as_str()) {
                Some("canceled") => Lifecycle::Failed,
                Some("succeeded" | "processing") => Lifecycle::Complete,
                // A card that was declined once may be charged yet.
                _ => Lifecycle::Open,
            },
        };
        let refunds = self.refunds.iter().map(|refund| {
            let ours = refund.metadata.as_ref().and_then(|metadata| metadata.get("refund_id"));
            let id = ours.unwrap_or(&refund.id).clone();
            (id, (RefundStatus::of_stripe(refund.status.as_deref()), refund.amount))
        });
        let disputes = self
            .disputes
            .iter()
            .map(|dispute| (dispute.id.clone(), (DisputeStatus::of_stripe(&dispute.status), dispute.amount)));
        Facts {
            lifecycle,
            captured_cents: captured.map_or(0, |payment| payment.amount_received.max(0)),
            refunds: refunds.collect(),
            disputes: disputes.collect(),
            fraud_warned: !self.warnings.is_empty(),
        }
    }

    /// Whether Stripe says that it is about this order. Our orders are named in all places. The older service named its own by another
    /// word, in the session or the payment, and where neither says anything, its order names the payment.
    fn is_about(&self, order: &Order) -> bool {
        let named = |metadata: &Metadata| {
            metadata.get("order_id").or_else(|| metadata.get("purchaseId")).map(|id| *id == order.id)
        };
        let in_payment = self.payment.as_ref().map(|payment| named(&payment.metadata));
        let Some(session) = &self.session else {
            let is_known =
                self.payment.as_ref().is_some_and(|payment| order.payment_id.as_ref() == Some(&payment.id));
            return is_known && in_payment.flatten() != Some(false);
        };
        let in_session = session.metadata.as_ref().and_then(named);
        match &session.client_reference_id {
            Some(reference) => {
                *reference == order.id
                    && in_session == Some(true)
                    && in_payment.is_none_or(|named| named == Some(true))
            }
            None => {
                let is_older =
                    session.metadata.as_ref().is_some_and(|metadata| !metadata.contains_key("order_id"));
                is_older && in_session == Some(true) && in_payment.flatten() != Some(false)
            }
        }
    }

    /// Whether it is about this order, and about what was asked for.
    pub(crate) fn examine(&self, order: &Order) -> Result<(), Mismatch> {
        let Self { session, payment, .. } = self;
        let session = session.as_ref();
        let customer = |customer: Option<&Expandable<_>>| {
            customer.map(|customer: &Expandable<crate::stripe::object::Named>| customer.id().to_owned())
        };
        let is_customer = |found: Option<String>| order.customer_id.is_some() && found == order.customer_id;
        let paid = payment.as_ref().filter(|payment| payment.status == "succeeded");
        let total = self.total_cents(order);
        if !self.is_about(order) {
            Err(Mismatch::Order)
        } else if session.is_some_and(|session| session.livemode != order.livemode)
            || payment.as_ref().is_some_and(|payment| payment.livemode != order.livemode)
        {
            Err(Mismatch::Livemode)
        } else if session.is_some_and(|session| session.currency.as_ref() != Some(&order.currency))
            || payment.as_ref().is_some_and(|payment| payment.currency != order.currency)
        {
            Err(Mismatch::Currency)
        } else if paid.map_or(total.is_none(), |payment| Some(payment.amount_received) != total) {
            Err(Mismatch::Amount)
        } else if session.is_some_and(|session| !is_customer(customer(session.customer.as_ref())))
            || payment.as_ref().is_some_and(|payment| !is_customer(customer(payment.customer.as_ref())))
        {
            Err(Mismatch::Customer)
        } else {
            Ok(())
        }
    }
}

impl Observation {
    /// Of an order that is paid without a till.
    pub(crate) fn of_payment(payment: PaymentIntent) -> Self {
        let (refunds, disputes, warnings) = (Vec::new(), Vec::new(), Vec::new());
        Self { session: None, payment: Some(payment), refunds, disputes, warnings }
    }

    /// What this order is to be paid with, if what Stripe asks for is what was ordered: its price, and tax beside it where tax
    /// was asked for. A discount is nothing that anybody here has given.
    pub(crate) fn total_cents(&self, order: &Order) -> Option<i64> {
        let Some(session) = &self.session else { return Some(order.price_cents) };
        let total = session.amount_total?;
        if !order.is_taxed {
            return Some(total).filter(|total| *total == order.price_cents);
        }
        let details = session.total_details.clone().unwrap_or_default();
        let with_tax = order.price_cents.checked_add(details.amount_tax)?;
        let is_right = session.amount_subtotal == Some(order.price_cents)
            && details.amount_discount == 0
            && (total == with_tax || total == order.price_cents);
        Some(total).filter(|_| is_right && details.amount_tax >= 0)
    }

    /// Whether the money came in.
    pub(crate) fn is_paid(&self) -> bool {
        self.payment.as_ref().is_some_and(|payment| payment.status == "succeeded")
    }

    /// What a receipt says of tax and payer.
    pub(crate) fn bill(&self) -> Option<Bill> {
        let session = self.session.as_ref()?;
        let is_taxed = session.automatic_tax.as_ref().is_some_and(|tax| tax.enabled);
        let CustomerDetails { name, address, tax_ids } = session.customer_details.clone().unwrap_or_default();
        let tax_ids: Vec<_> = tax_ids.into_iter().flatten().filter_map(|tax_id| tax_id.value).collect();
        let address = address.unwrap_or_default();
        Some(Bill {
            tax_cents: session.total_details.as_ref().map(|details| details.amount_tax).filter(|_| is_taxed),
            tax_status: session
                .automatic_tax
                .as_ref()
                .filter(|_| is_taxed)
                .and_then(|tax| tax.status.clone()),
            payer_name: kept(name),
            payer_address: kept(Some(lines(&address))),
            payer_country: kept(address.country),
            payer_tax_id: kept(Some(tax_ids.join(", "))),
        })
    }
}

/// What Stripe says of tax and payer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Bill {
    pub(crate) tax_cents: Option<i64>,
    pub(crate) tax_status: Option<String>,
    pub(crate) payer_name: Option<String>,
    pub(crate) payer_address: Option<String>,
    pub(crate) payer_country: Option<String>,
    pub(crate) payer_tax_id: Option<String>,
}

/// As it is kept: none if it is empty, not endless, and without what a text of PostgreSQL does not hold.
fn kept(text: Option<String>) -> Option<String> {
    let text: String = text?.replace('\0', "").trim().chars().take(500).collect();
    Some(text).filter(|text| !text.is_empty())
}

/// An address as it is written on a letter, without the country.
fn lines(address: &Address) -> String {
    let Address { line1, line2, postal_code, city, state, .. } = address;
    let place =
        [postal_code, city, state].into_iter().flatten().map(String::as_str).collect::<Vec<_>>().join(" ");
    let all = [line1.as_deref(), line2.as_deref(), Some(place.as_str())];
    all.into_iter().flatten().filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
}

impl Order {
    /// What is to be paid: the price, and tax beside it.
    pub(crate) fn total_cents(&self) -> i64 {
        self.price_cents.saturating_add(self.added_tax_cents)
    }

    /// What is known without looking, but for refunds and disputes.
    pub(crate) fn facts(&self) -> Facts {
        Facts {
            lifecycle: self.lifecycle,
            captured_cents: self.captured_cents,
            fraud_warned: self.fraud_warned,
            ..Facts::default()
        }
    }

    /// The mana that belongs to a part of what is paid, rounded down.
    pub(crate) fn mana_for(&self, cents: i64) -> i64 {
        let mana = i128::from(self.credits)
            .saturating_mul(i128::from(cents))
            .checked_div(i128::from(self.total_cents()))
            .unwrap_or(0);
        i64::try_from(mana).unwrap_or(self.credits).clamp(0, self.credits)
    }

    /// What one mana of it cost, in millionths of a cent, without tax beside the price.
    pub(crate) fn cost_micros(&self) -> i64 {
        let micros = i128::from(self.price_cents).saturating_mul(1_000_000);
        let micros = micros.checked_div(i128::from(self.credits)).unwrap_or(0);
        i64::try_from(micros).unwrap_or(i64::MAX).min(mana_kernel::mana::MAX_MANA)
    }

    /// What can go back by these facts without leaving a debt, when so much of its grant is left.
    pub(crate) fn refundable_cents(&self, facts: &Facts, remaining: i64) -> i64 {
        let is_known_at_stripe = self.payment_id.is_some() || self.session_id.is_some();
        if self.granted_mana == 0 || !is_known_at_stripe {
            return 0;
        }
        let back = facts.due_cents();
        let reachable = i128::from(self.mana_for(back).saturating_add(remaining)).saturating_add(1);
        // The most cents whose mana is no more than that.
        let most = reachable
            .saturating_mul(i128::from(self.total_cents()))
            .saturating_sub(1)
            .checked_div(i128::from(self.credits))
            .unwrap_or(0);
        let most = i64::try_from(most).unwrap_or(i64::MAX).min(self.captured_cents);
        most.saturating_sub(back).max(0)
    }

    /// What the books must come to by these facts. `terms` are those of its grant, if it has one.
    pub(crate) fn settlement(&self, facts: &Facts, terms: Option<Terms>) -> Option<Settlement> {
        let is_paid = facts.captured_cents == self.total_cents();
        let gives = Amount::try_from(self.credits).ok().filter(|_| is_paid && self.granted_mana == 0);
        let gives = gives.map(|amount| Bought { amount, cost_micros: self.cost_micros() });
        let metadata = serde_json::json!({"purchaseId": self.id}).to_string();
        Some(Settlement {
            gives,
            grant: self.grant_sequence.zip(terms),
            taken: Mana::new(self.taken_mana)?,
            owed: Mana::new(self.owed_mana)?,
            due: Mana::new(self.mana_for(facts.due_cents()))?,
            certain: Mana::new(self.mana_for(facts.certain_cents()))?,
            note: Note {
                app_id: "system".to_owned(),
                description: format!("Purchase of {}", self.package_id),
                metadata: Some(metadata),
                ..Note::default()
            },
        })
    }
}

/// An order's id as a path says it: what no order can have is nobody's, and PostgreSQL fails at a text that it can't hold.
pub(super) fn order_id(text: String) -> Result<String, PaymentError> {
    Line::<1, 64>::try_from(text).map(String::from).map_err(|_| PaymentError::NoSuchPurchase)
}

/// What may go wrong with an order.
#[derive(Debug, thiserror::Error)]
pub enum PaymentError {
    /// No key of Stripe is set.
    #[error("there is no STRIPE_SECRET_KEY")]
    NotConfigured,
    /// No such package for sale.
    #[error("there is no such package")]
    NoSuchPackage,
    /// The package has no price in that currency.
    #[error("the package is not sold in that currency")]
    NoSuchPrice,
    /// No such order, or somebody else's.
    #[error("there is no such purchase")]
    NoSuchPurchase,
    /// A URL leads away from the family.
    #[error("a return URL leads to a foreign site")]
    ForeignUrl,
    /// A link to a till that is no page.
    #[error("a payment link can't lead to an embedded till")]
    EmbeddedLink,
    /// The key named another order.
    #[error("the idempotency key was used for another order")]
    KeyReused,
    /// Too many tills are open.
    #[error("too many orders wait to be paid")]
    TooManyOpen,
    /// Too much is to go back.
    #[error("more is to go back than is there")]
    NotRefundable,
    /// Stripe fails.
    #[error(transparent)]
    Stripe(#[from] StripeError),
    /// The price that is kept at Stripe is not the package's.
    #[error(
        "the stripePriceId of the package {0} names no price at Stripe, or one of another amount or currency"
    )]
    WrongPrice(String),
    /// Nothing has been paid, so that there is nothing to give a receipt for.
    #[error("the purchase is not paid")]
    NotPaid,
    /// The package does not lift a wallet over the threshold.
    #[error("the package holds less than the threshold")]
    BelowThreshold,
    /// A month allows not even one.
    #[error("the monthly cap is below the price")]
    CapBelowPrice,
    /// An auto top-up is being charged.
    #[error("a top-up is under way")]
    TopUpUnderWay,
    /// Too many tills were opened to save a card at.
    #[error("too many sessions to save a card at were made today")]
    TooManySetups,
    /// Tax can't be put on what is paid without a till.
    #[error("auto top-up can't be had with STRIPE_TAX")]
    TaxedTopUp,
    /// The ledger fails.
    #[error("the books can't be written: {0}")]
    Ledger(#[from] crate::ledger::error::LedgerError),
    /// A port fails.
    #[error("the accounts can't be told: {0}")]
    Port(crate::PortError),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DbError),
}

/// No key of Stripe is set.
pub(crate) static NOT_CONFIGURED: ErrorCode = ErrorCode {
    code: "payments.not_configured",
    kind: Kind::Unavailable,
    title: "Nothing can be bought here",
    word: None,
    way_out: "The operator sets STRIPE_SECRET_KEY, and STRIPE_WEBHOOK_SECRET for deliveries.",
};
/// No such package for sale.
pub(crate) static NO_SUCH_PACKAGE: ErrorCode = ErrorCode {
    code: "payments.no_such_package",
    kind: Kind::NotFound,
    title: "There is no such package",
    word: None,
    way_out: "Read `GET /api/v1/credits/packages` again: the package may have gone out of sale.",
};
/// Not sold in that currency.
pub(crate) static NO_SUCH_PRICE: ErrorCode = ErrorCode {
    code: "payments.no_such_price",
    kind: Kind::Invalid,
    title: "The package is not sold in that currency",
    word: None,
    way_out: "Use `eur`, or a member of the package's `prices`.",
};
/// No such order, or somebody else's.
pub(crate) static NO_SUCH_PURCHASE: ErrorCode = ErrorCode {
    code: "payments.no_such_purchase",
    kind: Kind::NotFound,
    title: "There is no such purchase",
    word: None,
    way_out: "Use the `purchaseId` that the purchase was answered with, as the same user.",
};
/// A URL leads away from the family.
pub(crate) static FOREIGN_URL: ErrorCode = ErrorCode {
    code: "payments.foreign_url",
    kind: Kind::Invalid,
    title: "The return URL leads to a foreign site",
    word: None,
    way_out: "successUrl and cancelUrl must be of an origin in CORS_ORIGINS, of FRONTEND_URL or this service, or under COOKIE_DOMAIN with https; at localhost while the service is.",
};
/// A link to a till that is no page.
pub(crate) static EMBEDDED_LINK: ErrorCode = ErrorCode {
    code: "payments.embedded_link",
    kind: Kind::Invalid,
    title: "A payment link leads to a page, and an embedded till is none",
    word: None,
    way_out: "Leave `uiMode` out. For a till inside the app's own page ask `POST /api/v1/credits/purchase`, which answers with its `clientSecret`.",
};
/// Too many tills are open.
pub(crate) static TOO_MANY_OPEN: ErrorCode = ErrorCode {
    code: "payments.too_many_open",
    kind: Kind::Conflict,
    title: "Too many purchases wait to be paid",
    word: None,
    way_out: "Send the person to the checkoutUrl of an open one; they expire after a day.",
};
/// Too much is to go back.
pub(crate) static NOT_REFUNDABLE: ErrorCode = ErrorCode {
    code: "payments.not_refundable",
    kind: Kind::Conflict,
    title: "More is to go back than the unspent part of the purchase",
    word: None,
    way_out: "`refundableCents` of `GET /api/v1/admin/purchases/{id}` says how much can. What is disputed is decided by the dispute. An order of the older service that names no payment goes back in Stripe's dashboard.",
};
/// The price that is kept at Stripe is not the package's.
pub(crate) static WRONG_PRICE: ErrorCode = ErrorCode {
    code: "payments.wrong_stripe_price",
    kind: Kind::Unavailable,
    title: "The package can't be sold as it is set up",
    word: None,
    way_out: "The operator puts the package's `stripePriceId` right, or leaves it out: it must name an active one-time price at Stripe in EUR of exactly `priceEuroCents`. Nothing was paid.",
};
/// Stripe refuses a call.
pub(crate) static PROVIDER_REFUSES: ErrorCode = ErrorCode {
    code: "payments.provider_refuses",
    kind: Kind::Unavailable,
    title: "The payment provider refuses the request",
    word: None,
    way_out: "The operator looks for this request's `instance` in the log, which has Stripe's code: a key that lacks a right, an account that is not set up. Nothing was paid.",
};
/// Nothing has been paid.
pub(crate) static NOT_PAID: ErrorCode = ErrorCode {
    code: "payments.not_paid",
    kind: Kind::Conflict,
    title: "There is no receipt, because the purchase is not paid",
    word: None,
    way_out: "Ask again when `GET /api/v1/credits/purchase/{id}` says `completed`.",
};
/// The package does not lift a wallet over the threshold.
pub(crate) static BELOW_THRESHOLD: ErrorCode = ErrorCode {
    code: "payments.package_below_threshold",
    kind: Kind::Invalid,
    title: "The package holds less mana than the threshold",
    word: None,
    way_out: "Choose a package whose `credits` are at least `thresholdMana`, so that one of it is enough.",
};
/// A month allows not even one.
pub(crate) static CAP_BELOW_PRICE: ErrorCode = ErrorCode {
    code: "payments.cap_below_price",
    kind: Kind::Invalid,
    title: "The monthly cap is below the price of the package",
    word: None,
    way_out: "Set `monthlyCapCents` to the price of the package in that currency at least.",
};
/// An auto top-up is being charged.
pub(crate) static TOP_UP_UNDER_WAY: ErrorCode = ErrorCode {
    code: "payments.top_up_under_way",
    kind: Kind::Conflict,
    title: "A top-up is being charged",
    word: None,
    way_out: "Send the same request again in a minute: what is being charged has to end first.",
};
/// Too many tills were opened to save a card at.
pub(crate) static TOO_MANY_SETUPS: ErrorCode = ErrorCode {
    code: "payments.too_many_setups",
    kind: Kind::Conflict,
    title: "Too many pages to save a card at were opened today",
    word: None,
    way_out: "Send the person to the `setupUrl` of `GET /api/v1/credits/auto-top-up`, or try again tomorrow.",
};
/// Tax can't be put on what is paid without a till.
pub(crate) static TAXED_TOP_UP: ErrorCode = ErrorCode {
    code: "payments.top_up_not_with_tax",
    kind: Kind::Conflict,
    title: "There is no auto top-up where tax is calculated",
    word: None,
    way_out: "Buy with `POST /api/v1/credits/purchase`. Tax is calculated at the till, and a top-up has none.",
};
/// Stripe does not answer.
pub(crate) static PROVIDER_UNAVAILABLE: ErrorCode = ErrorCode {
    code: "payments.provider_unavailable",
    kind: Kind::Unavailable,
    title: "The payment provider can't be reached",
    word: None,
    way_out: "Send the same request again after the seconds of Retry-After, with its Idempotency-Key if it had one. Nothing was paid.",
};

/// The catalogue of this feature.
pub(crate) static CODES: &[&ErrorCode] = &[
    &NOT_CONFIGURED,
    &NO_SUCH_PACKAGE,
    &NO_SUCH_PRICE,
    &NO_SUCH_PURCHASE,
    &FOREIGN_URL,
    &EMBEDDED_LINK,
    &TOO_MANY_OPEN,
    &NOT_REFUNDABLE,
    &NOT_PAID,
    &BELOW_THRESHOLD,
    &CAP_BELOW_PRICE,
    &TOP_UP_UNDER_WAY,
    &TOO_MANY_SETUPS,
    &TAXED_TOP_UP,
    &WRONG_PRICE,
    &PROVIDER_REFUSES,
    &PROVIDER_UNAVAILABLE,
];

impl Problem for PaymentError {
    fn code(&self) -> &'static ErrorCode {
        match self {
            Self::NotConfigured => &NOT_CONFIGURED,
            Self::NoSuchPackage => &NO_SUCH_PACKAGE,
            Self::NoSuchPrice => &NO_SUCH_PRICE,
            Self::NoSuchPurchase => &NO_SUCH_PURCHASE,
            Self::ForeignUrl => &FOREIGN_URL,
            Self::EmbeddedLink => &EMBEDDED_LINK,
            Self::KeyReused => &crate::idempotency::KEY_REUSED,
            Self::TooManyOpen => &TOO_MANY_OPEN,
            Self::NotRefundable => &NOT_REFUNDABLE,
            Self::Stripe(StripeError::Unavailable(_)) => &PROVIDER_UNAVAILABLE,
            Self::Stripe(StripeError::Refused { .. }) => &PROVIDER_REFUSES,
            Self::Stripe(StripeError::NotFound | StripeError::Unreadable(_)) => &codes::INTERNAL,
            Self::WrongPrice(_) => &WRONG_PRICE,
            Self::NotPaid => &NOT_PAID,
            Self::BelowThreshold => &BELOW_THRESHOLD,
            Self::CapBelowPrice => &CAP_BELOW_PRICE,
            Self::TopUpUnderWay => &TOP_UP_UNDER_WAY,
            Self::TooManySetups => &TOO_MANY_SETUPS,
            Self::TaxedTopUp => &TAXED_TOP_UP,
            Self::Ledger(error) => error.code(),
            Self::Port(error) => error.code(),
            Self::Database(error) => error.code(),
        }
    }
}

#[cfg(test)]
mod tests;
