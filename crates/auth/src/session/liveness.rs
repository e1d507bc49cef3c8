//! Which sessions live, without a read of the database for each request.
//!
//! A session that was found alive is remembered in memory. Whatever ends a session or disables a user writes a line into
//! `auth.revocations` in the same transaction (triggers of migration 0003), and every replica follows those lines: at once
//! after an end of its own making, several times a second otherwise. What is remembered counts only while the last look is
//! younger than [`crate::Policy::revocation_reach`] (1 s); else each request reads the database as if nothing were
//! remembered. So a session that ended is refused within that time everywhere, and a replica that is cut off from the
//! database forgets how to say yes.
//!
//! Looks are plain reads: no LISTEN, so a pooler in transaction mode may stand in between, and no Redis.

use super::store;
use crate::Auth;
use crate::token::access::Claims;
use crate::token::refresh::model::Issue;
use crate::token::refresh::store::update_confirmed;
use mana_kernel::{RefreshChainId, SessionId, UserId};
use mana_platform::DbError;
use moka::sync::Cache;
use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};
use time::OffsetDateTime;

/// Sessions remembered at most; some 300 bytes each. Beyond it, those used least often are forgotten and read again.
const CAPACITY: u64 = 200_000;
/// A replica that has not looked for this long has missed lines: they are deleted after twice the time.
const FORGET_AFTER: Duration = Duration::from_mins(5);
/// Lines of `auth.revocations` are kept for this long.
pub(crate) const KEEP_REVOCATIONS: time::Duration = time::Duration::minutes(10);
/// A session's activity is noted at most this often.
const ACTIVITY_STEP_SECONDS: i64 = 60;
/// Sessions and chains written in one statement at most.
const BATCH: usize = 1_000;

/// What this replica remembers of sessions, and how far it has followed what ends them.
#[derive(Debug)]
pub struct Liveness {
    sessions: Cache<SessionId, Arc<LiveSession>>,
    /// Counts what was forgotten. A read that began before is not remembered: it may be older than the end it overtook.
    epoch: RwLock<u64>,
    position: tokio::sync::Mutex<Position>,
    started: Instant,
    /// Until when what is remembered counts, in microseconds since `started`.
    trusted_until: AtomicU64,
    active: Mutex<BTreeMap<SessionId, OffsetDateTime>>,
    confirmed: Mutex<BTreeMap<RefreshChainId, (i64, OffsetDateTime)>>,
}

/// A session that was found alive.
#[derive(Debug)]
struct LiveSession {
    user_id: UserId,
    expires_at: OffsetDateTime,
    /// When it was last noted as active, in seconds since 1970.
    noted_at: AtomicI64,
    /// The newest generation of each chain that was noted as seen.
    seen: Mutex<BTreeMap<String, i64>>,
}

/// How far the lines were followed.
#[derive(Debug, Default)]
struct Position {
    /// Transactions below this are done with; nothing before the first look.
    next: Option<i64>,
    /// Lines from there on that were seen already, as their transactions were faster than others.
    seen: HashSet<i64>,
    looked_at: Option<Instant>,
}

impl Default for Liveness {
    fn default() -> Self {
        Self {
            sessions: Cache::new(CAPACITY),
            epoch: RwLock::new(0),
            position: tokio::sync::Mutex::default(),
            started: Instant::now(),
            trusted_until: AtomicU64::new(0),
            active: Mutex::default(),
            confirmed: Mutex::default(),
        }
    }
}

/// Whether the session of an access token lives.
///
/// # Errors
/// When it is not remembered and the database fails: nobody is let in by not knowing.
pub(crate) async fn is_live(auth: &Auth, claims: &Claims) -> Result<bool, DbError> {
    let now = auth.clock.now();
    let liveness = &auth.liveness;
    if let Some(session) = liveness.recall(&claims.sid)
        && session.user_id == claims.sub
        && now < session.expires_at
    {
        liveness.note(claims, &session, now);
        return Ok(true);
    }
    let epoch = liveness.epoch();
    let mut connection = auth.database.acquire().await?;
    let found = store::find_live(&mut connection, &claims.sid, &claims.sub, now).await?;
    drop(connection);
    let Some((expires_at, last_active_at)) = found else {
        return Ok(false);
    };
    let session = Arc::new(LiveSession {
        user_id: claims.sub.clone(),
        expires_at,
        noted_at: AtomicI64::new(last_active_at.unix_timestamp()),
        seen: Mutex::default(),
    });
    liveness.note(claims, &session, now);
    liveness.remember(epoch, claims.sid.clone(), session);
    Ok(true)
}

/// Follows what ended sessions up to now. Called by whatever has just ended one, after its commit, so that this replica
/// refuses it before the answer leaves. If that fails, nothing is remembered until a look succeeds.
pub async fn catch_up(auth: &Auth) {
    if let Err(error) = follow(auth).await {
        auth.liveness.trusted_until.store(0, Ordering::Release);
        let cause: &(dyn std::error::Error + 'static) = &error;
        tracing::warn!(
            cause,
            "ended sessions can't be followed; each request reads the database until they can"
        );
    }
}

async fn follow(auth: &Auth) -> Result<(), DbError> {
    let liveness = &auth.liveness;
    let mut position = liveness.position.lock().await;
    let looked_at = Instant::now();
    let mut connection = auth.database.acquire().await?;
    let look = store::list_revocations(&mut connection, position.next.unwrap_or(i64::MAX)).await?;
    drop(connection);
    // A first look, one after a long pause, and a database that was put back to an older time: no telling what was missed.
    let is_continuous = position.next.is_some_and(|next| look.next >= next)
        && position.looked_at.is_some_and(|before| looked_at.duration_since(before) < FORGET_AFTER);
    if is_continuous {
        let new: Vec<_> = look.lines.iter().filter(|line| !position.seen.contains(&line.id)).collect();
        if new.iter().any(|line| line.user_id.is_some()) {
            // Rare, and which sessions are the user's is not known here.
            liveness.forget_all();
        } else if !new.is_empty() {
            liveness.forget(new.iter().filter_map(|line| line.session_id.as_deref()));
        }
    } else {
        liveness.forget_all();
    }
    position.seen = look.lines.iter().map(|line| line.id).collect();
    position.next = Some(look.next);
    position.looked_at = Some(looked_at);
    let until = looked_at.duration_since(liveness.started).saturating_add(auth.policy.revocation_reach);
    liveness.trusted_until.store(micros(until), Ordering::Release);
    Ok(())
}

/// Writes down which sessions were active and which answers were seen in use since the last call.
///
/// # Errors
/// When the database fails: what was noted is lost then, which lets a token before the newest be answered for longer and
/// an activity look older than it is.
pub async fn write_notes(auth: &Auth) -> Result<(), DbError> {
    let active = take(&auth.liveness.active);
    let confirmed = take(&auth.liveness.confirmed);
    for batch in active.into_iter().collect::<Vec<_>>().chunks(BATCH) {
        let (ids, at): (Vec<_>, Vec<_>) = batch.iter().map(|(id, at)| (id.to_string(), *at)).unzip();
        let mut connection = auth.database.acquire().await?;
        store::update_active(&mut connection, &ids, &at).await?;
    }
    for batch in confirmed.into_iter().collect::<Vec<_>>().chunks(BATCH) {
        let ids: Vec<_> = batch.iter().map(|(id, _)| id.to_string()).collect();
        let (generations, at): (Vec<_>, Vec<_>) = batch.iter().map(|(_, seen)| *seen).unzip();
        let mut connection = auth.database.acquire().await?;
        update_confirmed(&mut connection, &ids, &generations, &at).await?;
    }
    Ok(())
}

impl Liveness {
    /// The session as remembered, while that counts.
    fn recall(&self, session: &SessionId) -> Option<Arc<LiveSession>> {
        let is_trusted = micros(self.started.elapsed()) < self.trusted_until.load(Ordering::Acquire);
        if is_trusted { self.sessions.get(session) } else { None }
    }

    fn epoch(&self) -> u64 {
        *self.epoch.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers what was read after `epoch` began, unless something was forgotten since.
    fn remember(&self, epoch: u64, id: SessionId, session: Arc<LiveSession>) {
        let current = self.epoch.read().unwrap_or_else(PoisonError::into_inner);
        if *current == epoch {
            self.sessions.insert(id, session);
        }
    }

    fn forget<'a>(&self, sessions: impl Iterator<Item = &'a str>) {
        let mut epoch = self.epoch.write().unwrap_or_else(PoisonError::into_inner);
        *epoch = epoch.wrapping_add(1);
        for id in sessions.filter_map(|id| id.parse::<SessionId>().ok()) {
            self.sessions.invalidate(&id);
        }
    }

    fn forget_all(&self) {
        let mut epoch = self.epoch.write().unwrap_or_else(PoisonError::into_inner);
        *epoch = epoch.wrapping_add(1);
        self.sessions.invalidate_all();
    }

    /// Notes that the session was active and that the answer the token came with has arrived.
    fn note(&self, claims: &Claims, session: &LiveSession, now: OffsetDateTime) {
        let seconds = now.unix_timestamp();
        let noted_at = session.noted_at.load(Ordering::Relaxed);
        if seconds.saturating_sub(noted_at) >= ACTIVITY_STEP_SECONDS {
            session.noted_at.store(seconds, Ordering::Relaxed);
            lock(&self.active).insert(claims.sid.clone(), now);
        }
        let Some(Issue { chain, generation }) = Issue::of_token_id(&claims.jti) else { return };
        // Before the first rotation there is no token before.
        if generation <= 1 {
            return;
        }
        let mut seen = lock(&session.seen);
        let newest = seen.entry(chain.to_string()).or_default();
        if *newest < generation {
            *newest = generation;
            lock(&self.confirmed).insert(chain, (generation, now));
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn take<T: Default>(mutex: &Mutex<T>) -> T {
    std::mem::take(&mut *lock(mutex))
}
