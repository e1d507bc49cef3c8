//! A Stripe of dev mode's own, so that mana can be bought in a browser with nothing set up. The service knows its address
//! and no more: it is the same service.

use mana_credits::package::model::NamedPackage;
use mana_kernel::{Clock as _, Rng as _};
use mana_platform::{Settings, SystemClock, SystemRng};
use std::net::Ipv4Addr;
use std::sync::Arc;
use stripe_fake::{Fake, Options};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// What is for sale until somebody says otherwise.
const PACKAGES: &str = include_str!("packages.json");

/// A Stripe that moves no money.
pub(super) struct Till {
    /// The settings with its address.
    pub(super) settings: Settings,
    serving: JoinHandle<()>,
}

impl Drop for Till {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Opens one, unless the settings name a real one.
pub(super) async fn open(settings: &Settings) -> std::io::Result<Option<Till>> {
    if settings.stripe_secret_key.is_some() {
        return Ok(None);
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let port = listener.local_addr()?.port();
    let mut random = [0; 16];
    SystemRng.fill(&mut random);
    let secret = random.iter().fold("whsec_".to_owned(), |text, byte| format!("{text}{byte:02x}"));
    let host = settings.host.filter(|host| !host.is_unspecified()).unwrap_or(Ipv4Addr::LOCALHOST.into());
    let webhook = std::net::SocketAddr::new(host, settings.port);
    let fake = Fake::new(Options {
        url: format!("http://localhost:{port}"),
        webhook_url: format!("http://{webhook}/api/v1/webhooks/stripe").parse().ok(),
        webhook_secret: secret.clone(),
        now: Arc::new(|| SystemClock.now().unix_timestamp()),
    });
    let serving = tokio::spawn(async move {
        if let Err(error) = fake.serve(listener).await {
            tracing::error!(%error, "the pretended Stripe has stopped");
        }
    });
    let mut settings = settings.clone();
    settings.stripe_secret_key = Some("sk_test_pretended".into());
    settings.stripe_webhook_secret = Some(secret.into());
    if let Ok(base) = format!("http://127.0.0.1:{port}").parse() {
        settings.stripe_api_base = base;
    }
    Ok(Some(Till { settings, serving }))
}

/// The packages of a first start.
pub(super) fn packages() -> Result<Vec<NamedPackage>, serde_json::Error> {
    serde_json::from_str(PACKAGES)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_first_packages_are_packages() {
        assert_eq!(super::packages().unwrap().len(), 3);
    }
}
