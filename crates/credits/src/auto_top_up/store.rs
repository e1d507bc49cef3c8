//! All SQL of `credits.auto_top_ups`, and of the threshold in `credits.balances`.

use super::model::{AutoTopUp, PauseReason, Status, WatchedWallet};
use super::show::AutoTopUpRow;
use mana_kernel::UserId;
use mana_platform::http::Language;
use mana_platform::{DbError, hold_briefly};
use sqlx::PgConnection;
use time::OffsetDateTime;

struct Row {
    user_id: String,
    status: String,
    threshold_mana: i64,
    package_id: String,
    currency: String,
    credits: i64,
    price_cents: i64,
    monthly_cap_cents: i64,
    language: String,
    customer_id: String,
    payment_method_id: Option<String>,
    setup_session_id: Option<String>,
    consented_at: OffsetDateTime,
    seen_version: i64,
    order_id: Option<String>,
    withdrawn_order_id: Option<String>,
    failures: i32,
    capped_until: Option<OffsetDateTime>,
    tills_to_close: Vec<String>,
    cards_to_forget: Vec<String>,
}

impl Row {
    fn into_model(self) -> Result<AutoTopUp, DbError> {
        let unreadable = || DbError::unreadable("credits.auto_top_ups");
        Ok(AutoTopUp {
            user: self.user_id.parse().map_err(|_| unreadable())?,
            status: Status::from_database(&self.status).ok_or_else(unreadable)?,
            threshold_mana: self.threshold_mana,
            package_id: self.package_id,
            currency: self.currency,
            credits: self.credits,
            price_cents: self.price_cents,
            monthly_cap_cents: self.monthly_cap_cents,
            language: if self.language == Language::German.tag() {
                Language::German
            } else {
                Language::English
            },
            customer_id: self.customer_id,
            payment_method_id: self.payment_method_id,
            setup_session_id: self.setup_session_id,
            consented_at: self.consented_at,
            seen_version: self.seen_version,
            order_id: self.order_id,
            withdrawn_order_id: self.withdrawn_order_id,
            failures: self.failures,
            capped_until: self.capped_until,
            tills_to_close: self.tills_to_close,
            cards_to_forget: self.cards_to_forget,
        })
    }
}

/// A user's auto top-up, locked until the transaction ends: whatever changes it takes turns. Wallets and orders are locked before it.
pub(super) async fn lock_auto_top_up(
    connection: &mut PgConnection,
    user: &UserId,
    livemode: bool,
) -> Result<Option<AutoTopUp>, DbError> {
    let row = sqlx::query_as!(
        Row,
        "SELECT user_id, status, threshold_mana, package_id, currency, credits, price_cents, monthly_cap_cents, language, customer_id,
             payment_method_id, setup_session_id, consented_at, seen_version, order_id, withdrawn_order_id, failures, capped_until, tills_to_close,
             cards_to_forget
         FROM credits.auto_top_ups WHERE user_id = $1 AND livemode = $2 FOR UPDATE",
        user.as_str(),
        livemode,
    )
    .fetch_optional(connection)
    .await?;
    row.map(Row::into_model).transpose()
}

/// A user's auto top-up for its owner.
pub(super) async fn find_for_owner(
    connection: &mut PgConnection,
    user: &UserId,
) -> Result<Option<AutoTopUpRow>, DbError> {
    Ok(sqlx::query_as!(
        AutoTopUpRow,
        "SELECT status, pause_reason, threshold_mana, package_id, currency, credits, price_cents, monthly_cap_cents, setup_url, consented_at,
             order_id, capped_until
         FROM credits.auto_top_ups WHERE user_id = $1",
        user.as_str(),
    )
    .fetch_optional(connection)
    .await?)
}

/// What was agreed to.
#[derive(Debug)]
pub(super) struct Agreement<'a> {
    pub(super) threshold_mana: i64,
    pub(super) package_id: &'a str,
    pub(super) currency: &'a str,
    pub(super) credits: i64,
    pub(super) price_cents: i64,
    pub(super) monthly_cap_cents: i64,
    pub(super) language: Language,
    pub(super) livemode: bool,
    pub(super) customer_id: &'a str,
    /// A card that is saved already.
    pub(super) payment_method_id: Option<&'a str>,
    /// Where one is saved, and where the browser goes for it.
    pub(super) setup: Option<(&'a str, Option<&'a str>)>,
    /// The order of before, which has come to its end.
    pub(super) ended_order: Option<&'a str>,
    /// When the till is looked at first.
    pub(super) next_look_at: Option<OffsetDateTime>,
    pub(super) now: OffsetDateTime,
}

/// Turns a user's auto top-up on as agreed, or has it wait for a card. Not while an order of it is open that has not come to its end; what the
/// other mode of Stripe's has left open is charged by nobody any more. Till and card of before are of no more use, unless they are those that
/// were agreed to.
pub(super) async fn upsert_agreement(
    connection: &mut PgConnection,
    user: &UserId,
    agreement: &Agreement<'_>,
) -> Result<bool, DbError> {
    let status = if agreement.payment_method_id.is_some() { Status::Active } else { Status::Setup };
    let done = sqlx::query!(
        "INSERT INTO credits.auto_top_ups AS known (user_id, status, threshold_mana, package_id, currency, credits, price_cents, monthly_cap_cents, language,
             livemode, customer_id, payment_method_id, setup_session_id, setup_url, consented_at, seen_version, watch_at, next_look_at, created_at,
             updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15,
             coalesce((SELECT version FROM credits.balances WHERE balances.user_id = $1), 0), $15, $16, $15, $15)
         ON CONFLICT ON CONSTRAINT auto_top_ups_pkey DO UPDATE SET status = excluded.status, pause_reason = NULL,
             threshold_mana = excluded.threshold_mana, package_id = excluded.package_id, currency = excluded.currency, credits = excluded.credits,
             price_cents = excluded.price_cents, monthly_cap_cents = excluded.monthly_cap_cents, language = excluded.language,
             livemode = excluded.livemode, customer_id = excluded.customer_id, payment_method_id = excluded.payment_method_id,
             setup_session_id = excluded.setup_session_id, setup_url = excluded.setup_url, consented_at = excluded.consented_at,
             seen_version = excluded.seen_version, order_id = NULL, failures = 0, watch_at = excluded.watch_at, capped_until = NULL,
             next_look_at = coalesce(excluded.next_look_at, excluded.updated_at), updated_at = excluded.updated_at,
             tills_to_close = CASE WHEN known.setup_session_id <> excluded.setup_session_id OR excluded.setup_session_id IS NULL
                 THEN array_remove(known.tills_to_close || known.setup_session_id, NULL) ELSE known.tills_to_close END,
             cards_to_forget = CASE WHEN known.payment_method_id <> excluded.payment_method_id OR excluded.payment_method_id IS NULL
                 THEN array_remove(known.cards_to_forget || known.payment_method_id, NULL) ELSE known.cards_to_forget END
         WHERE known.order_id IS NULL OR known.order_id = $17 OR known.livemode <> excluded.livemode",
        user.as_str(),
        status.as_str(),
        agreement.threshold_mana,
        agreement.package_id,
        agreement.currency,
        agreement.credits,
        agreement.price_cents,
        agreement.monthly_cap_cents,
        agreement.language.tag(),
        agreement.livemode,
        agreement.customer_id,
        agreement.payment_method_id,
        agreement.setup.map(|(session, _)| session),
        agreement.setup.and_then(|(_, url)| url),
        agreement.now,
        agreement.next_look_at,
        agreement.ended_order,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Sets below what a wallet's owner wants mana bought; none when it is off. The wallet is locked before the auto top-up, in a transaction that
/// holds it briefly.
pub(super) async fn update_threshold(
    connection: &mut PgConnection,
    user: &UserId,
    below: Option<i64>,
) -> Result<(), DbError> {
    sqlx::query!(
        "UPDATE credits.balances SET top_up_below = $2 WHERE user_id = $1 AND top_up_below IS DISTINCT FROM $2",
        user.as_str(),
        below,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Counts a session that is made for an owner, in whichever mode, and says no if there were `most` in the day that began with the first of them.
/// The first of all is not counted.
pub(super) async fn update_tills_made(
    connection: &mut PgConnection,
    user: &UserId,
    most: i32,
    a_day_ago: OffsetDateTime,
    now: OffsetDateTime,
) -> Result<bool, DbError> {
    Ok(sqlx::query_scalar!(
        r#"WITH counted AS (
               UPDATE credits.auto_top_ups SET tills_made = CASE WHEN tills_counted_from > $3 THEN tills_made + 1 ELSE 1 END,
                   tills_counted_from = CASE WHEN tills_counted_from > $3 THEN tills_counted_from ELSE $4 END
               WHERE user_id = $1 AND (tills_counted_from IS NULL OR tills_counted_from <= $3 OR tills_made < $2)
               RETURNING user_id
           )
           SELECT EXISTS (SELECT FROM counted) OR NOT EXISTS (SELECT FROM credits.auto_top_ups WHERE user_id = $1) AS "may_be_made!""#,
        user.as_str(),
        most,
        a_day_ago,
        now,
    )
    .fetch_one(connection)
    .await?)
}

/// Has the open order charged no more: whoever comes to it ends it, from `at` on.
pub(super) async fn update_withdrawn(
    connection: &mut PgConnection,
    user: &UserId,
    order: &str,
    at: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "UPDATE credits.auto_top_ups SET withdrawn_order_id = $2, next_look_at = $3 WHERE user_id = $1 AND order_id = $2",
        user.as_str(),
        order,
        at,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The card is saved: from now on the balance is watched.
pub(super) async fn update_activated(
    connection: &mut PgConnection,
    user: &UserId,
    payment_method: &str,
    now: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "UPDATE credits.auto_top_ups SET status = 'active', payment_method_id = $2, setup_session_id = NULL, setup_url = NULL, watch_at = $3,
             next_look_at = CASE WHEN tills_to_close = '{}' AND cards_to_forget = '{}' THEN NULL ELSE next_look_at END,
             seen_version = coalesce((SELECT version FROM credits.balances WHERE balances.user_id = $1), 0), updated_at = $3
         WHERE user_id = $1",
        user.as_str(),
        payment_method,
        now,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Turns a user's auto top-up off, whatever it is doing; says whether it was on. What is under way is wound up by the next pass.
pub(super) async fn update_off(
    connection: &mut PgConnection,
    user: &UserId,
    now: OffsetDateTime,
) -> Result<bool, DbError> {
    let done = sqlx::query!(
        "UPDATE credits.auto_top_ups SET status = 'off', pause_reason = NULL, tills_to_close = array_remove(tills_to_close || setup_session_id, NULL),
             setup_session_id = NULL, setup_url = NULL, next_look_at = $2, updated_at = $2
         WHERE user_id = $1 AND status <> 'off'",
        user.as_str(),
        now,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Pauses a user's auto top-up. `order` is one that is yet to be wound up, by the next pass.
pub(super) async fn update_paused(
    connection: &mut PgConnection,
    user: &UserId,
    reason: PauseReason,
    order: Option<&str>,
    now: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "UPDATE credits.auto_top_ups SET status = 'paused', pause_reason = $2, order_id = $4, next_look_at = $3, updated_at = $3
         WHERE user_id = $1",
        user.as_str(),
        reason.as_str(),
        now,
        order,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Auto top-ups whose balances are to be looked at: a page of their users, after one.
pub(super) async fn list_fallen(
    connection: &mut PgConnection,
    livemode: bool,
    now: OffsetDateTime,
    after: &str,
    limit: i64,
) -> Result<Vec<String>, DbError> {
    Ok(sqlx::query_scalar!(
        "SELECT user_id FROM credits.auto_top_ups
         WHERE watch_at <= $2 AND status = 'active' AND order_id IS NULL AND livemode = $1 AND user_id > $3 ORDER BY user_id LIMIT $4",
        livemode,
        now,
        after,
        limit,
    )
    .fetch_all(connection)
    .await?)
}

/// Wallets have changed and are below what their owners want: their balances are to be looked at. In the transaction that changes them.
pub(crate) async fn update_fallen(
    connection: &mut PgConnection,
    wallets: &[i64],
    now: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "UPDATE credits.auto_top_ups fallen SET watch_at = $2 FROM credits.balances
         WHERE balances.wallet_id = ANY($1) AND fallen.user_id = balances.user_id AND status = 'active' AND order_id IS NULL AND watch_at IS NULL",
        wallets,
        now,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The balance was looked at and had not fallen. The wallet is locked meanwhile, so that it can't fall unseen.
pub(super) async fn update_seen(
    connection: &mut PgConnection,
    user: &UserId,
    now: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "UPDATE credits.auto_top_ups SET watch_at = NULL WHERE user_id = $1 AND watch_at <= $2",
        user.as_str(),
        now
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Writes thresholds into wallets that lack them, as a server of an older version leaves them: of a page of owners, after one. Says where the
/// page ends; leaves out what others are at.
pub(super) async fn update_thresholds(
    connection: &mut PgConnection,
    after: &str,
    limit: i64,
) -> Result<Option<String>, DbError> {
    Ok(sqlx::query_scalar!(
        "WITH page AS MATERIALIZED (
             SELECT user_id, CASE status WHEN 'off' THEN NULL ELSE threshold_mana END AS below FROM credits.auto_top_ups
             WHERE user_id > $1 ORDER BY user_id LIMIT $2
         ), lacking AS MATERIALIZED (
             SELECT wallet_id, below FROM page JOIN credits.balances USING (user_id) WHERE top_up_below IS DISTINCT FROM below
             FOR UPDATE OF balances SKIP LOCKED
         ), written AS (
             UPDATE credits.balances SET top_up_below = below FROM lacking WHERE balances.wallet_id = lacking.wallet_id
         )
         SELECT max(user_id) FROM page",
        after,
        limit,
    )
    .fetch_one(connection)
    .await?)
}

/// Has the balances of owners looked at that are below what was agreed to and left no notice: of a page of them, as
/// [`update_thresholds`] has it. Leaves out what others are at.
pub(super) async fn update_unnoticed(
    connection: &mut PgConnection,
    livemode: bool,
    (after, end): (&str, &str),
    now: OffsetDateTime,
) -> Result<u64, DbError> {
    let done = sqlx::query!(
        "WITH unnoticed AS MATERIALIZED (
             SELECT watched.user_id FROM credits.auto_top_ups watched JOIN credits.balances USING (user_id)
             WHERE status = 'active' AND order_id IS NULL AND watch_at IS NULL AND livemode = $1 AND (capped_until IS NULL OR capped_until <= $2)
                 AND balances.version > seen_version AND free + paid < threshold_mana AND watched.user_id > $3 AND watched.user_id <= $4
             FOR UPDATE OF watched SKIP LOCKED
         )
         UPDATE credits.auto_top_ups fallen SET watch_at = $2 FROM unnoticed WHERE fallen.user_id = unnoticed.user_id",
        livemode,
        now,
        after,
        end,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// A user's wallet as it is now.
pub(super) async fn find_wallet(
    connection: &mut PgConnection,
    user: &UserId,
) -> Result<Option<WatchedWallet>, DbError> {
    Ok(sqlx::query_as!(
        WatchedWallet,
        r#"SELECT version, free + paid AS "available!", debt, closed_at IS NOT NULL AS "is_closed!"
           FROM credits.balances WHERE user_id = $1"#,
        user.as_str(),
    )
    .fetch_optional(connection)
    .await?)
}

/// The same, locked until the transaction ends: what changes it waits. Locked before the auto top-up, as by whoever spends.
pub(super) async fn lock_wallet(
    connection: &mut PgConnection,
    user: &UserId,
) -> Result<Option<WatchedWallet>, DbError> {
    hold_briefly(connection).await?;
    Ok(sqlx::query_as!(
        WatchedWallet,
        r#"SELECT version, free + paid AS "available!", debt, closed_at IS NOT NULL AS "is_closed!"
           FROM credits.balances WHERE user_id = $1 FOR UPDATE"#,
        user.as_str(),
    )
    .fetch_optional(connection)
    .await?)
}

/// Puts the one open order where there is none; says whether there was none.
pub(super) async fn update_order(
    connection: &mut PgConnection,
    user: &UserId,
    order: &str,
    now: OffsetDateTime,
) -> Result<bool, DbError> {
    let done = sqlx::query!(
        "UPDATE credits.auto_top_ups SET order_id = $2, failures = 0, watch_at = NULL, next_look_at = $3, capped_until = NULL, updated_at = $3
         WHERE user_id = $1 AND order_id IS NULL AND status = 'active'",
        user.as_str(),
        order,
        now,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Buys nothing until a time, at which the balance is looked at again: the month's cap is reached.
pub(super) async fn update_capped(
    connection: &mut PgConnection,
    user: &UserId,
    until: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "UPDATE credits.auto_top_ups SET capped_until = $2, watch_at = $2 WHERE user_id = $1",
        user.as_str(),
        until
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Counts a refusal of the card, and waits until the next try.
pub(super) async fn update_failures(
    connection: &mut PgConnection,
    user: &UserId,
    next_look_at: OffsetDateTime,
    now: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "UPDATE credits.auto_top_ups SET failures = failures + 1, next_look_at = $2, updated_at = $3 WHERE user_id = $1",
        user.as_str(),
        next_look_at,
        now,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Looks again at a time, if an order or a till is still what it was, and its owner wants it still.
pub(super) async fn update_next_look(
    connection: &mut PgConnection,
    top_up: &AutoTopUp,
    at: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "UPDATE credits.auto_top_ups SET next_look_at = $2
         WHERE user_id = $1 AND order_id IS NOT DISTINCT FROM $3 AND setup_session_id IS NOT DISTINCT FROM $4 AND status = $5
             AND withdrawn_order_id IS NOT DISTINCT FROM $6",
        top_up.user.as_str(),
        at,
        top_up.order_id,
        top_up.setup_session_id,
        top_up.status.as_str(),
        top_up.withdrawn_order_id,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Lets go of an order that has come to its end, and of the card if there is no more use for it. Says no if things have changed
/// meanwhile. The balance is looked at anew: whoever spent while the order was open has left no notice.
pub(super) async fn update_wound_up(
    connection: &mut PgConnection,
    top_up: &AutoTopUp,
    now: OffsetDateTime,
) -> Result<bool, DbError> {
    let done = sqlx::query!(
        "UPDATE credits.auto_top_ups SET order_id = NULL, failures = 0, watch_at = $4, updated_at = $4,
             next_look_at = CASE WHEN tills_to_close = '{}' AND cards_to_forget = '{}' THEN NULL ELSE next_look_at END,
             payment_method_id = CASE status WHEN 'off' THEN NULL ELSE payment_method_id END
         WHERE user_id = $1 AND order_id IS NOT DISTINCT FROM $2 AND status = $3",
        top_up.user.as_str(),
        top_up.order_id,
        top_up.status.as_str(),
        now,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Notes that tills are closed and cards forgotten.
pub(super) async fn update_tidied(
    connection: &mut PgConnection,
    user: &UserId,
    tills: &[String],
    cards: &[String],
) -> Result<(), DbError> {
    sqlx::query!(
        "UPDATE credits.auto_top_ups SET tills_to_close = ARRAY(SELECT unnest(tills_to_close) EXCEPT SELECT unnest($2::text[])),
             cards_to_forget = ARRAY(SELECT unnest(cards_to_forget) EXCEPT SELECT unnest($3::text[]))
         WHERE user_id = $1",
        user.as_str(),
        tills,
        cards,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Claims the auto top-up for which something has been due for longest: nobody else gets it until `until`.
pub(super) async fn update_claimed(
    connection: &mut PgConnection,
    livemode: bool,
    now: OffsetDateTime,
    until: OffsetDateTime,
) -> Result<Option<AutoTopUp>, DbError> {
    let row = sqlx::query_as!(
        Row,
        "WITH due AS MATERIALIZED (
             SELECT user_id FROM credits.auto_top_ups WHERE next_look_at <= $2 AND livemode = $1 ORDER BY next_look_at LIMIT 1
             FOR UPDATE SKIP LOCKED
         )
         UPDATE credits.auto_top_ups claimed SET next_look_at = $3 FROM due WHERE claimed.user_id = due.user_id
         RETURNING claimed.user_id, status, threshold_mana, package_id, currency, credits, price_cents, monthly_cap_cents, language, customer_id,
             payment_method_id, setup_session_id, consented_at, seen_version, order_id, withdrawn_order_id, failures, capped_until, tills_to_close,
             cards_to_forget",
        livemode,
        now,
        until,
    )
    .fetch_optional(connection)
    .await?;
    row.map(Row::into_model).transpose()
}

/// There is news of an order: if it is an open one of an auto top-up, that looks at it at once. Not of one that was withdrawn: whoever has
/// withdrawn it is looking at it.
pub(crate) async fn update_due(
    connection: &mut PgConnection,
    order: &str,
    now: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "UPDATE credits.auto_top_ups SET next_look_at = least(next_look_at, $2) WHERE order_id = $1 AND withdrawn_order_id IS DISTINCT FROM $1",
        order,
        now,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// There is news of a till where a card is saved; says whether it is one.
pub(crate) async fn update_setup_due(
    connection: &mut PgConnection,
    session: &str,
    now: OffsetDateTime,
) -> Result<bool, DbError> {
    let done = sqlx::query!(
        "UPDATE credits.auto_top_ups SET next_look_at = least(next_look_at, $2) WHERE setup_session_id = $1",
        session,
        now,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}
