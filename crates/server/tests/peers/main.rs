//! The binary with programs that a laptop may lack: a browser, a pooler. Run with `cargo test --features peers`; a missing program fails.
#![cfg(test)]

#[expect(dead_code, reason = "shared with the tests of the binary, which use all of it")]
#[path = "../binary/cluster.rs"]
mod cluster;
#[expect(dead_code, reason = "shared with the tests of the binary, which use all of it")]
#[path = "../binary/http.rs"]
mod http;
#[expect(dead_code, reason = "shared with the tests of the binary, which use all of it")]
#[path = "../binary/process.rs"]
mod process;

mod apps;
mod browser;
mod contract;
mod pgbouncer;
mod pooler;
mod single_sign_on;
mod tls;
