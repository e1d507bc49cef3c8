//! Passkeys as a browser does them: the shapes of WebAuthn level 3 through its own functions, with a virtual authenticator.

use crate::apps::Apps;
use crate::browser::Browser;
use crate::cluster::{Cluster, ROOT_SECRET};
use crate::devtools::Page;
use crate::process::{Home, Server, free_port, poll};
use crate::tls;
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};
use totp_rs::{Builder, Secret};

/// A page of an app beside the service, and whose page it is.
struct Stage {
    page: Page,
    server: Server,
    authenticator: String,
    _browser: Browser,
    _cluster: Cluster,
    _home: Home,
}

/// Where everything is, as the browser sees it.
struct Places {
    service: String,
    app: String,
    /// Settings that differ from the defaults.
    settings: Vec<(&'static str, String)>,
    /// Where the browser finds which host.
    names: String,
}

impl Stage {
    /// The service on `port`.
    fn new(port: u16, places: &Places) -> Self {
        let (home, cluster) = (Home::new(), Cluster::start().with_database("mana"));
        let Places { service, app, settings, names } = places;
        let server = home
            .command(&["serve", "--host", "127.0.0.1", "--port", &port.to_string()])
            .at(port)
            .env("DATABASE_URL", cluster.service_url("mana"))
            .env("DATABASE_OWNER_URL", cluster.owner_url("mana"))
            .env("MANA_SECRET_KEY", ROOT_SECRET)
            .env("RATE_LIMIT_MAX", "0")
            .env("BASE_URL", service)
            .env("CORS_ORIGINS", app);
        let server = settings.iter().fold(server, |server, (name, value)| server.env(name, value)).start();
        let (browser, devtools) = Browser::driven(home.path(), names);
        let mut page = devtools.open(&format!("{app}/?auth={service}"));
        poll(Duration::from_mins(1), "the page", || {
            (page.evaluate("typeof act") == "function").then_some(())
        });
        page.call("WebAuthn.enable", &json!({}));
        let options = json!({
            "protocol": "ctap2", "ctap2Version": "ctap2_1", "transport": "internal", "hasResidentKey": true,
            "hasUserVerification": true, "isUserVerified": true, "automaticPresenceSimulation": true,
            "defaultBackupEligibility": true, "defaultBackupState": true,
        });
        let added = page.call("WebAuthn.addVirtualAuthenticator", &json!({"options": options}));
        let authenticator = added["authenticatorId"].as_str().unwrap().to_owned();
        Self { page, server, authenticator, _browser: browser, _cluster: cluster, _home: home }
    }

    fn act(&mut self, name: &str, parameters: &[&str]) -> Value {
        let parameters = json!(parameters).to_string();
        self.page.evaluate(&format!("act({}, ...{parameters})", json!(name)))
    }

    /// What has to end well, and its body.
    fn done(&mut self, name: &str, parameters: &[&str]) -> Value {
        let outcome = self.act(name, parameters);
        let is_good = outcome["status"].as_u64().is_some_and(|status| (200..300).contains(&status));
        assert!(is_good, "{name}: {outcome:#}\n{}", self.server.stderr());
        outcome["body"].clone()
    }

    fn verifies_its_user(&mut self, is_verified: bool) {
        let params = json!({"authenticatorId": self.authenticator, "isUserVerified": is_verified});
        self.page.call("WebAuthn.setUserVerified", &params);
    }
}

fn text<'a>(body: &'a Value, pointer: &str) -> &'a str {
    body.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no {pointer} in {body}"))
}

#[test]
fn a_browser_adds_a_passkey_and_signs_in_with_it_every_way() {
    let (apps, port) = (Apps::serve_passkeys(), free_port());
    let places = Places {
        service: format!("http://localhost:{port}"),
        app: format!("http://localhost:{}", apps.port),
        settings: Vec::new(),
        names: "MAP *.mana.test 127.0.0.1".to_owned(),
    };
    let mut stage = Stage::new(port, &places);
    stage.server.register("ada@example.com");
    let session = stage.done("login", &["ada@example.com"]);
    let token = text(&session, "/accessToken").to_owned();
    let added = stage.done("add", &[&token]);
    assert_eq!(text(&added, "/name"), "Virtual");
    assert_eq!((&added["backedUp"], &added["transports"]), (&json!(true), &json!(["internal"])), "{added}");
    let again = stage.act("add", &[&token]);
    assert!(text(&again, "/error").starts_with("InvalidStateError"), "excluded by the browser: {again}");

    let signed_in = stage.done("signIn", &[]);
    assert_eq!(text(&signed_in, "/user/email"), "ada@example.com");
    // In the autofill of a form; a virtual authenticator picks the passkey as a person would.
    assert_eq!(stage.page.evaluate("PublicKeyCredential.isConditionalMediationAvailable()"), json!(true));
    let filled_in = stage.done("signIn", &["conditional"]);
    assert_eq!(text(&filled_in, "/user/email"), "ada@example.com");
    let fresh = text(&filled_in, "/accessToken").to_owned();

    stage.verifies_its_user(false);
    let unverified = stage.act("signIn", &[]);
    assert!(unverified["error"].is_string(), "the browser keeps to `required`: {unverified}");

    // As second factor a touch is enough.
    let enrolment = stage.done("enrol", &[&fresh]);
    let secret = Secret::try_from_base32(text(&enrolment, "/secret")).unwrap();
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let code = Builder::new().with_secret(secret).build().unwrap().generate(now).to_string();
    stage.done("confirm", &[&fresh, &code]);
    let half = stage.done("login", &["ada@example.com"]);
    assert_eq!(half["methods"], json!(["totp", "passkey", "recovery_code"]), "{half}");
    let whole = stage.done("secondFactor", &[text(&half, "/challengeToken")]);
    assert_eq!(text(&whole, "/user/email"), "ada@example.com");
    stage.verifies_its_user(true);
    let both = stage.done("signIn", &[]);
    let token = text(&both, "/accessToken").to_owned();

    let listed = stage.done("list", &[&token]);
    assert!(listed[0]["lastUsedAt"].is_string(), "{listed}");
    stage.done("remove", &[&token, text(&listed, "/0/id")]);
    let removed = stage.act("signIn", &[]);
    assert_eq!((&removed["status"], text(&removed, "/body/code")), (&json!(401), "auth.passkey_refused"));
}

/// Adds a passkey and signs in, on a page at `host`, with a passkey of the domain `mana.test`.
fn walk(host: &str, passkey_origins: bool) -> (Stage, Value) {
    let (apps, port) = (Apps::serve_passkeys(), free_port());
    let (tls_service, tls_app) = (tls::in_front_of(port), tls::in_front_of(apps.port));
    let app = format!("https://{host}:{tls_app}");
    let mut settings = vec![("COOKIE_DOMAIN", "mana.test".to_owned())];
    if passkey_origins {
        settings.push(("PASSKEY_ORIGINS", app.clone()));
    }
    let service = format!("https://auth.mana.test:{tls_service}");
    // The domain's own web server passes what browsers read there on to the service.
    let names = format!("MAP mana.test:443 127.0.0.1:{tls_service},MAP *.test 127.0.0.1");
    let mut stage = Stage::new(port, &Places { service, app, settings, names });
    stage.server.register("ada@example.com");
    let session = stage.done("login", &["ada@example.com"]);
    let added = stage.act("add", &[text(&session, "/accessToken")]);
    (stage, added)
}

#[test]
fn a_page_below_the_domain_uses_its_passkeys() {
    let (mut stage, added) = walk("app.mana.test", false);
    assert_eq!(added["status"], json!(201), "{added}");
    assert_eq!(text(&stage.done("signIn", &[]), "/user/email"), "ada@example.com");
}

#[test]
fn a_page_of_another_domain_uses_them_if_the_settings_name_it() {
    let (mut stage, added) = walk("app.other.test", true);
    assert_eq!(added["status"], json!(201), "{added}");
    assert_eq!(text(&stage.done("signIn", &[]), "/user/email"), "ada@example.com");
    let (_, refused) = walk("app.other.test", false);
    assert!(text(&refused, "/error").starts_with("SecurityError"), "the control: {refused}");
}
