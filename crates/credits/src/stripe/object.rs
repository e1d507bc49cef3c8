//! Stripe's objects, as far as this service reads them. Words are kept as texts: Stripe adds new ones, and an unknown one must
//! not make an answer unreadable.

use serde::Deserialize;
use std::collections::HashMap;

/// Names and values that whoever makes an object gives it along.
pub type Metadata = HashMap<String, String>;

/// Another object, or its id.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Expandable<T> {
    /// Its id.
    Id(String),
    /// All of it.
    Object(Box<T>),
}

/// An object of which only the id matters.
#[derive(Debug, Clone, Deserialize)]
pub struct Named {
    /// Its id.
    pub id: String,
}

/// Something that lists hold.
pub trait Listed {
    /// Its id.
    fn id(&self) -> &str;
}

impl<T: Listed> Expandable<T> {
    /// The id, either way.
    pub fn id(&self) -> &str {
        match self {
            Self::Id(id) => id,
            Self::Object(object) => object.id(),
        }
    }
}

macro_rules! listed {
    ($($name:ident)*) => {
        $(impl Listed for $name {
            fn id(&self) -> &str {
                &self.id
            }
        })*
    };
}
listed!(Named CheckoutSession SetupIntent PaymentIntent Refund Dispute FraudWarning Event);

/// A page of a list.
#[derive(Debug, Deserialize)]
pub struct List<T> {
    /// Its rows.
    pub data: Vec<T>,
    /// Whether others follow.
    pub has_more: bool,
}

/// A visit to the till.
#[derive(Debug, Clone, Deserialize)]
pub struct CheckoutSession {
    /// `cs_…`
    pub id: String,
    /// Our order.
    #[serde(default)]
    pub client_reference_id: Option<String>,
    /// Names our order too.
    #[serde(default)]
    pub metadata: Option<Metadata>,
    /// What its items cost, before discounts and before tax that stands beside the price.
    #[serde(default)]
    pub amount_subtotal: Option<i64>,
    /// What is to be paid.
    #[serde(default)]
    pub amount_total: Option<i64>,
    /// What lies between the two.
    #[serde(default)]
    pub total_details: Option<TotalDetails>,
    /// Whether Stripe calculates tax.
    #[serde(default)]
    pub automatic_tax: Option<AutomaticTax>,
    /// What the payer told at the till.
    #[serde(default)]
    pub customer_details: Option<CustomerDetails>,
    /// The permission to charge a card later, of a session of the mode `setup`.
    #[serde(default)]
    pub setup_intent: Option<Expandable<SetupIntent>>,
    /// In which currency.
    #[serde(default)]
    pub currency: Option<String>,
    /// Whether it is real money.
    pub livemode: bool,
    /// Who pays.
    #[serde(default)]
    pub customer: Option<Expandable<Named>>,
    /// The payment, once there is one.
    #[serde(default)]
    pub payment_intent: Option<Expandable<PaymentIntent>>,
    /// `paid`, `unpaid` or `no_payment_required`.
    pub payment_status: String,
    /// `open`, `complete` or `expired`.
    #[serde(default)]
    pub status: Option<String>,
    /// Where the browser goes; none if it is embedded or over.
    #[serde(default)]
    pub url: Option<String>,
    /// What an embedded form needs.
    #[serde(default)]
    pub client_secret: Option<String>,
    /// Where the browser goes afterwards, of one that is not embedded.
    #[serde(default)]
    pub success_url: Option<String>,
    /// Where it goes instead.
    #[serde(default)]
    pub cancel_url: Option<String>,
    /// When it is over (Unix seconds).
    #[serde(default)]
    pub expires_at: Option<i64>,
}

/// What a total is made of besides its items.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct TotalDetails {
    /// Taken off.
    #[serde(default)]
    pub amount_discount: i64,
    /// Tax, beside the price or within it.
    #[serde(default)]
    pub amount_tax: i64,
}

/// Tax that Stripe calculates.
#[derive(Debug, Clone, Deserialize)]
pub struct AutomaticTax {
    /// Whether it does.
    pub enabled: bool,
    /// `complete`, `requires_location_inputs` or `failed`.
    #[serde(default)]
    pub status: Option<String>,
}

/// Who pays, as told at the till.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct CustomerDetails {
    /// Name of the person or company.
    #[serde(default)]
    pub name: Option<String>,
    /// Where.
    #[serde(default)]
    pub address: Option<Address>,
    /// Numbers of the company with tax offices.
    #[serde(default)]
    pub tax_ids: Option<Vec<TaxId>>,
}

/// An address.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Address {
    /// Street.
    #[serde(default)]
    pub line1: Option<String>,
    /// What does not fit there.
    #[serde(default)]
    pub line2: Option<String>,
    /// Post code.
    #[serde(default)]
    pub postal_code: Option<String>,
    /// Place.
    #[serde(default)]
    pub city: Option<String>,
    /// State or province.
    #[serde(default)]
    pub state: Option<String>,
    /// Country, in two letters.
    #[serde(default)]
    pub country: Option<String>,
}

/// A number with a tax office.
#[derive(Debug, Clone, Deserialize)]
pub struct TaxId {
    /// The number.
    #[serde(default)]
    pub value: Option<String>,
}

/// The permission to charge a card later.
#[derive(Debug, Clone, Deserialize)]
pub struct SetupIntent {
    /// `seti_…`
    pub id: String,
    /// `succeeded`, `requires_payment_method` and others.
    pub status: String,
    /// The card.
    #[serde(default)]
    pub payment_method: Option<Expandable<Named>>,
}

/// A payment.
#[derive(Debug, Clone, Deserialize)]
pub struct PaymentIntent {
    /// `pi_…`
    pub id: String,
    /// What is to come in.
    #[serde(default)]
    pub amount: i64,
    /// What came in.
    #[serde(default)]
    pub amount_received: i64,
    /// In which currency.
    pub currency: String,
    /// Whether it is real money.
    pub livemode: bool,
    /// Who pays.
    #[serde(default)]
    pub customer: Option<Expandable<Named>>,
    /// Names our order.
    #[serde(default)]
    pub metadata: Metadata,
    /// `succeeded`, `processing`, `requires_payment_method`, `canceled` and others.
    pub status: String,
}

/// Money that goes back.
#[derive(Debug, Clone, Deserialize)]
pub struct Refund {
    /// `re_…`
    pub id: String,
    /// How much.
    pub amount: i64,
    /// `pending`, `requires_action`, `succeeded`, `failed` or `canceled`.
    #[serde(default)]
    pub status: Option<String>,
    /// Of which payment.
    #[serde(default)]
    pub payment_intent: Option<Expandable<Named>>,
    /// Names our refund.
    #[serde(default)]
    pub metadata: Option<Metadata>,
}

/// A payment that its payer's bank contests.
#[derive(Debug, Clone, Deserialize)]
pub struct Dispute {
    /// `dp_…` or `du_…`
    pub id: String,
    /// How much.
    pub amount: i64,
    /// `needs_response`, `under_review`, `won`, `lost`, `warning_…` and others.
    pub status: String,
    /// Of which payment.
    #[serde(default)]
    pub payment_intent: Option<Expandable<Named>>,
}

/// A card's issuer thinks that it was not its owner.
#[derive(Debug, Clone, Deserialize)]
pub struct FraudWarning {
    /// `issfr_…`
    pub id: String,
}

/// A person who pays.
#[derive(Debug, Clone, Deserialize)]
pub struct Customer {
    /// `cus_…`
    pub id: String,
}

/// As much of an event as every event has, whatever it is about.
#[derive(Debug, Clone, Deserialize)]
pub struct EventName {
    /// `evt_…`
    pub id: String,
    /// What happened.
    pub r#type: String,
}

/// Something happened.
#[derive(Debug, Clone, Deserialize)]
pub struct Event {
    /// `evt_…`
    pub id: String,
    /// What.
    pub r#type: String,
    /// With real money or not.
    pub livemode: bool,
    /// A connected account that it happened in: none of ours.
    #[serde(default)]
    pub account: Option<String>,
    /// To what.
    pub data: EventData,
}

/// What an event is about.
#[derive(Debug, Clone, Deserialize)]
pub struct EventData {
    /// The object as it was then: a hint, not the truth.
    pub object: EventObject,
}

/// What finds the order behind an event, of whatever object it is about.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct EventObject {
    /// Its id.
    #[serde(default)]
    pub id: Option<String>,
    /// Our order, on sessions.
    #[serde(default)]
    pub client_reference_id: Option<String>,
    /// Names our order.
    #[serde(default)]
    pub metadata: Option<Metadata>,
    /// The payment, on whatever belongs to one.
    #[serde(default)]
    pub payment_intent: Option<Expandable<Named>>,
}
