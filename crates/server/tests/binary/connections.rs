//! Nobody keeps others out by opening connections and saying nothing, or only half of it.

use crate::process::{Home, Server, poll};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// As `--header-timeout-seconds` below.
const HEADER_TIMEOUT: Duration = Duration::from_secs(1);
/// What a busy machine may add.
const SLACK: Duration = Duration::from_secs(10);
const HALF_A_HEAD: &str = "GET /health/live HTTP/1.1\r\nhost: localhost\r\nx-more: ";
const WHOLE_HEAD: &str = "GET /health/live HTTP/1.1\r\nhost: localhost\r\n\r\n";

fn connect(server: &Server, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    stream.set_read_timeout(Some(HEADER_TIMEOUT.saturating_add(SLACK))).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    stream
}

/// What the server still sends before it closes.
fn read_to_close(mut stream: &TcpStream) -> String {
    let mut text = Vec::new();
    match stream.read_to_end(&mut text) {
        // A reset closes as well.
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("not closed: {error}"),
        _ => String::from_utf8(text).unwrap(),
    }
}

fn is_open(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let read = stream.peek(&mut [0]);
    stream.set_nonblocking(false).unwrap();
    read.is_err_and(|error: io::Error| error.kind() == ErrorKind::WouldBlock)
}

#[test]
fn half_a_head_is_not_waited_for() {
    let home = Home::new();
    let server = home.dev().arg("--header-timeout-seconds").arg("1").start();
    let begun = Instant::now();
    let mut halves: Vec<_> = (0..200).map(|_| connect(&server, HALF_A_HEAD)).collect();
    assert_eq!(server.get("/health/live").status, 200);
    let metrics = server.get("/metrics").body;
    let open: u32 =
        metrics.lines().find_map(|line| line.strip_prefix("http_connections_open ")?.parse().ok()).unwrap();
    // Only a machine that takes a second for what stands before can have closed some by now.
    let opened = begun.elapsed();
    assert!(open > 200 || opened > HEADER_TIMEOUT, "{open} after {opened:?}");
    // One more byte now and then buys no time.
    while begun.elapsed() < HEADER_TIMEOUT.saturating_add(SLACK) && halves.iter().any(is_open) {
        for half in &mut halves {
            // Fails once it is closed.
            let _ = half.write_all(b"x");
        }
        assert_eq!(server.get("/health/live").status, 200);
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(halves.iter().all(|half| !is_open(half)), "{:?}", begun.elapsed());
    for half in &halves {
        assert_eq!(read_to_close(half), "");
    }
    poll(SLACK, "no connection but the one that asks", || {
        server.get("/metrics").body.contains("http_connections_open 1\n").then_some(())
    });
    server.stop("TERM");
}

#[test]
fn a_connection_serves_many_requests_and_is_closed_when_it_rests() {
    let home = Home::new();
    let limit = Duration::from_secs(3);
    let server = home.dev().arg("--header-timeout-seconds").arg(limit.as_secs().to_string()).start();
    let mut stream = connect(&server, "");
    stream.set_read_timeout(Some(limit.saturating_add(SLACK))).unwrap();
    let begun = Instant::now();
    // Longer than the limit in all: each answer starts it anew.
    while begun.elapsed() < limit.saturating_mul(2) {
        stream.write_all(WHOLE_HEAD.as_bytes()).unwrap();
        let mut answer = [0; 4096];
        let length = stream.read(&mut answer).unwrap();
        assert!(answer[..length].starts_with(b"HTTP/1.1 200 "), "after {:?}", begun.elapsed());
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(read_to_close(&stream), "");
    server.stop("TERM");
}

/// A connection on which something was asked and answered.
fn asked_on(server: &Server) -> TcpStream {
    let mut stream = connect(server, WHOLE_HEAD);
    let mut answer = [0; 4096];
    let length = stream.read(&mut answer).unwrap();
    assert!(answer[..length].starts_with(b"HTTP/1.1 200 "));
    stream
}

#[test]
fn idle_connections_keep_nobody_out() {
    let home = Home::new();
    let server = home.dev().env("MAX_CONNECTIONS", "4").env("HEADER_TIMEOUT_SECONDS", "60").start();
    let begun = Instant::now();
    let idle: Vec<_> = (0..4).map(|_| connect(&server, "")).collect();
    assert_eq!(server.get("/health/live").status, 200);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert!(idle.iter().any(|idle| !is_open(idle)), "who says nothing gives way");
    drop(idle);
    poll(SLACK, "no connection but the one that asks", || {
        server.get("/metrics").body.contains("http_connections_open 1\n").then_some(())
    });
    // Whoever has asked for something keeps the place for half a second, but for the last one. A round that took longer tells nothing.
    let asked = poll(Duration::from_mins(1), "a round in time", || {
        let begun = Instant::now();
        let asked = [(); 4].map(|()| asked_on(&server));
        assert_eq!(server.get("/health/live").status, 200);
        let are_open = asked[..2].iter().all(is_open);
        if begun.elapsed() > Duration::from_millis(400) {
            return None;
        }
        assert!(are_open, "there was room for the first ones");
        Some(asked)
    });
    assert_eq!(read_to_close(&asked[3]), "", "the last place is kept for nobody");
    drop(asked);
    // A stop does not wait for a place.
    let _idle: Vec<_> = (0..8).map(|_| connect(&server, "")).collect();
    server.stop("TERM");
}

#[test]
fn a_token_of_a_megabyte_is_refused_before_it_is_read() {
    let home = Home::new();
    let server = home.dev().start();
    let megabyte = "a".repeat(1 << 20);
    let body = format!("{{\"token\": \"{megabyte}\"}}");
    let length = body.len();
    let in_the_head = format!(
        "GET /api/v1/auth/me HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {megabyte}\r\n\r\n"
    );
    let in_the_body = format!(
        "POST /api/v1/auth/validate HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    for (request, status) in [(in_the_head, "431"), (in_the_body, "413")] {
        let begun = Instant::now();
        let mut stream = connect(&server, "");
        stream.set_write_timeout(Some(SLACK)).unwrap();
        // Whoever is refused in the middle may find the door shut.
        if let Err(error) = stream.write_all(request.as_bytes()) {
            assert!([ErrorKind::ConnectionReset, ErrorKind::BrokenPipe].contains(&error.kind()), "{error}");
        }
        // A reset may overtake the answer.
        let answer = read_to_close(&stream);
        assert!(answer.is_empty() || answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(begun.elapsed() < SLACK, "{:?}", begun.elapsed());
        assert_eq!(server.get("/health/live").status, 200);
    }
    server.stop("TERM");
}
