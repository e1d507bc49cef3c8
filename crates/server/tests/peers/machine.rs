//! A server behind nginx on one machine, with the file of `deploy/machine`.

use crate::cluster::{Cluster, ROOT_SECRET};
use crate::deployment::adapted;
use crate::http::{self, PASSWORD};
use crate::process::{Home, free_port};
use crate::program::Program;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::{Value, json};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

const NAME: &str = "auth.example.com";
/// Another machine, as far as the proxy can tell.
const CLIENT: &str = "127.0.0.9";

/// What Debian's own `nginx.conf` has around a site, with paths that need no root.
fn around(home: &Home, site: &str) -> String {
    let folder = home.path().join("nginx");
    fs::create_dir(&folder).unwrap();
    // It runs as another account.
    fs::set_permissions(&folder, Permissions::from_mode(0o777)).unwrap();
    let folder = folder.display();
    format!(
        "daemon off; pid {folder}/nginx.pid; error_log stderr; events {{}}
         http {{ client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
                 uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;\n{site}}}"
    )
}

struct Proxy {
    plain: u16,
    tls: u16,
    _program: Program,
}

impl Proxy {
    fn start(home: &Home, server: u16) -> Self {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed([NAME.to_owned()]).unwrap();
        let (plain, tls) = (free_port(), free_port());
        let certificate = home.file("fullchain.pem", &cert.pem());
        let key = home.file("privkey.pem", &signing_key.serialize_pem());
        let site = adapted(
            "machine/nginx.conf",
            &[
                ("127.0.0.1:3001", &format!("127.0.0.1:{server}")),
                ("listen 80;", &format!("listen {plain};")),
                ("listen 443 ssl http2;", &format!("listen {tls} ssl http2;")),
                ("    listen [::]:80;\n", ""),
                ("    listen [::]:443 ssl http2;\n", ""),
                ("/etc/letsencrypt/live/auth.example.com/fullchain.pem", &certificate.display().to_string()),
                ("/etc/letsencrypt/live/auth.example.com/privkey.pem", &key.display().to_string()),
                ("/var/log/nginx/mana.log", &home.path().join("nginx/mana.log").display().to_string()),
            ],
        );
        let file = home.file("nginx.conf", &around(home, &site));
        let mut command = Command::new("/usr/sbin/nginx");
        command.arg("-p").arg(home.path()).arg("-c").arg(file);
        let program = Program::start(home, ("nginx", "nginx"), command, "", tls);
        Self { plain, tls, _program: program }
    }

    /// What curl prints: the head and the body.
    fn curl(&self, args: &[&str], path: &str) -> String {
        let resolve = format!("{NAME}:{}:127.0.0.1", self.tls);
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--insecure", "--include", "--resolve", &resolve]);
        command.args(["--interface", CLIENT]).args(args);
        let output = command.arg(format!("https://{NAME}:{}{path}", self.tls)).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn post(&self, args: &[&str], path: &str, body: &Value) -> Value {
        let body = body.to_string();
        let args = [args, &["--header", "content-type: application/json", "--data", &body]].concat();
        let answer = self.curl(&args, path);
        serde_json::from_str(answer.split("\r\n\r\n").last().unwrap()).unwrap()
    }
}

#[test]
fn behind_nginx_clients_are_who_they_are_and_what_is_internal_stays_inside() {
    let (home, cluster) = (Home::new(), Cluster::start().with_database("mana"));
    let internal = free_port();
    let server = home
        .serve()
        .env("DATABASE_URL", cluster.service_url("mana"))
        .env("DATABASE_OWNER_URL", cluster.owner_url("mana"))
        .env("MANA_SECRET_KEY", ROOT_SECRET)
        .env("BASE_URL", format!("https://{NAME}"))
        .env("TRUSTED_PROXIES", "127.0.0.1")
        .env("INTERNAL_ADDRESS", format!("127.0.0.1:{internal}"))
        .start();
    let proxy = Proxy::start(&home, server.port);

    let person = json!({"email": "ada@example.com", "password": PASSWORD});
    proxy.post(&[], "/api/v1/auth/register", &person);
    // What a client says of itself counts for nothing.
    let forged = ["--header", "x-forwarded-for: 203.0.113.7", "--header", "x-forwarded-proto: http"];
    let tokens = proxy.post(&forged, "/api/v1/auth/login", &person);
    let bearer = format!("authorization: Bearer {}", tokens["accessToken"].as_str().unwrap());
    let sessions = proxy.curl(&["--header", &bearer], "/api/v1/auth/sessions");
    assert!(sessions.contains(CLIENT) && !sessions.contains("203.0.113.7"), "{sessions}");
    let head = sessions.to_lowercase();
    assert_eq!(head.matches("strict-transport-security:").count(), 1, "{head}");
    assert!(!head.contains("nginx/"), "{head}");

    for path in ["/metrics", "/api/v1/internal/credits/grants"] {
        assert!(proxy.curl(&[], path).contains(" 404 "), "{path}");
    }
    let metrics = http::exchange(internal, "GET", "/metrics", "", "").unwrap();
    assert_eq!(metrics.status, 200, "{metrics:?}");

    let plain = http::exchange(proxy.plain, "GET", "/login?x=1", "", "").unwrap();
    assert!(plain.status == 308 && plain.head.contains("Location: https://localhost/login?x=1"), "{plain:?}");

    let large = home.file("large.json", &"x".repeat(200 * 1024));
    let file = format!("@{}", large.display());
    let refused = proxy.curl(&["--header", "expect:", "--data-binary", &file], "/api/v1/auth/login");
    assert!(refused.contains(" 413 "), "{refused}");
}
