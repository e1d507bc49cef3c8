//! Keeps the keys as the settings want them: makes what is missing, rotates what is due, deletes what is over.
//!
//! Every server does it at its start and again and again. Under a lock of the table that ends with the transaction, so
//! several servers make one key and one rotation, also behind a pooler in transaction mode.

use super::chest::KeyChest;
use super::model::{self, Activation, Key, KeyError, KeyState, Occasion, Plan, Refusal};
use super::pair::SigningKey;
use super::rotate::Rotation;
use super::store::{self, NewKey, StoredKey};
use crate::security_event::{self, EventKind};
use sqlx::PgConnection;
use std::time::Duration;
use time::OffsetDateTime;

impl KeyChest {
    /// Does what is to be done on an occasion; gives the keys as they are then.
    pub(super) async fn maintain(
        &self,
        occasion: Occasion,
    ) -> Result<(Vec<StoredKey>, Option<Rotation>), KeyError> {
        let now = self.clock.now();
        let mut transaction = self.database.begin().await?;
        // Most of the time nothing is to be done, and then nobody is locked out.
        let stored = store::list_keys(&mut transaction).await?;
        if !self.is_anything_to_do(&stored, occasion, now)? {
            return Ok((stored, None));
        }
        store::lock_keys(&mut transaction).await?;
        let stored = store::list_keys(&mut transaction).await?;
        let rotation = match &self.given {
            Some(given) => self.hold(&mut transaction, given, &stored, occasion, now).await?,
            None => {
                let plan = self.plan(&stored, occasion, now)?;
                self.carry_out(&mut transaction, plan, &stored, now).await?
            }
        };
        store::update_longest_token(&mut transaction, self.token_seconds()).await?;
        let stored = store::list_keys(&mut transaction).await?;
        transaction.commit().await?;
        if let Some(Rotation { old, new, old_served_until }) = &rotation {
            let old_served_until = old_served_until.to_string();
            tracing::info!(old, new, old_served_until, "the signing key was rotated");
        }
        Ok((stored, rotation))
    }

    fn is_anything_to_do(
        &self,
        stored: &[StoredKey],
        occasion: Occasion,
        now: OffsetDateTime,
    ) -> Result<bool, KeyError> {
        let is_longer =
            |key: &StoredKey| key.retired_at.is_none() && key.longest_token_seconds < self.token_seconds();
        let has_changes = match &self.given {
            Some(given) => {
                let is_current = current(stored, now).is_some_and(|current| current.kid == given.kid());
                !is_current || !model::gone(&self.keys(stored)?, now).is_empty()
            }
            None => {
                let plan = self.plan(stored, occasion, now)?;
                if let Some(kid) = &plan.closed_next {
                    tracing::warn!(
                        kid,
                        "the next signing key can't be opened, so it can't follow: see `mana-core-auth doctor`"
                    );
                }
                !plan.is_empty()
            }
        };
        Ok(has_changes || stored.iter().any(is_longer))
    }

    fn plan(&self, stored: &[StoredKey], occasion: Occasion, now: OffsetDateTime) -> Result<Plan, KeyError> {
        let keys = self.keys(stored)?;
        model::plan(&keys, &self.policy, occasion, now).map_err(|refusal| match refusal {
            Refusal::TooSoon(until) => KeyError::TooSoon(until),
            Refusal::Environment => KeyError::Environment,
            Refusal::Closed(kid) => {
                let closed = stored.iter().find(|key| key.kid == kid).map(|key| self.open(key));
                closed.and_then(Result::err).unwrap_or(KeyError::Damaged(kid))
            }
        })
    }

    fn keys(&self, stored: &[StoredKey]) -> Result<Vec<Key>, KeyError> {
        stored.iter().map(|stored| self.key(stored)).collect()
    }

    async fn carry_out(
        &self,
        transaction: &mut PgConnection,
        plan: Plan,
        stored: &[StoredKey],
        now: OffsetDateTime,
    ) -> Result<Option<Rotation>, KeyError> {
        store::delete_keys(transaction, &plan.delete).await?;
        let mut rotation = None;
        if let Some(activation) = plan.activate {
            let old = self.retire(transaction, current(stored, now), now).await?;
            let new = match activation {
                Activation::Next(kid) => {
                    store::update_activated(transaction, &kid, now).await?;
                    kid
                }
                Activation::New => {
                    let key = self.make().await?;
                    store::insert_key(transaction, &key, now, Some(now)).await?;
                    key.kid
                }
            };
            rotation = old.map(|(old, old_served_until)| Rotation { old, new, old_served_until });
        }
        if plan.make_next {
            store::insert_key(transaction, &self.make().await?, now, None).await?;
        }
        Ok(rotation)
    }

    /// At a start, makes the environment's key the current one. Later it is only kept served for as long as this server
    /// signs with it, whatever another server has made the current one meanwhile: two servers with different keys would
    /// otherwise take turns.
    async fn hold(
        &self,
        transaction: &mut PgConnection,
        given: &SigningKey,
        stored: &[StoredKey],
        occasion: Occasion,
        now: OffsetDateTime,
    ) -> Result<Option<Rotation>, KeyError> {
        let mut gone = model::gone(&self.keys(stored)?, now);
        gone.retain(|kid| kid != given.kid());
        store::delete_keys(transaction, &gone).await?;
        let current = current(stored, now);
        if current.is_some_and(|current| current.kid == given.kid()) {
            return Ok(None);
        }
        if occasion != Occasion::Start {
            let until = model::served_until(now, self.policy.token_life);
            store::replace_served(transaction, &NewKey::public(given)?, now, until).await?;
            return Ok(None);
        }
        let old = self.retire(transaction, current, now).await?;
        if stored.iter().any(|key| key.kid == given.kid()) {
            store::update_activated(transaction, given.kid(), now).await?;
        } else {
            store::insert_key(transaction, &NewKey::public(given)?, now, Some(now)).await?;
        }
        let new = given.kid().to_owned();
        Ok(old.map(|(old, old_served_until)| Rotation { old, new, old_served_until }))
    }

    /// Ends the time of the current key, if there is one; says which, and until when it is served.
    async fn retire(
        &self,
        transaction: &mut PgConnection,
        current: Option<&StoredKey>,
        now: OffsetDateTime,
    ) -> Result<Option<(String, OffsetDateTime)>, KeyError> {
        let Some(current) = current else { return Ok(None) };
        let noted = Duration::from_secs(current.longest_token_seconds.unsigned_abs());
        let served_until = model::served_until(now, noted.max(self.policy.token_life));
        store::update_retired(transaction, &current.kid, now, served_until).await?;
        security_event::record_of_service(transaction, &*self.clock, &*self.rng, EventKind::KeyRotated)
            .await?;
        Ok(Some((current.kid.clone(), served_until)))
    }

    fn token_seconds(&self) -> i64 {
        i64::try_from(self.policy.token_life.as_secs()).unwrap_or(i64::MAX)
    }
}

fn current(stored: &[StoredKey], now: OffsetDateTime) -> Option<&StoredKey> {
    stored.iter().find(|key| key.life().state(now) == KeyState::Current)
}
