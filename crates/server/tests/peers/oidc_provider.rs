//! Sign-in with an OpenID Connect issuer that others wrote: npm's `oidc-provider`, with PKCE required and answers that name their issuer.

use crate::cluster::{Cluster, ROOT_SECRET};
use crate::process::{Home, free_port, poll};
use serde_json::{Value, json};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

/// Long enough for node's start on a busy machine.
const START_LIMIT: Duration = Duration::from_mins(1);

/// A running issuer; it ends with the test.
struct Issuer(Child);

impl Issuer {
    fn start(port: u16, redirect_uri: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let module = root.join("../../target/tools/node/node_modules/oidc-provider/lib/index.js");
        let child = Command::new("node")
            .arg(root.join("tests/peers/oidc_provider.mjs"))
            .arg(module)
            .arg(port.to_string())
            .arg(redirect_uri)
            .spawn()
            .expect("node is there: .ci/run says how it is installed");
        let mut issuer = Self(child);
        poll(START_LIMIT, "an issuer that listens", || {
            let ended = issuer.0.try_wait().unwrap();
            assert!(ended.is_none(), "{ended:?}: .ci/run says how oidc-provider is installed");
            TcpStream::connect(("127.0.0.1", port)).ok()
        });
        issuer
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        // Fails when it has ended, which is as well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A browser as far as redirects and cookies go.
struct Curl(PathBuf);

impl Curl {
    fn ask(&self, arguments: &[&str]) -> String {
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--location", "--max-redirs", "12", "--max-time", "60"])
            .args(["--noproxy", "*", "--write-out", "\n%{http_code} %{url_effective}"])
            .arg("--cookie")
            .arg(&self.0)
            .arg("--cookie-jar")
            .arg(&self.0)
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

#[test]
fn a_person_signs_in_with_an_issuer_that_others_wrote() {
    let (home, cluster) = (Home::new(), Cluster::start().with_database("mana"));
    let (port, issuer_port) = (free_port(), free_port());
    let (url, issuer_url) = (format!("http://localhost:{port}"), format!("http://localhost:{issuer_port}"));
    let _issuer = Issuer::start(issuer_port, &format!("{url}/api/v1/auth/oauth/peer/callback"));
    let providers = json!([{
        "id": "peer", "issuer": issuer_url, "clientId": "mana", "clientSecret": "a secret: of ours", "emailDomains": ["peer.example"],
    }]);
    let server = home
        .command(&["serve", "--host", "127.0.0.1", "--port", &port.to_string()])
        .at(port)
        .env("DATABASE_URL", cluster.service_url("mana"))
        .env("DATABASE_OWNER_URL", cluster.owner_url("mana"))
        .env("MANA_SECRET_KEY", ROOT_SECRET)
        .env("BASE_URL", &url)
        .env("OIDC_PROVIDERS", providers.to_string())
        .env("OAUTH_PRIVATE_NETWORKS", "127.0.0.0/8")
        .start();
    let told = || server.stderr();

    let mut ids = Vec::new();
    for visit in ["first", "second"] {
        // A browser of its own each time.
        let curl = Curl(home.path().join(visit));
        let begin = format!("{url}/api/v1/auth/oauth/peer?redirectTo={url}/health/live");
        let ended = curl.ask(&[&begin]);
        assert!(ended.ends_with(&format!("\n200 {url}/health/live")), "{ended}\n{}", told());
        let exchange = format!("{url}/api/v1/auth/session-to-token");
        let answer = curl.ask(&["--request", "POST", &exchange]);
        let (body, status) = answer.rsplit_once('\n').unwrap();
        assert!(status.starts_with("200 "), "{answer}\n{}", told());
        let body: Value = serde_json::from_str(body).unwrap();
        let user = &body["user"];
        assert_eq!(
            (&user["email"], &user["name"], &user["emailVerified"]),
            (&json!("ada@peer.example"), &json!("Ada"), &json!(true))
        );
        ids.push(user["id"].clone());
    }
    assert_eq!(ids[0], ids[1], "the same account both times");
    server.stop("TERM");
}
