//! All SQL that reads the ledger from end to end. Each query is about some wallets; who asks several of them does it in
//! one snapshot, or they would not agree.

use super::LineContext;
use crate::ledger::record::{GrantRecord, HoldRecord, LineRecord, UsageSums, WalletRecord, taken};
use futures_util::TryStreamExt as _;
use futures_util::stream::BoxStream;
use mana_platform::DbError;
use sqlx::PgConnection;
use std::collections::BTreeMap;
use time::OffsetDateTime;

/// Wallets after `after` in the order of their ids, those only that changed since a time if there is one.
pub(crate) async fn list_wallets(
    connection: &mut PgConnection,
    after: i64,
    since: Option<OffsetDateTime>,
    limit: i64,
) -> Result<Vec<WalletRecord>, DbError> {
    Ok(sqlx::query_as!(
        WalletRecord,
        r#"SELECT wallet_id, user_id, version, sequence, head, free, paid, held, total_earned, total_spent, debt, daily_granted_on,
               grants::text AS "grants!", holds::text AS "holds!", created_at, updated_at, closed_at
           FROM credits.balances WHERE wallet_id > $1 AND ($2::timestamptz IS NULL OR updated_at >= $2) ORDER BY wallet_id LIMIT $3"#,
        after,
        since,
        limit,
    )
    .fetch_all(connection)
    .await?)
}

/// How many wallets there are to read.
pub(crate) async fn count_wallets(
    connection: &mut PgConnection,
    since: Option<OffsetDateTime>,
) -> Result<i64, DbError> {
    Ok(sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM credits.balances WHERE $1::timestamptz IS NULL OR updated_at >= $1"#,
        since,
    )
    .fetch_one(connection)
    .await?)
}

pub(crate) async fn list_grants(
    connection: &mut PgConnection,
    wallets: &[i64],
) -> Result<Vec<GrantRecord>, DbError> {
    Ok(sqlx::query_as!(
        GrantRecord,
        "SELECT wallet_id, grant_sequence, source, priority, cost_micros, effective_from, expires_at, created_at
         FROM credits.grants WHERE wallet_id = ANY($1) ORDER BY wallet_id, grant_sequence",
        wallets,
    )
    .fetch_all(connection)
    .await?)
}

pub(crate) async fn list_holds(
    connection: &mut PgConnection,
    wallets: &[i64],
) -> Result<Vec<HoldRecord>, DbError> {
    Ok(sqlx::query_as!(
        HoldRecord,
        "SELECT wallet_id, id, app_id, description, metadata::text, amount, captured, slice_grants, slice_amounts, status, service_key_id,
             capture_sequence, created_at, expires_at, ended_at
         FROM credits.holds WHERE wallet_id = ANY($1) ORDER BY wallet_id, id",
        wallets,
    )
    .fetch_all(connection)
    .await?)
}

/// The statistics by wallet and app, over all days.
pub(crate) async fn sum_usage(
    connection: &mut PgConnection,
    wallets: &[i64],
) -> Result<BTreeMap<i64, BTreeMap<String, UsageSums>>, DbError> {
    let rows = sqlx::query!(
        r#"SELECT wallet_id, app_id, sum(spends)::bigint AS "spends!", sum(spent)::bigint AS "spent!", sum(refunded)::bigint AS "refunded!"
           FROM credits.usage_stats WHERE wallet_id = ANY($1) GROUP BY wallet_id, app_id"#,
        wallets,
    )
    .fetch_all(connection)
    .await?;
    let mut usage: BTreeMap<i64, BTreeMap<String, UsageSums>> = BTreeMap::new();
    for row in rows {
        let sums = UsageSums { spends: row.spends, spent: row.spent, refunded: row.refunded };
        usage.entry(row.wallet_id).or_default().insert(row.app_id, sums);
    }
    Ok(usage)
}

/// All lines of these wallets, wallet by wallet in the order given, each in its order, as they arrive.
pub(crate) fn stream_lines<'a>(
    connection: &'a mut PgConnection,
    wallets: &'a [i64],
    zone: &'a str,
) -> BoxStream<'a, Result<(LineRecord, LineContext), sqlx::Error>> {
    // One index scan after the other: the order costs no sort, however long a history is. Each inner query has an ORDER BY or a
    // LIMIT, so that PostgreSQL can't join it in any other way than row by row, whatever its statistics say: a hash join, for
    // one, would lose the order.
    let rows = sqlx::query!(
        r#"SELECT line.wallet_id, line.sequence, line.id, line.type AS kind, line.amount, line.balance_after, line.counter, line.slice_grants,
               line.slice_amounts, line.reference, line.hold_id, line.app_id, line.description, line.metadata::text, line.idempotency_key,
               line.service_key_id, line.created_at, line.hash,
               ((line.created_at - interval '1 minute') AT TIME ZONE $2)::date AS "earliest_day!",
               ((line.created_at + interval '1 minute') AT TIME ZONE $2)::date AS "latest_day!",
               spend.slice_grants AS "spend_grants?", spend.slice_amounts AS "spend_amounts?"
           FROM unnest($1::bigint[]) AS wallet (id)
               CROSS JOIN LATERAL (SELECT * FROM credits.transactions WHERE wallet_id = wallet.id ORDER BY sequence) line
               LEFT JOIN LATERAL (
                   SELECT slice_grants, slice_amounts FROM credits.transactions
                   WHERE wallet_id = line.wallet_id AND sequence = line.reference AND type = 'usage' LIMIT 1) spend ON line.reference IS NOT NULL"#,
        wallets,
        zone,
    )
    .fetch(connection);
    let read = rows.map_ok(|row| {
        let taken =
            row.spend_grants.zip(row.spend_amounts).and_then(|(grants, amounts)| taken(&grants, &amounts));
        let context =
            LineContext { earliest_day: row.earliest_day, latest_day: row.latest_day, refunded_spend: taken };
        let line = LineRecord {
            wallet_id: row.wallet_id,
            sequence: row.sequence,
            id: row.id,
            kind: row.kind,
            amount: row.amount,
            balance_after: row.balance_after,
            counter: row.counter,
            slice_grants: row.slice_grants,
            slice_amounts: row.slice_amounts,
            reference: row.reference,
            hold_id: row.hold_id,
            app_id: row.app_id,
            description: row.description,
            metadata: row.metadata,
            idempotency_key: row.idempotency_key,
            service_key_id: row.service_key_id,
            created_at: row.created_at,
            hash: row.hash,
        };
        (line, context)
    });
    Box::pin(read)
}

/// A line whose request, if it comes again, is answered as if it had done something else.
pub(crate) struct AnswerLie {
    pub(crate) wallet_id: i64,
    pub(crate) user_id: String,
    pub(crate) sequence: i64,
}

/// Lines of these wallets that were posted under a key, and of which the answer that is remembered under it says something else; at most a hundred.
/// The newest of each key only: a key may be used again once its answer is forgotten. What administrators posted is left out, since a line
/// does not say who of them, in whose scope its key is.
pub(crate) async fn list_answer_lies(
    connection: &mut PgConnection,
    wallets: &[i64],
) -> Result<Vec<AnswerLie>, DbError> {
    Ok(sqlx::query_as!(
        AnswerLie,
        r#"SELECT line.wallet_id AS "wallet_id!", user_id AS "user_id!", line.sequence AS "sequence!"
           FROM (
               SELECT DISTINCT ON (wallet_id, scope, idempotency_key) wallet_id, sequence, id, amount, balance_after, created_at,
                   encode(substring(sha256(convert_to(scope || chr(10) || idempotency_key, 'UTF8')) FROM 1 FOR 16), 'hex')::uuid AS key_digest
               FROM credits.transactions
                   CROSS JOIN LATERAL (SELECT CASE WHEN service_key_id IS NULL THEN 'user' ELSE 'service ' || app_id END AS scope) asked
               WHERE wallet_id = ANY($1) AND idempotency_key IS NOT NULL AND (type IN ('usage', 'refund') OR service_key_id IS NOT NULL)
               ORDER BY wallet_id, scope, idempotency_key, sequence DESC
           ) line
               CROSS JOIN LATERAL (
                   SELECT status, body, created_at FROM credits.remembered_answers
                   WHERE (wallet_id, key_digest) = (line.wallet_id, line.key_digest) OFFSET 0) answer
               JOIN credits.balances USING (wallet_id)
           -- An answer that was written later is of a later use of the key; clocks of servers differ.
           WHERE answer.created_at < line.created_at + interval '1 day' AND NOT (
               answer.status BETWEEN 200 AND 299
               AND position('"id":"' || line.id || '"' IN answer.body) > 0
               AND position('"amount":' || line.amount || ',' IN answer.body) > 0
               AND position('"balanceAfter":' || line.balance_after || ',' IN answer.body) > 0)
           ORDER BY 1, 3 LIMIT 100"#,
        wallets,
    )
    .fetch_all(connection)
    .await?)
}

/// A row of a wallet that is not there.
pub(crate) struct Orphan {
    pub(crate) relation: String,
    pub(crate) wallet_id: i64,
}

/// Wallets that rows name although they are not there, at most a hundred, whose ids are in a range: after the first, up to the last.
pub(crate) async fn list_orphans(
    connection: &mut PgConnection,
    (after, last): (i64, i64),
) -> Result<Vec<Orphan>, DbError> {
    Ok(sqlx::query_as!(
        Orphan,
        r#"SELECT relation AS "relation!", wallet_id AS "wallet_id!" FROM (
               SELECT 'credits.transactions' AS relation, wallet_id FROM credits.transactions named
                   WHERE wallet_id > $1 AND wallet_id <= $2 AND NOT EXISTS (SELECT FROM credits.balances WHERE balances.wallet_id = named.wallet_id)
               UNION SELECT 'credits.grants', wallet_id FROM credits.grants named
                   WHERE wallet_id > $1 AND wallet_id <= $2 AND NOT EXISTS (SELECT FROM credits.balances WHERE balances.wallet_id = named.wallet_id)
               UNION SELECT 'credits.holds', wallet_id FROM credits.holds named
                   WHERE wallet_id > $1 AND wallet_id <= $2 AND NOT EXISTS (SELECT FROM credits.balances WHERE balances.wallet_id = named.wallet_id)
               UNION SELECT 'credits.usage_stats', wallet_id FROM credits.usage_stats named
                   WHERE wallet_id > $1 AND wallet_id <= $2 AND NOT EXISTS (SELECT FROM credits.balances WHERE balances.wallet_id = named.wallet_id)
               UNION SELECT 'credits.remembered_answers', wallet_id FROM credits.remembered_answers named
                   WHERE wallet_id > $1 AND wallet_id <= $2 AND NOT EXISTS (SELECT FROM credits.balances WHERE balances.wallet_id = named.wallet_id)
               UNION SELECT 'credits.anchors', wallet_id FROM credits.anchors named
                   WHERE wallet_id > $1 AND wallet_id <= $2 AND NOT EXISTS (SELECT FROM credits.balances WHERE balances.wallet_id = named.wallet_id)
           ) orphans
           ORDER BY 2, 1 LIMIT 100"#,
        after,
        last,
    )
    .fetch_all(connection)
    .await?)
}

/// Where an order and the books contradict each other.
pub(crate) struct PaymentLie {
    pub(crate) wallet_id: Option<i64>,
    pub(crate) user_id: Option<String>,
    pub(crate) sequence: Option<i64>,
    pub(crate) invariant: i32,
    pub(crate) sentence: String,
}

/// Contradictions between orders and the books, at most a thousand: of all wallets that have an order, or one that changed
/// since a time, and whose ids are in a range. Of a wallet that came from elsewhere, where its orders stayed, what it came with is left out. Looks at
/// the books as they are written, not at how they came about.
pub(crate) async fn list_payment_lies(
    connection: &mut PgConnection,
    since: Option<OffsetDateTime>,
    (after, last): (i64, i64),
) -> Result<Vec<PaymentLie>, DbError> {
    Ok(sqlx::query_as!(
        PaymentLie,
        r#"WITH chosen AS MATERIALIZED (
               SELECT wallet_id, user_id, balances.debt, coalesce(came.sequence, 0) AS came_with, coalesce(came.debt, 0) AS came_owing
               FROM credits.balances LEFT JOIN credits.moved_wallets came USING (wallet_id)
               WHERE wallet_id > $2 AND wallet_id <= $3 AND EXISTS (
                   SELECT FROM credits.purchases
                   WHERE purchases.user_id = balances.user_id AND ($1::timestamptz IS NULL OR updated_at >= $1))
           ), bought AS MATERIALIZED (
               SELECT wallet_id, purchases.* FROM chosen JOIN credits.purchases USING (user_id)
           ), moved AS MATERIALIZED (
               SELECT line.*, slice.grant_sequence, slice.amount AS slice
               FROM chosen CROSS JOIN LATERAL (
                   SELECT sequence, type, counter, amount, metadata ->> 'purchaseId' AS purchase
                   FROM credits.transactions
                   WHERE wallet_id = chosen.wallet_id AND sequence > chosen.came_with AND counter IN ('clearing', 'debt')) found
               CROSS JOIN LATERAL (SELECT chosen.wallet_id, chosen.user_id, found.*) line
               JOIN credits.transactions whole ON whole.wallet_id = line.wallet_id AND whole.sequence = line.sequence
               CROSS JOIN LATERAL unnest(whole.slice_grants, whole.slice_amounts) AS slice (grant_sequence, amount)
           )
           SELECT wallet_id AS "wallet_id?", user_id AS "user_id?", sequence AS "sequence?", invariant AS "invariant!", sentence AS "sentence!" FROM (
               SELECT wallet_id, user_id, grant_sequence AS sequence, 22 AS invariant,
                   format('purchase %s was credited with %s, and no such line is there', id, granted_mana) AS sentence
               FROM bought WHERE granted_mana > 0 AND NOT EXISTS (
                   SELECT FROM moved WHERE (moved.wallet_id, moved.sequence, moved.grant_sequence) = (bought.wallet_id, bought.grant_sequence, bought.grant_sequence)
                       AND type = 'purchase' AND amount = granted_mana AND purchase = bought.id)
               UNION ALL
               SELECT wallet_id, user_id, sequence, 22, format('mana was given for purchase %s, which does not say so', purchase)
               FROM moved WHERE type = 'purchase' AND purchase IS NOT NULL AND NOT EXISTS (
                   SELECT FROM bought WHERE (bought.wallet_id, bought.grant_sequence, bought.id) = (moved.wallet_id, moved.sequence, moved.purchase))
               UNION ALL
               SELECT bought.wallet_id, bought.user_id, bought.grant_sequence, 25, format('purchase %s says that %s was taken back, by the lines it is %s',
                   id, taken_mana, granted_mana - coalesce(sum(slice), 0))
               FROM bought LEFT JOIN moved ON (moved.wallet_id, moved.grant_sequence) = (bought.wallet_id, bought.grant_sequence) AND counter = 'clearing'
               WHERE granted_mana > 0 GROUP BY bought.wallet_id, bought.user_id, bought.grant_sequence, id, taken_mana, granted_mana
               HAVING coalesce(sum(slice), 0) <> granted_mana - taken_mana
               UNION ALL
               SELECT wallet_id, user_id, grant_sequence, 23, format('of purchase %s, %s mana should be taken back or owed, and %s is',
                   id, div(credits::numeric * least(captured_cents, refunded_cents + lost_cents), price_cents + added_tax_cents), taken_mana + owed_mana)
               FROM bought WHERE granted_mana > 0 AND NOT disputed AND problem IS NULL
                   AND taken_mana + owed_mana <> div(credits::numeric * least(captured_cents, refunded_cents + lost_cents), price_cents + added_tax_cents)
               UNION ALL
               SELECT wallet_id, user_id, grant_sequence, 24, format('purchase %s is not what version %s of package %s was sold for', id, package_version, package_id)
               FROM bought LEFT JOIN credits.package_versions version USING (package_id)
               WHERE version.version = package_version AND (bought.credits <> version.credits OR price_cents IS DISTINCT FROM
                   CASE currency WHEN 'eur' THEN version.price_euro_cents ELSE (version.prices ->> currency)::bigint END)
               UNION ALL
               SELECT wallet_id, user_id, NULL, 25, format('the debt is %s, by purchases and lines it is %s', debt, came_owing + owed + repaid)
               FROM (SELECT wallet_id, user_id, debt, came_owing,
                       coalesce((SELECT sum(owed_mana) FROM bought WHERE bought.wallet_id = chosen.wallet_id), 0) AS owed,
                       coalesce((SELECT sum(slice) FROM moved WHERE moved.wallet_id = chosen.wallet_id AND counter = 'debt'), 0) AS repaid
                   FROM chosen) debts
               WHERE debt <> came_owing + owed + repaid
           ) lies
           ORDER BY wallet_id, sequence LIMIT 1000"#,
        since,
        after,
        last,
    )
    .fetch_all(connection)
    .await?)
}
