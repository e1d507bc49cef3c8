//! A service to sign in with, on this machine, that does as a story tells it: well, or in each way in which one can be broken or hostile.

use crate::story::Story;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse as _, Json, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use futures_util::StreamExt as _;
use http::{HeaderMap, StatusCode, Uri, header};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use mana_auth::token::keys::{KeyKind, SigningKey, generate_pem};
use mana_kernel::Clock as _;
use mana_kernel::secret::sha256;
use mana_platform::config::ProviderSettings;
use mana_testkit::FakeClock;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use url::Url;

/// What goes wrong at a path.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    Status(u16),
    Garbage,
    /// More than anybody wants to hear.
    Huge,
    /// Nothing, for ever.
    Silence,
    /// A byte now and then, for ever.
    Drip,
    /// Half of what was promised.
    BreakOff,
    Redirect(String),
    /// Another document.
    Says(Value),
}

pub(crate) const CLIENT_ID: &str = "us";
pub(crate) const CLIENT_SECRET: &str = "a secret: of ours";

/// A request for a code that was granted.
#[derive(Debug, Clone)]
struct Grant {
    challenge: String,
    redirect_uri: String,
    nonce: Option<String>,
}

struct Script {
    faults: HashMap<String, Fault>,
    grants: HashMap<String, Grant>,
    /// Members that the next ID tokens have beside or instead of the usual ones; null for none.
    claims: Value,
    /// What APIs say of whoever has a token.
    user: Value,
    emails: Value,
    key: SecretString,
    published: Vec<SecretString>,
    asked: Vec<String>,
    described: Value,
    /// Whether the last code came with the secret in a header.
    was_basic: bool,
}

/// The service.
#[derive(Clone)]
pub(crate) struct Provider {
    pub(crate) url: String,
    script: Arc<Mutex<Script>>,
    /// Absent until a story begins whose time it goes by.
    clock: Arc<Mutex<Option<Arc<FakeClock>>>>,
}

pub(crate) fn new_key() -> SecretString {
    generate_pem(KeyKind::Es256).unwrap()
}

impl Provider {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://127.0.0.1:{}", listener.local_addr().unwrap().port());
        let key = new_key();
        let script = Script {
            faults: HashMap::new(),
            grants: HashMap::new(),
            claims: json!({}),
            user: json!({}),
            emails: json!([]),
            published: vec![key.clone()],
            key,
            asked: Vec::new(),
            described: json!({}),
            was_basic: false,
        };
        let provider = Self { url, script: Arc::new(Mutex::new(script)), clock: Arc::default() };
        let router = Router::new().fallback(answer).with_state(provider.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        provider
    }

    /// A story of a service at which people may sign in with this one, by all names.
    pub(crate) async fn story(&self, change: impl FnOnce(&mut mana_platform::Settings)) -> Story {
        let story = Story::with(|settings| {
            self.set_up(&mut settings.providers);
            change(settings);
        })
        .await;
        self.follow(&story);
        story
    }

    /// Goes by the story's time.
    pub(crate) fn follow(&self, story: &Story) {
        *self.clock.lock().unwrap() = Some(story.clock.clone());
    }

    pub(crate) fn set_up(&self, settings: &mut ProviderSettings) {
        let (id, secret) = (Some(CLIENT_ID.to_owned()), Some(SecretString::from(CLIENT_SECRET)));
        settings.oauth_private_networks = vec!["127.0.0.0/8".parse().unwrap()];
        settings.oauth_timeout_seconds = 1;
        settings.google_client_id.clone_from(&id);
        settings.google_client_secret.clone_from(&secret);
        settings.google_audiences = vec!["google-app".into()];
        settings.google_issuer.clone_from(&self.url);
        settings.apple_client_id.clone_from(&id);
        settings.apple_team_id = Some("TEAM".into());
        settings.apple_key_id = Some("KEY".into());
        settings.apple_private_key = Some(new_key());
        settings.apple_audiences = vec!["apple-app".into()];
        settings.apple_issuer.clone_from(&self.url);
        settings.microsoft_client_id.clone_from(&id);
        settings.microsoft_client_secret.clone_from(&secret);
        settings.microsoft_url.clone_from(&self.url);
        settings.github_client_id.clone_from(&id);
        settings.github_client_secret.clone_from(&secret);
        settings.github_url.clone_from(&self.url);
        settings.github_api_url = format!("{}/github", self.url);
        settings.discord_client_id = id;
        settings.discord_client_secret = secret;
        settings.discord_url.clone_from(&self.url);
        let others = json!([{
            "id": "acme", "name": "Acme", "issuer": self.url, "clientId": CLIENT_ID, "clientSecret": CLIENT_SECRET,
            "emailDomains": ["acme.example"],
        }]);
        settings.oidc_providers = Some(others.to_string().into());
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap()
    }

    /// Lets something go wrong at a path from now on.
    pub(crate) fn fail(&self, path: &str, fault: Fault) {
        self.script().faults.insert(path.to_owned(), fault);
    }

    pub(crate) fn recover(&self) {
        self.script().faults.clear();
    }

    /// Says this of whoever comes next.
    pub(crate) fn claim(&self, claims: Value) {
        self.script().claims = claims;
    }

    pub(crate) fn know(&self, user: Value, emails: Value) {
        let mut script = self.script();
        (script.user, script.emails) = (user, emails);
    }

    /// Signs with another key from now on, published or not.
    pub(crate) fn sign_with(&self, key: &SecretString, is_published: bool) {
        let mut script = self.script();
        script.key = key.clone();
        if is_published {
            script.published.push(key.clone());
        }
    }

    pub(crate) fn key(&self) -> SecretString {
        self.script().key.clone()
    }

    /// Describes itself otherwise in some members.
    pub(crate) fn describe(&self, members: Value) {
        self.script().described = members;
    }

    /// How often a path was asked for.
    pub(crate) fn asked(&self, path: &str) -> usize {
        self.script().asked.iter().filter(|asked| *asked == path).count()
    }

    pub(crate) fn was_basic(&self) -> bool {
        self.script().was_basic
    }

    /// What somebody's browser does who says yes there: the parameters with which it comes back.
    pub(crate) fn authorize(&self, authorization_url: &str) -> Vec<(String, String)> {
        let url = Url::parse(authorization_url).unwrap();
        let query: HashMap<_, _> = url.query_pairs().into_owned().collect();
        assert_eq!(query["response_type"], "code");
        assert_eq!(query["client_id"], CLIENT_ID);
        assert_eq!(query["code_challenge_method"], "S256");
        let mut script = self.script();
        let code = format!("code-{}-{}", script.grants.len(), &query["state"][4..12]);
        let grant = Grant {
            challenge: query["code_challenge"].clone(),
            redirect_uri: query["redirect_uri"].clone(),
            nonce: query.get("nonce").cloned(),
        };
        script.grants.insert(code.clone(), grant);
        vec![("code".to_owned(), code), ("state".to_owned(), query["state"].clone())]
    }

    /// An ID token as this service writes them, with other members.
    pub(crate) fn id_token(&self, changed: &Value) -> String {
        let script = self.script();
        sign(&self.claims(changed), &script.key)
    }

    pub(crate) fn claims(&self, changed: &Value) -> Value {
        let now = self.clock.lock().unwrap().as_ref().unwrap().now().unix_timestamp();
        let mut claims = json!({
            "iss": self.url, "aud": CLIENT_ID, "sub": "ada-there", "iat": now, "exp": now.saturating_add(600),
            "email": "ada@gmail.com", "email_verified": true, "name": "Ada",
        });
        merge(&mut claims, changed);
        claims
    }

    fn redeem(&self, headers: &HeaderMap, form: &HashMap<String, String>) -> Response {
        self.script().was_basic = headers.contains_key(header::AUTHORIZATION);
        let is_ours = match headers.get(header::AUTHORIZATION) {
            Some(basic) => {
                let expected = base64::engine::general_purpose::STANDARD.encode("us:a+secret%3A+of+ours");
                basic.to_str().unwrap() == format!("Basic {expected}")
            }
            // Apple's secret is a token; that it is right is tested beside the code.
            None => {
                form["client_id"] == CLIENT_ID
                    && (form["client_secret"] == CLIENT_SECRET || form["client_secret"].starts_with("ey"))
            }
        };
        if !is_ours {
            return (StatusCode::UNAUTHORIZED, Json(json!({"error": "invalid_client"}))).into_response();
        }
        let grant = self.script().grants.remove(&form["code"]);
        let is_good = grant.as_ref().is_some_and(|grant| {
            let challenge = BASE64URL.encode(sha256(form["code_verifier"].as_bytes()));
            grant.challenge == challenge && grant.redirect_uri == form["redirect_uri"]
        });
        let Some(grant) = grant.filter(|_| is_good) else {
            return (StatusCode::BAD_REQUEST, Json(json!({"error": "invalid_grant"}))).into_response();
        };
        let mut changed = json!({ "nonce": grant.nonce });
        changed.as_object_mut().unwrap().extend(self.script().claims.as_object().unwrap().clone());
        let id_token = match changed.get("whole") {
            Some(whole) => whole.as_str().unwrap().to_owned(),
            None => self.id_token(&changed),
        };
        Json(json!({
            "access_token": "their-access-token", "refresh_token": "their-refresh-token", "token_type": "Bearer",
            "expires_in": 3600, "id_token": id_token,
        }))
        .into_response()
    }

    fn describe_itself(&self, path: &str) -> Value {
        let mut document = json!({
            "issuer": self.url,
            "authorization_endpoint": format!("{}/authorize?tenant=1", self.url),
            "token_endpoint": format!("{}/token", self.url),
            "jwks_uri": format!("{}/keys", self.url),
        });
        if path.starts_with("/common/") {
            document["issuer"] = json!(format!("{}/{{tenantid}}/v2.0", self.url));
        }
        merge(&mut document, &self.script().described);
        document
    }
}

/// Signs claims on P-256.
pub(crate) fn sign(claims: &Value, key: &SecretString) -> String {
    let mut header = Header::new(Algorithm::ES256);
    header.kid = Some(SigningKey::from_pem(key).unwrap().kid().to_owned());
    let key = EncodingKey::from_ec_pem(key.expose_secret().as_bytes()).unwrap();
    jsonwebtoken::encode(&header, claims, &key).unwrap()
}

/// Sets members; null takes them away.
fn merge(object: &mut Value, members: &Value) {
    for (name, value) in members.as_object().unwrap() {
        if value.is_null() {
            object.as_object_mut().unwrap().remove(name);
        } else {
            object[name] = value.clone();
        }
    }
}

async fn answer(State(provider): State<Provider>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let path = uri.path().to_owned();
    provider.script().asked.push(path.clone());
    let fault = provider.script().faults.get(&path).cloned();
    if let Some(fault) = fault {
        return misbehave(fault).await;
    }
    let form: HashMap<String, String> = url::form_urlencoded::parse(&body).into_owned().collect();
    let has_token =
        headers.get(header::AUTHORIZATION).is_some_and(|value| value == "Bearer their-access-token");
    match path.as_str() {
        "/.well-known/openid-configuration" | "/common/v2.0/.well-known/openid-configuration" => {
            Json(provider.describe_itself(&path)).into_response()
        }
        "/keys" => {
            let published = provider.script().published.clone();
            let keys = published
                .iter()
                .map(|key| serde_json::to_value(SigningKey::from_pem(key).unwrap().jwk()).unwrap());
            Json(json!({ "keys": keys.collect::<Vec<_>>() })).into_response()
        }
        "/token" | "/login/oauth/access_token" | "/api/oauth2/token" => provider.redeem(&headers, &form),
        "/github/user" | "/api/users/@me" if has_token => {
            Json(provider.script().user.clone()).into_response()
        }
        "/github/user/emails" if has_token => Json(provider.script().emails.clone()).into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

pub(crate) async fn misbehave(fault: Fault) -> Response {
    match fault {
        Fault::Status(status) => StatusCode::from_u16(status).unwrap().into_response(),
        Fault::Garbage => "\u{0}<html>{{{".into_response(),
        Fault::Says(value) => Json(value).into_response(),
        Fault::Redirect(to) => (StatusCode::FOUND, [(header::LOCATION, to)]).into_response(),
        Fault::Silence => std::future::pending().await,
        Fault::Huge => {
            let chunk = Bytes::from(vec![b' '; 64 * 1024]);
            let endless =
                futures_util::stream::repeat(Ok::<_, std::convert::Infallible>(chunk)).take(100_000);
            Body::from_stream(endless).into_response()
        }
        Fault::Drip => {
            let interval = tokio::time::interval(Duration::from_millis(50));
            let drops = futures_util::stream::unfold(interval, async |mut interval| {
                interval.tick().await;
                Some((Ok::<_, std::io::Error>(Bytes::from_static(b" ")), interval))
            });
            Body::from_stream(drops).into_response()
        }
        Fault::BreakOff => {
            let broken = [Ok(Bytes::from_static(b"{")), Err(std::io::Error::other("gone"))];
            Body::from_stream(futures_util::stream::iter(broken)).into_response()
        }
    }
}
