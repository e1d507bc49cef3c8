//! Samples of who ran into a limit: at most one per bucket and minute, and a bounded number per minute in all, kept
//! until a worker writes them down. A flood must not become one of writes.

use crate::http::{ClientInfo, current_request_id};
use mana_kernel::{RequestId, UserId};
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use time::OffsetDateTime;

/// In a minute of a process.
const MOST_PER_MINUTE: usize = 60;
/// If nobody takes them.
const MOST_KEPT: usize = 600;

/// Somebody ran into a limit.
#[derive(Debug, Clone)]
pub struct RateLimitHit {
    /// From where.
    pub client: ClientInfo,
    /// In which request.
    pub request_id: Option<RequestId>,
    /// As whom, if that is known.
    pub user_id: Option<UserId>,
}

/// The samples.
#[derive(Debug, Default)]
pub(super) struct Hits(Mutex<Sample>);

#[derive(Debug, Default)]
struct Sample {
    minute: i64,
    seen: HashSet<String>,
    kept: Vec<RateLimitHit>,
}

impl Hits {
    /// Keeps a hit of `bucket`, unless this minute has one, or enough.
    pub(super) fn add(&self, bucket: String, client: ClientInfo, user: Option<&UserId>, now: OffsetDateTime) {
        let mut sample = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let minute = now.unix_timestamp().div_euclid(60);
        if minute != sample.minute {
            sample.minute = minute;
            sample.seen.clear();
        }
        if sample.seen.len() >= MOST_PER_MINUTE
            || sample.kept.len() >= MOST_KEPT
            || !sample.seen.insert(bucket)
        {
            return;
        }
        let hit = RateLimitHit { client, request_id: current_request_id(), user_id: user.cloned() };
        sample.kept.push(hit);
    }

    /// Takes what was kept.
    pub(super) fn take(&self) -> Vec<RateLimitHit> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner).kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_kept_once_a_minute_and_no_minute_keeps_many() {
        let (hits, now) = (Hits::default(), OffsetDateTime::UNIX_EPOCH);
        for _ in 0..5 {
            hits.add("a".to_owned(), ClientInfo::default(), None, now);
        }
        assert_eq!(hits.take().len(), 1);
        hits.add("a".to_owned(), ClientInfo::default(), None, now + time::Duration::seconds(59));
        assert!(hits.take().is_empty());
        for number in 0..1000 {
            hits.add(number.to_string(), ClientInfo::default(), None, now + time::Duration::minutes(1));
        }
        assert_eq!(hits.take().len(), MOST_PER_MINUTE);
    }
}
