//! Traces tell what a request waited for, tell nothing of whose it was, and trouble nobody when their collector is in trouble.

use crate::cluster::Sql;
use crate::collector::{Collector, Mood, attribute, holds};
use crate::http::{self, Reply};
use crate::process::{Home, Launch, Server, free_port, poll};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(20);
const OVERFLOW: Duration = Duration::from_mins(2);
const EMAIL: &str = "marked-ada@example.com";
const MARKED_PASSWORD: &str = "marked horse battery staple";
const THEIR_TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const THEIR_SPAN: &str = "b7ad6b7169203331";

/// All that a span may say besides its name and times.
const MAY_SAY: [&str; 9] = [
    "db.system.name",
    "http.request.method",
    "http.response.status_code",
    "http.route",
    "orders",
    "outcome",
    "request_id",
    "server.address",
    "wait_ms",
];

fn traced(home: &Home, port: u16) -> Launch {
    home.dev()
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://127.0.0.1:{port}"))
        .env("RATE_LIMIT_MAX", "0")
        .env("LOG_FORMAT", "json")
}

/// A request with a head of its own.
fn ask(server: &Server, method: &str, path: &str, head: &[(&str, &str)], body: &Value) -> Reply {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let head = head.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect::<Vec<_>>().concat();
    let text = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n{head}\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    http::receive(stream).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}

fn request<'a>(spans: &'a [Span], id: &str) -> &'a Span {
    let mut found =
        spans.iter().filter(|span| attribute(&span.attributes, "request_id").as_deref() == Some(id));
    let (Some(span), None) = (found.next(), found.next()) else { panic!("not one span of {id}: {spans:#?}") };
    span
}

fn part<'a>(spans: &'a [Span], of: &Span, name: &str) -> &'a Span {
    let parts = spans.iter().filter(|span| span.parent_span_id == of.span_id);
    let found = parts.clone().find(|span| span.name == name);
    let names: Vec<_> = parts.map(|span| &span.name).collect();
    found.unwrap_or_else(|| panic!("no {name} among the parts of {}: {names:?}", of.name))
}

fn is_error(span: &Span) -> bool {
    span.status.as_ref().is_some_and(|status| status.code() == StatusCode::Error)
}

fn metric(server: &Server, line: &str) -> u64 {
    let metrics = server.get("/metrics").body;
    let found = metrics.lines().find_map(|text| text.strip_prefix(line)?.trim().parse().ok());
    found.unwrap_or_else(|| panic!("no {line} in {metrics}"))
}

/// Does what people do, under ids that begin with `walk-`; gives all that is nobody's business.
fn walk(server: &Server) -> Vec<String> {
    let personal = |id: &'static str| {
        [
            ("x-request-id", id),
            ("x-forwarded-for", "203.0.113.77"),
            ("user-agent", "MarkedBrowser/77"),
            ("tracestate", "marked=state"),
            ("baggage", "marked=baggage"),
        ]
    };
    let with = |id: &'static str, more: (&'static str, String)| -> Vec<(&'static str, String)> {
        let mut head: Vec<_> = personal(id).map(|(name, value)| (name, value.to_owned())).to_vec();
        head.push(more);
        head
    };
    let answer_to = |method: &str, path: &str, head: Vec<(&'static str, String)>, body: &Value| {
        let head: Vec<_> = head.iter().map(|(name, value)| (*name, value.as_str())).collect();
        ask(server, method, path, &head, body)
    };
    let parent = format!("00-{THEIR_TRACE}-{THEIR_SPAN}-01");
    let account = json!({"email": EMAIL, "password": MARKED_PASSWORD, "name": "Marked Name"});
    let registered =
        answer_to("POST", "/api/v1/auth/register", with("walk-register", ("traceparent", parent)), &account);
    assert_eq!(registered.status, 201, "{}", registered.body);
    let credentials = json!({"email": EMAIL, "password": MARKED_PASSWORD});
    let login = ask(server, "POST", "/api/v1/auth/login", &personal("walk-login"), &credentials);
    assert_eq!(login.status, 200, "{}", login.body);
    let (access, refresh) = (login.text("/accessToken"), login.text("/refreshToken"));
    let cookie = login.header("set-cookie").split([';', '=']).nth(1).unwrap().to_owned();
    let bearer = |id| with(id, ("authorization", format!("Bearer {access}")));
    let user = answer_to("GET", "/api/v1/auth/me", bearer("walk-me"), &Value::Null);
    let spend = json!({"amount": 7, "appId": "chat", "description": "A marked purpose", "idempotencyKey": "marked-key-1"});
    assert_eq!(answer_to("POST", "/api/v1/credits/use", bearer("walk-spend"), &spend).status, 201);
    let packages = server.get("/api/v1/credits/packages").json();
    let bought = json!({"packageId": packages[0]["id"]});
    let purchase = answer_to("POST", "/api/v1/credits/purchase", bearer("walk-purchase"), &bought);
    assert_eq!(purchase.status, 201, "{}", purchase.body);
    let checked = json!({"token": access});
    let validated = ask(server, "POST", "/api/v1/auth/validate", &personal("walk-validate"), &checked);
    assert_eq!(validated.status, 200);
    let forgotten = json!({"email": EMAIL});
    let forgot = ask(server, "POST", "/api/v1/auth/forgot-password", &personal("walk-forgot"), &forgotten);
    assert!(forgot.status < 300, "{}", forgot.body);
    let unknown =
        ask(server, "GET", "/marked-path/x?mail=marked-query", &personal("walk-unknown"), &Value::Null);
    assert_eq!(unknown.status, 404);
    vec![
        "marked".to_owned(),
        "Marked".to_owned(),
        EMAIL.to_owned(),
        "203.0.113.77".to_owned(),
        "Mozilla".to_owned(),
        user.text("/id"),
        access.rsplit('.').next().unwrap().to_owned(),
        refresh,
        cookie,
        purchase.text("/purchaseId"),
    ]
}

#[test]
fn a_trace_tells_what_a_request_waited_for_and_nothing_of_whose_it_was() {
    let (home, port) = (Home::new(), free_port());
    let collector = Collector::start(port);
    let server = traced(&home, port)
        .env("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20collectors-own-secret")
        .env("OTEL_SERVICE_NAME", "accounts")
        .env("TRUSTED_PROXIES", "127.0.0.1")
        .env("LOG_LEVEL", "debug")
        .env("SMTP_HOST", "127.0.0.1")
        .env("SMTP_PORT", free_port().to_string())
        .env("SMTP_TLS", "none")
        .env("SMTP_FROM", "mana@example.com")
        .start();
    let secrets = walk(&server);
    poll(LIMIT, "an attempt to send the mail", || {
        collector.spans().iter().any(|span| span.name == "smtp").then_some(())
    });
    server.signal("TERM");
    server.ends_well();

    let spans = collector.spans();
    nothing_is_told_of_anybody(&collector, &spans, &secrets);
    says_who_sends(&collector);
    for (id, method, route, status) in [
        ("walk-register", "POST", "/api/v1/auth/register", "201"),
        ("walk-login", "POST", "/api/v1/auth/login", "200"),
        ("walk-spend", "POST", "/api/v1/credits/use", "201"),
        ("walk-validate", "POST", "/api/v1/auth/validate", "200"),
        ("walk-unknown", "GET", "unmatched", "404"),
    ] {
        let span = request(&spans, id);
        let says = |key| attribute(&span.attributes, key).unwrap();
        assert_eq!(span.name, format!("{method} {route}"));
        assert_eq!((says("http.request.method"), says("http.route")), (method.to_owned(), route.to_owned()));
        assert_eq!(says("http.response.status_code"), status, "{id}");
        assert_eq!((span.kind(), is_error(span)), (SpanKind::Server, false), "{id}");
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano);
    }

    let register = request(&spans, "walk-register");
    assert_eq!(
        (hex(&register.trace_id), hex(&register.parent_span_id)),
        (THEIR_TRACE.into(), THEIR_SPAN.into())
    );
    assert!(request(&spans, "walk-login").parent_span_id.is_empty());
    for id in ["walk-register", "walk-login"] {
        let hashing = part(&spans, request(&spans, id), "password hashing");
        let wait = part(&spans, hashing, "password hashing wait");
        assert_eq!(wait.trace_id, request(&spans, id).trace_id);
        assert!(wait.end_time_unix_nano <= hashing.end_time_unix_nano, "{wait:?}");
    }
    let transaction = part(&spans, register, "database");
    assert_eq!(attribute(&transaction.attributes, "db.system.name").as_deref(), Some("postgresql"));
    assert!(attribute(&transaction.attributes, "wait_ms").is_some());
    let order = part(&spans, request(&spans, "walk-spend"), "ledger order");
    let batch = part(&spans, order, "ledger batch");
    assert_eq!((attribute(&batch.attributes, "orders").as_deref(), batch.links.len()), (Some("1"), 0));
    let commit = part(&spans, batch, "database");
    assert_eq!(attribute(&commit.attributes, "outcome").as_deref(), Some("committed"));
    let stripe = part(&spans, request(&spans, "walk-purchase"), "stripe");
    assert_eq!(attribute(&stripe.attributes, "server.address").as_deref(), Some("127.0.0.1"));
    assert_eq!(attribute(&stripe.attributes, "http.response.status_code").as_deref(), Some("200"));
    let smtp = spans.iter().find(|span| span.name == "smtp").unwrap();
    assert!(is_error(smtp) && smtp.parent_span_id.is_empty() && smtp.kind() == SpanKind::Client);
    // Passes that look for work in vain are no traces.
    let roots = names(spans.iter().filter(|span| span.parent_span_id.is_empty()));
    assert!(!roots.contains("database"), "{roots:?}");
    the_log_is_as_it_was(&server);
}

fn nothing_is_told_of_anybody(collector: &Collector, spans: &[Span], secrets: &[String]) {
    let bytes = collector.bytes();
    assert!(holds(&bytes, "walk-spend"), "the control");
    for secret in secrets {
        assert!(secret.len() >= 5 && !holds(&bytes, secret), "{secret} is told");
    }
    for span in spans {
        for attribute in &span.attributes {
            assert!(MAY_SAY.contains(&&*attribute.key), "{attribute:?} of {}", span.name);
        }
        assert!(span.events.is_empty() && span.trace_state.is_empty(), "{span:?}");
        let message = span.status.as_ref().map(|status| status.message.clone());
        assert_eq!(message.unwrap_or_default(), "");
    }
    let is_request = |name: &str| name.starts_with("GET ") || name.starts_with("POST ");
    let told: BTreeSet<_> = names(spans.iter()).into_iter().filter(|name| !is_request(name)).collect();
    let all = [
        "database",
        "ledger batch",
        "ledger order",
        "password hashing",
        "password hashing wait",
        "smtp",
        "stripe",
    ];
    assert_eq!(told, BTreeSet::from(all.map(str::to_owned)));
}

fn says_who_sends(collector: &Collector) {
    for head in collector.heads() {
        assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("\r\nauthorization: Bearer collectors-own-secret\r\n"), "{head}");
        assert!(head.contains("\r\ncontent-type: application/x-protobuf\r\n"), "{head}");
    }
    for resource in collector.requests().into_iter().flat_map(|request| request.resource_spans) {
        let said = resource.resource.unwrap().attributes;
        assert_eq!(attribute(&said, "service.name").as_deref(), Some("accounts"));
        assert_eq!(attribute(&said, "service.version").as_deref(), Some(env!("CARGO_PKG_VERSION")));
        assert!(
            attribute(&said, "service.instance.id").is_some_and(|id| id.len() == 16) && said.len() == 3,
            "{said:?}"
        );
    }
}

fn the_log_is_as_it_was(server: &Server) {
    let stderr = server.stderr();
    assert!(!stderr.contains("collectors-own-secret") && !stderr.contains("otel."), "{stderr}");
    let lines: Vec<Value> = stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let answered =
        lines.iter().find(|line| line["span"]["request_id"] == "walk-login" && line["message"] == "answered");
    assert_eq!(answered.unwrap()["span"]["route"], "/api/v1/auth/login");
}

fn names<'a>(spans: impl Iterator<Item = &'a Span>) -> BTreeSet<String> {
    spans.map(|span| span.name.clone()).collect()
}

/// Spends that all wait for the first of them, done, and where their traces were handed over; none if one of them was refused.
fn orders_that_share_a_commit(spends: usize) -> Option<Collector> {
    let (home, port) = (Home::new(), free_port());
    let collector = Collector::start(port);
    let server = traced(&home, port).start();
    server.register(EMAIL);
    let token = server.login(EMAIL).text("/accessToken");
    // Not to be kept, if it had a say.
    let parent = format!("00-{THEIR_TRACE}-{THEIR_SPAN}-00");
    let head = [("x-request-id", "stranger"), ("traceparent", &*parent)];
    assert_eq!(ask(&server, "GET", "/health/live", &head, &Value::Null).status, 200);

    let mut owner = Sql::of_dev(&home.data());
    owner.run("BEGIN; LOCK TABLE credits.balances IN ACCESS EXCLUSIVE MODE");
    let order = |number: usize| {
        let spend = json!({"amount": 1, "appId": "chat", "description": "x", "idempotencyKey": format!("order-{number}")});
        http::send(server.port, "POST", "/api/v1/credits/use", &token, &spend.to_string()).unwrap()
    };
    // Alone at the table, so that all others wait for it and share the next commit.
    let mut sent = vec![order(0)];
    poll(LIMIT, "a batch that waits for the table", || {
        let waiting: Vec<(i64,)> = owner.rows(
            "SELECT count(*) FROM pg_locks
             WHERE NOT granted AND relation = 'credits.balances'::regclass AND mode <> 'AccessShareLock'",
        );
        (waiting[0].0 > 0).then_some(())
    });
    sent.extend((1..spends).map(order));
    let all = u64::try_from(spends).unwrap();
    poll(LIMIT, "all orders in the queue", || {
        // One less once the first is refused.
        (metric(&server, "ledger_orders_waiting ") >= all.saturating_sub(1)).then_some(())
    });
    owner.run("COMMIT");
    let replies: Vec<_> = sent.into_iter().map(|stream| http::receive(stream).unwrap().status).collect();
    assert!(replies.iter().all(|status| [201, 503].contains(status)), "{replies:?}");
    server.signal("TERM");
    server.ends_well();
    replies.iter().all(|status| *status == 201).then_some(collector)
}

#[test]
fn orders_that_share_a_commit_are_linked_and_a_strangers_trace_is_only_linked() {
    const SPENDS: usize = 60;
    // An order that waits for a table is refused after five seconds, which a busy machine may take for what stands between.
    let collector =
        (0..5).find_map(|_| orders_that_share_a_commit(SPENDS)).expect("orders that were carried out");

    let spans = collector.spans();
    let stranger = request(&spans, "stranger");
    assert_ne!(hex(&stranger.trace_id), THEIR_TRACE);
    assert!(stranger.parent_span_id.is_empty());
    let [link] = &stranger.links[..] else { panic!("{stranger:?}") };
    assert_eq!((hex(&link.trace_id), hex(&link.span_id)), (THEIR_TRACE.into(), THEIR_SPAN.into()));

    let batches: Vec<_> = spans.iter().filter(|span| span.name == "ledger batch").collect();
    let orders: Vec<_> = spans.iter().filter(|span| span.name == "ledger order").collect();
    let size = |span: &Span| attribute(&span.attributes, "orders").unwrap().parse::<usize>().unwrap();
    assert_eq!((batches.iter().map(|batch| size(batch)).sum::<usize>(), orders.len()), (SPENDS, SPENDS));
    let largest = batches.into_iter().max_by_key(|batch| size(batch)).unwrap();
    assert!(size(largest) > 33, "{}", size(largest));
    assert_eq!(largest.links.len(), 32, "bounded");
    let linked_back =
        orders.iter().filter(|order| order.links.iter().any(|link| link.span_id == largest.span_id));
    assert_eq!(linked_back.count(), size(largest) - 1, "each but the one that it is part of");
}

#[test]
fn a_collector_in_trouble_troubles_nobody_and_is_told_of_once() {
    let (home, port) = (Home::new(), free_port());
    let server = traced(&home, port).start();
    let told = |text: &str| server.stderr().lines().filter(|line| line.contains(text)).count();
    let (away, again) = ("the collector takes no traces", "the collector takes all traces again");
    let dropped = || metric(&server, "trace_spans_dropped_total{reason=\"not_taken\"} ");
    poll(LIMIT, "spans that nobody took, several times", || {
        let before = dropped();
        (before > 0 && told(away) == 1).then_some(())
    });
    let before = dropped();
    poll(LIMIT, "more of them", || (dropped() > before).then_some(()));
    assert_eq!(told(away), 1, "{}", server.stderr());

    let collector = Collector::start(port);
    poll(LIMIT, "spans that were taken", || {
        server.get("/health/live");
        (metric(&server, "trace_spans_exported_total ") > 0 && told(again) == 1).then_some(())
    });
    assert!(collector.spans().iter().any(|span| span.name == "GET /health/live"));
    collector.turn(Mood::Refuses);
    poll(LIMIT, "a line about the refusal", || {
        server.get("/health/live");
        (told(away) == 2).then_some(())
    });

    collector.turn(Mood::Hangs);
    let mut slowest = Duration::ZERO;
    let begun = Instant::now();
    let mut stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let mut round = || {
        let asked = Instant::now();
        ask_often(&mut stream, 10);
        slowest = slowest.max(asked.elapsed());
    };
    // More than wait and are under way together.
    (0..600).for_each(|_| round());
    assert!(metric(&server, "trace_spans_waiting ") <= metric(&server, "trace_spans_waiting_max "));
    // What the collector does not take in time makes room: a busy machine fills it more slowly.
    poll(OVERFLOW, "an overflow that is counted", || {
        round();
        (metric(&server, "trace_spans_dropped_total{reason=\"queue_full\"} ") > 0).then_some(())
    });
    // Whoever waited for the collector would wait for as long as it has.
    assert!(slowest < Duration::from_secs(5), "{slowest:?} of {:?}", begun.elapsed());
    assert_eq!(told(away), 2, "{}", server.stderr());
    server.signal("TERM");
    assert_eq!(server.await_end(LIMIT), Some(0), "{}", server.stderr());
    assert_eq!(told("the last traces were not handed over in time"), 1);
}

/// Asks as often on one connection, and reads all answers.
fn ask_often(stream: &mut TcpStream, times: usize) {
    let request = "GET /health/live HTTP/1.1\r\nhost: localhost\r\n\r\n";
    stream.write_all(request.repeat(times).as_bytes()).unwrap();
    let mut read = String::new();
    while read.matches("HTTP/1.1 200 OK").count() < times || !read.ends_with('}') {
        let mut part = [0; 16_384];
        let length = stream.read(&mut part).unwrap();
        assert!(length > 0, "closed after {read}");
        read.push_str(std::str::from_utf8(&part[..length]).unwrap());
    }
}

#[test]
fn a_collector_that_can_be_none_is_refused() {
    let home = Home::new();
    for (endpoint, headers, name) in [
        ("ftp://127.0.0.1", "", "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ("http://key:secret@127.0.0.1:4318", "", "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ("http://127.0.0.1:4318", "secret", "OTEL_EXPORTER_OTLP_HEADERS"),
    ] {
        let start = home.serve().env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint);
        let sentence = start.env("OTEL_EXPORTER_OTLP_HEADERS", headers).run().sentence();
        assert!(sentence.contains(name) && !sentence.contains("secret@"), "{sentence}");
    }
}
