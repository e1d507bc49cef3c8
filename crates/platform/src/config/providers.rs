//! Settings of the services that people may sign in with.

use super::{network, secret, truth};
use clap::Args;
use ipnet::IpNet;
use secrecy::SecretString;
use serde::Deserialize;
use url::Url;

const HEADING: &str = "Sign-in with others";

/// Which services people may sign in with, and as whom this one is known there. One without its settings is not offered.
#[derive(Debug, Clone, Args)]
pub struct ProviderSettings {
    /// Client id of the web application at Google
    #[arg(long, env = "GOOGLE_CLIENT_ID", global = true, help_heading = HEADING)]
    pub google_client_id: Option<String>,
    /// Its secret
    #[arg(long, env = "GOOGLE_CLIENT_SECRET", value_parser = secret, hide_env_values = true, global = true, help_heading = HEADING)]
    pub google_client_secret: Option<SecretString>,
    /// Client ids of the mobile apps, separated by commas: their ID tokens are taken by /api/v1/auth/google-signin, as are those for the web application that one of them asked for
    #[arg(long, env = "GOOGLE_AUDIENCES", value_delimiter = ',', global = true, help_heading = HEADING)]
    pub google_audiences: Vec<String>,
    /// Whether Google's ID token that has a nonce is also taken from an app that does not send it: Google's library for iOS adds one and keeps it to itself. Whoever gets hold of such a token signs in with it until it expires
    #[arg(long, env = "GOOGLE_TAKES_UNSENT_NONCE", num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", value_parser = truth(), action = clap::ArgAction::Set, global = true, help_heading = HEADING)]
    pub google_takes_unsent_nonce: bool,
    /// Who issues Google's ID tokens
    #[arg(long, env = "GOOGLE_ISSUER", value_parser = url_only, default_value = "https://accounts.google.com", global = true, help_heading = HEADING)]
    pub google_issuer: String,

    /// Services id at Apple, for sign-in on the web; needs the three below
    #[arg(long, env = "APPLE_CLIENT_ID", global = true, help_heading = HEADING)]
    pub apple_client_id: Option<String>,
    /// Team id at Apple
    #[arg(long, env = "APPLE_TEAM_ID", global = true, help_heading = HEADING)]
    pub apple_team_id: Option<String>,
    /// Id of the private key
    #[arg(long, env = "APPLE_KEY_ID", global = true, help_heading = HEADING)]
    pub apple_key_id: Option<String>,
    /// The private key, the text of the .p8 file (`\n` as text is read as a line break): signs the secret that Apple asks for
    #[arg(long, env = "APPLE_PRIVATE_KEY", value_parser = secret, hide_env_values = true, global = true, help_heading = HEADING)]
    pub apple_private_key: Option<SecretString>,
    /// Bundle ids of the mobile apps, separated by commas: their ID tokens are taken by /api/v1/auth/apple-signin
    #[arg(long, env = "APPLE_AUDIENCES", value_delimiter = ',', global = true, help_heading = HEADING)]
    pub apple_audiences: Vec<String>,
    /// Whether Apple's ID token that has a nonce is also taken from an app that does not send it: for libraries that add one and keep it to themselves. Whoever gets hold of such a token signs in with it until it expires
    #[arg(long, env = "APPLE_TAKES_UNSENT_NONCE", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", value_parser = truth(), action = clap::ArgAction::Set, global = true, help_heading = HEADING)]
    pub apple_takes_unsent_nonce: bool,
    /// Whether Apple's ID token may have the nonce as the app sends it here, and not only its SHA-256 in hexadecimal: for apps that give Apple the nonce unhashed. Whoever gets hold of such a token reads the nonce in it
    #[arg(long, env = "APPLE_TAKES_CLEAR_NONCE", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", value_parser = truth(), action = clap::ArgAction::Set, global = true, help_heading = HEADING)]
    pub apple_takes_clear_nonce: bool,
    /// Who issues Apple's ID tokens
    #[arg(long, env = "APPLE_ISSUER", value_parser = url_only, default_value = "https://appleid.apple.com", global = true, help_heading = HEADING)]
    pub apple_issuer: String,

    /// Application id at Microsoft Entra
    #[arg(long, env = "MICROSOFT_CLIENT_ID", global = true, help_heading = HEADING)]
    pub microsoft_client_id: Option<String>,
    /// Its secret
    #[arg(long, env = "MICROSOFT_CLIENT_SECRET", value_parser = secret, hide_env_values = true, global = true, help_heading = HEADING)]
    pub microsoft_client_secret: Option<SecretString>,
    /// Whose accounts are taken: common (all), organizations, consumers, or the id of one tenant
    #[arg(
        long,
        env = "MICROSOFT_TENANT",
        default_value = "common",
        global = true,
        help_heading = HEADING
    )]
    pub microsoft_tenant: String,
    /// Where Microsoft signs people in; national clouds have their own
    #[arg(long, env = "MICROSOFT_URL", value_parser = url_only, default_value = "https://login.microsoftonline.com", global = true, help_heading = HEADING)]
    pub microsoft_url: String,

    /// Client id of the OAuth app at GitHub
    #[arg(long, env = "GITHUB_CLIENT_ID", global = true, help_heading = HEADING)]
    pub github_client_id: Option<String>,
    /// Its secret
    #[arg(long, env = "GITHUB_CLIENT_SECRET", value_parser = secret, hide_env_values = true, global = true, help_heading = HEADING)]
    pub github_client_secret: Option<SecretString>,
    /// Where GitHub signs people in; an enterprise server has its own
    #[arg(long, env = "GITHUB_URL", value_parser = url_only, default_value = "https://github.com", global = true, help_heading = HEADING)]
    pub github_url: String,
    /// Where GitHub says who somebody is
    #[arg(long, env = "GITHUB_API_URL", value_parser = url_only, default_value = "https://api.github.com", global = true, help_heading = HEADING)]
    pub github_api_url: String,

    /// Client id of the application at Discord
    #[arg(long, env = "DISCORD_CLIENT_ID", global = true, help_heading = HEADING)]
    pub discord_client_id: Option<String>,
    /// Its secret
    #[arg(long, env = "DISCORD_CLIENT_SECRET", value_parser = secret, hide_env_values = true, global = true, help_heading = HEADING)]
    pub discord_client_secret: Option<SecretString>,
    /// Where Discord signs people in
    #[arg(long, env = "DISCORD_URL", value_parser = url_only, default_value = "https://discord.com", global = true, help_heading = HEADING)]
    pub discord_url: String,

    /// Any other OpenID Connect issuers, as a JSON list of `{"id", "name"?, "issuer", "clientId", "clientSecret"?, "scopes"?, "emailDomains"?}`: `id` stands in the path of the callback, `emailDomains` are those whose addresses the issuer decides on (`["*"]` for all)
    #[arg(long, env = "OIDC_PROVIDERS", value_parser = secret, hide_env_values = true, global = true, help_heading = HEADING)]
    pub oidc_providers: Option<SecretString>,
    /// Networks in which a provider may be, as `10.1.0.0/16`, although they are not of the public internet; `127.0.0.0/8` for one on this machine, which may then also speak http
    #[arg(long, env = "OAUTH_PRIVATE_NETWORKS", value_delimiter = ',', value_parser = network, global = true, help_heading = HEADING)]
    pub oauth_private_networks: Vec<IpNet>,
    /// Seconds that a provider has for each answer
    #[arg(long, env = "OAUTH_TIMEOUT_SECONDS", default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=60), global = true, help_heading = HEADING)]
    pub oauth_timeout_seconds: u64,
}

/// An OpenID Connect issuer that has no settings of its own.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OidcProvider {
    /// Names it in paths.
    pub id: String,
    /// Names it to people.
    pub name: Option<String>,
    /// `iss` of its tokens, and where it describes itself.
    pub issuer: String,
    /// Who this service is there.
    pub client_id: String,
    /// How this service proves it; a public client has none.
    pub client_secret: Option<SecretString>,
    /// What is asked for; `openid email profile` when not given.
    pub scopes: Option<String>,
    /// Domains of addresses that the issuer decides on, `*` for all.
    #[serde(default)]
    pub email_domains: Vec<String>,
}

/// A web address without a slash at its end: paths are put behind it.
fn url_only(text: &str) -> Result<String, String> {
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(text.trim_end_matches('/').to_owned()),
        _ => Err("must be an http or https URL".to_owned()),
    }
}
