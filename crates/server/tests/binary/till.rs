//! A Stripe on a port of its own, for whoever buys from processes.

use crate::process::listen;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use stripe_fake::{Fake, Options};

/// What its deliveries are signed with.
pub(crate) const WEBHOOK_SECRET: &str = "whsec_binary";

/// It, and its address. Delivers to `webhook_url`, if there is one.
pub(crate) fn open_till(runtime: &tokio::runtime::Runtime, webhook_url: Option<String>) -> (Fake, String) {
    let listener = listen();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    #[expect(
        clippy::disallowed_methods,
        reason = "this Stripe goes by the machine's clock, as its clients do"
    )]
    let now = || i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
    let fake = Fake::new(Options {
        url: url.clone(),
        webhook_url: webhook_url.map(|url| url.parse().unwrap()),
        webhook_secret: WEBHOOK_SECRET.to_owned(),
        now: Arc::new(now),
    });
    let serving = fake.clone();
    runtime.spawn(async move { serving.serve(tokio::net::TcpListener::from_std(listener).unwrap()).await });
    (fake, url)
}
