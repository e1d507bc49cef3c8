//! What requests tell of their sessions, gathered in memory and written down once a second: when a session was active (to
//! the minute), and that an answer to a refresh has arrived, since an access token of it came back.

use crate::Auth;
use crate::session;
use crate::session::model::ACTIVITY_STEP;
use crate::token::access::Claims;
use crate::token::refresh::model::{CHAINS_PER_SESSION, Issue};
use crate::token::refresh::store::update_confirmed;
use mana_kernel::{RefreshChainId, SessionId};
use mana_platform::DbError;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use time::OffsetDateTime;

/// Rows written in one statement at most.
const BATCH: usize = 1_000;

/// What waits to be written.
#[derive(Debug, Default)]
pub(super) struct Notes {
    active: Mutex<BTreeMap<SessionId, OffsetDateTime>>,
    confirmed: Mutex<BTreeMap<RefreshChainId, (i64, OffsetDateTime)>>,
}

/// What was noted of one session already.
#[derive(Debug)]
pub(super) struct Noted {
    /// When it was last noted as active, in seconds since 1970.
    active_at: AtomicI64,
    /// The newest generation of each chain that was noted as seen.
    seen: Mutex<BTreeMap<String, i64>>,
}

impl Noted {
    /// Nothing but when the database has it active.
    pub(super) fn at(last_active_at: OffsetDateTime) -> Self {
        Self { active_at: AtomicI64::new(last_active_at.unix_timestamp()), seen: Mutex::default() }
    }
}

impl Notes {
    /// Notes that the session was active and that the answer the token came with has arrived.
    pub(super) fn note(&self, claims: &Claims, noted: &Noted, now: OffsetDateTime) {
        let seconds = now.unix_timestamp();
        let since = seconds.saturating_sub(noted.active_at.load(Ordering::Relaxed));
        if since >= ACTIVITY_STEP.whole_seconds() {
            noted.active_at.store(seconds, Ordering::Relaxed);
            lock(&self.active).insert(claims.sid.clone(), now);
        }
        let Some((chain, generation)) = Issue::parts_of(&claims.jti) else { return };
        // Before the first rotation there is no token before.
        if generation <= 1 {
            return;
        }
        let mut seen = lock(&noted.seen);
        if seen.get(chain).is_some_and(|newest| *newest >= generation) {
            return;
        }
        let Ok(id) = chain.parse() else { return };
        // Chains come and go while a session lives. One that is forgotten here is noted twice at worst.
        if seen.len() >= usize::from(CHAINS_PER_SESSION) && !seen.contains_key(chain) {
            seen.pop_first();
        }
        seen.insert(chain.to_owned(), generation);
        lock(&self.confirmed).insert(id, (generation, now));
    }

    /// Takes out what was noted of answers, to write it.
    fn take_confirmed(&self) -> Taken<'_> {
        Taken { notes: self, confirmed: take(&self.confirmed).into_iter().collect() }
    }

    /// Puts back what could not be written, unless something newer was noted since: the session will not note it again.
    fn put_back_confirmed(&self, notes: &[(RefreshChainId, (i64, OffsetDateTime))]) {
        let mut confirmed = lock(&self.confirmed);
        for (chain, note) in notes {
            let newest = confirmed.entry(chain.clone()).or_insert(*note);
            if newest.0 < note.0 {
                *newest = *note;
            }
        }
    }
}

/// What was noted of answers, taken out to be written. Unless it was, it is put back, also where nobody waits for the database any more.
#[derive(Debug)]
struct Taken<'a> {
    notes: &'a Notes,
    confirmed: Vec<(RefreshChainId, (i64, OffsetDateTime))>,
}

impl Taken<'_> {
    fn were_written(mut self) {
        self.confirmed.clear();
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.notes.put_back_confirmed(&self.confirmed);
    }
}

/// Writes down what was noted since the last call.
///
/// # Errors
/// When the database fails. What is noted of answers waits for the next call then, as it does when this is given up; an activity is
/// noted anew within the next minute of use.
pub async fn write_notes(auth: &Auth) -> Result<(), DbError> {
    let notes = &auth.liveness.notes;
    let taken = notes.take_confirmed();
    write_confirmed(auth, &taken.confirmed).await?;
    taken.were_written();
    let active: Vec<_> = take(&notes.active).into_iter().collect();
    for batch in active.chunks(BATCH) {
        let (ids, at): (Vec<_>, Vec<_>) = batch.iter().map(|(id, at)| (id.to_string(), *at)).unzip();
        let mut connection = auth.database.acquire().await?;
        session::store::update_active(&mut connection, &ids, &at).await?;
        connection.finish().await?;
    }
    Ok(())
}

async fn write_confirmed(
    auth: &Auth,
    confirmed: &[(RefreshChainId, (i64, OffsetDateTime))],
) -> Result<(), DbError> {
    for batch in confirmed.chunks(BATCH) {
        let ids: Vec<_> = batch.iter().map(|(id, _)| id.to_string()).collect();
        let (generations, at): (Vec<_>, Vec<_>) = batch.iter().map(|(_, seen)| *seen).unzip();
        let mut connection = auth.database.acquire().await?;
        update_confirmed(&mut connection, &ids, &generations, &at).await?;
        connection.finish().await?;
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn take<T: Default>(mutex: &Mutex<T>) -> T {
    std::mem::take(&mut *lock(mutex))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::model::Role;

    #[test]
    fn what_was_taken_out_and_not_written_is_there_again_and_never_older() {
        let (notes, now) = (Notes::default(), OffsetDateTime::UNIX_EPOCH);
        let (one, other): (RefreshChainId, RefreshChainId) =
            ("one".parse().unwrap(), "other".parse().unwrap());
        let note = |chain: &RefreshChainId, generation| {
            lock(&notes.confirmed).insert(chain.clone(), (generation, now));
        };
        note(&one, 2);
        note(&other, 2);
        let given_up = notes.take_confirmed();
        assert!(lock(&notes.confirmed).is_empty());
        note(&one, 3);
        drop(given_up);
        let again = notes.take_confirmed();
        assert_eq!(again.confirmed, [(one, (3, now)), (other, (2, now))]);
        again.were_written();
        assert!(lock(&notes.confirmed).is_empty(), "the control");
    }

    #[test]
    fn a_session_is_remembered_with_no_more_chains_than_it_has() {
        let (notes, session) = (Notes::default(), Noted::at(OffsetDateTime::UNIX_EPOCH));
        let note = |chain: u16| {
            let claims = Claims {
                sub: "u".parse().unwrap(),
                email: "ada@example.com".to_owned(),
                role: Role::User,
                sid: "s".parse().unwrap(),
                iss: String::new(),
                aud: String::new(),
                iat: 0,
                exp: 0,
                nbf: None,
                jti: format!("chain-{chain:05}.2.x"),
                act: None,
            };
            notes.note(&claims, &session, OffsetDateTime::UNIX_EPOCH);
        };
        (0..CHAINS_PER_SESSION).for_each(note);
        take(&notes.confirmed);
        (0..CHAINS_PER_SESSION).for_each(note);
        assert!(take(&notes.confirmed).is_empty(), "the control: all of them are known");
        (0..10_000).for_each(note);
        assert_eq!(lock(&session.seen).len(), usize::from(CHAINS_PER_SESSION));
    }
}
