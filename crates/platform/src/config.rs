//! Every setting, typed, from flags, the environment and an optional file. The one place that reads the environment.
//!
//! A flag wins over the environment, the environment over the file, the file over the default; an empty variable
//! counts as unset. The table in docs/OPERATIONS.md and `.env.example` are generated from what stands here.

mod contradictions;
mod cookie_domain;
mod providers;

pub use contradictions::{Contradiction, Stage};
pub use cookie_domain::{CookieDomain, InvalidCookieDomain};
pub use providers::{OidcProvider, ProviderSettings};

use clap::{Args, Command, FromArgMatches as _, ValueEnum};
use ipnet::IpNet;
use mana_kernel::Line;
use secrecy::SecretString;
use std::convert::Infallible;
use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use url::Url;

/// The heading of what only `dev` and the commands beside it read.
pub const DEVELOPMENT: &str = "Development";

/// The settings of a running service.
#[derive(Debug, Clone, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a setting of its own")]
pub struct Settings {
    /// Name of the service that people read in mails, on pages and in authenticator apps, as `Example`: a line of at most 64 characters. Mana when not given; authenticator apps and dialogs for passkeys then show `JWT_ISSUER`
    #[arg(long, env = "SERVICE_NAME", value_parser = service_name, global = true, help_heading = "Server")]
    pub service_name: Option<String>,
    /// TCP port of the HTTP server
    #[arg(long, env = "PORT", default_value_t = 3001, global = true, help_heading = "Server")]
    pub port: u16,
    /// Address to listen on; 127.0.0.1 in dev and 0.0.0.0 in serve when not given
    #[arg(long, env = "HOST", global = true, help_heading = "Server")]
    pub host: Option<IpAddr>,
    /// Address and port of a second listener, as 10.0.0.5:9090: `/metrics` and `/api/v1/internal/` are answered there, with `/health*`, and nowhere else
    #[arg(long, env = "INTERNAL_ADDRESS", global = true, help_heading = "Server")]
    pub internal_address: Option<SocketAddr>,
    /// URL under which browsers and apps reach the service; http://localhost:PORT when not given
    #[arg(long, env = "BASE_URL", global = true, help_heading = "Server")]
    pub base_url: Option<Url>,
    /// Origins of the apps that may call from a browser, separated by commas
    #[arg(
        long,
        env = "CORS_ORIGINS",
        value_delimiter = ',',
        default_value = "http://localhost:3000,http://localhost:8081",
        global = true,
        help_heading = "Server"
    )]
    pub cors_origins: Vec<Origin>,
    /// Domain whose subdomains share the session cookie and may be sent tokens, yours alone: fly.dev, co.uk and the like are refused; the cookie stays with this host when not given
    #[arg(long, env = "COOKIE_DOMAIN", global = true, help_heading = "Server")]
    pub cookie_domain: Option<CookieDomain>,
    /// URL of the web app that people end up at when a link of a mail names no other; `BASE_URL` when not given
    #[arg(long, env = "FRONTEND_URL", global = true, help_heading = "Server")]
    pub frontend_url: Option<Url>,
    /// Connections to the server at most; when all are taken, those on which nothing was ever asked give way. Keep it, with the connections to PostgreSQL, below the limit of open files
    #[arg(long, env = "MAX_CONNECTIONS", default_value_t = 900, value_parser = clap::value_parser!(u32).range(1..=1_000_000), global = true, help_heading = "Server")]
    pub max_connections: u32,
    /// Seconds a connection stays open without a whole request head, before the first request and between two
    #[arg(long, env = "HEADER_TIMEOUT_SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=300), global = true, help_heading = "Server")]
    pub header_timeout_seconds: u64,
    /// Seconds a request may take before it is answered with 503
    #[arg(long, env = "REQUEST_TIMEOUT_SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600), global = true, help_heading = "Server")]
    pub request_timeout_seconds: u64,
    /// Seconds that requests in flight get to finish after a stop signal
    #[arg(long, env = "SHUTDOWN_TIMEOUT_SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(..=3600), global = true, help_heading = "Server")]
    pub shutdown_timeout_seconds: u64,
    /// Seconds between a stop signal and the end of new connections: /health/serving and /health/ready say no meanwhile, so that load balancers turn to other servers first
    #[arg(long, env = "DRAIN_SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=600), global = true, help_heading = "Server")]
    pub drain_seconds: u64,
    /// Networks of the proxies in front, as `10.0.0.0/8,fd00::/8`: only they are believed where a request came from (X-Forwarded-For)
    #[arg(long, env = "TRUSTED_PROXIES", value_delimiter = ',', value_parser = network, global = true, help_heading = "Server")]
    pub trusted_proxies: Vec<IpNet>,
    /// Log lines for people or for machines; auto is text on a terminal and json elsewhere
    #[arg(
        long,
        env = "LOG_FORMAT",
        value_enum,
        default_value = "auto",
        global = true,
        help_heading = "Server"
    )]
    pub log_format: LogFormat,
    /// Which log lines are written, as `info` or `mana_auth=debug,info`
    #[arg(long, env = "LOG_LEVEL", default_value = "info", global = true, help_heading = "Server")]
    pub log_level: String,

    /// PostgreSQL for the server, as a role that can't bypass row-level security; without it, `dev` runs its own
    #[arg(long, env = "DATABASE_URL", value_parser = secret, hide_env_values = true, global = true, help_heading = "Database")]
    pub database_url: Option<SecretString>,
    /// The same database as the role that owns the schema: makes roles and migrates, never serves
    #[arg(long, env = "DATABASE_OWNER_URL", value_parser = secret, hide_env_values = true, global = true, help_heading = "Database")]
    pub database_owner_url: Option<SecretString>,
    /// Connections to PostgreSQL at most, beside two of the ledger's own
    #[arg(long, env = "DATABASE_MAX_CONNECTIONS", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1000), global = true, help_heading = "Database")]
    pub database_max_connections: u32,
    /// Seconds a request waits for a free connection before it is answered with 503
    #[arg(long, env = "DATABASE_WAIT_SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=300), global = true, help_heading = "Database")]
    pub database_wait_seconds: u64,

    /// Root secret: seals private keys and derives refresh tokens. `id:base64` of 32 bytes; several, newest first, separated by commas. `keys generate` makes one; `dev` keeps its own
    #[arg(long, env = "MANA_SECRET_KEY", value_parser = secret, hide_env_values = true, global = true, help_heading = "Tokens")]
    pub secret_key: Option<SecretString>,
    /// What signs access tokens; a change takes effect with the next rotation, some ten minutes after the start
    #[arg(
        long,
        env = "JWT_ALGORITHM",
        value_enum,
        ignore_case = true,
        default_value = "RS256",
        global = true,
        help_heading = "Tokens"
    )]
    pub jwt_algorithm: JwtAlgorithm,
    /// Length of a new key, if the algorithm is RS256
    #[arg(
        long,
        env = "JWT_RSA_BITS",
        value_enum,
        default_value = "2048",
        global = true,
        help_heading = "Tokens"
    )]
    pub jwt_rsa_bits: RsaBits,
    /// How long a key of the database signs before the next one follows it, an hour at least; 0 leaves that to `keys rotate`
    #[arg(long, env = "JWT_KEY_ROTATION", value_parser = rotation, default_value = "90d", global = true, help_heading = "Tokens")]
    pub jwt_key_rotation: Duration,
    /// Private key (PEM; RSA, EC on P-256 or Ed25519 as PKCS#8, RSA as PKCS#1 too; `\n` as text is read as a line break) that signs access tokens, whatever the algorithm above; without it keys are made and kept in the database
    #[arg(long, env = "JWT_PRIVATE_KEY", value_parser = secret, hide_env_values = true, global = true, help_heading = "Tokens")]
    pub jwt_private_key: Option<SecretString>,
    /// Its public half (PEM). Checked against the private key at start, not needed
    #[arg(long, env = "JWT_PUBLIC_KEY", global = true, help_heading = "Tokens")]
    pub jwt_public_key: Option<String>,
    /// `iss` of access tokens; without `SERVICE_NAME`, also the name under which authenticator apps and dialogs for passkeys show accounts of this service
    #[arg(long, env = "JWT_ISSUER", value_parser = token_name, default_value = "manacore", global = true, help_heading = "Tokens")]
    pub jwt_issuer: String,
    /// `aud` of access tokens
    #[arg(long, env = "JWT_AUDIENCE", value_parser = token_name, default_value = "manacore", global = true, help_heading = "Tokens")]
    pub jwt_audience: String,
    /// Life of an access token
    #[arg(long, env = "JWT_ACCESS_TOKEN_EXPIRY", value_parser = lifetime, default_value = "15m", global = true, help_heading = "Tokens")]
    pub jwt_access_token_expiry: Duration,
    /// Life of an unused refresh token; every refresh starts it anew
    #[arg(long, env = "JWT_REFRESH_TOKEN_EXPIRY", value_parser = lifetime, default_value = "7d", global = true, help_heading = "Tokens")]
    pub jwt_refresh_token_expiry: Duration,
    /// The same for a sign-in with rememberMe
    #[arg(long, env = "JWT_REMEMBER_ME_EXPIRY", value_parser = lifetime, default_value = "30d", global = true, help_heading = "Tokens")]
    pub jwt_remember_me_expiry: Duration,
    /// How long, an hour at most, the token before the newest gets the newest again after the newest was seen in use (tabs that race); before that, it does so without limit (answers that got lost)
    #[arg(long, env = "REFRESH_GRACE", value_parser = grace, default_value = "10s", global = true, help_heading = "Tokens")]
    pub refresh_grace: Duration,
    /// Life of a session however much it is used; then a new sign-in is needed
    #[arg(long, env = "SESSION_MAX_AGE", value_parser = lifetime, default_value = "365d", global = true, help_heading = "Sessions")]
    pub session_max_age: Duration,
    /// Sessions of one user that may live at once; a sign-in beyond it ends the one that rested longest
    #[arg(long, env = "SESSIONS_PER_USER", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000), global = true, help_heading = "Sessions")]
    pub sessions_per_user: u32,
    /// How long after a sign-in or a proof within the session a person may change what protects the account
    #[arg(long, env = "FRESH_AUTHENTICATION", value_parser = lifetime, default_value = "10m", global = true, help_heading = "Sessions")]
    pub fresh_authentication: Duration,
    /// How long security events are kept; 30d at least
    #[arg(long, env = "SECURITY_EVENT_RETENTION", value_parser = retention, default_value = "365d", global = true, help_heading = "Sessions")]
    pub security_event_retention: Duration,
    /// Whose sign-ins need a second factor, whether they have set one up or not; whoever has one is asked for it anyway
    #[arg(
        long,
        env = "TWO_FACTOR_REQUIRED",
        value_enum,
        default_value = "none",
        global = true,
        help_heading = "Sign-in"
    )]
    pub two_factor_required: TwoFactorRequired,
    /// How long a browser is remembered that its owner asked not to be asked for the second factor in
    #[arg(long, env = "TRUSTED_DEVICE_EXPIRY", value_parser = lifetime, default_value = "30d", global = true, help_heading = "Sign-in")]
    pub trusted_device_expiry: Duration,
    /// Domain that passkeys are bound to, for ever: changing it voids them all. `COOKIE_DOMAIN`, or else the host of `BASE_URL`, when not given
    #[arg(long, env = "PASSKEY_RP_ID", global = true, help_heading = "Sign-in")]
    pub passkey_rp_id: Option<String>,
    /// What else may use passkeys, besides `BASE_URL` and those of `CORS_ORIGINS` below that domain, separated by commas: pages of other domains (served at /.well-known/webauthn, which browsers read at the domain itself), and Android apps as `android:apk-key-hash:...`
    #[arg(long, env = "PASSKEY_ORIGINS", value_delimiter = ',', global = true, help_heading = "Sign-in")]
    pub passkey_origins: Vec<PasskeyOrigin>,
    /// Whether who has not proven the address of an account may not sign in: login answers 403 with the code `EMAIL_NOT_VERIFIED`
    #[arg(long, env = "REQUIRE_EMAIL_VERIFICATION", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", value_parser = truth(), action = clap::ArgAction::Set, global = true, help_heading = "Sign-in")]
    pub require_email_verification: bool,
    /// Whether a person may sign in by a link that is mailed to the account's address
    #[arg(long, env = "MAGIC_LINK_SIGN_IN", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", value_parser = truth(), action = clap::ArgAction::Set, global = true, help_heading = "Sign-in")]
    pub magic_link_sign_in: bool,
    /// Whether a person may sign in by a code of six digits that is mailed to the account's address
    #[arg(long, env = "EMAIL_CODE_SIGN_IN", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", value_parser = truth(), action = clap::ArgAction::Set, global = true, help_heading = "Sign-in")]
    pub email_code_sign_in: bool,

    /// A service key of all credits scopes, and that of the usage of all users, for any app, of 16 characters at least: for clients that have one key. Without it, there are those that `service-keys create` makes
    #[arg(long, env = "MANA_CORE_SERVICE_KEY", value_parser = secret, hide_env_values = true, global = true, help_heading = "Service keys")]
    pub service_key: Option<SecretString>,
    /// Requests a minute with `MANA_CORE_SERVICE_KEY`, of all apps together; 0 for no limit
    #[arg(long, env = "MANA_CORE_SERVICE_KEY_LIMIT", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=10_000_000), global = true, help_heading = "Service keys")]
    pub service_key_limit: u32,

    /// Characters a new password needs at least (8 to 128)
    #[arg(long, env = "PASSWORD_MIN_LENGTH", default_value_t = 8, value_parser = clap::value_parser!(u8).range(8..=128), global = true, help_heading = "Passwords")]
    pub password_min_length: u8,
    /// File with more passwords that nobody may choose: one a line, or the SHA-1 of one in hex, with or without `:count`, as lists of breached passwords are published. The 100,000 commonest are compiled in
    #[arg(long, env = "PASSWORD_BLOCKLIST_FILE", global = true, help_heading = "Passwords")]
    pub password_blocklist_file: Option<PathBuf>,
    /// Names of the product and its company, separated by commas: a password must be more than them
    #[arg(
        long,
        env = "PASSWORD_PRODUCT_NAMES",
        value_delimiter = ',',
        default_value = "mana,manacore,mana core auth",
        global = true,
        help_heading = "Passwords"
    )]
    pub password_product_names: Vec<String>,
    /// Service to ask about breached passwords, which learns five hex digits of a SHA-1 and never the password, as `https://api.pwnedpasswords.com/range/`; nobody is asked when not given
    #[arg(long, env = "PASSWORD_RANGE_URL", global = true, help_heading = "Passwords")]
    pub password_range_url: Option<Url>,
    /// Milliseconds that a new password waits for its answer at most; then what is compiled in decides
    #[arg(long, env = "PASSWORD_RANGE_WAIT_MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=10_000), global = true, help_heading = "Passwords")]
    pub password_range_wait_ms: u64,
    /// Passwords hashed at the same time; the number of cores when not given
    #[arg(long, env = "HASHING_THREADS", value_parser = clap::value_parser!(u16).range(1..=256), global = true, help_heading = "Passwords")]
    pub hashing_threads: Option<u16>,
    /// Sign-ins that may wait for their turn to hash; beyond it the answer is 503, first for the network that has most of them
    #[arg(long, env = "HASHING_QUEUE", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000), global = true, help_heading = "Passwords")]
    pub hashing_queue: u32,
    /// Seconds a sign-in waits for its turn before the answer is 503
    #[arg(long, env = "HASHING_WAIT_SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=300), global = true, help_heading = "Passwords")]
    pub hashing_wait_seconds: u64,

    /// Server that takes mails to send; without one, mails are only logged (`serve`) or shown at /dev/outbox (`dev`)
    #[arg(long, env = "SMTP_HOST", global = true, help_heading = "Mail")]
    pub smtp_host: Option<String>,
    /// Its port; 587 when not given, 465 with `SMTP_TLS=tls`, 25 with `SMTP_TLS=none`
    #[arg(long, env = "SMTP_PORT", value_parser = clap::value_parser!(u16).range(1..), global = true, help_heading = "Mail")]
    pub smtp_port: Option<u16>,
    /// How the way to it is secured; tls when the port is 465, else starttls, which is required then, never optional. none is for a relay on this machine only
    #[arg(long, env = "SMTP_TLS", value_enum, global = true, help_heading = "Mail")]
    pub smtp_tls: Option<SmtpTls>,
    /// File of PEM certificates of the authorities that may vouch for it, for a private one; Mozilla's when not given
    #[arg(long, env = "SMTP_CA_FILE", global = true, help_heading = "Mail")]
    pub smtp_ca_file: Option<PathBuf>,
    /// Name to sign in there with; needs `SMTP_PASSWORD`
    #[arg(long, env = "SMTP_USER", global = true, help_heading = "Mail")]
    pub smtp_user: Option<String>,
    /// Password to sign in there with
    #[arg(long, env = "SMTP_PASSWORD", value_parser = secret, hide_env_values = true, global = true, help_heading = "Mail")]
    pub smtp_password: Option<SecretString>,
    /// Sender of all mails, as mana@example.com or Mana <mana@example.com>; needed with `SMTP_HOST`
    #[arg(long, env = "SMTP_FROM", global = true, help_heading = "Mail")]
    pub smtp_from: Option<String>,
    /// Requests per client address, and per account, in `RATE_LIMIT_TTL` seconds, for all routes without a limit of their own; 0 switches rate limits off, those of service keys and `CREDITS_BONUSES_PER_NETWORK` included. `dev` at a loopback address has 100 times of this and of the next limits, unless they are set
    #[arg(long, env = "RATE_LIMIT_MAX", default_value_t = 100, value_parser = clap::value_parser!(u32).range(..=10_000_000), global = true, help_heading = "Limits")]
    pub rate_limit_max: u32,
    /// Seconds of that limit's window
    #[arg(long, env = "RATE_LIMIT_TTL", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400), global = true, help_heading = "Limits")]
    pub rate_limit_ttl: u64,
    /// Refreshes per client address in `RATE_LIMIT_TTL` seconds, beyond which the answer is 503; ten times `RATE_LIMIT_MAX` when not given, 0 for no limit
    #[arg(long, env = "RATE_LIMIT_REFRESH", value_parser = clap::value_parser!(u32).range(..=10_000_000), global = true, help_heading = "Limits")]
    pub rate_limit_refresh: Option<u32>,
    /// Registrations per client address and minute; 0 for no limit, as in the next ones
    #[arg(long, env = "RATE_LIMIT_REGISTER", default_value_t = 5, value_parser = clap::value_parser!(u32).range(..=10_000_000), global = true, help_heading = "Limits")]
    pub rate_limit_register: u32,
    /// Sign-ins and other proofs of who somebody is (second factors, mailed links, `/reauthenticate`) per client address and minute
    #[arg(long, env = "RATE_LIMIT_LOGIN", default_value_t = 10, value_parser = clap::value_parser!(u32).range(..=10_000_000), global = true, help_heading = "Limits")]
    pub rate_limit_login: u32,
    /// Mails with a link to a new password, or with a link or code to sign in, that are asked for per client address and minute
    #[arg(long, env = "RATE_LIMIT_FORGOT_PASSWORD", default_value_t = 3, value_parser = clap::value_parser!(u32).range(..=10_000_000), global = true, help_heading = "Limits")]
    pub rate_limit_forgot_password: u32,
    /// Repeated verification mails per client address and minute
    #[arg(long, env = "RATE_LIMIT_RESEND", default_value_t = 3, value_parser = clap::value_parser!(u32).range(..=10_000_000), global = true, help_heading = "Limits")]
    pub rate_limit_resend: u32,
    /// New passwords by mail per client address and minute
    #[arg(long, env = "RATE_LIMIT_RESET", default_value_t = 5, value_parser = clap::value_parser!(u32).range(..=10_000_000), global = true, help_heading = "Limits")]
    pub rate_limit_reset: u32,
    /// Changes of a password or an address per client address and minute, and per account
    #[arg(long, env = "RATE_LIMIT_CHANGE_PASSWORD", default_value_t = 5, value_parser = clap::value_parser!(u32).range(..=10_000_000), global = true, help_heading = "Limits")]
    pub rate_limit_change_password: u32,
    /// Deletions of an account per client address and minute, and per account
    #[arg(long, env = "RATE_LIMIT_DELETE_ACCOUNT", default_value_t = 3, value_parser = clap::value_parser!(u32).range(..=10_000_000), global = true, help_heading = "Limits")]
    pub rate_limit_delete_account: u32,
    /// Sessions that apps open for users per client address and minute, and per account
    #[arg(long, env = "RATE_LIMIT_MINT", default_value_t = 60, value_parser = clap::value_parser!(u32).range(..=10_000_000), global = true, help_heading = "Limits")]
    pub rate_limit_mint: u32,
    /// Failed sign-ins to an account from an address that cost no wait; each further one doubles it, up to 15 minutes. Also when rate limits are off
    #[arg(long, env = "SIGN_IN_FREE_FAILURES", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000), global = true, help_heading = "Limits")]
    pub sign_in_free_failures: u32,
    /// Failed sign-ins to an account over all addresses in an hour, beyond which addresses that are new to the account have one attempt a minute and network
    #[arg(long, env = "SIGN_IN_FAILURES_PER_HOUR", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000), global = true, help_heading = "Limits")]
    pub sign_in_failures_per_hour: u32,
    /// Redis that replicas share their limits in, as `redis://:password@host:6379/0`; each process counts for itself when not given
    #[arg(long, env = "REDIS_URL", value_parser = secret, hide_env_values = true, global = true, help_heading = "Limits")]
    pub redis_url: Option<SecretString>,
    /// The same by parts: its host
    #[arg(long, env = "REDIS_HOST", global = true, help_heading = "Limits")]
    pub redis_host: Option<String>,
    /// Its port, with `REDIS_HOST`
    #[arg(long, env = "REDIS_PORT", default_value_t = 6379, value_parser = clap::value_parser!(u16).range(1..), global = true, help_heading = "Limits")]
    pub redis_port: u16,
    /// Its password, with `REDIS_HOST` or `REDIS_SENTINELS`
    #[arg(long, env = "REDIS_PASSWORD", value_parser = secret, hide_env_values = true, global = true, help_heading = "Limits")]
    pub redis_password: Option<SecretString>,
    /// Sentinels that say where Redis is, as `host:26379,other:26379`, in place of `REDIS_URL` and `REDIS_HOST`
    #[arg(long, env = "REDIS_SENTINELS", value_delimiter = ',', global = true, help_heading = "Limits")]
    pub redis_sentinels: Vec<String>,
    /// What they call it
    #[arg(
        long,
        env = "REDIS_SENTINEL_MASTER",
        default_value = "mymaster",
        global = true,
        help_heading = "Limits"
    )]
    pub redis_sentinel_master: String,
    /// Their own password, if they ask for one
    #[arg(long, env = "REDIS_SENTINEL_PASSWORD", value_parser = secret, hide_env_values = true, global = true, help_heading = "Limits")]
    pub redis_sentinel_password: Option<SecretString>,
    /// Milliseconds that a request waits for Redis at most; then the process counts for itself
    #[arg(long, env = "REDIS_WAIT_MS", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=60_000), global = true, help_heading = "Limits")]
    pub redis_wait_ms: u64,

    /// Free mana for a new account; 0 gives none
    #[arg(long, env = "CREDITS_SIGNUP_BONUS", default_value_t = 150, value_parser = clap::value_parser!(i64).range(0..=1_000_000_000), global = true, help_heading = "Credits")]
    pub credits_signup_bonus: i64,
    /// The bonus waits until the address is proven
    #[arg(long, env = "CREDITS_BONUS_REQUIRES_VERIFICATION", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", value_parser = truth(), action = clap::ArgAction::Set, global = true, help_heading = "Credits")]
    pub credits_bonus_requires_verification: bool,
    /// Sign-up bonuses a day for a network of client addresses (/24, or /48 of IPv6); accounts beyond it begin without; 0, or `RATE_LIMIT_MAX=0`, for no limit
    #[arg(long, env = "CREDITS_BONUSES_PER_NETWORK", default_value_t = 100, value_parser = clap::value_parser!(u32).range(..=1_000_000), global = true, help_heading = "Credits")]
    pub credits_bonuses_per_network: u32,
    /// Addresses at known services of throw-away mailboxes: as any other, without the bonus, or refused
    #[arg(
        long,
        env = "DISPOSABLE_ADDRESSES",
        value_enum,
        default_value = "no-bonus",
        global = true,
        help_heading = "Credits"
    )]
    pub disposable_addresses: DisposableAddresses,
    /// Free mana a day, from the day after registration on; 0 gives none
    #[arg(long, env = "CREDITS_DAILY_FREE", default_value_t = 5, value_parser = clap::value_parser!(i64).range(0..=1_000_000_000), global = true, help_heading = "Credits")]
    pub credits_daily_free: i64,
    /// Time zone whose midnight starts a new day of free mana
    #[arg(long, env = "CREDITS_DAILY_ZONE", default_value = "UTC", global = true, help_heading = "Credits")]
    pub credits_daily_zone: String,

    /// Secret key of the Stripe account that mana is bought through; without it nothing can be bought (`serve`), or a pretended Stripe runs here (`dev`)
    #[arg(long, env = "STRIPE_SECRET_KEY", value_parser = secret, hide_env_values = true, global = true, help_heading = "Payments")]
    pub stripe_secret_key: Option<SecretString>,
    /// Signing secret of the webhook endpoint at /api/v1/webhooks/stripe; several, separated by commas, while one follows another. Without it every delivery is answered with 503
    #[arg(long, env = "STRIPE_WEBHOOK_SECRET", value_parser = secret, hide_env_values = true, global = true, help_heading = "Payments")]
    pub stripe_webhook_secret: Option<SecretString>,
    /// Publishable key, told to apps that embed the form
    #[arg(long, env = "STRIPE_PUBLISHABLE_KEY", global = true, help_heading = "Payments")]
    pub stripe_publishable_key: Option<String>,
    /// Address of Stripe's API
    #[arg(
        long,
        env = "STRIPE_API_BASE",
        default_value = "https://api.stripe.com",
        global = true,
        help_heading = "Payments"
    )]
    pub stripe_api_base: Url,
    /// Seconds that a call to it may take; one that fails in a way that passes is made twice
    #[arg(long, env = "STRIPE_TIMEOUT_SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=60), global = true, help_heading = "Payments")]
    pub stripe_timeout_seconds: u64,
    /// Whether Stripe Tax calculates tax at the till: beside the prices of packages, or within them. Needs Stripe Tax to be set up there
    #[arg(
        long,
        env = "STRIPE_TAX",
        value_enum,
        default_value = "off",
        global = true,
        help_heading = "Payments"
    )]
    pub stripe_tax: StripeTax,
    /// Who sells, as receipts say it; without it they name nobody
    #[arg(long, env = "SELLER_NAME", global = true, help_heading = "Payments")]
    pub seller_name: Option<String>,
    /// Address of the seller on receipts; `\n` as text is read as a line break
    #[arg(long, env = "SELLER_ADDRESS", global = true, help_heading = "Payments")]
    pub seller_address: Option<String>,
    /// Tax number of the seller on receipts
    #[arg(long, env = "SELLER_TAX_ID", global = true, help_heading = "Payments")]
    pub seller_tax_id: Option<String>,

    /// Collector that traces go to by OTLP over HTTP, as `http://localhost:4318`, to which `/v1/traces` is added; nothing is traced when not given
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", global = true, help_heading = "Traces")]
    pub otel_exporter_otlp_endpoint: Option<Url>,
    /// Headers that the collector asks for, as `name=value,name=value`, values percent-encoded
    #[arg(long, env = "OTEL_EXPORTER_OTLP_HEADERS", value_parser = secret, hide_env_values = true, global = true, help_heading = "Traces")]
    pub otel_exporter_otlp_headers: Option<SecretString>,
    /// `service.name` of the traces
    #[arg(
        long,
        env = "OTEL_SERVICE_NAME",
        default_value = "mana-core-auth",
        global = true,
        help_heading = "Traces"
    )]
    pub otel_service_name: String,
    /// Which traces are kept: `always_on`, `always_off`, `traceidratio`, or one of them behind `parentbased_`, which keeps what a trusted caller keeps and decides only on what begins here
    #[arg(
        long,
        env = "OTEL_TRACES_SAMPLER",
        value_enum,
        ignore_case = true,
        default_value = "parentbased_always_on",
        global = true,
        help_heading = "Traces"
    )]
    pub otel_traces_sampler: TracesSampler,
    /// Share of the traces that the samplers with traceidratio keep, from 0 to 1
    #[arg(long, env = "OTEL_TRACES_SAMPLER_ARG", value_parser = share, default_value = "1", global = true, help_heading = "Traces")]
    pub otel_traces_sampler_arg: f64,

    /// Networks in which the endpoint of an app may be, as `10.1.0.0/16`, although they are not of the public internet; `127.0.0.0/8` for one on this machine, which may then also speak http: that one is the default in `dev`
    #[arg(long, env = "WEBHOOK_PRIVATE_NETWORKS", value_delimiter = ',', value_parser = network, global = true, help_heading = "Webhooks")]
    pub webhook_private_networks: Vec<IpNet>,
    /// Seconds that an endpoint has to answer
    #[arg(long, env = "WEBHOOK_TIMEOUT_SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=30), global = true, help_heading = "Webhooks")]
    pub webhook_timeout_seconds: u64,

    /// Who else may say who somebody is
    #[command(flatten)]
    pub providers: ProviderSettings,
}

impl Settings {
    /// All defaults, whatever the environment says: for tests and tools.
    ///
    /// # Errors
    /// When a default is not a value that its own setting takes.
    pub fn defaults() -> Result<Self, clap::Error> {
        let command = Self::augment_args(Command::new("defaults"))
            .mut_args(|arg| arg.env(clap::builder::Resettable::Reset));
        Self::from_arg_matches(&command.try_get_matches_from(["defaults"])?)
    }

    /// The URL under which the service is reached, without a trailing slash.
    pub fn public_url(&self) -> String {
        match &self.base_url {
            Some(url) => url.as_str().trim_end_matches('/').to_owned(),
            None => format!("http://localhost:{}", self.port),
        }
    }

    /// The URL of the web app that people end up at, without a trailing slash.
    pub fn frontend(&self) -> String {
        match &self.frontend_url {
            Some(url) => url.as_str().trim_end_matches('/').to_owned(),
            None => self.public_url(),
        }
    }

    /// The name that mails and pages call the service by.
    pub fn display_name(&self) -> &str {
        self.service_name.as_deref().unwrap_or("Mana")
    }

    /// The name under which authenticator apps and dialogs for passkeys show accounts of this service.
    pub fn name_in_authenticators(&self) -> &str {
        self.service_name.as_deref().unwrap_or(&self.jwt_issuer)
    }

    /// The origin of the URL under which the service is reached.
    ///
    /// # Errors
    /// When `BASE_URL` is neither http nor https.
    pub fn own_origin(&self) -> Result<Origin, InvalidOrigin> {
        let url = Url::parse(&self.public_url()).map_err(|_| InvalidOrigin)?;
        url.origin().ascii_serialization().parse()
    }
}

/// How the way to the SMTP server is secured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SmtpTls {
    /// TLS begins after a hello in clear; a server that does not offer it gets no mail.
    Starttls,
    /// TLS from the first byte.
    Tls,
    /// In clear.
    None,
}

/// Whose sign-ins need a second factor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum TwoFactorRequired {
    /// Nobody's but of those who have set one up.
    #[default]
    None,
    /// Those of administrators.
    Admins,
    /// Everybody's.
    All,
}

/// Whether Stripe calculates tax.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum StripeTax {
    /// No.
    #[default]
    Off,
    /// Beside the prices of packages.
    Exclusive,
    /// Within them.
    Inclusive,
}

impl StripeTax {
    /// As Stripe calls it.
    pub fn behavior(self) -> &'static str {
        match self {
            Self::Off => "unspecified",
            Self::Exclusive => "exclusive",
            Self::Inclusive => "inclusive",
        }
    }
}

/// What becomes of addresses at services of throw-away mailboxes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum DisposableAddresses {
    /// They are as any other.
    Allow,
    /// Their accounts begin without the sign-up bonus.
    #[default]
    NoBonus,
    /// They can't be registered.
    Refuse,
}

/// The signature of access tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum JwtAlgorithm {
    /// RSA with SHA-256: every library verifies it.
    #[value(name = "RS256")]
    Rs256,
    /// ECDSA on P-256: short tokens.
    #[value(name = "ES256")]
    Es256,
    /// Ed25519: short tokens, the fastest to sign.
    #[value(name = "EdDSA")]
    EdDsa,
}

/// Length of an RSA key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RsaBits {
    /// 2048 bits.
    #[value(name = "2048")]
    Rsa2048,
    /// 3072 bits.
    #[value(name = "3072")]
    Rsa3072,
    /// 4096 bits.
    #[value(name = "4096")]
    Rsa4096,
}

impl RsaBits {
    /// As a number.
    pub fn bits(self) -> usize {
        match self {
            Self::Rsa2048 => 2048,
            Self::Rsa3072 => 3072,
            Self::Rsa4096 => 4096,
        }
    }
}

/// Which traces are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TracesSampler {
    /// All.
    #[value(name = "always_on")]
    AlwaysOn,
    /// None.
    #[value(name = "always_off")]
    AlwaysOff,
    /// A share of all.
    #[value(name = "traceidratio")]
    TraceIdRatio,
    /// What the caller keeps, and all that begin here.
    #[value(name = "parentbased_always_on")]
    ParentBasedAlwaysOn,
    /// What the caller keeps, and none that begin here.
    #[value(name = "parentbased_always_off")]
    ParentBasedAlwaysOff,
    /// What the caller keeps, and a share of those that begin here.
    #[value(name = "parentbased_traceidratio")]
    ParentBasedTraceIdRatio,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// An origin as a browser sends it (RFC 6454): scheme, host and port, nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(String);

impl Origin {
    /// As in the `Origin` header.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Where a passkey may be used: a page, or an app on Android, as the browser or phone tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PasskeyOrigin(String);

impl PasskeyOrigin {
    /// As in what an authenticator signs.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The text is no place for passkeys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a place for passkeys is https://host, or android:apk-key-hash: and the SHA-256 of the app's certificate as 43 letters of base64url"
)]
pub struct InvalidPasskeyOrigin;

impl std::str::FromStr for PasskeyOrigin {
    type Err = InvalidPasskeyOrigin;

    fn from_str(text: &str) -> Result<Self, InvalidPasskeyOrigin> {
        let text = text.trim();
        if let Some(hash) = text.strip_prefix("android:apk-key-hash:") {
            let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            let is_hash = hash.len() == 43 && hash.bytes().all(is_letter);
            return is_hash.then(|| Self(text.to_owned())).ok_or(InvalidPasskeyOrigin);
        }
        let origin: Origin = text.parse().map_err(|_| InvalidPasskeyOrigin)?;
        let is_safe = origin.0.starts_with("https://");
        is_safe.then_some(Self(origin.0)).ok_or(InvalidPasskeyOrigin)
    }
}

/// The text is no origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an origin is http://host:port or https://host:port, without a path")]
pub struct InvalidOrigin;

impl std::str::FromStr for Origin {
    type Err = InvalidOrigin;

    fn from_str(text: &str) -> Result<Self, InvalidOrigin> {
        let text = text.trim();
        let url = Url::parse(text).map_err(|_| InvalidOrigin)?;
        let origin = url.origin().ascii_serialization();
        // What the URL's parser had to change is not what a browser would send.
        if matches!(url.scheme(), "http" | "https") && origin == text.trim_end_matches('/') {
            Ok(Self(origin))
        } else {
            Err(InvalidOrigin)
        }
    }
}

/// A network, or an address for a network of one.
fn network(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    network.map_err(|_| "must be a network like 10.0.0.0/8 or fd00::/8, or an address".to_owned())
}

/// A duration of at least a second, because what lives shorter does not live, and of ten years at most.
fn lifetime(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if (Duration::from_secs(1)..=Duration::from_hours(87_600)).contains(&duration) {
        Ok(duration)
    } else {
        Err("must be 1s to 3650d".to_owned())
    }
}

/// How long a key signs: what was signed with the one before it must have time to expire.
fn rotation(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let bounds = Duration::from_hours(1)..=Duration::from_hours(87_600);
    if duration.is_zero() || bounds.contains(&duration) {
        Ok(duration)
    } else {
        Err("must be 0, or 1h to 3650d".to_owned())
    }
}

/// For how long a token that was stolen and the one that followed it are not told apart.
fn grace(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if duration <= Duration::from_hours(1) { Ok(duration) } else { Err("must be at most 1h".to_owned()) }
}

/// Every spelling of yes and no that people write into such files. A flag alone is a yes.
fn truth() -> clap::builder::BoolishValueParser {
    clap::builder::BoolishValueParser::new()
}

/// A name that every token carries.
fn token_name(text: &str) -> Result<String, String> {
    if text.len() <= 255 { Ok(text.to_owned()) } else { Err("must be at most 255 bytes".to_owned()) }
}

/// A name that stands in subjects of mails and titles of pages.
fn service_name(text: &str) -> Result<String, String> {
    let line: Result<Line<1, 64>, _> = text.trim().to_owned().try_into();
    line.map(String::from).map_err(|error| error.to_string())
}

/// A part of all, from none to all.
fn share(text: &str) -> Result<f64, String> {
    let share = text.trim().parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "must be a number from 0 to 1, as 0.1".to_owned())
}

/// What the database lets the service delete, and no less.
fn retention(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if (Duration::from_hours(30 * 24)..=Duration::from_hours(876_000)).contains(&duration) {
        Ok(duration)
    } else {
        Err("must be 30d to 36500d".to_owned())
    }
}

#[expect(clippy::unnecessary_wraps, reason = "the shape clap asks of a value parser")]
fn secret(text: &str) -> Result<SecretString, Infallible> {
    Ok(SecretString::from(text.to_owned()))
}

/// The file named by `MANA_CONFIG_FILE` can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigFileError {
    /// It is not there, or may not be read.
    #[error("MANA_CONFIG_FILE names {0}, which can't be read: {1}")]
    Unreadable(PathBuf, std::io::Error),
    /// A line is none. The line itself is not told: it may hold a secret.
    #[error("MANA_CONFIG_FILE names {0}, which has a line that is not NAME=value{after}. Put values with spaces in quotes",
        after = .1.as_ref().map(|name| format!(", the one after {name}")).unwrap_or_default())]
    NotALine(PathBuf, Option<String>),
    /// A value has a `$`, which readers of such files take for another variable.
    #[error("{0} has a $ in the value of {1}: put the value in single quotes, so that it is taken as it is")]
    Dollar(PathBuf, String),
    /// It sets something that is no setting, most likely a spelling mistake.
    #[error("{0} sets {1}, which is no setting of this program: see .env.example")]
    Unknown(PathBuf, String),
}

/// A command that takes its settings from the environment and from the file that `MANA_CONFIG_FILE` names.
#[derive(Debug)]
pub struct Configured {
    /// The command.
    pub command: Command,
    /// The file, if one is named.
    pub file: Option<PathBuf>,
    /// Variables that the file gives. The command takes their values for defaults.
    pub from_file: Vec<OsString>,
}

/// Lets `command` take its settings from the environment and the file.
///
/// # Errors
/// When the file can't be read or sets what does not exist.
pub fn from_environment(command: Command) -> Result<Configured, ConfigFileError> {
    let path = environment("MANA_CONFIG_FILE".as_ref()).filter(|path| !path.is_empty()).map(PathBuf::from);
    let file = match &path {
        Some(path) => read_config_file(path, &command)?,
        None => Vec::new(),
    };
    let command = command.mut_args(|arg| {
        let Some(name) = arg.get_env().map(OsString::from) else {
            return arg;
        };
        if environment(&name).is_some_and(|value| !value.is_empty()) {
            return arg;
        }
        // Neither an empty variable nor an absent one may hide the default.
        let arg = arg.env(clap::builder::Resettable::Reset);
        let help = arg.get_help().map(|help| format!("{help} [env: {}]", name.display()));
        let arg = arg.help(help.unwrap_or_default());
        match file.iter().find(|(key, _)| *key == name) {
            // The help prints defaults, and this one may be a secret.
            Some((_, value)) => arg.default_value(value.clone()).hide_default_value(true),
            None => arg,
        }
    });
    Ok(Configured { command, file: path, from_file: file.into_iter().map(|(name, _)| name).collect() })
}

fn read_config_file(path: &Path, command: &Command) -> Result<Vec<(OsString, OsString)>, ConfigFileError> {
    let text =
        std::fs::read_to_string(path).map_err(|error| ConfigFileError::Unreadable(path.to_owned(), error))?;
    if let Some(name) = find_dollar(&text) {
        return Err(ConfigFileError::Dollar(path.to_owned(), name.to_owned()));
    }
    let mut lines: Vec<(String, String)> = Vec::new();
    for line in dotenvy::from_read_iter(text.as_bytes()) {
        let last = lines.last().map(|(name, _)| name.clone());
        lines.push(line.map_err(|_| ConfigFileError::NotALine(path.to_owned(), last))?);
    }
    let known = |name: &str| command.get_arguments().any(|arg| arg.get_env().is_some_and(|env| env == name));
    if let Some((name, _)) = lines.iter().find(|(name, _)| !known(name)) {
        return Err(ConfigFileError::Unknown(path.to_owned(), name.clone()));
    }
    Ok(lines
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| (OsString::from(name), OsString::from(value)))
        .collect())
}

/// The first variable of a file whose value would be changed by substitution. Of a value of several lines, those behind
/// the first count for the variable before them.
fn find_dollar(text: &str) -> Option<&str> {
    let mut name = "";
    text.lines().filter(|line| !line.trim_start().starts_with('#')).find_map(|line| {
        let value = match line.split_once('=') {
            Some((before, value)) if !before.contains('$') => {
                name = before.trim();
                value.trim()
            }
            _ => line,
        };
        let inside = value.strip_prefix('\'').and_then(|value| value.strip_suffix('\''));
        let is_quoted = inside.is_some_and(|inside| !inside.contains('\''));
        (value.contains('$') && !is_quoted).then_some(name)
    })
}

#[expect(clippy::disallowed_methods, reason = "the owner of the environment")]
fn environment(name: &std::ffi::OsStr) -> Option<OsString> {
    std::env::var_os(name)
}

#[cfg(test)]
mod tests {
    use super::{Origin, Settings, find_dollar, grace, lifetime, network, retention, rotation};
    use clap::{Args as _, Command, FromArgMatches as _};
    use proptest::prelude::*;
    use std::time::Duration;

    /// The settings that these flags make.
    fn settings_of(flags: &[&str]) -> Result<Settings, clap::Error> {
        let command = Settings::augment_args(Command::new("test"))
            .mut_args(|arg| arg.env(clap::builder::Resettable::Reset));
        let matches = command.try_get_matches_from(["test"].iter().chain(flags))?;
        Settings::from_arg_matches(&matches)
    }

    #[test]
    fn every_truth_is_spelled_in_the_same_ways() {
        let command = Settings::augment_args(Command::new("test"));
        let truths: Vec<_> = command
            .get_arguments()
            .filter(|arg| arg.get_default_values().iter().any(|value| value == "true" || value == "false"))
            .filter_map(clap::Arg::get_long)
            .collect();
        assert!(truths.len() >= 6, "{truths:?}");
        for name in truths {
            let read = |value: &str| {
                let command = Settings::augment_args(Command::new("test"))
                    .mut_args(|arg| arg.env(clap::builder::Resettable::Reset));
                let matches = command.try_get_matches_from(["test", &format!("--{name}{value}")]).ok()?;
                matches.get_one::<bool>(&name.replace('-', "_")).copied()
            };
            for yes in ["", "=true", "=1", "=yes", "=on", "=TRUE"] {
                assert_eq!(read(yes), Some(true), "{name}{yes}");
            }
            for no in ["=false", "=0", "=no", "=off"] {
                assert_eq!(read(no), Some(false), "{name}{no}");
            }
            assert_eq!(read("=perhaps"), None, "{name}");
        }
    }

    #[test]
    fn a_number_that_stops_the_service_is_refused() {
        assert!(settings_of(&[]).is_ok());
        for bad in [
            "--request-timeout-seconds=0",
            "--database-wait-seconds=0",
            "--hashing-wait-seconds=0",
            "--redis-port=0",
            "--refresh-grace=2h",
            "--jwt-key-rotation=1m",
            "--shutdown-timeout-seconds=86400",
        ] {
            assert!(settings_of(&[bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_name_is_one_short_line_and_stands_in_for_the_issuer_where_people_see_that() {
        let names = |flags: &[&str]| {
            let settings = settings_of(flags).unwrap();
            (settings.display_name().to_owned(), settings.name_in_authenticators().to_owned())
        };
        let pair = |first: &str, second: &str| (first.to_owned(), second.to_owned());
        assert_eq!(names(&[]), pair("Mana", "manacore"));
        assert_eq!(names(&["--service-name", " Äpp & Co "]), pair("Äpp & Co", "Äpp & Co"));
        assert_eq!(names(&["--jwt-issuer=https://auth.example"]), pair("Mana", "https://auth.example"));
        for bad in ["", " ", "a\nb", "a\r\nBcc: eve@example.com", &"x".repeat(65)] {
            assert!(settings_of(&["--service-name", bad]).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_dollar_is_taken_as_it_is_only_in_single_quotes() {
        assert_eq!(find_dollar("A=1\n# B=$x\nC='pa$word'\n"), None);
        assert_eq!(find_dollar("A=1\nB=pa$word\n"), Some("B"));
        assert_eq!(find_dollar("B=\"pa$word\""), Some("B"));
        assert_eq!(
            find_dollar("B='a'$HOME'b'"),
            Some("B"),
            "what stands between two quoted parts is not quoted"
        );
        assert_eq!(find_dollar("A=1\nB=\"one\ntwo $HOME\""), Some("B"), "in a later line of a value");
        assert_eq!(find_dollar("A=1\nB=\"one\n$HOME=two\""), Some("B"));
    }

    #[test]
    fn an_origin_has_no_path_and_no_tricks() {
        assert_eq!("https://app.example".parse::<Origin>().unwrap().as_str(), "https://app.example");
        assert_eq!("http://localhost:3000/".parse::<Origin>().unwrap().as_str(), "http://localhost:3000");
        for bad in
            ["*", "null", "app.example", "https://app.example/x", "https://u@app.example", "file:///x", ""]
        {
            assert!(bad.parse::<Origin>().is_err(), "{bad}");
        }
    }

    /// The only variable of a file.
    fn value_of(file: &str) -> Option<String> {
        dotenvy::from_read_iter(file.as_bytes()).next()?.ok().map(|(_, value)| value)
    }

    proptest! {
        #[test]
        fn what_stands_in_single_quotes_is_taken_as_it_is(value in "[ -&(-~\u{e4}]{0,40}") {
            let file = format!("A='{value}'\n");
            prop_assert_eq!(find_dollar(&file), None);
            // What the reader takes for the start of an escape it refuses, or keeps.
            let is_plain = !value.contains('\\');
            let read = value_of(&file);
            prop_assert!(read.as_ref() == Some(&value) || (!is_plain && read.is_none()), "{read:?}");
        }

        #[test]
        fn a_file_in_which_no_dollar_is_found_is_one_in_which_nothing_is_substituted(value in "[a$'\"{}= \\\\H\n]{0,12}") {
            let file = format!("A={value}\n");
            if find_dollar(&file).is_none() && let Some(read) = value_of(&file) {
                // A mark in place of the dollar reads the same: none had a meaning.
                let marked = file.replace('$', "\u{a7}");
                prop_assert_eq!(value_of(&marked).map(|read| read.replace('\u{a7}', "$")), Some(read), "{:?}", file);
            }
        }

        #[test]
        fn an_origin_is_what_a_browser_sends(text in "(https?|HTTP|ws|file)://[a-zA-Z0-9.@:\\[\\]_-]{0,30}(/|/x|\\?|#)?|\\PC{0,40}") {
            if let Ok(origin) = text.parse::<Origin>() {
                prop_assert_eq!(origin.as_str().parse::<Origin>(), Ok(origin.clone()));
                prop_assert_eq!(text.trim().trim_end_matches('/'), origin.as_str());
                prop_assert!(!origin.as_str().contains(['@', '*', ',', ' ']) && origin.as_str().is_ascii());
            }
        }

        #[test]
        fn a_network_reads_back(text in "[0-9a-f.:/]{0,24}", address: std::net::IpAddr) {
            if let Ok(net) = network(&text) {
                prop_assert_eq!(network(&net.to_string()), Ok(net));
            }
            prop_assert!(network(&address.to_string()).unwrap().contains(&address));
        }

        #[test]
        fn a_duration_is_within_its_bounds_or_refused(text in "([0-9]{1,20}(s|m|h|d|w|y|ms|ns)? ?){0,3}|\\PC{0,20}") {
            let days = |days: u64| Duration::from_hours(days.saturating_mul(24));
            prop_assert!(lifetime(&text).map_or(true, |life| life >= Duration::from_secs(1) && life <= days(3650)));
            prop_assert!(retention(&text).map_or(true, |kept| kept >= days(30) && kept <= days(36_500)));
            prop_assert!(grace(&text).map_or(true, |grace| grace <= Duration::from_hours(1)));
            prop_assert!(rotation(&text).map_or(true, |after| after.is_zero() || (after >= Duration::from_hours(1) && after <= days(3650))));
        }
    }
}
