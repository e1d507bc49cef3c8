//! A Stripe that runs on this machine: for development without a network, and for tests that need a Stripe which loses,
//! repeats and reorders what it sends. Follows Stripe's documented shapes of version 2024-06-20, as far as buying a package
//! and charging a saved card need them. It forgets everything when it stops.
//!
//! Whoever speaks with it needs its address and nothing else: there is no switch for it anywhere.
#![expect(clippy::indexing_slicing, reason = "a JSON object gives null for a member that is not there")]

mod api;
mod deliver;
mod page;
mod state;

pub use deliver::{Delivery, Knobs, sign};
pub use state::Outcome;

use axum::Router;
use serde_json::Value;
use state::State;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use url::Url;

/// Seconds since 1970, as this Stripe sees them.
pub type Now = Arc<dyn Fn() -> i64 + Send + Sync>;

/// What a fake is made of.
#[derive(Clone)]
pub struct Options {
    /// Under which it is reached, for the pages that it sends browsers to.
    pub url: String,
    /// Where it sends what happens; without it, deliveries wait to be taken.
    pub webhook_url: Option<Url>,
    /// What it signs with.
    pub webhook_secret: String,
    /// Its clock.
    pub now: Now,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("url", &self.url)
            .field("webhook_url", &self.webhook_url)
            .finish_non_exhaustive()
    }
}

/// A running Stripe; all clones are one.
#[derive(Debug, Clone)]
pub struct Fake(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    options: Options,
    state: Mutex<State>,
    has_deliveries: Notify,
    /// Whose answers are held, and how many are.
    holds: watch::Sender<Held>,
    held: watch::Sender<usize>,
}

/// End of the paths of calls whose answers are held, if any are.
#[derive(Debug, Clone, Copy)]
struct Held(Option<&'static str>);

impl Held {
    fn is(self, path: &str) -> bool {
        self.0.is_some_and(|end| path.ends_with(end))
    }
}

impl Fake {
    /// An empty Stripe.
    pub fn new(options: Options) -> Self {
        Self(Arc::new(Shared {
            options,
            state: Mutex::default(),
            has_deliveries: Notify::new(),
            holds: watch::Sender::new(Held(None)),
            held: watch::Sender::new(0),
        }))
    }

    /// Answers requests and sends deliveries until it is dropped.
    ///
    /// # Errors
    /// When the socket fails.
    pub async fn serve(self, listener: TcpListener) -> std::io::Result<()> {
        let router = self.router();
        tokio::select! {
            served = async { axum::serve(listener, router).await } => served,
            () = deliver::deliver_for_ever(self) => Ok(()),
        }
    }

    /// The API, the pages for browsers, and the knobs.
    pub fn router(&self) -> Router {
        Router::new().merge(api::routes()).merge(page::routes()).with_state(self.clone())
    }

    /// What the payer does at the till.
    ///
    /// # Errors
    /// When the session can't be paid any more, or is not there.
    pub fn act(&self, session: &str, outcome: Outcome) -> Result<Value, String> {
        self.change(|state, now| state.act(session, outcome, now))
    }

    /// The payer's bank contests a payment; `status` as `needs_response` or `warning_needs_response`.
    ///
    /// # Errors
    /// When there is no such payment.
    pub fn dispute(&self, payment: &str, amount: Option<i64>, status: &str) -> Result<String, String> {
        self.change(|state, now| state.dispute(payment, amount, status, now))
    }

    /// A dispute ends; `status` as `won` or `lost`.
    ///
    /// # Errors
    /// When there is no such dispute.
    pub fn close_dispute(&self, dispute: &str, status: &str) -> Result<(), String> {
        self.change(|state, now| state.close_dispute(dispute, status, now))
    }

    /// Money goes back as by a hand at the dashboard.
    ///
    /// # Errors
    /// When there is not that much.
    pub fn refund(&self, payment: &str, amount: Option<i64>) -> Result<String, String> {
        self.change(|state, now| {
            let refund = state.refund(payment, amount, &Value::Null, now).map_err(|error| error.message)?;
            Ok(refund["id"].as_str().unwrap_or_default().to_owned())
        })
    }

    /// A refund comes back.
    ///
    /// # Errors
    /// When there is no such refund.
    pub fn fail_refund(&self, refund: &str) -> Result<(), String> {
        self.change(|state, now| state.fail_refund(refund, now))
    }

    /// A card's issuer warns.
    ///
    /// # Errors
    /// When there is no such payment.
    pub fn warn_of_fraud(&self, payment: &str) -> Result<(), String> {
        self.change(|state, now| state.warn_of_fraud(payment, now))
    }

    /// Nobody came to the till in time.
    ///
    /// # Errors
    /// When the session is not open.
    pub fn expire(&self, session: &str) -> Result<(), String> {
        self.change(|state, now| state.expire(session, now))
    }

    /// A saved card is declined from now on, with a bank's word as `insufficient_funds` or `authentication_required`, or not any more.
    pub fn decline(&self, card: &str, word: Option<&str>) {
        self.lock().tamper(card, |card| card["_declines_with"] = word.into());
    }

    /// A customer is deleted in the dashboard, with the saved cards.
    ///
    /// # Errors
    /// When there is no such customer.
    pub fn delete_customer(&self, customer: &str) -> Result<(), String> {
        self.change(|state, _| state.delete_customer(customer))
    }

    /// The last object of a sort, as `payment_method`.
    pub fn last(&self, object: &str) -> Option<Value> {
        self.lock().list(object).next().cloned()
    }

    /// How many objects of a sort there are.
    pub fn count(&self, object: &str) -> usize {
        self.lock().list(object).count()
    }

    /// An object as it is now.
    pub fn find(&self, id: &str) -> Option<Value> {
        self.lock().find(id).cloned()
    }

    /// A session, its payment, and what is about that, as they are now.
    pub fn objects_of(&self, session: &str) -> Vec<Value> {
        self.lock().objects_of(session)
    }

    /// Answers as of when a session's objects were these: what came later is not there any more.
    pub fn put_back(&self, session: &str, objects: &[Value]) {
        self.lock().put_back(session, objects);
    }

    /// Changes an object behind everybody's back.
    pub fn tamper(&self, id: &str, change: impl FnOnce(&mut Value)) {
        self.lock().tamper(id, change);
    }

    /// Something of the same sort as `object` that others made through the same account.
    pub fn add_foreign(&self, object: &Value) {
        self.lock().add_foreign(object.clone());
    }

    /// How deliveries go wrong from now on.
    pub fn turn(&self, knobs: Knobs) {
        self.lock().knobs = knobs;
    }

    /// Calls are answered with 500 until this is taken back.
    pub fn break_down(&self, is_broken: bool) {
        self.lock().is_broken = is_broken;
    }

    /// Calls that write and whose paths end so, as `/confirm`, are done and answered with 500 until this is taken back: the answer is lost.
    pub fn lose_answers(&self, of: Option<&'static str>) {
        self.lock().loses = of;
    }

    /// Calls whose paths end so are refused with a status and a code until this is taken back.
    pub fn refuse(&self, of: Option<(&str, u16, &'static str)>) {
        self.lock().refuses = of.map(|(end, status, code)| (end.to_owned(), status, code));
    }

    /// Calls that write and whose paths end so, as `/payment_intents`, are done and not answered before this is taken back.
    pub fn hold_answers(&self, of: Option<&'static str>) {
        self.0.holds.send_replace(Held(of));
    }

    /// Waits until an answer is held.
    pub async fn is_holding(&self) {
        // Fails when nobody can hold one any more, which is not while there is somebody to ask.
        let _ = self.0.held.subscribe().wait_for(|held| *held > 0).await;
    }

    /// Keeps an answer back for as long as it is to be held.
    async fn keep_back(&self, path: &str) {
        if !self.0.holds.borrow().is(path) {
            return;
        }
        self.0.held.send_modify(|held| *held = held.saturating_add(1));
        let _ = self.0.holds.subscribe().wait_for(|held| !held.is(path)).await;
        self.0.held.send_modify(|held| *held = held.saturating_sub(1));
    }

    /// How many calls there were whose method and path begin so, as `POST /v1/refunds`.
    pub fn count_calls(&self, beginning: &str) -> usize {
        self.lock().calls.iter().filter(|call| call.starts_with(beginning)).count()
    }

    /// What waits to be delivered, signed as of now, the knobs applied.
    pub fn take_deliveries(&self) -> Vec<Delivery> {
        let now = self.now();
        let mut state = self.lock();
        let waiting = std::mem::take(&mut state.waiting);
        deliver::prepare(&waiting, state.knobs, &self.0.options.webhook_secret, now)
    }

    /// An event that happened before, signed as of now: what an operator resends.
    pub fn resend(&self, event: &str) -> Option<Delivery> {
        let now = self.now();
        let event = self.find(event)?;
        Some(Delivery::of(&event, &self.0.options.webhook_secret, now))
    }

    fn change<T>(&self, change: impl FnOnce(&mut State, i64) -> Result<T, String>) -> Result<T, String> {
        let now = self.now();
        let changed = change(&mut self.lock(), now);
        self.0.has_deliveries.notify_one();
        changed
    }

    fn now(&self) -> i64 {
        (self.0.options.now)()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
