//! What a connection sends, one request after another, and which answers count.

use crate::connection::{Answer, post, post_as};
use memchr::memmem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What one connection does.
pub(crate) trait Script: Send + 'static {
    /// The next request, whole.
    fn request(&mut self) -> &[u8];

    /// Whether its answer is the right one. A benchmark that counts errors as successes lies.
    fn accepts(&mut self, answer: Answer<'_>) -> bool;
}

/// What several connections share, each going through all of it again and again.
#[derive(Debug, Clone)]
struct Turns<T> {
    all: Arc<[T]>,
    current: usize,
}

impl<T> Turns<T> {
    /// For each of `connections` one that begins at a place of its own.
    fn share(all: Vec<T>, connections: usize) -> impl Iterator<Item = Self> {
        let all: Arc<[T]> = all.into();
        (0..connections).map(move |number| Self {
            current: number * all.len() / connections.max(1),
            all: Arc::clone(&all),
        })
    }

    fn next(&mut self) -> Option<&T> {
        self.current = if self.current + 1 < self.all.len() { self.current + 1 } else { 0 };
        self.all.get(self.current)
    }
}

/// Sends prepared requests in turn, again and again.
#[derive(Debug, Clone)]
pub(crate) struct Repeat {
    requests: Turns<Vec<u8>>,
    proof: &'static [u8],
}

impl Repeat {
    /// One script for each of `connections`, which begin at different places. An answer is right if its status is 200
    /// and its body contains `proof`.
    pub(crate) fn share(requests: Vec<Vec<u8>>, connections: usize, proof: &'static [u8]) -> Vec<Self> {
        Turns::share(requests, connections).map(|requests| Self { requests, proof }).collect()
    }
}

impl Script for Repeat {
    fn request(&mut self) -> &[u8] {
        self.requests.next().map(Vec::as_slice).unwrap_or_default()
    }

    fn accepts(&mut self, answer: Answer<'_>) -> bool {
        answer.status == 200 && memmem::find(answer.body, self.proof).is_some()
    }
}

/// Charges one mana to users in turn, each time under a new idempotency key.
#[derive(Debug)]
pub(crate) struct Spend {
    tokens: Turns<String>,
    keys: Arc<AtomicU64>,
    request: Vec<u8>,
}

impl Spend {
    /// One script for each of `connections`. `keys` numbers the keys of all loads of a run.
    pub(crate) fn share(tokens: Vec<String>, connections: usize, keys: &Arc<AtomicU64>) -> Vec<Self> {
        Turns::share(tokens, connections)
            .map(|tokens| Self { tokens, keys: Arc::clone(keys), request: Vec::new() })
            .collect()
    }
}

impl Script for Spend {
    fn request(&mut self) -> &[u8] {
        let key = self.keys.fetch_add(1, Ordering::Relaxed);
        let body = format!(
            r#"{{"amount":1,"appId":"bench","description":"An answer","idempotencyKey":"bench-{key}"}}"#
        );
        let token = self.tokens.next().map(String::as_str).unwrap_or_default();
        self.request = post_as(token, "/api/v1/credits/use", &body);
        &self.request
    }

    fn accepts(&mut self, answer: Answer<'_>) -> bool {
        answer.status == 201 && memmem::find(answer.body, br#""success":true"#).is_some()
    }
}

/// Refreshes sessions of its own in turn, each always with its newest token.
#[derive(Debug)]
pub(crate) struct Rotate {
    tokens: Vec<String>,
    current: usize,
    request: Vec<u8>,
}

impl Rotate {
    pub(crate) fn new(tokens: Vec<String>) -> Self {
        Self { tokens, current: 0, request: Vec::new() }
    }

    /// Deals the tokens out to `connections`, and takes them back with [`Self::into_tokens`] when the load is over.
    pub(crate) fn share(tokens: Vec<String>, connections: usize) -> Vec<Self> {
        let mut hands = vec![Vec::new(); connections.max(1)];
        let count = hands.len();
        for (number, token) in tokens.into_iter().enumerate() {
            if let Some(hand) = hands.get_mut(number % count) {
                hand.push(token);
            }
        }
        hands.into_iter().filter(|hand| !hand.is_empty()).map(Self::new).collect()
    }

    pub(crate) fn into_tokens(self) -> Vec<String> {
        self.tokens
    }
}

impl Script for Rotate {
    fn request(&mut self) -> &[u8] {
        self.current = if self.current + 1 < self.tokens.len() { self.current + 1 } else { 0 };
        let token = self.tokens.get(self.current).map(String::as_str).unwrap_or_default();
        self.request = post("/api/v1/auth/refresh", &format!(r#"{{"refreshToken":"{token}"}}"#));
        &self.request
    }

    fn accepts(&mut self, answer: Answer<'_>) -> bool {
        let newest = (answer.status == 200).then(|| text_of(answer.body, b"\"refreshToken\":\"")).flatten();
        let (Some(newest), Some(token)) = (newest, self.tokens.get_mut(self.current)) else {
            return false;
        };
        let has_moved = *token != newest;
        newest.clone_into(token);
        has_moved
    }
}

/// Registers somebody new each time.
#[derive(Debug)]
pub(crate) struct Register {
    numbers: Arc<AtomicU64>,
    request: Vec<u8>,
}

impl Register {
    /// One script for each of `connections`. `numbers` numbers the addresses of all loads of a run.
    pub(crate) fn share(connections: usize, numbers: &Arc<AtomicU64>) -> Vec<Self> {
        (0..connections).map(|_| Self { numbers: Arc::clone(numbers), request: Vec::new() }).collect()
    }
}

impl Script for Register {
    fn request(&mut self) -> &[u8] {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let body = format!(r#"{{"email":"new{number}@example.com","password":"correct horse battery"}}"#);
        self.request = post("/api/v1/auth/register", &body);
        &self.request
    }

    fn accepts(&mut self, answer: Answer<'_>) -> bool {
        answer.status == 201
    }
}

/// The text that follows `name`, up to its quotation mark. No token and no id has an escape.
pub(crate) fn text_of<'a>(body: &'a [u8], name: &[u8]) -> Option<&'a str> {
    let begin = memmem::find(body, name)? + name.len();
    let rest = body.get(begin..)?;
    std::str::from_utf8(rest.get(..memchr::memchr(b'"', rest)?)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer<'_> {
        Answer { status, body: body.as_bytes() }
    }

    #[test]
    fn a_success_without_its_proof_is_not_right() {
        let mut scripts = Repeat::share(vec![post("/x", "{}")], 2, br#""valid":true"#);
        assert_eq!(scripts.len(), 2);
        let script = &mut scripts[0];
        assert!(script.accepts(answer(200, r#"{"valid":true}"#)));
        assert!(!script.accepts(answer(200, r#"{"valid":false}"#)));
        assert!(!script.accepts(answer(503, r#"{"valid":true}"#)));
    }

    #[test]
    fn no_two_spends_have_the_same_key_and_users_take_turns() {
        let keys = Arc::new(AtomicU64::new(0));
        let mut scripts = Spend::share(vec!["a".into(), "b".into()], 2, &keys);
        let mut sent = |number: usize| String::from_utf8_lossy(scripts[number].request()).into_owned();
        let requests = [sent(0), sent(1), sent(0), sent(1)];
        for (number, (request, token)) in requests.iter().zip(["b", "a", "a", "b"]).enumerate() {
            assert!(request.contains(&format!(r#""idempotencyKey":"bench-{number}""#)), "{request}");
            assert!(request.contains(&format!("authorization: Bearer {token}\r\n")), "{request}");
        }
        assert!(scripts[0].accepts(answer(201, r#"{"success":true}"#)));
        assert!(!scripts[0].accepts(answer(400, r#"{"success":true}"#)));
    }

    #[test]
    fn a_chain_goes_on_with_the_token_it_was_given_last() {
        let mut hands = Rotate::share(vec!["a1".into(), "b1".into(), "c1".into()], 2);
        assert_eq!(hands.len(), 2);
        let script = &mut hands[0];
        let sent = |script: &mut Rotate| String::from_utf8_lossy(script.request()).into_owned();
        assert!(sent(script).contains(r#"{"refreshToken":"c1"}"#));
        assert!(script.accepts(answer(200, r#"{"refreshToken":"c2"}"#)));
        assert!(sent(script).contains("a1"));
        assert!(!script.accepts(answer(503, r#"{"refreshToken":"a2"}"#)), "a refusal moves nothing");
        assert!(sent(script).contains("c2"));
        assert!(!script.accepts(answer(200, r#"{"refreshToken":"c2"}"#)), "no new token is no refresh");
        assert_eq!(hands.into_iter().flat_map(Rotate::into_tokens).collect::<Vec<_>>(), ["a1", "c2", "b1"]);
    }
}
