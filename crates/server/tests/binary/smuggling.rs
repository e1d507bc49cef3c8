//! No byte of one request is taken for another request, however its head lies about where it ends.

use crate::process::{Home, Server};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

/// What an attacker wants to have answered beside the request that carries it.
const INNER: &str = "GET /health/live HTTP/1.1\r\nhost: localhost\r\n\r\n";
const OUTER: &str =
    "POST /api/v1/auth/validate HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
const BODY: &str = r#"{"token":"x"}"#;

/// The statuses of all answers that `bytes` bring on one connection, until the server has no more to say and closes it.
fn answers(server: &Server, bytes: &[u8]) -> Vec<u16> {
    let mut stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    // Who is refused in the middle may find the door shut. Nothing is closed here: the server would not go on after that.
    let _ = stream.write_all(bytes);
    let mut text = Vec::new();
    if let Err(error) = stream.read_to_end(&mut text) {
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    }
    let text = String::from_utf8_lossy(&text);
    text.split("HTTP/1.1 ").skip(1).map(|answer| answer[..3].parse().unwrap()).collect()
}

fn chunked(body: &str) -> String {
    format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len())
}

/// Heads of the outer request that can be read in two ways, with what follows them.
fn two_ways() -> Vec<(&'static str, String)> {
    let chunks = chunked(BODY);
    let all = format!("{chunks}{INNER}").len();
    let part = BODY.len();
    vec![
        (
            "both lengths, the number first",
            format!("{OUTER}content-length: {all}\r\ntransfer-encoding: chunked\r\n\r\n{chunks}{INNER}"),
        ),
        (
            "both lengths, the chunks first",
            format!("{OUTER}transfer-encoding: chunked\r\ncontent-length: {all}\r\n\r\n{chunks}{INNER}"),
        ),
        (
            "both lengths, the number short",
            format!("{OUTER}content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n{chunks}{INNER}"),
        ),
        (
            "chunks of another case",
            format!("{OUTER}Transfer-Encoding: CHUNKED\r\nContent-Length: 3\r\n\r\n{chunks}{INNER}"),
        ),
        (
            "chunks named twice",
            format!("{OUTER}transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n{chunks}{INNER}"),
        ),
        (
            "a coding under the chunks",
            format!("{OUTER}transfer-encoding: gzip, chunked\r\n\r\n{chunks}{INNER}"),
        ),
        (
            "an extension of a chunk with a bare line feed",
            format!("{OUTER}transfer-encoding: chunked\r\n\r\n{part:x};a\nb\r\n{BODY}\r\n0\r\n\r\n{INNER}"),
        ),
    ]
}

/// Heads that are no head, each with the inner request behind.
fn no_heads() -> Vec<(String, String)> {
    let lengths = [
        "+13",
        "-13",
        "0x0d",
        "13, 13",
        "13,14",
        "1_3",
        "1 3",
        "13.0",
        "",
        "18446744073709551616",
        "\u{661}\u{663}",
    ];
    let codings =
        ["xchunked", "chunked, identity", "identity", "chunked;q=1", "\u{b}chunked", "chunk ed", ""];
    let sizes = ["0x5", "+5", "-5", "5g", "g", "fffffffffffffffff", ""];
    let hosts =
        ["", "host: \r\n", "host: a\r\nhost: b\r\n", "host: a@b\r\n", "host: a/b\r\n", "host: a b\r\n"];
    let lines = [
        "GET  /health/live HTTP/1.1",
        "GET /health/live HTTP/1.1 x",
        "GET /health/live HTTP/1.1\0",
        "GET /health/live\tHTTP/1.1",
        "GET /health/live",
        "GET /health/live HTTP/0.9",
        "GET /health/live HTTP/2.0",
        "GET /health/live http/1.1",
        "G(T /health/live HTTP/1.1",
        "PRI * HTTP/2.0",
    ];
    let fields = [
        "transfer-encoding : chunked",
        "transfer-encoding:\r\n chunked",
        " transfer-encoding: chunked",
        "x: a\r\n\tb",
        "x: a\0b",
        "x: a\rb",
        "x y: z",
        "x",
        ": x",
        "\u{e4}: x",
    ];
    let mut all = Vec::new();
    let mut add = |what: String, bytes: String| all.push((what, bytes));
    for length in lengths {
        add(format!("length {length:?}"), format!("{OUTER}content-length: {length}\r\n\r\n{BODY}{INNER}"));
    }
    add(
        "two lengths".to_owned(),
        format!("{OUTER}content-length: 13\r\ncontent-length: 14\r\n\r\n{BODY}{INNER}"),
    );
    for coding in codings {
        let body = chunked(BODY);
        add(format!("coding {coding:?}"), format!("{OUTER}transfer-encoding: {coding}\r\n\r\n{body}{INNER}"));
    }
    add(
        "chunks in HTTP/1.0".to_owned(),
        format!(
            "{}transfer-encoding: chunked\r\nconnection: keep-alive\r\n\r\n{}{INNER}",
            OUTER.replace("HTTP/1.1", "HTTP/1.0"),
            chunked(BODY)
        ),
    );
    for size in sizes {
        add(
            format!("chunk of size {size:?}"),
            format!("{OUTER}transfer-encoding: chunked\r\n\r\n{size}\r\nhello\r\n0\r\n\r\n{INNER}"),
        );
    }
    for host in hosts {
        add(format!("{host:?}"), format!("GET /health/live HTTP/1.1\r\n{host}\r\n{INNER}"));
    }
    for line in lines {
        add(format!("{line:?}"), format!("{line}\r\nhost: localhost\r\n\r\n{INNER}"));
    }
    for field in fields {
        add(
            format!("{field:?}"),
            format!("GET /health/live HTTP/1.1\r\nhost: localhost\r\n{field}\r\n\r\n{INNER}"),
        );
    }
    all
}

#[test]
fn no_shape_of_a_request_smuggles_another() {
    let home = Home::new();
    let server = home.dev().arg("--header-timeout-seconds").arg("1").start();
    // The control: what is clear is answered, request by request, on one connection.
    let clear = format!("{OUTER}content-length: {}\r\n\r\n{BODY}{INNER}{INNER}", BODY.len());
    assert_eq!(answers(&server, clear.as_bytes()), [200, 200, 200]);
    let chunks = format!("{OUTER}transfer-encoding: chunked\r\n\r\n{}{INNER}", chunked(BODY));
    assert_eq!(answers(&server, chunks.as_bytes()), [200, 200]);
    let trailer = chunks.replace("\r\n0\r\n\r\n", "\r\n0\r\ncontent-length: 9\r\n\r\n");
    assert_ne!(trailer, chunks);
    assert_eq!(answers(&server, trailer.as_bytes()), [200, 200], "a trailer is no head");

    // All at once: each waits for the server to give up.
    let server = &server;
    let mut smuggled = Vec::new();
    thread::scope(|scope| {
        let of_two_ways = two_ways().into_iter().map(|(what, bytes)| {
            scope.spawn(move || (what.to_owned(), 200, answers(server, bytes.as_bytes())))
        });
        let of_no_heads = no_heads()
            .into_iter()
            .map(|(what, bytes)| scope.spawn(move || (what, 400, answers(server, bytes.as_bytes()))));
        let threads: Vec<_> = of_two_ways.chain(of_no_heads).collect();
        for (what, least, answers) in threads.into_iter().map(|thread| thread.join().unwrap()) {
            if answers.len() > 1 || answers.iter().any(|status| *status < least) {
                smuggled.push((what, answers));
            }
        }
    });
    assert!(smuggled.is_empty(), "{smuggled:#?}");
    assert_eq!(server.get("/health/live").status, 200);
}

#[test]
fn what_a_refused_request_carries_is_not_read_as_the_next_one() {
    let home = Home::new();
    let server = home.dev().arg("--header-timeout-seconds").arg("1").start();
    let length = INNER.len();
    for (what, bytes) in [
        (
            "a GET with a body",
            format!(
                "GET /health/ready HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n{INNER}"
            ),
        ),
        (
            "an unknown path",
            format!("POST /nothing HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n{INNER}"),
        ),
        (
            "no caller",
            format!(
                "POST /api/v1/credits/use HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n{INNER}"
            ),
        ),
        (
            "another method",
            format!(
                "DELETE /api/v1/auth/login HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n{INNER}"
            ),
        ),
        ("too much", format!("{OUTER}content-length: 70000\r\n\r\n{}{INNER}", " ".repeat(70_000 - length))),
        (
            "a question to go on",
            format!("{OUTER}expect: 100-continue\r\ncontent-length: {length}\r\n\r\n{INNER}"),
        ),
        (
            "another protocol",
            format!(
                "GET /health/ready HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: h2c\r\ncontent-length: {length}\r\n\r\n{INNER}"
            ),
        ),
    ] {
        let answers: Vec<_> =
            answers(&server, bytes.as_bytes()).into_iter().filter(|status| *status != 100).collect();
        // A reset may overtake the one answer.
        assert!(answers.len() <= 1, "{what}: {answers:?}");
    }
    server.stop("TERM");
}

#[test]
fn a_flood_of_header_lines_is_refused_in_bounded_memory() {
    let home = Home::new();
    let server = home.dev().arg("--header-timeout-seconds").arg("1").start();
    let head = "GET /health/live HTTP/1.1\r\nhost: localhost\r\n";
    let many = "x: y\r\n".repeat(5_000);
    let long = format!("x: {}\r\n", "y".repeat(100_000));
    let path = format!("GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n", "a".repeat(100_000));
    for request in [format!("{head}{many}\r\n"), format!("{head}{long}\r\n"), path] {
        // A reset may overtake the answer.
        let answers = answers(&server, request.as_bytes());
        assert!(answers.iter().all(|status| [414, 431].contains(status)), "{answers:?}");
    }
    let few = "x: y\r\n".repeat(50);
    assert_eq!(answers(&server, format!("{head}{few}\r\n").as_bytes()), [200], "the control");
    server.stop("TERM");
}
