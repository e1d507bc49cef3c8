//! The service as one router, from its settings and a database.

use crate::dev;
use crate::docs;
use crate::drain::Drain;
use crate::health::{self, HealthState};
use crate::ports::{
    AdminEvents, AppEvents, CloseWallet, LedgerOfPerson, LiveSessions, OpenWallet, PayersAccounts,
    PaymentRisks, ShownWallets,
};
use crate::workers::Workers;
use axum::Router;
use mana_auth::bonus::BonusPolicy;
use mana_auth::mail::Mails;
use mana_auth::oauth::{ProviderSettingsError, Providers};
use mana_auth::passkey::{InvalidRelyingParty, RelyingParty};
use mana_auth::password::{
    BlocklistError, Hasher, InvalidRange, KnownPasswords, PasswordError, PasswordRules, RangeLookup,
};
use mana_auth::service_key::{GivenServiceKey, ServiceKeys, WeakServiceKey};
use mana_auth::session::liveness::Liveness;
use mana_auth::token::access::Issuer;
use mana_auth::token::intact::IntactTokens;
use mana_auth::token::keys::{self, KeyChest, KeyError, KeyKind, KeyPolicy, KeyRing, SigningKey};
use mana_auth::token::root_secret::RootSecrets;
use mana_auth::webhook::{Listeners, Webhooks};
use mana_auth::{Auth, AuthState};
use mana_credits::auto_top_up::Payers;
use mana_credits::ledger::{Books, Ledger, Reader};
use mana_credits::purchase::{Errands, Payments, ReturnUrls, Seller};
use mana_credits::stripe::Stripe;
use mana_credits::stripe::client::InvalidStripe;
use mana_credits::{AdminLog, Credits, CreditsState};
use mana_kernel::{Amount, Clock, Rng, SteadyClock};
use mana_platform::config::{InvalidOrigin, JwtAlgorithm};
use mana_platform::http::{RedirectTargets, frame};
use mana_platform::mail::{Mailer, Outbox};
use mana_platform::outbound::OutboundError;
use mana_platform::rate_limit::RateLimits;
use mana_platform::redis::{Bell, InvalidRedis, Redis};
use mana_platform::refusal::said;
use mana_platform::{Database, DbError, Outbound, Settings};
use metrics_exporter_prometheus::PrometheusHandle;
use secrecy::{ExposeSecret, SecretString};
use std::sync::Arc;
use std::time::Duration;

/// Batches of the ledger that commit at the same time: while one waits for the disk, another works.
const LEDGER_SHARDS: usize = 2;

/// What a service is made of besides its settings.
#[derive(Debug)]
pub struct Parts {
    /// PostgreSQL, migrated, as the service's role.
    pub database: Database,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Time that never steps.
    pub steady_clock: Arc<dyn SteadyClock>,
    /// Randomness.
    pub rng: Arc<dyn Rng>,
    /// Root secrets.
    pub root_secrets: RootSecrets,
    /// Where mails go.
    pub mailer: Arc<dyn Mailer>,
    /// Whose mails are shown at /dev/outbox; without one there is no such page.
    pub dev_outbox: Option<Arc<Outbox>>,
    /// What /metrics prints.
    pub metrics: PrometheusHandle,
}

/// Why the service can't be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// No key to sign with.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// No way to hash.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The operator's list of passwords can't be used.
    #[error(transparent)]
    Blocklist(#[from] BlocklistError),
    /// Nor the service that is to be asked about them.
    #[error(transparent)]
    Range(#[from] InvalidRange),
    /// The service key of the environment is none.
    #[error(transparent)]
    ServiceKey(#[from] WeakServiceKey),
    /// No such zone.
    #[error(
        "CREDITS_DAILY_ZONE is {0:?}, which PostgreSQL knows no time zone by: use a name like Europe/Berlin or UTC"
    )]
    Zone(String),
    /// The system gives no threads for the ledger.
    #[error("no thread can be started for the ledger: {0}")]
    Ledger(std::io::Error),
    /// The settings of a provider can't be used.
    #[error(transparent)]
    Provider(#[from] ProviderSettingsError),
    /// Redis can't be found by its settings.
    #[error(transparent)]
    Redis(#[from] InvalidRedis),
    /// The way to Stripe can't be built.
    #[error(transparent)]
    Stripe(#[from] InvalidStripe),
    /// The way to endpoints of apps can't be built.
    #[error(transparent)]
    Outbound(#[from] OutboundError),
    /// Passkeys have no domain.
    #[error(transparent)]
    RelyingParty(#[from] InvalidRelyingParty),
    /// `BASE_URL` is not of the web.
    #[error("BASE_URL must be an http or https URL")]
    BaseUrl(#[from] InvalidOrigin),
    /// An origin can't be compared with what browsers send.
    #[error("CORS_ORIGINS or BASE_URL: {0:?}")]
    Origin(frame::ConfigError),
    /// The database failed.
    #[error("the database can't be asked: {}", said(.0))]
    Database(#[from] sqlx::Error),
    /// No connection to the database is to be had.
    #[error(transparent)]
    NoConnection(#[from] DbError),
}

/// The service, put together.
#[derive(Debug)]
pub struct App {
    /// What answers requests.
    pub router: Router,
    /// What answers at `INTERNAL_ADDRESS`, if there is one.
    pub internal: Option<Router>,
    /// What works beside them.
    pub workers: Workers,
    /// Begun when it is about to stop.
    pub drain: Drain,
}

/// Puts the service together.
///
/// # Errors
/// When a setting or a stored key can't be used.
pub async fn build(settings: &Settings, parts: Parts) -> Result<App, BuildError> {
    let Parts { database, clock, steady_clock, rng, root_secrets, mailer, dev_outbox, metrics } = parts;
    check_zone(&database, &settings.credits_daily_zone).await?;
    let root_secrets = Arc::new(root_secrets);
    let chest = key_chest(settings, &database, &root_secrets, &clock, &rng)?;
    let keys = KeyRing::open(chest).await?;
    let listeners = Arc::new(Listeners::new(Arc::clone(&steady_clock)));
    let books = Arc::new(books(settings, &database, &clock, &rng, Some(&listeners)));
    let redis = Redis::from_settings(settings)?;
    let bell = redis.clone().map(Bell::new).map(Arc::new);
    let limits = Arc::new(RateLimits::new(settings, redis, &clock));
    let auth = Arc::new(Auth {
        database: database.clone(),
        clock: Arc::clone(&clock),
        rng: Arc::clone(&rng),
        hasher: hasher(settings)?,
        password_rules: password_rules(settings)?,
        limits: Arc::clone(&limits),
        keys,
        intact_tokens: IntactTokens::default(),
        liveness: Liveness::new(Arc::clone(&steady_clock)),
        service_keys: ServiceKeys::new(given_service_key(settings)?, steady_clock),
        root_secrets,
        mails: Mails::new(mailer),
        on_user_registered: Arc::new(OpenWallet {
            policy: books.policy.clone(),
            clock: Arc::clone(&clock),
            rng: Arc::clone(&rng),
        }),
        wallets: Arc::new(shown_wallets(settings, &clock)),
        on_user_deleted: Arc::new(CloseWallet { clock: Arc::clone(&clock) }),
        personal_data: Arc::new(LedgerOfPerson),
        redirect_targets: RedirectTargets::new(settings),
        providers: Providers::from_settings(settings)?,
        webhooks: Webhooks { outbound: outbound_for_webhooks(settings)?, listeners },
        policy: auth_policy(settings)?,
    });
    let payments = Arc::new(payments(settings, &books)?);
    let payers: Arc<dyn Payers> = Arc::new(PayersAccounts(Arc::clone(&auth)));
    let credits = Arc::new(Credits {
        ledger: Ledger::start(&books, LEDGER_SHARDS).map_err(BuildError::Ledger)?,
        reader: Reader::start(&books),
        books: Arc::clone(&books),
        payments: Arc::clone(&payments),
        payers: Arc::clone(&payers),
        authenticate: auth.clone(),
        authenticate_service: auth.clone(),
    });

    let workers =
        Workers { metrics: metrics.clone(), auth: Arc::clone(&auth), books, payments, payers, bell };
    let drain = Drain::default();
    let health = HealthState::new(database, Arc::clone(&credits), metrics, drain.clone());
    let credits = CreditsState(credits);
    let health_routes = Router::from(health::routes().with_state(health.clone()));
    let internal_routes = Router::from(health::metrics_routes().with_state(health))
        .merge(axum::Router::from(mana_auth::internal_routes().with_state(AuthState(Arc::clone(&auth)))))
        .merge(axum::Router::from(mana_credits::internal_routes().with_state(credits.clone())));
    let public_routes = Router::new()
        .merge(axum::Router::from(mana_auth::routes().with_state(AuthState(auth))))
        .merge(axum::Router::from(mana_credits::routes().with_state(credits)))
        .merge(health_routes.clone())
        .merge(docs::routes())
        .merge(dev_outbox.map(dev::outbox::routes).unwrap_or_default());
    let time_limit = Duration::from_secs(settings.request_timeout_seconds);
    let own = settings.own_origin()?;
    let framed = |routes| {
        let (origins, name) = (&settings.cors_origins, settings.display_name());
        frame::around(routes, origins, &own, name, time_limit, &settings.trusted_proxies, &limits)
            .map_err(BuildError::Origin)
    };
    let (router, internal) = match settings.internal_address {
        Some(_) => (framed(public_routes)?, Some(framed(internal_routes.merge(health_routes))?)),
        None => (framed(public_routes.merge(internal_routes))?, None),
    };
    Ok(App { router, internal, workers, drain })
}

/// The way to endpoints of apps.
///
/// # Errors
/// When TLS can't be set up.
pub(crate) fn outbound_for_webhooks(settings: &Settings) -> Result<Outbound, OutboundError> {
    let patience = Duration::from_secs(settings.webhook_timeout_seconds);
    Outbound::new(&settings.webhook_private_networks, patience)
}

/// What it takes to keep the books, as the settings want them kept. Without knowing who listens, every spend is asked about.
pub(crate) fn books(
    settings: &Settings,
    database: &Database,
    clock: &Arc<dyn Clock>,
    rng: &Arc<dyn Rng>,
    listeners: Option<&Arc<Listeners>>,
) -> Books {
    Books {
        database: database.clone(),
        clock: Arc::clone(clock),
        rng: Arc::clone(rng),
        session_guard: Arc::new(LiveSessions { clock: Arc::clone(clock) }),
        admin_log: admin_log(clock, rng),
        on_credits_event: Arc::new(AppEvents {
            listeners: listeners.map(Arc::clone),
            clock: Arc::clone(clock),
            rng: Arc::clone(rng),
        }),
        policy: credits_policy(settings),
    }
}

/// Who writes down what administrators do.
pub fn admin_log(clock: &Arc<dyn Clock>, rng: &Arc<dyn Rng>) -> Arc<dyn AdminLog> {
    Arc::new(AdminEvents { clock: Arc::clone(clock), rng: Arc::clone(rng) })
}

/// Wallets, for administrators to look into.
pub(crate) fn shown_wallets(settings: &Settings, clock: &Arc<dyn Clock>) -> ShownWallets {
    ShownWallets { clock: Arc::clone(clock), zone: settings.credits_daily_zone.clone() }
}

/// What it takes to sell, as the settings want it.
///
/// # Errors
/// When TLS can't be set up.
pub fn payments(settings: &Settings, books: &Arc<Books>) -> Result<Payments, InvalidStripe> {
    let time_limit = Duration::from_secs(settings.stripe_timeout_seconds);
    let stripe = settings.stripe_secret_key.as_ref().filter(|key| !key.expose_secret().trim().is_empty());
    let stripe = stripe.map(|key| Stripe::new(settings.stripe_api_base.clone(), key.clone(), time_limit));
    let webhook_secrets = webhook_secrets(settings);
    if stripe.is_none() {
        tracing::info!("STRIPE_SECRET_KEY is not set: nothing can be bought");
    }
    if stripe.is_some() && webhook_secrets.is_empty() {
        tracing::warn!(
            "STRIPE_WEBHOOK_SECRET is not set: deliveries of Stripe are answered with 503, and purchases are credited by the comparison with Stripe only"
        );
    }
    Ok(Payments {
        books: Arc::clone(books),
        stripe: stripe.transpose()?,
        webhook_secrets,
        publishable_key: settings.stripe_publishable_key.clone(),
        return_urls: ReturnUrls::new(settings),
        tax: settings.stripe_tax,
        seller: seller(settings),
        on_payment_risk: Arc::new(PaymentRisks {
            clock: Arc::clone(&books.clock),
            rng: Arc::clone(&books.rng),
        }),
        errands: Errands::default(),
    })
}

fn seller(settings: &Settings) -> Seller {
    let address = settings.seller_address.as_deref().unwrap_or_default().replace("\\n", "\n");
    Seller {
        name: settings.seller_name.clone(),
        address: address.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect(),
        tax_id: settings.seller_tax_id.clone(),
    }
}

/// An empty secret is none: whoever could sign with it would be believed.
fn webhook_secrets(settings: &Settings) -> Vec<SecretString> {
    let all = settings.stripe_webhook_secret.as_ref().map(ExposeSecret::expose_secret).unwrap_or_default();
    let secrets = all.split(',').map(str::trim).filter(|secret| !secret.is_empty());
    secrets.map(|secret| SecretString::from(secret.to_owned())).collect()
}

/// The signing keys, as the settings want them.
///
/// # Errors
/// When the environment gives a key that can't be used.
pub fn key_chest(
    settings: &Settings,
    database: &Database,
    root_secrets: &Arc<RootSecrets>,
    clock: &Arc<dyn Clock>,
    rng: &Arc<dyn Rng>,
) -> Result<KeyChest, KeyError> {
    Ok(KeyChest {
        database: database.clone(),
        root_secrets: Arc::clone(root_secrets),
        clock: Arc::clone(clock),
        rng: Arc::clone(rng),
        policy: KeyPolicy {
            kind: key_kind(settings, settings.jwt_algorithm),
            rotation: Some(settings.jwt_key_rotation).filter(|rotation| !rotation.is_zero()),
            token_life: settings.jwt_access_token_expiry,
        },
        given: given_key(settings)?.map(Arc::new),
    })
}

/// The signing key that the environment gives, if it does.
pub(crate) fn given_key(settings: &Settings) -> Result<Option<SigningKey>, KeyError> {
    let Some(private) = &settings.jwt_private_key else { return Ok(None) };
    keys::given(private, settings.jwt_public_key.as_deref()).map(Some)
}

/// The service key that the environment gives, if it does.
pub(crate) fn given_service_key(settings: &Settings) -> Result<Option<GivenServiceKey>, WeakServiceKey> {
    let limit = Some(settings.service_key_limit).filter(|limit| *limit > 0);
    settings.service_key.as_ref().map(|key| GivenServiceKey::new(key, limit)).transpose()
}

/// What a new key of an algorithm is.
pub(crate) fn key_kind(settings: &Settings, algorithm: JwtAlgorithm) -> KeyKind {
    match algorithm {
        JwtAlgorithm::Rs256 => KeyKind::Rs256 { bits: settings.jwt_rsa_bits.bits() },
        JwtAlgorithm::Es256 => KeyKind::Es256,
        JwtAlgorithm::EdDsa => KeyKind::EdDsa,
    }
}

/// Amounts and days, as the settings want them.
pub(crate) fn credits_policy(settings: &Settings) -> mana_credits::Policy {
    mana_credits::Policy {
        signup_bonus: Amount::try_from(settings.credits_signup_bonus).ok(),
        daily_free: Amount::try_from(settings.credits_daily_free).ok(),
        daily_zone: settings.credits_daily_zone.clone(),
    }
}

fn auth_policy(settings: &Settings) -> Result<mana_auth::Policy, InvalidRelyingParty> {
    Ok(mana_auth::Policy {
        issuer: Issuer { issuer: settings.jwt_issuer.clone(), audience: settings.jwt_audience.clone() },
        service_name: settings.display_name().to_owned(),
        name_in_authenticators: settings.name_in_authenticators().to_owned(),
        public_url: settings.public_url(),
        frontend_url: settings.frontend(),
        require_email_verification: settings.require_email_verification,
        magic_link_sign_in: settings.magic_link_sign_in,
        email_code_sign_in: settings.email_code_sign_in,
        cookie_domain: settings.cookie_domain.as_ref().map(|domain| domain.as_str().to_owned()),
        access_token_ttl: settings.jwt_access_token_expiry,
        refresh_token_ttl: settings.jwt_refresh_token_expiry,
        remember_me_ttl: settings.jwt_remember_me_expiry,
        session_max_age: settings.session_max_age,
        refresh_grace: settings.refresh_grace,
        sessions_per_user: settings.sessions_per_user,
        security_event_retention: settings.security_event_retention,
        bonus: bonus_policy(settings),
        fresh_authentication: settings.fresh_authentication,
        two_factor_required: settings.two_factor_required,
        trusted_device_ttl: settings.trusted_device_expiry,
        relying_party: RelyingParty::new(settings)?,
    })
}

fn bonus_policy(settings: &Settings) -> BonusPolicy {
    // As all limits, it is off with them.
    let limit = i32::try_from(settings.credits_bonuses_per_network).unwrap_or(i32::MAX);
    BonusPolicy {
        requires_verification: settings.credits_bonus_requires_verification,
        per_network: Some(limit).filter(|limit| *limit > 0 && settings.rate_limit_max > 0),
        disposable_addresses: settings.disposable_addresses,
    }
}

fn password_rules(settings: &Settings) -> Result<PasswordRules, BuildError> {
    let patience = Duration::from_millis(settings.password_range_wait_ms);
    Ok(PasswordRules {
        min_length: usize::from(settings.password_min_length),
        product_names: settings.password_product_names.clone(),
        known: KnownPasswords::open(settings.password_blocklist_file.as_deref())?,
        range: settings.password_range_url.as_ref().map(|url| RangeLookup::new(url, patience)).transpose()?,
    })
}

fn hasher(settings: &Settings) -> Result<Hasher, PasswordError> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = settings.hashing_threads.map_or(cores, usize::from);
    let queue = usize::try_from(settings.hashing_queue).unwrap_or(usize::MAX);
    Hasher::new(threads, queue, Duration::from_secs(settings.hashing_wait_seconds))
}

async fn check_zone(database: &Database, zone: &str) -> Result<(), BuildError> {
    let is_known: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_timezone_names WHERE name = $1)")
        .bind(zone)
        .fetch_one(&mut *database.acquire().await?)
        .await?;
    if is_known { Ok(()) } else { Err(BuildError::Zone(zone.to_owned())) }
}
