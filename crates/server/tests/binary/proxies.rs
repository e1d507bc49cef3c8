//! A proxy that the operator forgot to trust is named in the log.

use crate::process::{Home, poll};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

const ASKED_FOR_ANOTHER: &str = "GET /health/live HTTP/1.1\r\nhost: localhost\r\nx-forwarded-for: 198.51.100.1\r\n\
                                 connection: close\r\n\r\n";

#[test]
fn a_proxy_that_is_not_trusted_is_one_line_in_the_log() {
    let home = Home::new();
    for (trusted, expected) in [("", 1), ("127.0.0.0/8", 0)] {
        let launch = home.dev();
        let server = if trusted.is_empty() { launch } else { launch.env("TRUSTED_PROXIES", trusted) }.start();
        for _ in 0..3 {
            let mut stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
            stream.write_all(ASKED_FOR_ANOTHER.as_bytes()).unwrap();
            let mut reply = String::new();
            stream.read_to_string(&mut reply).unwrap();
            assert!(reply.starts_with("HTTP/1.1 200 "), "{reply}");
        }
        let lines = || server.stderr().matches("until TRUSTED_PROXIES names its network").count();
        poll(Duration::from_secs(5), "the log", || (lines() >= expected).then_some(()));
        assert_eq!(lines(), expected, "{}", server.stderr());
        server.stop("TERM");
        home.falls_quiet();
    }
}
