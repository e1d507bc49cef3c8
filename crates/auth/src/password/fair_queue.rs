//! A bounded queue in which those who ask much wait for themselves, not for others: turns go round the networks, within a
//! network round its askers, and each asker's own are served in order of arrival. When it is full, whoever has most in it
//! gives way: the network that has most, in it the asker.
//!
//! So a network of many askers, who may all be one, keeps no other out and has one turn of each round.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// Names a place in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(u64);

/// Items of askers (`K`) in networks (`N`).
#[derive(Debug)]
pub(super) struct FairQueue<N, K, T> {
    networks: Round<N, Network<K, T>>,
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
    /// The queue is full, and nobody has more in it than this asker and its network.
    Refused(T),
}

/// Those who have something in the queue, each with it; the next turn first.
#[derive(Debug)]
struct Round<K, L> {
    turns: VecDeque<K>,
    waiting: HashMap<K, L>,
}

/// A network's part of the queue.
#[derive(Debug)]
struct Network<K, T> {
    askers: Round<K, VecDeque<(Ticket, T)>>,
    length: usize,
}

impl<K: Copy + Eq + Hash, L> Round<K, L> {
    fn new() -> Self {
        Self { turns: VecDeque::new(), waiting: HashMap::new() }
    }

    /// The part of `key`, made where there is none.
    fn part(&mut self, key: K, empty: impl FnOnce() -> L) -> &mut L {
        let turns = &mut self.turns;
        self.waiting.entry(key).or_insert_with(|| {
            turns.push_back(key);
            empty()
        })
    }

    /// Whose turn it is.
    fn turn(&mut self) -> Option<K> {
        let key = self.turns.pop_front()?;
        self.turns.push_back(key);
        Some(key)
    }

    fn leave(&mut self, key: K) {
        self.waiting.remove(&key);
        self.turns.retain(|waiting| *waiting != key);
    }
}

impl<K: Copy + Eq + Hash, T> Network<K, T> {
    fn new() -> Self {
        Self { askers: Round::new(), length: 0 }
    }

    fn newest(&self) -> Option<Ticket> {
        self.askers.waiting.values().filter_map(newest).max()
    }

    fn of(&self, asker: K) -> usize {
        self.askers.waiting.get(&asker).map_or(0, VecDeque::len)
    }

    /// The asker that has most, of several the one that came last.
    fn greediest(&self) -> Option<(K, usize)> {
        let greediest = self.askers.waiting.iter().max_by_key(|(_, items)| (items.len(), newest(items)));
        greediest.map(|(asker, items)| (*asker, items.len()))
    }

    fn take(
        &mut self,
        asker: K,
        which: impl FnOnce(&mut VecDeque<(Ticket, T)>) -> Option<(Ticket, T)>,
    ) -> Option<T> {
        let items = self.askers.waiting.get_mut(&asker)?;
        let (_, item) = which(items)?;
        if items.is_empty() {
            self.askers.leave(asker);
        }
        self.length = self.length.saturating_sub(1);
        Some(item)
    }
}

fn newest<T>(items: &VecDeque<(Ticket, T)>) -> Option<Ticket> {
    items.back().map(|(ticket, _)| *ticket)
}

impl<N: Copy + Eq + Hash, K: Copy + Eq + Hash, T> FairQueue<N, K, T> {
    pub(super) fn new(capacity: usize) -> Self {
        Self { networks: Round::new(), length: 0, capacity, next: 0 }
    }

    /// Items in it.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Adds an item of `asker` in `network`.
    pub(super) fn push(&mut self, network: N, asker: K, item: T) -> Arrival<T> {
        if self.length < self.capacity {
            return Arrival::Waits(self.append(network, asker, item));
        }
        let displaced = self.who_gives_way(network, asker);
        match displaced.and_then(|(network, asker)| self.take(network, asker, VecDeque::pop_back)) {
            Some(displaced) => Arrival::Displaces(self.append(network, asker, item), displaced),
            None => Arrival::Refused(item),
        }
    }

    /// Takes the item whose turn it is.
    pub(super) fn pop(&mut self) -> Option<T> {
        let network = self.networks.turn()?;
        let asker = self.networks.waiting.get_mut(&network)?.askers.turn()?;
        self.take(network, asker, VecDeque::pop_front)
    }

    /// Takes an item out of turn; none if it is not in the queue any more.
    pub(super) fn remove(&mut self, network: N, asker: K, ticket: Ticket) -> Option<T> {
        self.take(network, asker, |items| {
            let place = items.iter().position(|(waiting, _)| *waiting == ticket)?;
            items.remove(place)
        })
    }

    /// Who has more than an arrival of `asker` would have: another network, or an asker of its own.
    fn who_gives_way(&self, network: N, asker: K) -> Option<(N, K)> {
        let waiting = &self.networks.waiting;
        let (greediest, most) = waiting.iter().max_by_key(|(_, part)| (part.length, part.newest()))?;
        let own = waiting.get(&network);
        if most.length > own.map_or(0, |own| own.length).saturating_add(1) {
            return most.greediest().map(|(asker, _)| (*greediest, asker));
        }
        let own = own?;
        let (greediest, most) = own.greediest()?;
        (most > own.of(asker).saturating_add(1)).then_some((network, greediest))
    }

    fn append(&mut self, network: N, asker: K, item: T) -> Ticket {
        let ticket = Ticket(self.next);
        self.next = self.next.wrapping_add(1);
        let part = self.networks.part(network, Network::new);
        part.askers.part(asker, VecDeque::new).push_back((ticket, item));
        part.length = part.length.saturating_add(1);
        self.length = self.length.saturating_add(1);
        ticket
    }

    fn take(
        &mut self,
        network: N,
        asker: K,
        which: impl FnOnce(&mut VecDeque<(Ticket, T)>) -> Option<(Ticket, T)>,
    ) -> Option<T> {
        let part = self.networks.waiting.get_mut(&network)?;
        let item = part.take(asker, which)?;
        if part.length == 0 {
            self.networks.leave(network);
        }
        self.length = self.length.saturating_sub(1);
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A queue in which each asker's network is its letter in upper case: `a` and `á` are neighbours.
    fn queue(capacity: usize, arrivals: &str) -> FairQueue<char, char, char> {
        let mut queue = FairQueue::new(capacity);
        for asker in arrivals.chars() {
            assert!(matches!(push(&mut queue, asker), Arrival::Waits(_)));
        }
        queue
    }

    fn push(queue: &mut FairQueue<char, char, char>, asker: char) -> Arrival<char> {
        let network = match asker {
            'a' | 'á' | 'à' => 'A',
            other => other.to_ascii_uppercase(),
        };
        queue.push(network, asker, asker)
    }

    fn served(mut queue: FairQueue<char, char, char>) -> String {
        let order = std::iter::from_fn(|| queue.pop()).collect();
        let networks = &queue.networks;
        assert!(networks.turns.is_empty() && networks.waiting.is_empty() && queue.length == 0);
        order
    }

    #[test]
    fn turns_go_round_the_networks_and_in_a_network_round_its_askers() {
        assert_eq!(served(queue(10, "aaaabc")), "abcaaa");
        assert_eq!(served(queue(10, "ab")), "ab");
        assert_eq!(served(queue(10, "aaáàbb")), "abábàa");
    }

    #[test]
    fn an_askers_own_are_served_in_order_of_arrival() {
        let mut queue = FairQueue::new(10);
        for item in 1..=3 {
            queue.push('A', 'a', item);
        }
        queue.push('B', 'b', 4);
        assert_eq!([(); 4].map(|()| queue.pop()), [Some(1), Some(4), Some(2), Some(3)]);
    }

    #[test]
    fn when_it_is_full_the_newest_of_whoever_has_most_gives_way() {
        let mut full = FairQueue::new(4);
        for item in 1..=4 {
            full.push('A', 'a', item);
        }
        assert_eq!(full.push('A', 'a', 5), Arrival::Refused(5), "a flood waits for itself");
        assert!(matches!(full.push('B', 'b', 6), Arrival::Displaces(_, 4)));
        assert!(matches!(full.push('B', 'b', 7), Arrival::Displaces(_, 3)));
        assert_eq!(full.push('B', 'b', 8), Arrival::Refused(8), "it has as much as anybody");
        assert!(
            matches!(full.push('C', 'c', 9), Arrival::Displaces(_, 7)),
            "the newest of two that have most"
        );
        assert_eq!(full.push('C', 'c', 10), Arrival::Refused(10));
        assert_eq!([(); 4].map(|()| full.pop()), [Some(1), Some(6), Some(9), Some(2)]);
    }

    #[test]
    fn a_network_of_many_askers_keeps_no_other_out() {
        let mut full = FairQueue::new(200);
        for asker in 0..200 {
            assert!(matches!(full.push('A', asker, asker), Arrival::Waits(_)));
        }
        assert_eq!(full.push('A', 200, 200), Arrival::Refused(200), "fresh askers are not more");
        assert!(matches!(full.push('B', 201, 201), Arrival::Displaces(_, 199)));
        assert_eq!([(); 3].map(|()| full.pop()), [Some(0), Some(201), Some(1)]);
    }

    #[test]
    fn within_a_network_the_asker_that_has_most_gives_way_to_a_neighbour() {
        let mut full = queue(5, "aaabb");
        assert_eq!(push(&mut full, 'á'), Arrival::Displaces(Ticket(5), 'a'));
        assert_eq!(push(&mut full, 'à'), Arrival::Displaces(Ticket(6), 'a'));
        assert_eq!(push(&mut full, 'á'), Arrival::Refused('á'), "there, nobody has more than one");
        assert_eq!(served(full), "abábà");
    }

    #[test]
    fn who_leaves_makes_room_and_is_not_served() {
        let mut queue = FairQueue::new(2);
        let Arrival::Waits(first) = queue.push('A', 'a', 1) else { panic!("there is room") };
        queue.push('B', 'b', 2);
        assert_eq!(queue.remove('A', 'a', first), Some(1));
        assert_eq!(queue.remove('A', 'a', first), None);
        assert!(matches!(queue.push('C', 'c', 3), Arrival::Waits(_)));
        assert_eq!([(); 3].map(|()| queue.pop()), [Some(2), Some(3), None]);
    }
}
