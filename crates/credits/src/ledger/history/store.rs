//! The SQL of balances of the past.

use mana_kernel::UserId;
use mana_platform::DbError;
use sqlx::PgConnection;
use time::OffsetDateTime;

/// A wallet's totals at a past moment.
#[derive(Debug)]
pub(crate) struct PastBalance {
    pub(crate) free: i64,
    pub(crate) paid: i64,
    pub(crate) held: i64,
    pub(crate) total_earned: i64,
    pub(crate) total_spent: i64,
}

/// The totals at `at`: what grants that could be spent then had got and given by then, less what holds had set aside. A
/// grant whose time was over counts as nothing, whether that was booked by then or later.
pub(crate) async fn find_past_balance(
    connection: &mut PgConnection,
    user: &UserId,
    at: OffsetDateTime,
) -> Result<Option<PastBalance>, DbError> {
    Ok(sqlx::query_as!(
        PastBalance,
        r#"WITH wallet AS MATERIALIZED (
               SELECT wallet_id FROM credits.balances WHERE user_id = $1
           ), lines AS MATERIALIZED (
               SELECT lines.* FROM wallet JOIN credits.transactions lines USING (wallet_id) WHERE lines.created_at <= $2
           ), live AS (
               SELECT grants.* FROM wallet JOIN credits.grants USING (wallet_id)
               WHERE (expires_at IS NULL OR expires_at > $2) AND (effective_from IS NULL OR effective_from <= $2)
           ), open AS MATERIALIZED (
               SELECT slice.grant_sequence, slice.amount
               FROM wallet JOIN credits.holds USING (wallet_id), unnest(slice_grants, slice_amounts) AS slice (grant_sequence, amount)
               WHERE holds.created_at <= $2 AND holds.expires_at > $2 AND (ended_at IS NULL OR ended_at > $2)
           ), left_over AS (
               SELECT source, slice.amount FROM lines, unnest(slice_grants, slice_amounts) AS slice (grant_sequence, amount) JOIN live USING (grant_sequence)
               UNION ALL
               SELECT source, -open.amount FROM open JOIN live USING (grant_sequence)
           )
           SELECT coalesce((SELECT sum(amount) FROM left_over WHERE source <> 'purchase'), 0)::bigint AS "free!",
               coalesce((SELECT sum(amount) FROM left_over WHERE source = 'purchase'), 0)::bigint AS "paid!",
               coalesce((SELECT sum(amount) FROM open), 0)::bigint AS "held!",
               coalesce((SELECT sum(lines.amount) FROM lines JOIN credits.grants ON grants.wallet_id = lines.wallet_id AND grant_sequence = slice_grants[1]
                   WHERE type IN ('purchase', 'adjustment', 'bonus') AND lines.amount > 0 AND source <> 'allowance'), 0)::bigint AS "total_earned!",
               coalesce((SELECT -sum(amount) FROM lines WHERE type IN ('usage', 'refund')), 0)::bigint AS "total_spent!"
           FROM wallet"#,
        user.as_str(),
        at,
    )
    .fetch_optional(connection)
    .await?)
}
