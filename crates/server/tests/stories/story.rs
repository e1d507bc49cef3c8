//! The stage of every story: a service on a database of its own, with a clock to move.

use crate::contract::watched;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mana_auth::admin::new_claim_link;
use mana_auth::token::keys::{self, KeyChest, KeyKind};
use mana_auth::token::root_secret::RootSecrets;
use mana_core_auth::app::{self, App, BuildError, Parts};
use mana_core_auth::workers::Workers;
use mana_kernel::{Clock, Rng};
use mana_platform::mail::{KeptMail, Mailer, Message, Outbox};
use mana_platform::{Settings, SystemRng, telemetry};
use mana_testkit::{Client, FakeClock, FakeSteadyClock, Reply, Request, TestDatabase};
use metrics_exporter_prometheus::PrometheusHandle;
use secrecy::SecretString;
use serde_json::{Value, json};
use sqlx::PgConnection;
use std::sync::{Arc, LazyLock};
use tokio::task::JoinHandle;

/// How many transactions wait for another's lock.
pub(crate) const WAITING: &str = "SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0";

pub(crate) const PASSWORD: &str = "correct horse battery";

/// Ends a transaction that held something.
pub(crate) async fn let_go(mut owner: PgConnection) {
    sqlx::query("COMMIT").execute(&mut owner).await.unwrap();
}

/// Holds every account as a change of one does.
pub(crate) const ACCOUNTS: &str = "SELECT FROM auth.users FOR NO KEY UPDATE";

/// Made once: a key takes longer to make than a story to run.
static KEY: LazyLock<SecretString> =
    LazyLock::new(|| keys::generate_pem(KeyKind::Rs256 { bits: 2048 }).unwrap());
static METRICS: LazyLock<PrometheusHandle> = LazyLock::new(|| telemetry::start_metrics().unwrap());

/// A running service and what it stands on.
pub(crate) struct Story {
    pub(crate) client: Client,
    pub(crate) clock: Arc<FakeClock>,
    /// What memory of sessions is aged by, on all replicas.
    pub(crate) steady_clock: Arc<FakeSteadyClock>,
    pub(crate) database: TestDatabase,
    pub(crate) workers: Workers,
    outbox: Arc<Outbox>,
    mailer: Arc<dyn Mailer>,
    root_secret: SecretString,
    pub(crate) settings: Settings,
}

/// One more server of a story.
pub(crate) struct Replica {
    pub(crate) client: Client,
    pub(crate) workers: Workers,
}

/// What a mail is about, behind the name of the service.
pub(crate) fn about(mail: &Message) -> &str {
    mail.subject.as_str().strip_prefix("Mana: ").unwrap()
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
        Self::of(change, None).await
    }

    /// A service whose mails go another way than into the outbox.
    pub(crate) async fn mailing(mailer: Arc<dyn Mailer>) -> Self {
        Self::of(|_| {}, Some(mailer)).await
    }

    async fn of(change: impl FnOnce(&mut Settings), mailer: Option<Arc<dyn Mailer>>) -> Self {
        let mut settings = Settings::defaults().unwrap();
        settings.jwt_private_key = Some(KEY.clone());
        settings.rate_limit_max = 0;
        // A busy machine is no flood.
        settings.hashing_wait_seconds = 60;
        settings.request_timeout_seconds = 120;
        // A Stripe that nobody can reach, unless a story opens a till.
        settings.stripe_secret_key = Some("sk_test_story".into());
        settings.stripe_webhook_secret = Some("whsec_story".into());
        settings.stripe_api_base = "http://127.0.0.1:9".parse().unwrap();
        change(&mut settings);
        let database = TestDatabase::new().await;
        let root_secret = RootSecrets::generate("test", &SystemRng);
        let clock = Arc::new(FakeClock::new());
        let steady_clock = Arc::new(FakeSteadyClock::default());
        let outbox = Arc::new(Outbox::new(clock.clone(), 100));
        let mailer = mailer.unwrap_or_else(|| outbox.clone());
        let App { router, workers, .. } = start(
            &settings,
            &database,
            &root_secret,
            (&clock, &steady_clock, &system_rng()),
            &mailer,
            Some(&outbox),
        )
        .await
        .unwrap();
        let client = Client::new(watched(router));
        Self { client, clock, steady_clock, database, workers, outbox, mailer, root_secret, settings }
    }

    /// A second server on the same database, with its own pool.
    pub(crate) async fn replica(&self) -> Client {
        self.replica_with(|_| {}).await.client
    }

    /// A second server whose answers go out as they are written: nobody collects them to hold them against the document.
    pub(crate) async fn unwatched(&self) -> Client {
        let tools = (&self.clock, &self.steady_clock, &system_rng());
        let app = start(&self.settings, &self.database, &self.root_secret, tools, &self.mailer, None).await;
        Client::new(app.unwrap().router)
    }

    /// A second server whose settings differ from the first one's.
    pub(crate) async fn replica_with(&self, change: impl FnOnce(&mut Settings)) -> Replica {
        self.start(change, &self.root_secret).await.unwrap()
    }

    /// A second server whose randomness is `rng`.
    pub(crate) async fn replica_on(&self, rng: Arc<dyn Rng>) -> Replica {
        self.start_on(|_| {}, &self.root_secret, &rng).await.unwrap()
    }

    /// A server with other settings and another root secret, if it starts. As in production: without a page that shows mails.
    pub(crate) async fn start(
        &self,
        change: impl FnOnce(&mut Settings),
        root_secret: &SecretString,
    ) -> Result<Replica, BuildError> {
        self.start_on(change, root_secret, &system_rng()).await
    }

    async fn start_on(
        &self,
        change: impl FnOnce(&mut Settings),
        root_secret: &SecretString,
        rng: &Arc<dyn Rng>,
    ) -> Result<Replica, BuildError> {
        let mut settings = self.settings.clone();
        change(&mut settings);
        let App { router, workers, .. } = start(
            &settings,
            &self.database,
            root_secret,
            (&self.clock, &self.steady_clock, rng),
            &self.mailer,
            None,
        )
        .await?;
        Ok(Replica { client: Client::new(watched(router)), workers })
    }

    /// What a command that works on the keys has, with this root secret.
    pub(crate) fn key_chest(&self, root_secret: &SecretString) -> KeyChest {
        let root_secrets = Arc::new(RootSecrets::parse(root_secret).unwrap());
        let (clock, rng): (Arc<dyn Clock>, Arc<dyn Rng>) = (self.clock.clone(), Arc::new(SystemRng));
        app::key_chest(&self.settings, &self.database.service(), &root_secrets, &clock, &rng).unwrap()
    }

    /// A new link that makes the first administrator, if there is none.
    pub(crate) async fn claim_link(&self) -> Option<String> {
        new_claim_link(&self.database.service(), &*self.clock, &SystemRng).await.unwrap()
    }

    pub(crate) fn root_secret(&self) -> &SecretString {
        &self.root_secret
    }

    /// Lets the mails that are due go, and says what was sent so far, the newest first: but for those that confirm the address of
    /// a new account, which every registration sends.
    pub(crate) async fn mails(&self) -> Vec<KeptMail> {
        let mut mails = self.all_mails().await;
        mails.retain(|kept| about(&kept.mail) != "Confirm your e-mail address");
        mails
    }

    /// The same with those.
    pub(crate) async fn all_mails(&self) -> Vec<KeptMail> {
        self.workers.deliver_mails().await;
        self.outbox.mails()
    }

    /// Takes all mails off the queue, as if none had been written yet.
    pub(crate) async fn forget_mails(&self) {
        self.execute("DELETE FROM auth.outgoing_mails").await;
        self.execute("DELETE FROM auth.mail_budgets").await;
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

    /// Registers, becomes an administrator, and signs in.
    pub(crate) async fn administrator(&self, email: &str) -> User {
        let user = self.user(email).await;
        self.set_role(&user, "admin").await;
        user
    }

    pub(crate) async fn set_role(&self, user: &User, role: &str) {
        sqlx::query("UPDATE auth.users SET role = $2 WHERE id = $1")
            .bind(&user.id)
            .bind(role)
            .execute(&mut self.database.owner().await)
            .await
            .unwrap();
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

    /// A transaction of the database's owner in which `sql` was done: what it locks stays so until `COMMIT`.
    pub(crate) async fn holding(&self, sql: &'static str) -> PgConnection {
        let mut owner = self.database.owner().await;
        sqlx::query("BEGIN").execute(&mut owner).await.unwrap();
        sqlx::query(sql).execute(&mut owner).await.unwrap();
        owner
    }

    /// Sends a request, and returns once so many of them wait for what somebody else has locked.
    pub(crate) async fn send_to_wait(&self, request: Request, waiting: i64) -> JoinHandle<Reply> {
        let sent = tokio::spawn(request.send());
        while self.number(WAITING).await < waiting {
            assert!(!sent.is_finished(), "the request did not wait");
            tokio::task::yield_now().await;
        }
        sent
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

fn system_rng() -> Arc<dyn Rng> {
    Arc::new(SystemRng)
}

async fn start(
    settings: &Settings,
    database: &TestDatabase,
    root_secret: &SecretString,
    (clock, steady_clock, rng): (&Arc<FakeClock>, &Arc<FakeSteadyClock>, &Arc<dyn Rng>),
    mailer: &Arc<dyn Mailer>,
    outbox: Option<&Arc<Outbox>>,
) -> Result<App, BuildError> {
    let parts = Parts {
        database: database.service(),
        clock: clock.clone(),
        steady_clock: steady_clock.clone(),
        rng: Arc::clone(rng),
        root_secrets: RootSecrets::parse(root_secret).unwrap(),
        mailer: Arc::clone(mailer),
        dev_outbox: outbox.map(Arc::clone),
        metrics: METRICS.clone(),
    };
    // Everything there is goes through it: too large for the stack of each story.
    Box::pin(app::build(settings, parts)).await
}

/// What a spend needs besides its amount.
pub(crate) fn spend_of(amount: i64) -> Value {
    json!({"amount": amount, "appId": "chat", "description": "An answer"})
}
