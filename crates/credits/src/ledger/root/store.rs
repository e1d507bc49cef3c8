//! All SQL of `credits.roots`, `credits.anchors` and `credits.verify_rounds`.

use super::{Anchor, Root};
use futures_util::stream::BoxStream;
use mana_platform::DbError;
use sqlx::PgConnection;
use time::OffsetDateTime;

/// Any number, as long as nothing else in the database locks it.
const PASS_LOCK: i64 = 0x726f_6f74;

/// Whether no other server is at it; none will be until the transaction ends.
pub(crate) async fn hold_pass(connection: &mut PgConnection) -> Result<bool, DbError> {
    Ok(sqlx::query_scalar!(r#"SELECT pg_try_advisory_xact_lock($1) AS "is_held!""#, PASS_LOCK)
        .fetch_one(connection)
        .await?)
}

/// How far the check of all wallets has come.
pub(super) struct Round {
    pub(super) began_at: OffsetDateTime,
    /// The wallet that it has come to; none before the first.
    pub(super) after_wallet: Option<i64>,
    /// When the last one began that came to its end and found nothing.
    pub(super) proven_at: OffsetDateTime,
}

pub(super) async fn find_round(connection: &mut PgConnection) -> Result<Round, DbError> {
    Ok(sqlx::query_as!(Round, "SELECT began_at, after_wallet, proven_at FROM credits.verify_rounds")
        .fetch_one(connection)
        .await?)
}

pub(super) async fn update_round(connection: &mut PgConnection, round: &Round) -> Result<(), DbError> {
    sqlx::query!(
        "UPDATE credits.verify_rounds SET began_at = $1, after_wallet = $2, proven_at = $3",
        round.began_at,
        round.after_wallet,
        round.proven_at,
    )
    .execute(connection)
    .await?;
    Ok(())
}

pub(crate) async fn find_newest(connection: &mut PgConnection) -> Result<Option<Root>, DbError> {
    Ok(sqlx::query_as!(
        Root,
        "SELECT id, previous, tree, hash, wallets, created_at FROM credits.roots ORDER BY id DESC LIMIT 1"
    )
    .fetch_optional(connection)
    .await?)
}

pub(crate) fn stream_roots(connection: &mut PgConnection) -> BoxStream<'_, Result<Root, sqlx::Error>> {
    sqlx::query_as!(
        Root,
        "SELECT id, previous, tree, hash, wallets, created_at FROM credits.roots ORDER BY id"
    )
    .fetch(connection)
}

pub(crate) async fn insert_root(connection: &mut PgConnection, root: &Root) -> Result<(), DbError> {
    sqlx::query!(
        "INSERT INTO credits.roots (id, previous, tree, hash, wallets, created_at) VALUES ($1, $2, $3, $4, $5, $6)",
        root.id,
        root.previous,
        root.tree,
        root.hash,
        root.wallets,
        root.created_at,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Moves each anchor to its wallet's last line. One whose line is gone or another stays: it is the evidence.
pub(crate) async fn move_anchors(connection: &mut PgConnection, root_id: i64) -> Result<(), DbError> {
    sqlx::query!(
        "INSERT INTO credits.anchors (wallet_id, sequence, head, root_id)
         SELECT wallet_id, balances.sequence, balances.head, $1 FROM credits.balances LEFT JOIN credits.anchors USING (wallet_id)
         WHERE balances.sequence > coalesce(anchors.sequence, 0)
         ON CONFLICT ON CONSTRAINT anchors_pkey DO UPDATE SET sequence = excluded.sequence, head = excluded.head, root_id = excluded.root_id
             WHERE EXISTS (SELECT FROM credits.transactions line
                 WHERE line.wallet_id = anchors.wallet_id AND line.sequence = anchors.sequence AND line.hash = anchors.head)",
        root_id,
    )
    .execute(connection)
    .await?;
    Ok(())
}

pub(crate) fn stream_anchors(connection: &mut PgConnection) -> BoxStream<'_, Result<Anchor, sqlx::Error>> {
    sqlx::query_as!(
        Anchor,
        "SELECT wallet_id, sequence, head, root_id FROM credits.anchors ORDER BY wallet_id"
    )
    .fetch(connection)
}

pub(crate) async fn list_anchors(
    connection: &mut PgConnection,
    wallets: &[i64],
) -> Result<Vec<Anchor>, DbError> {
    Ok(sqlx::query_as!(
        Anchor,
        "SELECT wallet_id, sequence, head, root_id FROM credits.anchors WHERE wallet_id = ANY($1)",
        wallets,
    )
    .fetch_all(connection)
    .await?)
}
