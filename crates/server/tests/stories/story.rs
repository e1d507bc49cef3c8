//! The stage of every story: a service on a database of its own, with a clock to move.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mana_auth::token::keys;
use mana_auth::token::root_secret::RootSecrets;
use mana_core_auth::app::{self, App, Parts};
use mana_core_auth::workers::Workers;
use mana_platform::{Settings, SystemRng, telemetry};
use mana_testkit::{Client, FakeClock, Reply, TestDatabase};
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
    pub(crate) workers: Workers,
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

    /// A service whose settings differ from the defaults. Rate limits are off unless they are what a story is about.
    pub(crate) async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings::defaults().unwrap();
        settings.jwt_private_key = Some(KEY.clone());
        settings.rate_limit_max = 0;
        // A busy machine is no flood.
        settings.hashing_wait_seconds = 60;
        settings.request_timeout_seconds = 120;
        change(&mut settings);
        let database = TestDatabase::new().await;
        let root_secret = RootSecrets::generate("test", &SystemRng);
        let clock = Arc::new(FakeClock::new());
        let App { router, workers } = start(&settings, &database, &root_secret, &clock).await;
        Self { client: Client::new(router), workers, clock, database, root_secret, settings }
    }

    /// A second server on the same database, with its own pool.
    pub(crate) async fn replica(&self) -> Client {
        Client::new(start(&self.settings, &self.database, &self.root_secret, &self.clock).await.router)
    }

    pub(crate) async fn register(&self, email: &str) -> Reply {
        self.client.post("/api/v1/auth/register", &json!({"email": email, "password": PASSWORD})).send().await
    }

    pub(crate) async fn login(&self, email: &str) -> Reply {
        self.client.post("/api/v1/auth/login", &json!({"email": email, "password": PASSWORD})).send().await
    }

    /// Registers and signs in.
    pub(crate) async fn user(&self, email: &str) -> User {
        let registered = self.register(email).await;
        assert_eq!(registered.status, 201, "{}", registered.json);
        self.sign_in(email).await
    }

    pub(crate) async fn sign_in(&self, email: &str) -> User {
        User::of(&self.login(email).await)
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Reply {
        self.client.post(path, body).send().await
    }

    pub(crate) async fn get(&self, path: &str, user: &User) -> Reply {
        self.client.get(path).bearer(&user.access_token).send().await
    }

    pub(crate) async fn refresh(&self, token: &str) -> Reply {
        self.client.post("/api/v1/auth/refresh", &json!({"refreshToken": token})).send().await
    }

    /// Whether the user's access token opens anything.
    pub(crate) async fn is_signed_in(&self, user: &User) -> bool {
        self.get("/api/v1/auth/me", user).await.status == 200
    }

    /// The one number that a query gives.
    pub(crate) async fn number(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&mut self.database.owner().await).await.unwrap()
    }

    /// Meddles with the database, as its owner.
    pub(crate) async fn execute(&self, sql: &'static str) {
        sqlx::query(sql).execute(&mut self.database.owner().await).await.unwrap();
    }

    pub(crate) async fn spend(&self, user: &User, body: &Value) -> Reply {
        self.client.post("/api/v1/credits/use", body).bearer(&user.access_token).send().await
    }
}

impl User {
    /// Whoever this answer to a sign-in is for.
    pub(crate) fn of(reply: &Reply) -> Self {
        assert_eq!(reply.status, 200, "{}", reply.json);
        let cookie = reply.headers["set-cookie"].to_str().unwrap();
        Self {
            id: reply.text("/user/id").to_owned(),
            email: reply.text("/user/email").to_owned(),
            access_token: reply.text("/accessToken").to_owned(),
            refresh_token: reply.text("/refreshToken").to_owned(),
            cookie: cookie.split(';').next().unwrap().to_owned(),
        }
    }
}

/// The private key behind every story's access tokens.
pub(crate) fn signing_key() -> &'static SecretString {
    &KEY
}

/// Header and claims of a JWT, believed by nobody.
pub(crate) fn read_jwt(token: &str) -> [Value; 2] {
    let mut parts = token.split('.').map(|part| URL_SAFE_NO_PAD.decode(part).unwrap());
    [(); 2].map(|()| serde_json::from_slice(&parts.next().unwrap()).unwrap())
}

/// The other texts that a careless reader of base64url takes for the same bytes as `token`'s, whose last letter has
/// `idle_bits` that carry nothing.
pub(crate) fn respelled(token: &str, idle_bits: u32) -> Vec<String> {
    const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (last_at, last) = token.char_indices().next_back().unwrap();
    let canonical = ALPHABET.find(last).unwrap();
    (1..1 << idle_bits)
        .map(|bits| format!("{}{}", &token[..last_at], &ALPHABET[canonical ^ bits..][..1]))
        .collect()
}

/// As PostgreSQL shows bytes.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

/// Names of an object's members, sorted.
pub(crate) fn members(object: &Value) -> Vec<&str> {
    let mut names: Vec<_> = object.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

async fn start(
    settings: &Settings,
    database: &TestDatabase,
    root_secret: &SecretString,
    clock: &Arc<FakeClock>,
) -> App {
    let parts = Parts {
        database: database.service(),
        clock: clock.clone(),
        rng: Arc::new(SystemRng),
        root_secrets: RootSecrets::parse(root_secret).unwrap(),
        metrics: METRICS.clone(),
    };
    app::build(settings, parts).await.unwrap()
}

/// What a spend needs besides its amount.
pub(crate) fn spend_of(amount: i64) -> Value {
    json!({"amount": amount, "appId": "chat", "description": "An answer"})
}
