//! What the export of an account has of its credits. The accounts, whose route it is, know the names of these lists and not what is in
//! them: here both are known.

use mana_kernel::mana::MAX_MANA;
use utoipa::openapi::schema::{AdditionalProperties, OneOfBuilder, SchemaType, Type};
use utoipa::openapi::{
    Array, ArrayBuilder, KnownFormat, Object, ObjectBuilder, OpenApi, Ref, RefOr, Schema, SchemaFormat,
};

/// What a member of a row is.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Of so many characters at most.
    Text(usize),
    /// Mana, money in the smallest unit of its currency, or a count.
    Count,
    Flag,
    Time,
    Day,
    Id,
}

/// A member of a row, and whether it may be null.
type Member = (&'static str, Kind, bool);

const fn always(name: &'static str, kind: Kind) -> Member {
    (name, kind, false)
}

const fn or_null(name: &'static str, kind: Kind) -> Member {
    (name, kind, true)
}

/// What a payer told at the till, cut there.
const PAYER: Kind = Kind::Text(500);
/// Ids, words and addresses of Stripe's, of a length that it does not promise.
const STRIPE: Kind = Kind::Text(4096);

const WALLET: &[Member] = &[
    always("free", Kind::Count),
    always("paid", Kind::Count),
    always("held", Kind::Count),
    always("totalEarned", Kind::Count),
    always("totalSpent", Kind::Count),
    or_null("lowBalanceBelow", Kind::Count),
    always("lowBalanceMail", Kind::Flag),
    always("createdAt", Kind::Time),
];

const USAGE: &[Member] = &[
    always("day", Kind::Day),
    always("appId", Kind::Text(128)),
    always("spends", Kind::Count),
    always("spent", Kind::Count),
    always("refunded", Kind::Count),
];

/// And `metadata`, which is the app's.
const HOLD: &[Member] = &[
    always("id", Kind::Id),
    always("appId", Kind::Text(128)),
    always("description", Kind::Text(1000)),
    always("amount", Kind::Count),
    always("captured", Kind::Count),
    always("status", Kind::Text(16)),
    always("createdAt", Kind::Time),
    always("expiresAt", Kind::Time),
];

const PURCHASE: &[Member] = &[
    always("id", Kind::Text(64)),
    always("packageId", Kind::Text(64)),
    always("status", Kind::Text(16)),
    always("state", Kind::Text(32)),
    always("credits", Kind::Count),
    always("priceEuroCents", Kind::Count),
    always("currency", Kind::Text(3)),
    always("priceCents", Kind::Count),
    always("addedTaxCents", Kind::Count),
    or_null("taxCents", Kind::Count),
    or_null("taxStatus", STRIPE),
    always("refundedCents", Kind::Count),
    always("disputed", Kind::Flag),
    or_null("payerName", PAYER),
    or_null("payerAddress", PAYER),
    or_null("payerCountry", PAYER),
    or_null("payerTaxId", PAYER),
    or_null("stripePaymentId", STRIPE),
    always("createdAt", Kind::Time),
    or_null("completedAt", Kind::Time),
];

const MONEY_BACK: &[Member] = &[
    always("id", STRIPE),
    always("purchaseId", Kind::Text(64)),
    always("amountCents", Kind::Count),
    always("status", STRIPE),
    always("createdAt", Kind::Time),
    always("updatedAt", Kind::Time),
];

const STRIPE_CUSTOMER: &[Member] =
    &[always("customerId", STRIPE), always("livemode", Kind::Flag), always("createdAt", Kind::Time)];

const AUTO_TOP_UP: &[Member] = &[
    always("status", Kind::Text(16)),
    or_null("pauseReason", Kind::Text(32)),
    always("thresholdMana", Kind::Count),
    always("packageId", Kind::Text(64)),
    always("currency", Kind::Text(3)),
    always("credits", Kind::Count),
    always("priceCents", Kind::Count),
    always("monthlyCapCents", Kind::Count),
    or_null("setupUrl", STRIPE),
    always("consentedAt", Kind::Time),
    or_null("orderId", Kind::Text(64)),
    or_null("cappedUntil", Kind::Time),
];

/// Adds `credits` to the schema of the export.
pub(super) fn add_credits(document: &mut OpenApi) {
    let schemas = document.components.iter_mut().map(|components| &mut components.schemas);
    for schema in schemas.filter_map(|schemas| schemas.get_mut("Exported")) {
        let RefOr::T(Schema::Object(exported)) = schema else { continue };
        exported.properties.insert("credits".to_owned(), RefOr::T(Schema::Object(credits())));
        exported.required.push("credits".to_owned());
    }
}

fn credits() -> Object {
    let metadata = OneOfBuilder::new()
        .item(Ref::from_schema_name("Metadata"))
        .item(Object::with_type(SchemaType::Type(Type::Null)));
    let hold = row(HOLD).property("metadata", metadata).required("metadata");
    [
        ("wallet", list(row(WALLET), 1)),
        ("transactions", list(Ref::from_schema_name("TransactionResponse"), EVERYTHING)),
        ("usage", list(row(USAGE), EVERYTHING)),
        ("holds", list(hold, EVERYTHING)),
        ("purchases", list(row(PURCHASE), EVERYTHING)),
        ("refunds", list(row(MONEY_BACK), EVERYTHING)),
        ("disputes", list(row(MONEY_BACK), EVERYTHING)),
        ("stripeCustomers", list(row(STRIPE_CUSTOMER), 2)),
        ("autoTopUp", list(row(AUTO_TOP_UP), 1)),
    ]
    .into_iter()
    .fold(ObjectBuilder::new(), |object, (name, list)| object.property(name, list).required(name))
    .additional_properties(Some(AdditionalProperties::FreeForm(false)))
    .build()
}

/// Of what an export has, all: it ends where the books do.
const EVERYTHING: usize = 9_007_199_254_740_991;

fn list(row: impl Into<RefOr<Schema>>, most: usize) -> Array {
    ArrayBuilder::new().items(row.into()).max_items(Some(most)).build()
}

fn row(members: &[Member]) -> ObjectBuilder {
    let row = ObjectBuilder::new().additional_properties(Some(AdditionalProperties::FreeForm(false)));
    members.iter().fold(row, |row, (name, kind, may_be_null)| {
        row.property(*name, member(*kind, *may_be_null)).required(*name)
    })
}

fn member(kind: Kind, may_be_null: bool) -> Object {
    let (of, format) = match kind {
        Kind::Text(_) => (Type::String, None),
        Kind::Count => (Type::Integer, Some(KnownFormat::Int64)),
        Kind::Flag => (Type::Boolean, None),
        Kind::Time => (Type::String, Some(KnownFormat::DateTime)),
        Kind::Day => (Type::String, Some(KnownFormat::Date)),
        Kind::Id => (Type::String, Some(KnownFormat::Uuid)),
    };
    let of = if may_be_null { SchemaType::from_iter([of, Type::Null]) } else { SchemaType::Type(of) };
    let member = ObjectBuilder::new().schema_type(of).format(format.map(SchemaFormat::KnownFormat));
    match kind {
        Kind::Text(most) => member.max_length(Some(most)).build(),
        Kind::Count => member.minimum(Some(0)).maximum(Some(MAX_MANA)).build(),
        Kind::Flag | Kind::Time | Kind::Day | Kind::Id => member.build(),
    }
}
