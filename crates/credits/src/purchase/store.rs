//! All SQL of `credits.purchases`, `credits.refunds`, `credits.disputes`, `credits.stripe_customers` and
//! `credits.payment_statements`.

use super::find::PurchaseResponse;
use super::list_all::PurchaseSummary;
use super::model::{Bill, DisputeStatus, Facts, Lifecycle, Order, OrderOrigin, RefundStatus};
use super::refund::PurchaseRefund;
use super::statement::StatementLine;
use crate::auto_top_up::model::Blemishes;
use crate::ledger::legacy::BroughtOrder;
use mana_kernel::UserId;
use mana_platform::DbError;
use serde::Serialize;
use sqlx::PgConnection;
use std::collections::BTreeMap;
use time::{Date, OffsetDateTime};

/// Orders of a user that a list shows at most.
const LISTED: i64 = 500;

/// An order that is to be made.
#[derive(Debug)]
pub(crate) struct NewOrder<'a> {
    pub(crate) id: &'a str,
    pub(crate) user: &'a UserId,
    pub(crate) package_id: &'a str,
    pub(crate) package_version: i32,
    pub(crate) credits: i64,
    pub(crate) price_euro_cents: i64,
    pub(crate) currency: &'a str,
    pub(crate) price_cents: i64,
    pub(crate) is_taxed: bool,
    pub(crate) origin: OrderOrigin,
    pub(crate) livemode: bool,
    pub(crate) idempotency_key: Option<&'a str>,
    pub(crate) request_digest: &'a [u8],
    pub(crate) now: OffsetDateTime,
}

/// An order as whoever made it is answered.
#[derive(Debug, Clone)]
pub(crate) struct PlacedRow {
    pub(super) id: String,
    pub(super) request_digest: Option<Vec<u8>>,
    pub(super) credits: i64,
    pub(super) price_euro_cents: i64,
    pub(super) price_cents: i64,
    pub(super) currency: String,
    pub(super) is_taxed: bool,
    pub(super) attempt: i32,
    pub(super) session_id: Option<String>,
    pub(crate) checkout_url: Option<String>,
    pub(super) client_secret: Option<String>,
    pub(super) expires_at: Option<OffsetDateTime>,
    pub(super) package_id: String,
    pub(super) package_name: String,
    pub(super) stripe_price_id: Option<String>,
}

/// Makes an order, unless the user made one under this key.
pub(crate) async fn insert_order(
    connection: &mut PgConnection,
    order: &NewOrder<'_>,
) -> Result<bool, DbError> {
    let done = sqlx::query!(
        "INSERT INTO credits.purchases (user_id, id, package_id, package_version, credits, price_euro_cents, currency, price_cents, livemode,
             idempotency_key, request_digest, created_at, updated_at, taxed, origin)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $12, $13, $14)
         ON CONFLICT ON CONSTRAINT purchases_idempotency_key_key DO NOTHING",
        order.user.as_str(),
        order.id,
        order.package_id,
        order.package_version,
        order.credits,
        order.price_euro_cents,
        order.currency,
        order.price_cents,
        order.livemode,
        order.idempotency_key,
        order.request_digest,
        order.now,
        order.is_taxed,
        order.origin.as_str(),
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Adds an order of the older service, with what became of it there.
pub(crate) async fn insert_brought(
    connection: &mut PgConnection,
    user: &UserId,
    order: &BroughtOrder<'_>,
) -> Result<(), DbError> {
    sqlx::query!(
        "INSERT INTO credits.purchases (user_id, id, package_id, package_version, credits, price_euro_cents, currency, price_cents, livemode,
             customer_id, session_id, payment_id, lifecycle, state, captured_cents, granted_mana, grant_sequence, created_at, completed_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, 'eur', $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, coalesce($17, $16::timestamptz))",
        user.as_str(),
        order.id,
        order.package_id,
        order.package_version,
        order.credits,
        order.price_cents,
        order.livemode,
        order.customer_id,
        order.session_id,
        order.payment_id,
        order.lifecycle,
        order.state,
        order.captured_cents,
        order.granted_mana,
        order.grant_sequence,
        order.created_at,
        order.completed_at,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Orders of a user that wait to be paid since a time.
pub(super) async fn count_open(
    connection: &mut PgConnection,
    user: &UserId,
    since: OffsetDateTime,
) -> Result<i64, DbError> {
    Ok(sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM credits.purchases
           WHERE user_id = $1 AND state IN ('created', 'unpaid') AND created_at > $2 AND origin = 'person'"#,
        user.as_str(),
        since,
    )
    .fetch_one(connection)
    .await?)
}

/// An order by its id or the key that its user gave it.
pub(super) async fn find_placed(
    connection: &mut PgConnection,
    user: &UserId,
    id: Option<&str>,
    key: Option<&str>,
) -> Result<Option<PlacedRow>, DbError> {
    Ok(sqlx::query_as!(
        PlacedRow,
        "SELECT purchases.id, request_digest, purchases.credits, purchases.price_euro_cents, price_cents, currency,
             taxed AS is_taxed, attempt, session_id, checkout_url, client_secret, expires_at, package_id, version.name AS package_name,
             version.stripe_price_id
         FROM credits.purchases JOIN credits.package_versions version USING (package_id)
         WHERE version.version = package_version AND user_id = $1 AND (purchases.id = $2 OR idempotency_key = $3)",
        user.as_str(),
        id,
        key,
    )
    .fetch_optional(connection)
    .await?)
}

/// What Stripe made for an order.
#[derive(Debug)]
pub(super) struct SessionColumns<'a> {
    pub(super) customer_id: &'a str,
    pub(super) session_id: &'a str,
    pub(super) checkout_url: Option<&'a str>,
    pub(super) client_secret: Option<&'a str>,
    pub(super) expires_at: Option<OffsetDateTime>,
}

/// Notes the till of an order; not if it has one.
pub(super) async fn update_session(
    connection: &mut PgConnection,
    order: &str,
    session: &SessionColumns<'_>,
    now: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "UPDATE credits.purchases SET customer_id = $2, session_id = $3, checkout_url = $4, client_secret = $5, expires_at = $6, updated_at = $7,
             lifecycle = CASE lifecycle WHEN 'created' THEN 'open' ELSE lifecycle END, state = CASE state WHEN 'created' THEN 'unpaid' ELSE state END
         WHERE id = $1 AND session_id IS NULL",
        order,
        session.customer_id,
        session.session_id,
        session.checkout_url,
        session.client_secret,
        session.expires_at,
        now,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Takes a till of an order back that can't be used, so that the next attempt makes another.
pub(super) async fn update_attempt(
    connection: &mut PgConnection,
    order: &str,
    attempt: i32,
) -> Result<(), DbError> {
    sqlx::query!(
        "UPDATE credits.purchases SET attempt = $2 + 1 WHERE id = $1 AND attempt = $2 AND session_id IS NULL",
        order,
        attempt,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// How often a payment of an order was tried, with the one to come.
pub(crate) async fn find_attempt(connection: &mut PgConnection, order: &str) -> Result<i32, DbError> {
    Ok(sqlx::query_scalar!("SELECT attempt FROM credits.purchases WHERE id = $1", order)
        .fetch_one(connection)
        .await?)
}

/// The next try of an order without a till is another one.
pub(crate) async fn update_next_attempt(connection: &mut PgConnection, order: &str) -> Result<(), DbError> {
    sqlx::query!(
        "UPDATE credits.purchases SET attempt = attempt + 1 WHERE id = $1 AND session_id IS NULL",
        order
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Notes the payment of an order without a till, if it is open and has none, and says which it has: none if it came to its end without.
pub(crate) async fn update_payment(
    connection: &mut PgConnection,
    order: &str,
    customer: &str,
    payment: &str,
    now: OffsetDateTime,
) -> Result<Option<String>, DbError> {
    sqlx::query!(
        "UPDATE credits.purchases SET customer_id = $2, payment_id = $3, updated_at = $4, lifecycle = 'open', state = 'unpaid'
         WHERE id = $1 AND payment_id IS NULL AND session_id IS NULL AND lifecycle = 'created'",
        order,
        customer,
        payment,
        now,
    )
    .execute(&mut *connection)
    .await?;
    Ok(sqlx::query_scalar!("SELECT payment_id FROM credits.purchases WHERE id = $1", order)
        .fetch_one(connection)
        .await?)
}

/// Notes a payment by which money came in for an order without a till, whatever became of the order meanwhile.
pub(super) async fn update_adopted(
    connection: &mut PgConnection,
    order: &str,
    customer: &str,
    payment: &str,
    now: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "UPDATE credits.purchases SET customer_id = $2, payment_id = $3, updated_at = $4,
             lifecycle = CASE lifecycle WHEN 'created' THEN 'open' ELSE lifecycle END, state = CASE state WHEN 'created' THEN 'unpaid' ELSE state END
         WHERE id = $1 AND payment_id IS NULL AND session_id IS NULL AND captured_cents = 0",
        order,
        customer,
        payment,
        now,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Ends an order without a till whose payment Stripe does not know, or that has none and never gets one.
pub(crate) async fn update_failed(
    connection: &mut PgConnection,
    order: &str,
    payment: Option<&str>,
    now: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "UPDATE credits.purchases SET state = 'failed', lifecycle = 'failed', updated_at = $3
         WHERE id = $1 AND payment_id IS NOT DISTINCT FROM $2 AND session_id IS NULL AND captured_cents = 0 AND lifecycle IN ('created', 'open')",
        order,
        payment,
        now,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// A month of a user's top-ups.
#[derive(Debug)]
pub(crate) struct TopUpMonth {
    /// What was and may yet be charged of those that were opened in it.
    pub(crate) used_cents: i64,
    /// When the next one begins.
    pub(crate) ends_at: OffsetDateTime,
}

/// What a user's top-ups in a currency come to in the month that it is in a zone.
pub(crate) async fn find_month(
    connection: &mut PgConnection,
    user: &UserId,
    currency: &str,
    zone: &str,
    now: OffsetDateTime,
) -> Result<TopUpMonth, DbError> {
    Ok(sqlx::query_as!(
        TopUpMonth,
        r#"SELECT coalesce(sum(price_cents + added_tax_cents), 0)::bigint AS "used_cents!", ends_at AS "ends_at!"
           FROM (SELECT begins AT TIME ZONE $3 AS begins_at, (begins + interval '1 month') AT TIME ZONE $3 AS ends_at
                 FROM (SELECT date_trunc('month', $4::timestamptz AT TIME ZONE $3::text) AS begins) here) month
           LEFT JOIN credits.purchases ON user_id = $1 AND origin = 'auto_top_up' AND currency = $2 AND created_at >= begins_at
               AND state NOT IN ('failed', 'expired')
           GROUP BY ends_at"#,
        user.as_str(),
        currency,
        zone,
        now,
    )
    .fetch_one(connection)
    .await?)
}

/// What stands against charging a user who agreed to it at a time.
pub(crate) async fn find_blemishes(
    connection: &mut PgConnection,
    user: &UserId,
    consented_at: OffsetDateTime,
) -> Result<Blemishes, DbError> {
    Ok(sqlx::query_as!(
        Blemishes,
        r#"SELECT coalesce(bool_or(disputed), false) AS "is_disputed!",
               coalesce(bool_or(updated_at > $2 AND (lost_cents > 0 OR fraud_warned)), false) AS "is_suspicious!",
               coalesce(bool_or(updated_at > $2 AND refunded_cents > 0 AND origin = 'auto_top_up'), false) AS "is_refunded!"
           FROM credits.purchases WHERE user_id = $1"#,
        user.as_str(),
        consented_at,
    )
    .fetch_one(connection)
    .await?)
}

/// Who a user is at Stripe.
pub(crate) async fn find_customer(
    connection: &mut PgConnection,
    user: &UserId,
    livemode: bool,
) -> Result<Option<String>, DbError> {
    Ok(sqlx::query_scalar!(
        "SELECT customer_id FROM credits.stripe_customers WHERE user_id = $1 AND livemode = $2",
        user.as_str(),
        livemode,
    )
    .fetch_optional(connection)
    .await?)
}

/// Notes who a user is at Stripe; the first one stays.
pub(crate) async fn insert_customer(
    connection: &mut PgConnection,
    user: &UserId,
    livemode: bool,
    customer: &str,
    now: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "INSERT INTO credits.stripe_customers (user_id, livemode, customer_id, created_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT ON CONSTRAINT stripe_customers_pkey DO NOTHING",
        user.as_str(),
        livemode,
        customer,
        now,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Notes that a user is somebody else at Stripe, unless that is known.
pub(super) async fn update_customer(
    connection: &mut PgConnection,
    user: &UserId,
    livemode: bool,
    (old, new): (&str, &str),
    now: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "UPDATE credits.stripe_customers SET customer_id = $4, created_at = $5 WHERE user_id = $1 AND livemode = $2 AND customer_id = $3",
        user.as_str(),
        livemode,
        old,
        new,
        now,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// A user's orders, newest first; the latest 500.
pub(super) async fn list_purchases(
    connection: &mut PgConnection,
    user: &UserId,
) -> Result<Vec<PurchaseResponse>, DbError> {
    Ok(sqlx::query_as!(
        PurchaseResponse,
        r#"SELECT id, package_id, status AS "status!", state, credits, price_euro_cents, currency, price_cents, refunded_cents, disputed, created_at,
             completed_at
         FROM credits.purchases WHERE user_id = $1 ORDER BY created_at DESC, id DESC LIMIT $2"#,
        user.as_str(),
        LISTED,
    )
    .fetch_all(connection)
    .await?)
}

/// An order, as its buyer's export shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PurchaseExport {
    pub(crate) id: String,
    package_id: String,
    status: String,
    state: String,
    credits: i64,
    price_euro_cents: i64,
    currency: String,
    price_cents: i64,
    added_tax_cents: i64,
    tax_cents: Option<i64>,
    tax_status: Option<String>,
    refunded_cents: i64,
    disputed: bool,
    payer_name: Option<String>,
    payer_address: Option<String>,
    payer_country: Option<String>,
    payer_tax_id: Option<String>,
    stripe_payment_id: Option<String>,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    completed_at: Option<OffsetDateTime>,
}

/// A page of a user's orders, in the order of their ids.
pub(crate) async fn list_after(
    connection: &mut PgConnection,
    user: &UserId,
    after: &str,
    limit: i64,
) -> Result<Vec<PurchaseExport>, DbError> {
    Ok(sqlx::query_as!(
        PurchaseExport,
        r#"SELECT id, package_id, status AS "status!", state, credits, price_euro_cents, currency, price_cents, added_tax_cents, tax_cents,
             tax_status, refunded_cents, disputed, payer_name, payer_address, payer_country, payer_tax_id, payment_id AS stripe_payment_id,
             created_at, completed_at
         FROM credits.purchases WHERE user_id = $1 AND id > $2 ORDER BY id LIMIT $3"#,
        user.as_str(),
        after,
        limit,
    )
    .fetch_all(connection)
    .await?)
}

/// Money that went back or is contested, as its owner's export shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MoneyBackExport {
    pub(crate) id: String,
    purchase_id: String,
    amount_cents: i64,
    status: String,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    updated_at: OffsetDateTime,
}

/// A page of a user's refunds, in the order of their ids.
pub(crate) async fn list_refunds_of(
    connection: &mut PgConnection,
    user: &UserId,
    after: &str,
    limit: i64,
) -> Result<Vec<MoneyBackExport>, DbError> {
    Ok(sqlx::query_as!(
        MoneyBackExport,
        "SELECT id, purchase_id, amount_cents, status, created_at, updated_at FROM credits.refunds
         WHERE user_id = $1 AND purchase_id IN (SELECT id FROM credits.purchases WHERE user_id = $1) AND id > $2 ORDER BY id LIMIT $3",
        user.as_str(),
        after,
        limit,
    )
    .fetch_all(connection)
    .await?)
}

/// A page of what a user's bank has contested, in the order of ids.
pub(crate) async fn list_disputes_of(
    connection: &mut PgConnection,
    user: &UserId,
    after: &str,
    limit: i64,
) -> Result<Vec<MoneyBackExport>, DbError> {
    Ok(sqlx::query_as!(
        MoneyBackExport,
        "SELECT id, purchase_id, amount_cents, status, created_at, updated_at FROM credits.disputes
         WHERE user_id = $1 AND purchase_id IN (SELECT id FROM credits.purchases WHERE user_id = $1) AND id > $2 ORDER BY id LIMIT $3",
        user.as_str(),
        after,
        limit,
    )
    .fetch_all(connection)
    .await?)
}

/// Who somebody is at Stripe, as the user's export shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StripeCustomerExport {
    customer_id: String,
    livemode: bool,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
}

/// Who a user is at Stripe: in earnest, and in tests.
pub(crate) async fn list_customers(
    connection: &mut PgConnection,
    user: &UserId,
) -> Result<Vec<StripeCustomerExport>, DbError> {
    Ok(sqlx::query_as!(
        StripeCustomerExport,
        "SELECT customer_id, livemode, created_at FROM credits.stripe_customers WHERE user_id = $1 ORDER BY livemode",
        user.as_str(),
    )
    .fetch_all(connection)
    .await?)
}

/// One of a user's orders.
pub(super) async fn find_purchase(
    connection: &mut PgConnection,
    user: &UserId,
    id: &str,
) -> Result<Option<PurchaseResponse>, DbError> {
    Ok(sqlx::query_as!(
        PurchaseResponse,
        r#"SELECT id, package_id, status AS "status!", state, credits, price_euro_cents, currency, price_cents, refunded_cents, disputed, created_at,
             completed_at
         FROM credits.purchases WHERE user_id = $1 AND id = $2"#,
        user.as_str(),
        id,
    )
    .fetch_optional(connection)
    .await?)
}

/// Those of these orders that wait to be paid and were not looked at since a time.
pub(super) async fn list_pending(
    connection: &mut PgConnection,
    orders: &[String],
    since: OffsetDateTime,
) -> Result<Vec<String>, DbError> {
    Ok(sqlx::query_scalar!(
        "SELECT id FROM credits.purchases WHERE id = ANY($1) AND status = 'pending' AND (looked_at IS NULL OR looked_at <= $2)",
        orders,
        since,
    )
    .fetch_all(connection)
    .await?)
}

struct OrderRow {
    id: String,
    user_id: String,
    package_id: String,
    credits: i64,
    currency: String,
    price_cents: i64,
    taxed: bool,
    added_tax_cents: i64,
    origin: String,
    livemode: bool,
    customer_id: Option<String>,
    session_id: Option<String>,
    payment_id: Option<String>,
    lifecycle: String,
    captured_cents: i64,
    fraud_warned: bool,
    problem: Option<String>,
    granted_mana: i64,
    grant_sequence: Option<i64>,
    taken_mana: i64,
    owed_mana: i64,
    completed_at: Option<OffsetDateTime>,
}

impl OrderRow {
    fn into_order(self) -> Result<Order, DbError> {
        let lifecycle = Lifecycle::from_database(&self.lifecycle);
        let origin = OrderOrigin::from_database(&self.origin);
        Ok(Order {
            id: self.id,
            user_id: self.user_id,
            package_id: self.package_id,
            credits: self.credits,
            currency: self.currency,
            price_cents: self.price_cents,
            is_taxed: self.taxed,
            added_tax_cents: self.added_tax_cents,
            origin: origin.ok_or_else(|| DbError::unreadable("credits.purchases"))?,
            livemode: self.livemode,
            customer_id: self.customer_id,
            session_id: self.session_id,
            payment_id: self.payment_id,
            lifecycle: lifecycle.ok_or_else(|| DbError::unreadable("credits.purchases"))?,
            captured_cents: self.captured_cents,
            fraud_warned: self.fraud_warned,
            problem: self.problem,
            granted_mana: self.granted_mana,
            grant_sequence: self.grant_sequence,
            taken_mana: self.taken_mana,
            owed_mana: self.owed_mana,
            completed_at: self.completed_at,
        })
    }
}

/// An order, whoever's it is.
pub(crate) async fn find_order(connection: &mut PgConnection, id: &str) -> Result<Option<Order>, DbError> {
    let row = sqlx::query_as!(
        OrderRow,
        "SELECT id, user_id, package_id, credits, currency, price_cents, taxed, added_tax_cents, origin, livemode, customer_id, session_id, payment_id, lifecycle,
             captured_cents, fraud_warned, problem, granted_mana, grant_sequence, taken_mana, owed_mana, completed_at
         FROM credits.purchases WHERE id = $1",
        id,
    )
    .fetch_optional(connection)
    .await?;
    row.map(OrderRow::into_order).transpose()
}

/// The same, locked until the transaction ends. Wallets are locked after it.
pub(crate) async fn lock_order(connection: &mut PgConnection, id: &str) -> Result<Option<Order>, DbError> {
    let row = sqlx::query_as!(
        OrderRow,
        "SELECT id, user_id, package_id, credits, currency, price_cents, taxed, added_tax_cents, origin, livemode, customer_id, session_id, payment_id, lifecycle,
             captured_cents, fraud_warned, problem, granted_mana, grant_sequence, taken_mana, owed_mana, completed_at
         FROM credits.purchases WHERE id = $1 FOR UPDATE",
        id,
    )
    .fetch_optional(connection)
    .await?;
    row.map(OrderRow::into_order).transpose()
}

/// The order that a session or a payment belongs to.
pub(crate) async fn find_order_id(
    connection: &mut PgConnection,
    order: Option<&str>,
    session: Option<&str>,
    payment: Option<&str>,
) -> Result<Option<String>, DbError> {
    Ok(sqlx::query_scalar!(
        "SELECT id FROM credits.purchases WHERE id = $1 OR session_id = $2 OR payment_id = $3 LIMIT 1",
        order,
        session,
        payment,
    )
    .fetch_optional(connection)
    .await?)
}

/// What is known of an order's payment, refunds and disputes included.
pub(crate) async fn find_facts(connection: &mut PgConnection, order: &Order) -> Result<Facts, DbError> {
    let unreadable = |table| move || DbError::unreadable(table);
    let refunds = sqlx::query!(
        "SELECT id, status, amount_cents FROM credits.refunds WHERE purchase_id = $1",
        order.id,
    )
    .fetch_all(&mut *connection)
    .await?;
    let refunds = refunds.into_iter().map(|row| {
        let status = RefundStatus::from_database(&row.status);
        Ok((row.id, (status.ok_or_else(unreadable("credits.refunds"))?, row.amount_cents)))
    });
    let refunds = refunds.collect::<Result<BTreeMap<_, _>, DbError>>()?;
    let disputes = sqlx::query!(
        "SELECT id, status, amount_cents FROM credits.disputes WHERE purchase_id = $1",
        order.id,
    )
    .fetch_all(connection)
    .await?;
    let disputes = disputes.into_iter().map(|row| {
        let status = DisputeStatus::from_database(&row.status);
        Ok((row.id, (status.ok_or_else(unreadable("credits.disputes"))?, row.amount_cents)))
    });
    let disputes = disputes.collect::<Result<BTreeMap<_, _>, DbError>>()?;
    Ok(Facts { refunds, disputes, ..order.facts() })
}

/// Writes what is known now of refunds and disputes. `stripe_ids` are Stripe's for refunds that have ours.
pub(super) async fn write_facts(
    connection: &mut PgConnection,
    order: &Order,
    facts: &Facts,
    stripe_ids: &BTreeMap<String, String>,
    now: OffsetDateTime,
) -> Result<(), DbError> {
    for (id, (status, cents)) in &facts.refunds {
        sqlx::query!(
            "INSERT INTO credits.refunds AS known (user_id, id, purchase_id, stripe_refund_id, amount_cents, status, created_at, updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $7)
             ON CONFLICT ON CONSTRAINT refunds_pkey DO UPDATE SET status = excluded.status, updated_at = excluded.updated_at,
                 stripe_refund_id = coalesce(known.stripe_refund_id, excluded.stripe_refund_id),
                 next_attempt_at = CASE excluded.status WHEN 'wanted' THEN known.next_attempt_at END
             WHERE known.status <> excluded.status OR (known.stripe_refund_id IS NULL AND excluded.stripe_refund_id IS NOT NULL)",
            order.user_id,
            id,
            order.id,
            stripe_ids.get(id),
            cents,
            status.as_str(),
            now,
        )
        .execute(&mut *connection)
        .await?;
    }
    for (id, (status, cents)) in &facts.disputes {
        sqlx::query!(
            "INSERT INTO credits.disputes AS known (user_id, id, purchase_id, amount_cents, status, created_at, updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, $6)
             ON CONFLICT ON CONSTRAINT disputes_pkey DO UPDATE SET status = excluded.status, amount_cents = excluded.amount_cents,
                 updated_at = excluded.updated_at
             WHERE (known.status, known.amount_cents) <> (excluded.status, excluded.amount_cents)",
            order.user_id,
            id,
            order.id,
            cents,
            status.as_str(),
            now,
        )
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// Writes an order as it is now, with what follows from the facts.
pub(super) async fn update_order(
    connection: &mut PgConnection,
    order: &Order,
    facts: &Facts,
    has_changed: bool,
    now: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "UPDATE credits.purchases SET state = $2, payment_id = $3, lifecycle = $4, captured_cents = $5, refunded_cents = $6, lost_cents = $7,
             disputed = $8, fraud_warned = $9, problem = $10, granted_mana = $11, grant_sequence = $12, taken_mana = $13, owed_mana = $14,
             completed_at = $15, looked_at = $16, updated_at = CASE WHEN $17 THEN $16 ELSE updated_at END
         WHERE id = $1",
        order.id,
        facts.state(order.granted_mana > 0),
        order.payment_id,
        facts.lifecycle.as_str(),
        facts.captured_cents,
        facts.refunded_cents(),
        facts.lost_cents(),
        facts.is_disputed(),
        facts.fraud_warned,
        order.problem,
        order.granted_mana,
        order.grant_sequence,
        order.taken_mana,
        order.owed_mana,
        order.completed_at,
        now,
        has_changed,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Writes what Stripe says of tax and payer. Of the payer nothing, once the account is gone.
pub(super) async fn update_bill(
    connection: &mut PgConnection,
    order: &Order,
    bill: &Bill,
) -> Result<(), DbError> {
    sqlx::query!(
        "UPDATE credits.purchases bought SET added_tax_cents = $2, tax_cents = $3, tax_status = $4,
             payer_name = CASE WHEN here.open THEN $5 END, payer_address = CASE WHEN here.open THEN $6 END,
             payer_country = CASE WHEN here.open THEN $7 END, payer_tax_id = CASE WHEN here.open THEN $8 END
         FROM (SELECT NOT EXISTS (
             SELECT FROM credits.balances WHERE balances.user_id = $9 AND closed_at IS NOT NULL) AS open) here
         WHERE id = $1",
        order.id,
        order.added_tax_cents,
        bill.tax_cents,
        bill.tax_status,
        bill.payer_name,
        bill.payer_address,
        bill.payer_country,
        bill.payer_tax_id,
        order.user_id,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Forgets who paid for a user's orders.
pub(super) async fn delete_payer(connection: &mut PgConnection, user: &UserId) -> Result<(), DbError> {
    sqlx::query!(
        "UPDATE credits.purchases SET payer_name = NULL, payer_address = NULL, payer_country = NULL, payer_tax_id = NULL WHERE user_id = $1",
        user.as_str(),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// What a receipt says of an order.
#[derive(Debug)]
pub(super) struct ReceiptRow {
    pub(super) id: String,
    pub(super) package_id: String,
    pub(super) package_version: i32,
    pub(super) credits: i64,
    pub(super) currency: String,
    pub(super) price_cents: i64,
    pub(super) added_tax_cents: i64,
    pub(super) tax_cents: Option<i64>,
    pub(super) captured_cents: i64,
    pub(super) lost_cents: i64,
    pub(super) disputed: bool,
    pub(super) livemode: bool,
    pub(super) payer_name: Option<String>,
    pub(super) payer_address: Option<String>,
    pub(super) payer_country: Option<String>,
    pub(super) payer_tax_id: Option<String>,
    pub(super) created_at: OffsetDateTime,
    pub(super) completed_at: Option<OffsetDateTime>,
}

/// One of a user's orders, as a receipt says it.
pub(super) async fn find_receipt(
    connection: &mut PgConnection,
    user: &UserId,
    id: &str,
) -> Result<Option<ReceiptRow>, DbError> {
    Ok(sqlx::query_as!(
        ReceiptRow,
        "SELECT id, package_id, package_version, credits, currency, price_cents, added_tax_cents, tax_cents, captured_cents, lost_cents, disputed,
             livemode, payer_name, payer_address, payer_country, payer_tax_id, created_at, completed_at
         FROM credits.purchases WHERE user_id = $1 AND id = $2",
        user.as_str(),
        id,
    )
    .fetch_optional(connection)
    .await?)
}

/// Money that went back, or is about to, as a receipt says it.
#[derive(Debug)]
pub(super) struct ReceiptRefund {
    pub(super) amount_cents: i64,
    pub(super) is_done: bool,
    pub(super) created_at: OffsetDateTime,
}

/// What went back of an order of a user, or is about to, the oldest first.
pub(super) async fn list_receipt_refunds(
    connection: &mut PgConnection,
    user: &UserId,
    id: &str,
) -> Result<Vec<ReceiptRefund>, DbError> {
    Ok(sqlx::query_as!(
        ReceiptRefund,
        r#"SELECT amount_cents, status = 'succeeded' AS "is_done!", created_at FROM credits.refunds
           WHERE user_id = $1 AND purchase_id = $2 AND status <> 'failed' ORDER BY created_at, id LIMIT $3"#,
        user.as_str(),
        id,
        LISTED,
    )
    .fetch_all(connection)
    .await?)
}

/// A refund that an administrator wants.
#[derive(Debug)]
pub(super) struct NewRefund<'a> {
    pub(super) id: &'a str,
    pub(super) amount_cents: i64,
    pub(super) reason: Option<&'a str>,
    pub(super) by: Option<&'a str>,
    pub(super) next_attempt_at: OffsetDateTime,
    pub(super) now: OffsetDateTime,
}

/// Notes that money is to go back. Says no if the refund was wanted before.
pub(super) async fn insert_refund(
    connection: &mut PgConnection,
    order: &Order,
    refund: &NewRefund<'_>,
) -> Result<bool, DbError> {
    let done = sqlx::query!(
        "INSERT INTO credits.refunds (user_id, id, purchase_id, amount_cents, status, reason, requested_by, next_attempt_at, created_at, updated_at)
         VALUES ($1, $2, $3, $4, 'wanted', $5, $6, $7, $8, $8) ON CONFLICT ON CONSTRAINT refunds_pkey DO NOTHING",
        order.user_id,
        refund.id,
        order.id,
        refund.amount_cents,
        refund.reason,
        refund.by,
        refund.next_attempt_at,
        refund.now,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The refunds of an order, the newest first.
pub(super) async fn list_refunds(
    connection: &mut PgConnection,
    order: &str,
) -> Result<Vec<PurchaseRefund>, DbError> {
    Ok(sqlx::query_as!(
        PurchaseRefund,
        "SELECT id, purchase_id, stripe_refund_id, amount_cents, status, reason, requested_by, created_at
         FROM credits.refunds WHERE purchase_id = $1 ORDER BY created_at DESC, id DESC LIMIT 1000",
        order,
    )
    .fetch_all(connection)
    .await?)
}

/// Claims refunds that Stripe has not been told of, or has not answered: nobody else gets them until `until`.
pub(super) async fn update_claimed_refunds(
    connection: &mut PgConnection,
    now: OffsetDateTime,
    until: OffsetDateTime,
    limit: i64,
) -> Result<Vec<PurchaseRefund>, DbError> {
    Ok(sqlx::query_as!(
        PurchaseRefund,
        "WITH due AS MATERIALIZED (
             SELECT id FROM credits.refunds WHERE status = 'wanted' AND next_attempt_at <= $1 ORDER BY next_attempt_at LIMIT $3
             FOR UPDATE SKIP LOCKED
         )
         UPDATE credits.refunds refund SET next_attempt_at = $2 FROM due WHERE refund.id = due.id
         RETURNING refund.id, purchase_id, stripe_refund_id, amount_cents, status, reason, requested_by, created_at",
        now,
        until,
        limit,
    )
    .fetch_all(connection)
    .await?)
}

/// What a comparison looks at: orders that changed since a time, and those that wait to be paid. A page after an id.
pub(super) async fn list_candidates(
    connection: &mut PgConnection,
    since: OffsetDateTime,
    livemode: bool,
    after: &str,
    limit: i64,
) -> Result<Vec<String>, DbError> {
    Ok(sqlx::query_scalar!(
        "SELECT id FROM credits.purchases
         WHERE id > $3 AND livemode = $2 AND (created_at >= $1 OR updated_at >= $1 OR problem IS NOT NULL OR disputed
             OR lifecycle IN ('open', 'complete') AND captured_cents = 0)
         ORDER BY id LIMIT $4",
        since,
        livemode,
        after,
        limit,
    )
    .fetch_all(connection)
    .await?)
}

/// Orders that were paid and not credited.
pub(super) async fn count_problems(connection: &mut PgConnection) -> Result<i64, DbError> {
    Ok(sqlx::query_scalar!(r#"SELECT count(*) AS "count!" FROM credits.purchases WHERE problem IS NOT NULL"#)
        .fetch_one(connection)
        .await?)
}

/// Everything that was ever paid, currency by currency: what came in and went back, and what the books made of it.
pub(super) async fn sum_statement(connection: &mut PgConnection) -> Result<Vec<StatementLine>, DbError> {
    Ok(sqlx::query_as!(
        StatementLine,
        r#"SELECT currency, livemode, count(*) AS "orders!",
               sum(captured_cents)::bigint AS "captured_cents!", sum(refunded_cents)::bigint AS "refunded_cents!",
               sum(lost_cents)::bigint AS "lost_cents!", sum(granted_mana)::bigint AS "granted_mana!",
               sum(taken_mana)::bigint AS "taken_mana!", sum(owed_mana)::bigint AS "owed_mana!",
               sum(CASE WHEN disputed OR problem IS NOT NULL THEN granted_mana - taken_mana - owed_mana
                   ELSE credits - div(credits::numeric * least(captured_cents, refunded_cents + lost_cents), price_cents + added_tax_cents) END)::bigint AS "expected_mana!"
           FROM credits.purchases WHERE captured_cents > 0 GROUP BY currency, livemode ORDER BY currency, livemode"#,
    )
    .fetch_all(connection)
    .await?)
}

/// Keeps a statement for a day; the first of the day stays.
pub(super) async fn insert_statement(
    connection: &mut PgConnection,
    day: Date,
    line: &StatementLine,
    now: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "INSERT INTO credits.payment_statements (day, currency, livemode, orders, captured_cents, refunded_cents, lost_cents, granted_mana,
             taken_mana, owed_mana, expected_mana, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) ON CONFLICT ON CONSTRAINT payment_statements_pkey DO NOTHING",
        day,
        line.currency,
        line.livemode,
        line.orders,
        line.captured_cents,
        line.refunded_cents,
        line.lost_cents,
        line.granted_mana,
        line.taken_mana,
        line.owed_mana,
        line.expected_mana,
        now,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The day, or the last one, if a statement was kept for it.
pub(super) async fn find_statement_day(
    connection: &mut PgConnection,
    day: Option<Date>,
) -> Result<Option<Date>, DbError> {
    Ok(sqlx::query_scalar!(
        "SELECT max(day) FROM credits.payment_statements WHERE $1::date IS NULL OR day = $1",
        day
    )
    .fetch_one(connection)
    .await?)
}

/// The statement that was kept for a day.
pub(super) async fn list_statement(
    connection: &mut PgConnection,
    day: Date,
) -> Result<Vec<StatementLine>, DbError> {
    Ok(sqlx::query_as!(
        StatementLine,
        "SELECT currency, livemode, orders, captured_cents, refunded_cents, lost_cents, granted_mana, taken_mana, owed_mana, expected_mana
         FROM credits.payment_statements WHERE day = $1 ORDER BY currency, livemode",
        day,
    )
    .fetch_all(connection)
    .await?)
}

/// Takes the lock under which one server compares; says no if another has it. It ends with the transaction.
pub(super) async fn hold_comparison(connection: &mut PgConnection) -> Result<bool, DbError> {
    Ok(sqlx::query_scalar!(
        r#"SELECT pg_try_advisory_xact_lock(hashtextextended('mana.payments.reconcile', 0)) AS "held!""#
    )
    .fetch_one(connection)
    .await?)
}

/// Which purchases.
#[derive(Debug)]
pub(super) struct PurchaseFilter<'a> {
    pub(super) user: Option<&'a str>,
    pub(super) state: Option<&'a str>,
    /// Older than this one.
    pub(super) before: Option<(OffsetDateTime, &'a str)>,
    pub(super) limit: i64,
}

/// Purchases of all users, the newest first.
pub(super) async fn list_all(
    connection: &mut PgConnection,
    filter: &PurchaseFilter<'_>,
) -> Result<Vec<PurchaseSummary>, DbError> {
    Ok(sqlx::query_as!(
        PurchaseSummary,
        "SELECT id, user_id, package_id, state, credits, currency, price_cents, refunded_cents, lost_cents, disputed, fraud_warned, problem,
             owed_mana, created_at, completed_at
         FROM credits.purchases WHERE ($1::text IS NULL OR user_id = $1) AND ($2::text IS NULL OR state = $2)
             AND ($3::timestamptz IS NULL OR (created_at, id) < ($3, $4)) ORDER BY created_at DESC, id DESC LIMIT $5",
        filter.user,
        filter.state,
        filter.before.map(|(at, _)| at),
        filter.before.map_or("", |(_, id)| id),
        filter.limit,
    )
    .fetch_all(connection)
    .await?)
}
