//! What is not for everybody has an address of its own.

use crate::process::{Home, free_port};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

fn status(port: u16, method: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    )
    .unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    (reply[9..12].parse().unwrap(), reply)
}

/// Every internal route: those of the document, and where older services look for the others that a service key opens.
fn internal_routes() -> Vec<(String, String)> {
    let document = serde_json::to_value(mana_core_auth::openapi::document()).unwrap();
    let mut routes = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let accepted = operation["security"].as_array().into_iter().flatten();
            let is_for_apps = accepted.into_iter().any(|one| one.get("serviceKey").is_some());
            if path.contains("/internal/") || is_for_apps {
                let path = path.replace("/api/v1/credits/", "/api/v1/internal/credits/");
                routes.push((
                    method.to_uppercase(),
                    path.replace("{userId}", "nobody").replace("{id}", "none"),
                ));
            }
        }
    }
    assert!(
        routes.len() >= 11 && routes.iter().all(|(_, path)| path.starts_with("/api/v1/internal/")),
        "{routes:?}"
    );
    routes
}

#[test]
fn metrics_and_internal_routes_are_answered_at_the_internal_address_and_nowhere_else() {
    let (home, internal) = (Home::new(), free_port());
    let routes = internal_routes();
    let open = home.dev().start();
    assert_eq!(
        status(open.port, "GET", "/metrics").0,
        200,
        "the control: without the setting, all is in one place"
    );
    for (method, path) in &routes {
        assert_eq!(status(open.port, method, path).0, 401, "{method} {path}");
    }
    open.stop("TERM");

    let server = home.dev().env("INTERNAL_ADDRESS", format!("127.0.0.1:{internal}")).start();
    assert_eq!(status(server.port, "GET", "/metrics").0, 404);
    for (method, path) in &routes {
        assert_eq!(status(server.port, method, path).0, 404, "{method} {path}");
        assert_eq!(status(internal, method, path).0, 401, "it asks for a key there, too: {method} {path}");
    }
    let (code, metrics) = status(internal, "GET", "/metrics");
    assert!(code == 200 && metrics.contains("build_info"), "{metrics}");
    for port in [internal, server.port] {
        assert_eq!(status(port, "GET", "/health/ready").0, 200);
    }
    let me = "/api/v1/auth/me";
    assert_eq!((status(server.port, "GET", me).0, status(internal, "GET", me).0), (401, 404));
    let taken = Home::new();
    let refused = taken.dev().env("INTERNAL_ADDRESS", format!("127.0.0.1:{internal}")).run().sentence();
    assert!(refused.contains(&format!("127.0.0.1:{internal} can't be listened on")), "{refused}");
    server.stop("TERM");
    home.falls_quiet();
}
