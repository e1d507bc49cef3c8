//! What is not for everybody has an address of its own.

use crate::process::{Home, free_port};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

fn status(port: u16, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    (reply[9..12].parse().unwrap(), reply)
}

#[test]
fn metrics_and_internal_routes_are_answered_at_the_internal_address_and_nowhere_else() {
    let (home, internal) = (Home::new(), free_port());
    let balance = "/api/v1/internal/credits/balance/nobody";
    let open = home.dev().start();
    assert_eq!(status(open.port, "/metrics").0, 200, "the control: without the setting, all is in one place");
    assert_eq!(status(open.port, balance).0, 401);
    open.stop("TERM");

    let server = home.dev().env("INTERNAL_ADDRESS", format!("127.0.0.1:{internal}")).start();
    for path in ["/metrics", balance] {
        assert_eq!(status(server.port, path).0, 404, "{path}");
    }
    let (code, metrics) = status(internal, "/metrics");
    assert!(code == 200 && metrics.contains("build_info"), "{metrics}");
    assert_eq!(status(internal, balance).0, 401, "it asks for a key there, too");
    for port in [internal, server.port] {
        assert_eq!(status(port, "/health/ready").0, 200);
    }
    assert_eq!((status(server.port, "/api/v1/auth/me").0, status(internal, "/api/v1/auth/me").0), (401, 404));
    let taken = Home::new();
    let refused = taken.dev().env("INTERNAL_ADDRESS", format!("127.0.0.1:{internal}")).run().sentence();
    assert!(refused.contains(&format!("127.0.0.1:{internal} can't be listened on")), "{refused}");
    server.stop("TERM");
    home.falls_quiet();
}
