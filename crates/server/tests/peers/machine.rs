//! A server behind nginx on one machine, with the files of `deploy/machine`.

use crate::cluster::{Cluster, ROOT_SECRET};
use crate::deployment::{adapted, deploy};
use crate::http::{self, PASSWORD};
use crate::process::{Home, Launch, Server, free_port, poll};
use crate::program::Program;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::{Value, json};
use std::fs::{self, Permissions};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const NAME: &str = "auth.example.com";
/// Another machine, as far as the proxy can tell.
const CLIENT: &str = "127.0.0.9";

/// What a unit starts, told what stands in its credential.
fn started_by(home: &Home, unit: &str, settings: &[(&str, &str)]) -> Launch {
    let text = fs::read_to_string(deploy(&format!("machine/{unit}.service"))).unwrap();
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    let args: Vec<_> = value("ExecStart=/usr/local/bin/mana-core-auth ").split(' ').collect();
    let (name, _) = value("LoadCredential=").split_once(':').unwrap();
    assert_eq!(value("Environment=MANA_CONFIG_FILE="), format!("%d/{name}"));
    let lines = settings.iter().map(|(name, value)| format!("{name}='{value}'\n"));
    home.command(&args).env("MANA_CONFIG_FILE", home.file(name, &lines.collect::<String>()))
}

/// As the guide has it: one unit that knows the owner, and one that serves.
fn start_server(home: &Home, cluster: &Cluster, internal: u16) -> Server {
    let (owner, service) = (cluster.owner_url("mana"), cluster.service_url("mana"));
    let of_migrate = [("DATABASE_OWNER_URL", &*owner), ("DATABASE_URL", &*service)];
    started_by(home, "mana-core-auth-migrate", &of_migrate).run().succeeded();
    let port = free_port();
    let (port_text, internal, url) =
        (port.to_string(), format!("127.0.0.1:{internal}"), format!("https://{NAME}"));
    let of_serve = [
        ("DATABASE_URL", &*service),
        ("MANA_SECRET_KEY", ROOT_SECRET),
        ("BASE_URL", &url),
        ("HOST", "127.0.0.1"),
        ("PORT", &port_text),
        ("TRUSTED_PROXIES", "127.0.0.1"),
        ("INTERNAL_ADDRESS", &internal),
    ];
    started_by(home, "mana-core-auth", &of_serve).at(port).start()
}

/// What Debian's own `nginx.conf` has around a site, with paths that need no root. What a client of the test says of itself it is: loopback has
/// one address of IPv6.
fn around(home: &Home, site: &str) -> String {
    let folder = home.path().join("nginx");
    fs::create_dir(&folder).unwrap();
    // It runs as another account.
    fs::set_permissions(&folder, Permissions::from_mode(0o777)).unwrap();
    let folder = folder.display();
    format!(
        "daemon off; pid {folder}/nginx.pid; error_log stderr; events {{}}
         http {{ client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
                 uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
                 set_real_ip_from 127.0.0.0/8; real_ip_header x-test-client;\n{site}}}"
    )
}

struct Proxy {
    plain: u16,
    tls: u16,
    _program: Program,
}

impl Proxy {
    fn start(home: &Home, server: u16, changes: &[(&str, &str)]) -> Self {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed([NAME.to_owned()]).unwrap();
        let (plain, tls) = (free_port(), free_port());
        let certificate = home.file("fullchain.pem", &cert.pem());
        let key = home.file("privkey.pem", &signing_key.serialize_pem());
        let site = adapted(
            "machine/nginx.conf",
            &[
                changes,
                &[
                    ("127.0.0.1:3001", &format!("127.0.0.1:{server}")),
                    ("listen 80;", &format!("listen {plain};")),
                    ("listen 443 ssl http2;", &format!("listen {tls} ssl http2;")),
                    ("    listen [::]:80;\n", ""),
                    ("    listen [::]:443 ssl http2;\n", ""),
                    (
                        "/etc/letsencrypt/live/auth.example.com/fullchain.pem",
                        &certificate.display().to_string(),
                    ),
                    ("/etc/letsencrypt/live/auth.example.com/privkey.pem", &key.display().to_string()),
                    ("/var/log/nginx/mana.log", &home.path().join("nginx/mana.log").display().to_string()),
                ],
            ]
            .concat(),
        );
        let file = home.file("nginx.conf", &around(home, &site));
        let mut command = Command::new("/usr/sbin/nginx");
        command.arg("-p").arg(home.path()).arg("-c").arg(file);
        let program = Program::start(home, ("nginx", "nginx"), command, "", tls);
        Self { plain, tls, _program: program }
    }

    fn url(&self, path: &str) -> String {
        format!("https://{NAME}:{}{path}", self.tls)
    }

    fn client(&self) -> Command {
        let resolve = format!("{NAME}:{}:127.0.0.1", self.tls);
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--insecure", "--include", "--resolve", &resolve]);
        command.args(["--interface", CLIENT]);
        command
    }

    /// What curl prints: the head and the body.
    fn curl(&self, args: &[&str], path: &str) -> String {
        let output = self.client().args(args).arg(self.url(path)).output().unwrap();
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
    let server = start_server(&home, &cluster, internal);
    let proxy = Proxy::start(&home, server.port, &[]);

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

    for (path, kilobytes, expected) in [
        ("/api/v1/auth/login", 200, " 413 "),
        ("/api/v1/auth/login", 100, "request.body_too_large"),
        // What has a larger limit than all else, and is read.
        ("/api/v1/credits/use/batch", 1000, "request.invalid"),
        ("/api/v1/webhooks/stripe", 400, "payments.no_webhook_secret"),
    ] {
        let large = home.file("large.json", &format!("{}{{}}", " ".repeat(kilobytes * 1024)));
        let file = format!("@{}", large.display());
        let mut args = vec!["--header", "expect:", "--header", "content-type: application/json"];
        args.extend(["--header", &bearer, "--data-binary", &file]);
        let answer = proxy.curl(&args, path);
        assert!(answer.contains(expected), "{path}, {kilobytes} KiB: {answer}");
    }
}

/// A request of a client whose body never comes.
fn hold(proxy: &Proxy, client: &str) -> Child {
    let mut command = proxy.client();
    command.args(["--request", "POST", "--header", "content-type: application/json"]);
    command.args(["--header", client, "--upload-file", "-"]);
    command.arg(proxy.url("/api/v1/auth/login")).stdin(Stdio::piped()).stdout(Stdio::null());
    command.spawn().unwrap()
}

#[test]
fn who_says_half_a_head_is_not_waited_for_and_a_network_is_one_client() {
    const LIMIT: Duration = Duration::from_secs(30);
    let (home, cluster) = (Home::new(), Cluster::start().with_database("mana"));
    let internal = free_port();
    let server = start_server(&home, &cluster, internal);
    let changes = [
        ("limit_conn mana 100;", "limit_conn mana 2;"),
        // Held for as long as the test likes, where the server sees them.
        ("client_body_timeout 10s;", "client_body_timeout 600s;"),
        ("client_max_body_size 128k;", "client_max_body_size 128k; proxy_request_buffering off;"),
    ];
    let proxy = Proxy::start(&home, server.port, &changes);

    let begun = Instant::now();
    let half = b"GET / HTTP/1.1\r\nHost: auth.example";
    let mut plain = TcpStream::connect(("127.0.0.1", proxy.plain)).unwrap();
    plain.write_all(half).unwrap();
    let mut before_tls = TcpStream::connect(("127.0.0.1", proxy.tls)).unwrap();
    let mut within_tls = Command::new("openssl");
    within_tls.args(["s_client", "-quiet", "-connect", &format!("127.0.0.1:{}", proxy.tls)]);
    let mut within_tls =
        within_tls.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut open = within_tls.stdin.take().unwrap();
    open.write_all(half).unwrap();
    for stream in [&mut plain, &mut before_tls] {
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        assert_eq!(stream.read_to_end(&mut Vec::new()).unwrap(), 0, "closed without a word");
    }
    poll(LIMIT, "the end of half a head within TLS", || within_tls.try_wait().unwrap());
    assert!(begun.elapsed() < LIMIT, "nginx by itself waits for a minute: {:?}", begun.elapsed());

    let asks = |client: &str| proxy.curl(&["--header", client], "/health/live");
    let mut held = ["x-test-client: 2001:db8:1:2::a", "x-test-client: 2001:db8:1:2:ffff::1"]
        .map(|client| hold(&proxy, client));
    poll(LIMIT, "two requests, beside the one that asks", || {
        let metrics = http::exchange(internal, "GET", "/metrics", "", "").unwrap();
        metrics.body.contains("http_requests_in_flight 3\n").then_some(())
    });
    let neighbour = "x-test-client: 2001:db8:1:2:a:b:c:d";
    let refused = asks(neighbour);
    assert!(refused.contains(" 429 "), "{refused}");
    for other in ["x-test-client: 2001:db8:1:3::a", "x-test-client: 203.0.113.7"] {
        assert!(asks(other).contains(" 200 "), "{other}");
    }
    for request in &mut held {
        request.kill().unwrap();
        request.wait().unwrap();
    }
    poll(LIMIT, "room for the network", || asks(neighbour).contains(" 200 ").then_some(()));
}
