//! `keys list` and the doctor: what keys there are, and whether each does its work. Looks only.

use super::chest::KeyChest;
use super::model::KeyState;
use super::{KeyError, KeyKind};
use time::OffsetDateTime;

/// A key that was looked at.
#[derive(Debug)]
pub struct ExaminedKey {
    /// Its id.
    pub kid: String,
    /// What it is.
    pub kind: KeyKind,
    /// Where it stands.
    pub state: KeyState,
    /// When it was made, and so published.
    pub created_at: OffsetDateTime,
    /// When it became the current one.
    pub activated_at: Option<OffsetDateTime>,
    /// When the next one took its place.
    pub retired_at: Option<OffsetDateTime>,
    /// Until when it is served.
    pub served_until: Option<OffsetDateTime>,
    /// Version of the root secret that its private half is sealed under; none if that is not in the database.
    pub secret_version: Option<String>,
    /// Whether what there is of it can be opened and signs and verifies.
    pub soundness: Result<(), KeyError>,
}

impl KeyChest {
    /// All stored keys: previous ones, the current one, the next one.
    ///
    /// # Errors
    /// When they can't be read.
    pub async fn examine(&self) -> Result<Vec<ExaminedKey>, KeyError> {
        let now = self.clock.now();
        let examined = self.read().await?.into_iter().map(|stored| {
            let soundness = self.open(&stored).and_then(|key| key.map_or(Ok(()), |key| key.prove()));
            Ok(ExaminedKey {
                kind: stored.public()?.kind(),
                state: stored.life().state(now),
                soundness,
                kid: stored.kid,
                created_at: stored.created_at,
                activated_at: stored.activated_at,
                retired_at: stored.retired_at,
                served_until: stored.served_until,
                secret_version: stored.secret_version,
            })
        });
        examined.collect()
    }
}
