//! The stage of every story: a service on a database of its own, with a clock to move.

use mana_auth::token::keys;
use mana_auth::token::root_secret::RootSecrets;
use mana_core_auth::app::{self, Parts};
use mana_platform::{Settings, SystemRng, telemetry};
use mana_testkit::{Client, FakeClock, Reply, SeededRng, TestDatabase};
use metrics_exporter_prometheus::PrometheusHandle;
use secrecy::SecretString;
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

pub(crate) const PASSWORD: &str = "correct horse battery";

/// Made once: a key takes longer to make than a story to run.
static KEY: LazyLock<SecretString> = LazyLock::new(|| keys::generate_pem().unwrap());
static METRICS: LazyLock<PrometheusHandle> = LazyLock::new(|| telemetry::start_metrics().unwrap());

/// A running service and what it stands on.
pub(crate) struct Story {
    pub(crate) client: Client,
    pub(crate) clock: Arc<FakeClock>,
    pub(crate) database: TestDatabase,
    root_secret: SecretString,
    settings: Settings,
}

/// Somebody who is signed in.
#[derive(Debug, Clone)]
pub(crate) struct User {
    pub(crate) id: String,
    pub(crate) email: String,
    pub(crate) access_token: String,
    pub(crate) refresh_token: String,
    /// `name=value` of the session cookie.
    pub(crate) cookie: String,
}

impl Story {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// A service whose settings differ from the defaults.
    pub(crate) async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings::defaults().unwrap();
        settings.jwt_private_key = Some(KEY.clone());
        change(&mut settings);
        let database = TestDatabase::new().await;
        let root_secret = RootSecrets::generate("test", &SystemRng);
        let clock = Arc::new(FakeClock::new());
        let client = start(&settings, &database, &root_secret, &clock).await;
        Self {
            client,
            clock,
            database,
            root_secret,
            settings,
        }
    }

    /// A second server on the same database, with its own pool.
    pub(crate) async fn replica(&self) -> Client {
        start(&self.settings, &self.database, &self.root_secret, &self.clock).await
    }

    pub(crate) async fn register(&self, email: &str) -> Reply {
        self.client
            .post(
                "/api/v1/auth/register",
                &json!({"email": email, "password": PASSWORD}),
            )
            .send()
            .await
    }

    pub(crate) async fn login(&self, email: &str) -> Reply {
        self.client
            .post(
                "/api/v1/auth/login",
                &json!({"email": email, "password": PASSWORD}),
            )
            .send()
            .await
    }

    /// Registers and signs in.
    pub(crate) async fn user(&self, email: &str) -> User {
        let registered = self.register(email).await;
        assert_eq!(registered.status, 201, "{}", registered.json);
        self.sign_in(email).await
    }

    pub(crate) async fn sign_in(&self, email: &str) -> User {
        let reply = self.login(email).await;
        assert_eq!(reply.status, 200, "{}", reply.json);
        let cookie = reply.headers["set-cookie"].to_str().unwrap();
        User {
            id: reply.text("/user/id").to_owned(),
            email: email.to_owned(),
            access_token: reply.text("/accessToken").to_owned(),
            refresh_token: reply.text("/refreshToken").to_owned(),
            cookie: cookie.split(';').next().unwrap().to_owned(),
        }
    }

    pub(crate) async fn get(&self, path: &str, user: &User) -> Reply {
        self.client.get(path).bearer(&user.access_token).send().await
    }

    pub(crate) async fn refresh(&self, token: &str) -> Reply {
        self.client
            .post("/api/v1/auth/refresh", &json!({"refreshToken": token}))
            .send()
            .await
    }

    pub(crate) async fn spend(&self, user: &User, body: &Value) -> Reply {
        self.client
            .post("/api/v1/credits/use", body)
            .bearer(&user.access_token)
            .send()
            .await
    }
}

async fn start(
    settings: &Settings,
    database: &TestDatabase,
    root_secret: &SecretString,
    clock: &Arc<FakeClock>,
) -> Client {
    let parts = Parts {
        database: database.service(),
        clock: clock.clone(),
        rng: Arc::new(SystemRng),
        root_secrets: RootSecrets::parse(root_secret).unwrap(),
        metrics: METRICS.clone(),
    };
    Client::new(app::build(settings, parts).await.unwrap())
}

/// What a spend needs besides its amount.
pub(crate) fn spend_of(amount: i64) -> Value {
    json!({"amount": amount, "appId": "chat", "description": "An answer"})
}
