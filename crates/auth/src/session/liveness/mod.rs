//! Which sessions live, without a read of the database for each request.
//!
//! A session that was found alive is remembered in memory. Whatever ends a session writes a line into `auth.revocations` in
//! the same transaction (triggers of migration 0003), and every replica follows those lines: at once after an end of its own
//! making, several times a second otherwise. What is remembered counts only while the last look is younger than
//! [`REVOCATION_REACH`]; else each request reads the database as if nothing were remembered. So a session that ended is
//! refused within that time everywhere, and a replica that is cut off from the database forgets how to say yes.
//!
//! Looks are plain reads: no LISTEN, so a pooler in transaction mode may stand in between. With Redis, replicas ring a bell for each other that
//! makes them look sooner (decision 10); what they learn is the database's in any case.

mod notes;
pub(crate) mod store;

pub use notes::write_notes;

use crate::Auth;
use crate::token::access::Claims;
use mana_kernel::{SessionId, SteadyClock, UserId};
use mana_platform::DbError;
use moka::sync::Cache;
use notes::{Noted, Notes};
use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use store::Found;
use time::OffsetDateTime;
use tokio::sync::Notify;

/// After this, a session that has ended is refused on every replica.
pub const REVOCATION_REACH: Duration = Duration::from_secs(1);
/// Sessions remembered at most; some 300 bytes each. Beyond it, those used least often are forgotten and read again.
const CAPACITY: u64 = 200_000;
/// Revoked sessions whose tokens are still tried, remembered at most, and for how long: a flood of them is no flood of reads.
const REVOKED_CAPACITY: u64 = 50_000;
const REVOKED_FOR: Duration = Duration::from_mins(15);
/// A replica that has not looked for this long has missed lines: they are deleted after twice the time.
const FORGET_AFTER: time::Duration = time::Duration::minutes(5);
/// Lines of `auth.revocations` are kept for this long.
pub(crate) const KEEP_REVOCATIONS: time::Duration = time::Duration::minutes(10);

/// What this replica remembers of sessions, and how far it has followed what ends them.
#[derive(Debug)]
pub struct Liveness {
    sessions: Cache<SessionId, Arc<LiveSession>>,
    revoked: Cache<SessionId, ()>,
    /// Counts what was forgotten. A read that began before is not remembered: it may be older than the end it overtook.
    epoch: RwLock<u64>,
    position: tokio::sync::Mutex<Position>,
    clock: Arc<dyn SteadyClock>,
    /// Until when what is remembered counts, in microseconds of `clock`.
    trusted_until: AtomicU64,
    notes: Notes,
    /// Rung when sessions have ended here.
    ended_here: Notify,
}

/// A session that was found alive.
#[derive(Debug)]
struct LiveSession {
    user_id: UserId,
    expires_at: OffsetDateTime,
    noted: Noted,
}

/// How far the lines were followed.
#[derive(Debug, Default)]
struct Position {
    /// Transactions below this are done with; nothing before the first look and after one that failed.
    next: Option<i64>,
    /// Lines from there on that were seen already, as their transactions were faster than others.
    seen: HashSet<i64>,
    /// When the last look was, by the database's clock.
    looked_at: Option<OffsetDateTime>,
    /// When it began, by the replica's.
    began: Duration,
}

/// The feed of ended sessions could not be followed.
#[derive(Debug, thiserror::Error)]
enum FollowError {
    #[error("the database is a standby, which lags behind")]
    Standby,
    #[error("the database did not answer in time")]
    TooSlow,
    #[error(transparent)]
    Database(#[from] DbError),
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
        liveness.notes.note(claims, &session.noted, now);
        return Ok(true);
    }
    if liveness.revoked.contains_key(&claims.sid) {
        return Ok(false);
    }
    let epoch = liveness.epoch();
    let mut connection = auth.database.acquire().await?;
    let found = store::find(&mut connection, &claims.sid, &claims.sub, now).await?;
    drop(connection);
    match found {
        Found::Live { expires_at, last_active_at } => {
            let noted = Noted::at(last_active_at);
            let session = Arc::new(LiveSession { user_id: claims.sub.clone(), expires_at, noted });
            liveness.notes.note(claims, &session.noted, now);
            liveness.remember(epoch, claims.sid.clone(), session);
            Ok(true)
        }
        Found::Revoked => {
            liveness.revoked.insert(claims.sid.clone(), ());
            Ok(false)
        }
        Found::Neither => Ok(false),
    }
}

/// What has just ended sessions calls this, after its commit: this replica refuses them before the answer leaves, and whoever tells the
/// others is woken.
pub(crate) async fn ended(auth: &Auth) {
    auth.liveness.ended_here.notify_one();
    catch_up(auth).await;
}

/// Waits until sessions have ended on this replica since the last time.
pub async fn ended_here(auth: &Auth) {
    auth.liveness.ended_here.notified().await;
}

/// Follows what ended sessions up to now. If that fails, nothing is remembered until a look succeeds.
pub async fn catch_up(auth: &Auth) {
    let asked = auth.liveness.clock.elapsed();
    let mut position = auth.liveness.position.lock().await;
    // Somebody else's look that began after this call has seen whatever this one would.
    if position.began > asked && position.next.is_some() {
        return;
    }
    if let Err(error) = follow(auth, &mut position).await {
        auth.liveness.trusted_until.store(0, Ordering::Release);
        *position = Position::default();
        let cause: &(dyn std::error::Error + 'static) = &error;
        tracing::warn!(
            cause,
            "ended sessions can't be followed; each request reads the database until they can"
        );
    }
}

async fn follow(auth: &Auth, position: &mut Position) -> Result<(), FollowError> {
    let liveness = &auth.liveness;
    let began = liveness.clock.elapsed();
    metrics::counter!("session_looks_total").increment(1);
    let mut connection = auth.database.acquire().await?;
    let look = store::list_revocations(&mut connection, position.next.unwrap_or(i64::MAX));
    let look = match tokio::time::timeout(REVOCATION_REACH, look).await {
        Ok(look) => look?,
        Err(_) => {
            // What hangs once would hang whoever gets it next.
            connection.close_on_drop();
            return Err(FollowError::TooSlow);
        }
    };
    drop(connection);
    if look.is_standby {
        return Err(FollowError::Standby);
    }
    // A first look, one after a long pause, and a database that was put back to an older time: no telling what was missed.
    let is_continuous = position.next.is_some_and(|next| look.next >= next)
        && position
            .looked_at
            .is_some_and(|before| look.at < before.saturating_add(FORGET_AFTER) && look.at >= before);
    if is_continuous {
        let new = look.lines.iter().filter(|line| !position.seen.contains(&line.id));
        liveness.forget(new.map(|line| line.session_id.as_str()));
    } else {
        liveness.forget_all();
    }
    *position = Position {
        next: Some(look.next),
        seen: look.lines.iter().map(|line| line.id).collect(),
        looked_at: Some(look.at),
        began,
    };
    liveness.trusted_until.store(micros(began.saturating_add(REVOCATION_REACH)), Ordering::Release);
    Ok(())
}

impl Liveness {
    /// Nothing remembered yet.
    pub fn new(clock: Arc<dyn SteadyClock>) -> Self {
        Self {
            sessions: Cache::new(CAPACITY),
            revoked: Cache::builder().max_capacity(REVOKED_CAPACITY).time_to_live(REVOKED_FOR).build(),
            epoch: RwLock::new(0),
            position: tokio::sync::Mutex::default(),
            clock,
            trusted_until: AtomicU64::new(0),
            notes: Notes::default(),
            ended_here: Notify::new(),
        }
    }

    /// The session as remembered, while that counts.
    fn recall(&self, session: &SessionId) -> Option<Arc<LiveSession>> {
        let is_trusted = micros(self.clock.elapsed()) < self.trusted_until.load(Ordering::Acquire);
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
        let mut sessions = sessions.filter_map(|id| id.parse::<SessionId>().ok()).peekable();
        if sessions.peek().is_none() {
            return;
        }
        let mut epoch = self.epoch.write().unwrap_or_else(PoisonError::into_inner);
        *epoch = epoch.wrapping_add(1);
        sessions.for_each(|id| self.sessions.invalidate(&id));
    }

    fn forget_all(&self) {
        let mut epoch = self.epoch.write().unwrap_or_else(PoisonError::into_inner);
        *epoch = epoch.wrapping_add(1);
        self.sessions.invalidate_all();
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
