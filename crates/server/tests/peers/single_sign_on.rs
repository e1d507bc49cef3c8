//! Single sign-on as a browser does it: two apps of the family, a sign-in on one, tokens on the other, a sign-out of both.

use crate::apps::Apps;
use crate::browser::Browser;
use crate::cluster::{Cluster, ROOT_SECRET};
use crate::process::{Home, Launch};
use crate::tls;
use serde_json::json;
use std::time::Duration;

/// Long enough for a browser's start on a busy machine.
const REPORT_LIMIT: Duration = Duration::from_mins(2);

/// Where everything is, as the browser sees it.
struct Family {
    auth: String,
    app_a: String,
    app_b: String,
    cookie_domain: Option<&'static str>,
}

fn serve(home: &Home, cluster: &Cluster, port: u16, family: &Family) -> Launch {
    let launch = home
        .command(&["serve", "--host", "127.0.0.1", "--port", &port.to_string()])
        .at(port)
        .env("DATABASE_URL", cluster.service_url("mana"))
        .env("DATABASE_OWNER_URL", cluster.owner_url("mana"))
        .env("MANA_SECRET_KEY", ROOT_SECRET)
        .env("RATE_LIMIT_MAX", "0")
        .env("BASE_URL", &family.auth)
        .env("CORS_ORIGINS", format!("{},{}", family.app_a, family.app_b));
    match family.cookie_domain {
        Some(domain) => launch.env("COOKIE_DOMAIN", domain),
        None => launch,
    }
}

/// Starts the service on `port` and lets the browser go through all of it.
fn walk(family: &Family, port: u16, apps: &Apps) {
    let (home, cluster) = (Home::new(), Cluster::start().with_database("mana"));
    let server = serve(&home, &cluster, port, family).start();
    server.register("ada@example.com");
    let url = format!("{}/?auth={}&other={}", family.app_a, family.auth, family.app_b);
    let browser = Browser::open(home.path(), &url);
    let report = apps.report(REPORT_LIMIT).unwrap_or_else(|| json!({"error": "no page reported in time"}));
    let told = || {
        let (console, log) = (browser.console(), server.stderr());
        format!("the pages: {report:#}\nthe browser's console:\n{console}\nthe service:\n{log}")
    };
    assert!(report["error"].is_null(), "{}", told());
    let expected = [
        ("/before", json!({"session": null})),
        ("/signedIn", json!([200, 200])),
        ("/cookieSeenByScript", json!(false)),
        ("/exchange/exchanged", json!(200)),
        ("/exchange/session/user/email", json!("ada@example.com")),
        ("/me", json!({"status": 200, "email": "ada@example.com"})),
        ("/sameSession", json!(true)),
        ("/turns", json!(vec![200; 50])),
        ("/races", json!(vec![json!({"statuses": [200, 200, 200, 200], "successors": 1}); 3])),
        ("/again/exchanged", json!(200)),
        ("/afterAgain", json!([200, 200])),
        ("/signedOut", json!(200)),
        ("/after", json!({"a": 401, "b": 401, "me": 401, "session": {"session": null}})),
    ];
    for (pointer, expected) in expected {
        assert_eq!(report.pointer(pointer), Some(&expected), "at {pointer} of {}", told());
    }
    drop(browser);
    server.stop("TERM");
}

#[test]
fn on_subdomains() {
    let (apps, port) = (Apps::serve(), crate::process::free_port());
    let family = Family {
        auth: format!("http://auth.mana.test:{port}"),
        app_a: format!("http://app-a.mana.test:{}", apps.port),
        app_b: format!("http://app-b.mana.test:{}", apps.port),
        cookie_domain: Some("mana.test"),
    };
    walk(&family, port, &apps);
}

#[test]
fn on_localhost_with_several_ports() {
    let (apps, other, port) = (Apps::serve(), Apps::serve(), crate::process::free_port());
    let family = Family {
        auth: format!("http://localhost:{port}"),
        app_a: format!("http://localhost:{}", apps.port),
        app_b: format!("http://localhost:{}", other.port),
        cookie_domain: None,
    };
    walk(&family, port, &apps);
}

#[test]
fn on_subdomains_over_https() {
    let (apps, port) = (Apps::serve(), crate::process::free_port());
    let (tls_auth, tls_apps) = (tls::in_front_of(port), tls::in_front_of(apps.port));
    let family = Family {
        auth: format!("https://auth.mana.test:{tls_auth}"),
        app_a: format!("https://app-a.mana.test:{tls_apps}"),
        app_b: format!("https://app-b.mana.test:{tls_apps}"),
        cookie_domain: Some("mana.test"),
    };
    walk(&family, port, &apps);
}
