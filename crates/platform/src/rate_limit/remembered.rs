//! A map that forgets: what is old, and the older half when it is full.

use super::quota::Quota;
use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

/// Entries at most: some ten megabytes.
const MOST: usize = 100_000;

/// Values by key, each with the time at which it was put there.
#[derive(Debug)]
pub(super) struct Remembered<K, V>(HashMap<K, (V, Duration)>);

impl<K, V> Default for Remembered<K, V> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash, V> Remembered<K, V> {
    /// The value, if it was put there less than `life` ago.
    pub(super) fn get(&self, key: &K, now: Duration, life: Duration) -> Option<&V> {
        let (value, since) = self.0.get(key)?;
        (now < since.saturating_add(life)).then_some(value)
    }

    /// Keeps `value` from `now` on.
    pub(super) fn put(&mut self, key: K, value: V, now: Duration) {
        if self.0.len() >= MOST && !self.0.contains_key(&key) {
            self.forget_older_half();
        }
        self.0.insert(key, (value, now));
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Forgets one.
    pub(super) fn remove(&mut self, key: &K) {
        self.0.remove(key);
    }

    fn forget_older_half(&mut self) {
        let mut times: Vec<_> = self.0.values().map(|(_, since)| *since).collect();
        let (_, median, _) = times.select_nth_unstable(self.0.len() / 2);
        self.0.retain(|_, (_, since)| *since > *median);
    }
}

/// When buckets will be full again.
pub(super) type Buckets<K> = Remembered<K, Duration>;

impl<K: Eq + Hash> Buckets<K> {
    /// When the key's bucket is full again; now, if it is.
    pub(super) fn full(&self, key: &K, quota: Quota, now: Duration) -> Duration {
        self.get(key, now, quota.window()).copied().unwrap_or(now).max(now)
    }

    /// Puts back what was taken, in time.
    pub(super) fn give_back(&mut self, key: K, quota: Quota, taken: Duration, now: Duration) {
        let full = self.full(&key, quota, now).saturating_sub(taken);
        if full > now {
            self.put(key, full, now);
        } else {
            self.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_half_goes_when_it_is_full() {
        let mut numbers = Remembered::default();
        let second = |number: usize| Duration::from_secs(u64::try_from(number).unwrap());
        for number in 0..=MOST {
            numbers.put(number, (), second(number));
        }
        let life = Duration::MAX;
        assert!(
            numbers.get(&0, second(MOST), life).is_none() && numbers.get(&MOST, second(MOST), life).is_some()
        );
        assert!(numbers.0.len() <= MOST / 2 + 1, "{}", numbers.0.len());
        assert!(numbers.get(&MOST, second(MOST + 10), second(10)).is_none(), "its life is over");
    }
}
