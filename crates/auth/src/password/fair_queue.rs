//! A bounded queue in which those who ask much wait for themselves, not for others: turns go round the askers, each
//! asker's own are served in order of arrival, and when it is full, whoever has most in it gives way.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// Names a place in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket(u64);

/// Items of askers.
#[derive(Debug)]
pub(super) struct FairQueue<K, T> {
    /// Askers that have something in the queue, the next turn first.
    turns: VecDeque<K>,
    waiting: HashMap<K, VecDeque<(Ticket, T)>>,
    length: usize,
    capacity: usize,
    next: u64,
}

/// What became of an arrival.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrival<T> {
    /// It is in the queue.
    Waits(Ticket),
    /// It is in the queue in place of this one, the newest of the asker that had most.
    Displaces(Ticket, T),
    /// The queue is full, and nobody has more in it than this asker.
    Refused(T),
}

impl<K: Copy + Eq + Hash, T> FairQueue<K, T> {
    pub(super) fn new(capacity: usize) -> Self {
        Self { turns: VecDeque::new(), waiting: HashMap::new(), length: 0, capacity, next: 0 }
    }

    /// Items in it.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Adds an item of `asker`.
    pub(super) fn push(&mut self, asker: K, item: T) -> Arrival<T> {
        if self.length < self.capacity {
            return Arrival::Waits(self.append(asker, item));
        }
        let own = self.waiting.get(&asker).map_or(0, VecDeque::len).saturating_add(1);
        let greediest = self.waiting.iter().max_by_key(|(_, items)| items.len());
        let displaced = greediest.filter(|(_, items)| items.len() > own).map(|(asker, _)| *asker);
        match displaced.and_then(|greediest| self.take(greediest, VecDeque::pop_back)) {
            Some(displaced) => Arrival::Displaces(self.append(asker, item), displaced),
            None => Arrival::Refused(item),
        }
    }

    /// Takes the item whose turn it is.
    pub(super) fn pop(&mut self) -> Option<T> {
        let asker = self.turns.pop_front()?;
        self.turns.push_back(asker);
        self.take(asker, VecDeque::pop_front)
    }

    /// Takes an item out of turn; none if it is not in the queue any more.
    pub(super) fn remove(&mut self, asker: K, ticket: Ticket) -> Option<T> {
        self.take(asker, |items| {
            let place = items.iter().position(|(waiting, _)| *waiting == ticket)?;
            items.remove(place)
        })
    }

    fn append(&mut self, asker: K, item: T) -> Ticket {
        let ticket = Ticket(self.next);
        self.next = self.next.wrapping_add(1);
        let items = self.waiting.entry(asker).or_default();
        if items.is_empty() {
            self.turns.push_back(asker);
        }
        items.push_back((ticket, item));
        self.length = self.length.saturating_add(1);
        ticket
    }

    fn take(
        &mut self,
        asker: K,
        which: impl FnOnce(&mut VecDeque<(Ticket, T)>) -> Option<(Ticket, T)>,
    ) -> Option<T> {
        let items = self.waiting.get_mut(&asker)?;
        let (_, item) = which(items)?;
        if items.is_empty() {
            self.waiting.remove(&asker);
            self.turns.retain(|waiting| *waiting != asker);
        }
        self.length = self.length.saturating_sub(1);
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(capacity: usize, arrivals: &str) -> FairQueue<char, char> {
        let mut queue = FairQueue::new(capacity);
        for asker in arrivals.chars() {
            assert!(matches!(queue.push(asker, asker), Arrival::Waits(_)));
        }
        queue
    }

    fn served(mut queue: FairQueue<char, char>) -> String {
        let order = std::iter::from_fn(|| queue.pop()).collect();
        assert!(queue.turns.is_empty() && queue.waiting.is_empty() && queue.length == 0);
        order
    }

    #[test]
    fn turns_go_round_the_askers() {
        assert_eq!(served(queue(10, "aaaabc")), "abcaaa");
        assert_eq!(served(queue(10, "ab")), "ab");
    }

    #[test]
    fn an_askers_own_are_served_in_order_of_arrival() {
        let mut queue = FairQueue::new(10);
        for item in 1..=3 {
            queue.push('a', item);
        }
        queue.push('b', 4);
        assert_eq!([(); 4].map(|()| queue.pop()), [Some(1), Some(4), Some(2), Some(3)]);
    }

    #[test]
    fn when_it_is_full_the_newest_of_whoever_has_most_gives_way() {
        let mut full = FairQueue::new(4);
        for item in 1..=4 {
            full.push('a', item);
        }
        assert_eq!(full.push('a', 5), Arrival::Refused(5), "a flood waits for itself");
        assert!(matches!(full.push('b', 6), Arrival::Displaces(_, 4)));
        assert!(matches!(full.push('b', 7), Arrival::Displaces(_, 3)));
        assert_eq!(full.push('b', 8), Arrival::Refused(8), "it has as much as anybody");
        assert!(matches!(full.push('c', 9), Arrival::Displaces(_, 2 | 7)));
        assert_eq!(full.push('c', 10), Arrival::Refused(10));
        assert_eq!([(); 3].map(|()| full.pop()), [Some(1), Some(6), Some(9)]);
    }

    #[test]
    fn who_leaves_makes_room_and_is_not_served() {
        let mut queue = FairQueue::new(2);
        let Arrival::Waits(first) = queue.push('a', 1) else { panic!("there is room") };
        queue.push('b', 2);
        assert_eq!(queue.remove('a', first), Some(1));
        assert_eq!(queue.remove('a', first), None);
        assert!(matches!(queue.push('c', 3), Arrival::Waits(_)));
        assert_eq!([(); 3].map(|()| queue.pop()), [Some(2), Some(3), None]);
    }
}
