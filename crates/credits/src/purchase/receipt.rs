//! `GET /api/v1/credits/purchases/{id}/receipt`: a page to print.

use super::Payments;
use super::model::{PaymentError, order_id};
use super::store::{self, ReceiptRefund, ReceiptRow};
use crate::{CreditsState, package};
use askama::Template;
use axum::extract::{Path, State};
use axum::response::Response;
use http::StatusCode;
use mana_kernel::UserId;
use mana_platform::http::{ApiError, Caller, Head, Language, ProblemBody, page};
use time::OffsetDateTime;
use time::macros::format_description;

/// Currencies whose smallest unit is the unit itself, as Stripe counts them.
const WHOLE: [&str; 16] = [
    "bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "ugx", "vnd", "vuv", "xaf", "xof",
    "xpf",
];
/// Currencies of which a thousand of the smallest unit are one.
const THOUSANDS: [&str; 5] = ["bhd", "jod", "kwd", "omr", "tnd"];

/// For paper, too.
const STYLE: &str = "body { max-width: 40rem; margin: 3rem auto }
address { font-style: normal }
.parties { display: flex; flex-wrap: wrap; gap: 1rem 4rem }
table { width: 100%; border-collapse: collapse; margin: 1.5rem 0 }
th, td { text-align: left; padding: .25rem .5rem .25rem 0; vertical-align: top }
td:last-child { text-align: right }
.total { border-top: 1px solid; font-weight: bold }
[role=note] { border-left: .25rem solid #c33; padding-left: .75rem }
@page { margin: 2cm }
@media print { :root { color-scheme: light } body { margin: 0; max-width: none; padding: 0 } }";

/// Who sells, as receipts say it.
#[derive(Debug, Clone, Default)]
pub struct Seller {
    /// Name of the company.
    pub name: Option<String>,
    /// Its address, in lines.
    pub address: Vec<String>,
    /// Its tax number.
    pub tax_id: Option<String>,
}

#[derive(Template)]
#[template(path = "receipt.html")]
struct Page<'a> {
    language: Language,
    seller: &'a Seller,
    receipt: Receipt,
}

/// A receipt in words.
#[derive(Debug, PartialEq, Eq)]
struct Receipt {
    order: String,
    ordered_on: String,
    paid_on: Option<String>,
    package: String,
    version: i32,
    mana: i64,
    net: Option<String>,
    tax: Option<String>,
    gross: String,
    paid: String,
    /// When, how much, and whether it has arrived.
    refunds: Vec<(String, String, bool)>,
    is_disputed: bool,
    lost: Option<String>,
    is_pretended: bool,
    payer_name: Option<String>,
    payer_address: Vec<String>,
    payer_country: Option<String>,
    payer_tax_id: Option<String>,
}

impl Receipt {
    fn new(row: ReceiptRow, refunds: Vec<ReceiptRefund>, package: String, language: Language) -> Self {
        let amount = |cents: i64| amount(cents, &row.currency, language);
        let gross = row.price_cents.saturating_add(row.added_tax_cents);
        Self {
            ordered_on: day(row.created_at, language),
            paid_on: row.completed_at.map(|at| day(at, language)),
            package,
            version: row.package_version,
            mana: row.credits,
            net: row.tax_cents.map(|tax| amount(gross.saturating_sub(tax))),
            tax: row.tax_cents.map(amount),
            gross: amount(gross),
            paid: amount(row.captured_cents),
            refunds: refunds
                .into_iter()
                .map(|refund| (day(refund.created_at, language), amount(refund.amount_cents), refund.is_done))
                .collect(),
            is_disputed: row.disputed,
            lost: Some(row.lost_cents).filter(|cents| *cents > 0).map(amount),
            is_pretended: !row.livemode,
            payer_name: row.payer_name,
            payer_address: row
                .payer_address
                .iter()
                .flat_map(|text| text.lines().map(str::to_owned))
                .collect(),
            payer_country: row.payer_country,
            payer_tax_id: row.payer_tax_id,
            order: row.id,
        }
    }
}

/// The receipt of a purchase
///
/// A page of HTML to print, in English or German by `Accept-Language`: seller, purchase, tax, and what went back. It is there as soon as
/// the money has come in.
#[utoipa::path(
    get, path = "/api/v1/credits/purchases/{id}/receipt", tag = "credits",
    params(("id" = String, Path, description = "The purchase", min_length = 1, max_length = 64)),
    responses(
        (status = 200, description = "The receipt", body = String, content_type = "text/html"),
        (status = 404, description = "No such purchase", body = ProblemBody),
        (status = 409, description = "It is not paid", body = ProblemBody),
    ),
    security(("bearer" = [])),
)]
pub(crate) async fn receipt(
    State(credits): State<CreditsState>,
    caller: Caller,
    language: Language,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let id = order_id(id)?;
    let receipt = read(&credits.payments, &caller.user_id, &id, language).await?;
    let title = match language {
        Language::English => format!("Receipt {}", receipt.order),
        Language::German => format!("Beleg {}", receipt.order),
    };
    let page_of_it = Page { language, seller: &credits.payments.seller, receipt };
    Ok(page(StatusCode::OK, Head::new(language, title).with_style(STYLE), page_of_it.render()))
}

async fn read(
    payments: &Payments,
    user: &UserId,
    id: &str,
    language: Language,
) -> Result<Receipt, PaymentError> {
    let database = &payments.books.database;
    let mut transaction = database.begin_as(user).await?;
    let row = store::find_receipt(&mut transaction, user, id).await?.ok_or(PaymentError::NoSuchPurchase)?;
    if row.captured_cents == 0 {
        return Err(PaymentError::NotPaid);
    }
    let refunds = store::list_receipt_refunds(&mut transaction, user, id).await?;
    drop(transaction);
    let mut connection = database.acquire().await?;
    let name =
        package::store::find_version_name(&mut connection, &row.package_id, row.package_version).await?;
    let package = name.unwrap_or_else(|| row.package_id.clone());
    Ok(Receipt::new(row, refunds, package, language))
}

/// As `9.99 EUR`, or `9,99 EUR` where that is how it is written.
fn amount(cents: i64, currency: &str, language: Language) -> String {
    let (unit, digits) = match currency {
        currency if WHOLE.contains(&currency) => (1, 0),
        currency if THOUSANDS.contains(&currency) => (1_000, 3),
        _ => (100, 2),
    };
    let code = currency.to_uppercase();
    let (whole, rest) = (cents.checked_div(unit).unwrap_or(0), cents.checked_rem(unit).unwrap_or(0));
    let mark = match language {
        Language::English => '.',
        Language::German => ',',
    };
    if digits == 0 { format!("{whole} {code}") } else { format!("{whole}{mark}{rest:0digits$} {code}") }
}

/// As `2026-01-31`, or `31.01.2026`; of UTC.
fn day(at: OffsetDateTime, language: Language) -> String {
    let at = at.to_offset(time::UtcOffset::UTC);
    let written = match language {
        Language::English => at.format(format_description!("[year]-[month]-[day]")),
        Language::German => at.format(format_description!("[day].[month].[year]")),
    };
    written.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    fn row() -> ReceiptRow {
        ReceiptRow {
            id: "order".to_owned(),
            package_id: "small".to_owned(),
            package_version: 2,
            credits: 1_100,
            currency: "eur".to_owned(),
            price_cents: 999,
            added_tax_cents: 190,
            tax_cents: Some(190),
            captured_cents: 1_189,
            lost_cents: 0,
            disputed: false,
            livemode: true,
            payer_name: Some("<b>Ada</b>".to_owned()),
            payer_address: Some("Street 1\n12345 Town".to_owned()),
            payer_country: Some("DE".to_owned()),
            payer_tax_id: None,
            created_at: datetime!(2026-01-31 23:59 UTC),
            completed_at: Some(datetime!(2026-02-01 00:01 UTC)),
        }
    }

    #[test]
    fn money_is_written_as_its_currency_and_language_have_it() {
        for (cents, currency, english, german) in [
            (999, "eur", "9.99 EUR", "9,99 EUR"),
            (5, "usd", "0.05 USD", "0,05 USD"),
            (500, "jpy", "500 JPY", "500 JPY"),
            (1_234, "kwd", "1.234 KWD", "1,234 KWD"),
        ] {
            assert_eq!(amount(cents, currency, Language::English), english);
            assert_eq!(amount(cents, currency, Language::German), german);
        }
    }

    #[test]
    fn tax_beside_the_price_and_within_it_leave_the_net_amount() {
        let beside = Receipt::new(row(), Vec::new(), "Small".to_owned(), Language::English);
        assert_eq!(
            (beside.net.as_deref(), beside.tax.as_deref(), beside.gross.as_str()),
            (Some("9.99 EUR"), Some("1.90 EUR"), "11.89 EUR")
        );
        let within = ReceiptRow { added_tax_cents: 0, tax_cents: Some(160), captured_cents: 999, ..row() };
        let within = Receipt::new(within, Vec::new(), "Small".to_owned(), Language::English);
        assert_eq!(
            (within.net.as_deref(), within.tax.as_deref(), within.gross.as_str()),
            (Some("8.39 EUR"), Some("1.60 EUR"), "9.99 EUR")
        );
    }

    #[test]
    fn the_page_says_the_same_in_both_languages_and_trusts_no_payer() {
        let seller = Seller {
            name: Some("Mana & Co".to_owned()),
            address: vec!["Road 1".to_owned(), "Berlin".to_owned()],
            tax_id: Some("DE123".to_owned()),
        };
        for (language, words) in [
            (Language::English, ["Receipt", "2026-02-01", "11.89 EUR"]),
            (Language::German, ["Beleg", "01.02.2026", "11,89 EUR"]),
        ] {
            let receipt = Receipt::new(row(), Vec::new(), "Small".to_owned(), language);
            let html = Page { language, seller: &seller, receipt }.render().unwrap();
            for expected in
                words.into_iter().chain(["Mana &#38; Co", "Road 1", "DE123", "order", "12345 Town", "1100"])
            {
                assert!(html.contains(expected), "no {expected} in {html}");
            }
            assert!(
                !html.contains("<b>Ada") && !html.contains("<script") && !html.contains("src="),
                "{html}"
            );
        }
    }
}
