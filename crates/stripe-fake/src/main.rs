//! `stripe-fake`: a Stripe on this machine, for a service whose `STRIPE_API_BASE` names it.
#![expect(clippy::print_stdout, reason = "a program says where it listens")]

use clap::Parser;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::UNIX_EPOCH;
use stripe_fake::{Fake, Options};
use tokio::net::TcpListener;
use url::Url;

/// A Stripe that runs here and moves no money
#[derive(Debug, Parser)]
#[command(name = "stripe-fake")]
struct Arguments {
    /// Port to listen on
    #[arg(long, default_value_t = 12111)]
    port: u16,
    /// Where events are sent
    #[arg(long)]
    webhook_url: Option<Url>,
    /// What they are signed with
    #[arg(long, default_value = "whsec_fake")]
    webhook_secret: String,
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let Arguments { port, webhook_url, webhook_secret } = Arguments::parse();
    let listener = TcpListener::bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)).await?;
    let url = format!("http://localhost:{}", listener.local_addr()?.port());
    println!("stripe-fake listens at {url}");
    Fake::new(Options { url, webhook_url, webhook_secret, now: Arc::new(now) }).serve(listener).await
}

#[expect(clippy::disallowed_methods, reason = "this Stripe has a clock of its own")]
fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
