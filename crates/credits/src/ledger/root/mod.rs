//! Roots: now and then the last line of every wallet goes into one hash. Who keeps a root elsewhere can tell later whether
//! the history before it is still the same, also of wallets that are gone. Owns `credits.roots`, `credits.anchors`
//! and `credits.verify_rounds`.

mod merkle;
mod pass;
pub(crate) mod store;

pub use pass::{go_on, keep_proven};

use super::record::hex;
use futures_util::TryStreamExt as _;
use mana_platform::{Database, DbError};
use merkle::{Tree, digest};
use serde::Serialize;
use sqlx::PgConnection;
use time::OffsetDateTime;

/// What all wallets were at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Root {
    /// Roots are numbered from 1.
    pub id: i64,
    /// Hash of the root before; zeros before the first.
    #[serde(with = "hex")]
    pub previous: Vec<u8>,
    /// Hash of the tree over all wallets.
    #[serde(with = "hex")]
    pub tree: Vec<u8>,
    /// Hash of all of this: what to keep elsewhere.
    #[serde(with = "hex")]
    pub hash: Vec<u8>,
    /// Wallets in the tree.
    pub wallets: i64,
    /// When it was taken.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

/// Where a wallet was when it went into a root.
#[derive(Debug, Clone)]
pub(crate) struct Anchor {
    pub(crate) wallet_id: i64,
    pub(crate) sequence: i64,
    pub(crate) head: Vec<u8>,
    pub(crate) root_id: i64,
}

impl Root {
    /// The hash in hexadecimal digits.
    pub fn hash_text(&self) -> String {
        hex::write(&self.hash)
    }

    fn computed_hash(&self) -> [u8; 32] {
        let micros =
            i64::try_from(self.created_at.unix_timestamp_nanos().div_euclid(1000)).unwrap_or(i64::MAX);
        let [id, wallets, micros] = [self.id, self.wallets, micros].map(i64::to_be_bytes);
        digest(2, &[&self.previous, &id, &wallets, &micros, &self.tree])
    }
}

/// Takes a root of all wallets as they are.
///
/// # Errors
/// When the database fails, or another root was taken meanwhile.
pub async fn take(database: &Database, now: OffsetDateTime) -> Result<Root, DbError> {
    let mut transaction = database.begin_snapshot().await?;
    let last = store::find_newest(&mut transaction).await?;
    let (id, previous) = last.map_or((1, vec![0; 32]), |last| (last.id.saturating_add(1), last.hash));
    store::move_anchors(&mut transaction, id).await?;
    let (tree, wallets) = tree_of_anchors(&mut transaction).await?;
    let mut root = Root { id, previous, tree: tree.to_vec(), hash: Vec::new(), wallets, created_at: now };
    root.hash = root.computed_hash().to_vec();
    store::insert_root(&mut transaction, &root).await?;
    transaction.commit().await?;
    Ok(root)
}

async fn tree_of_anchors(connection: &mut PgConnection) -> Result<([u8; 32], i64), DbError> {
    let mut anchors = store::stream_anchors(connection);
    let (mut tree, mut wallets) = (Tree::default(), 0_i64);
    while let Some(anchor) = anchors.try_next().await? {
        tree.push(&[&anchor.wallet_id.to_be_bytes(), &anchor.sequence.to_be_bytes(), &anchor.head]);
        wallets = wallets.saturating_add(1);
    }
    Ok((tree.root(), wallets))
}

/// The newest root, and what is wrong with it and those before it.
pub(super) async fn examine(connection: &mut PgConnection) -> Result<(Option<Root>, Vec<String>), DbError> {
    let mut wrong = Vec::new();
    let mut newest: Option<Root> = None;
    let mut roots = store::stream_roots(connection);
    while let Some(root) = roots.try_next().await? {
        let (id, previous) = match &newest {
            Some(before) => (before.id.saturating_add(1), before.hash.clone()),
            None => (1, vec![0; 32]),
        };
        if root.id != id || root.previous != previous || root.hash != root.computed_hash() {
            wrong.push(format!("root {} does not continue the one before it", root.id));
        }
        newest = Some(root);
    }
    drop(roots);
    let (tree, wallets) = tree_of_anchors(connection).await?;
    match &newest {
        Some(root) if root.tree != tree || root.wallets != wallets => {
            wrong.push(format!("root {} is not that of the anchors that are kept", root.id));
        }
        None if wallets > 0 => wrong.push("there are anchors and no root".to_owned()),
        Some(_) | None => {}
    }
    Ok((newest, wrong))
}
