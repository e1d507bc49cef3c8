//! The binary with programs that a laptop may lack: a browser, a pooler, an issuer. Run with `cargo test --features peers`; a missing program fails.
#![cfg(test)]

#[expect(dead_code, reason = "shared with the tests of the binary, which use all of it")]
#[path = "../binary/cluster.rs"]
mod cluster;
#[path = "../binary/http.rs"]
mod http;
#[expect(dead_code, reason = "shared with the tests of the binary, which use all of it")]
#[path = "../binary/process.rs"]
mod process;
#[path = "../binary/till.rs"]
mod till;

mod apps;
mod backups;
mod browser;
mod chaos;
mod clock;
mod contract;
mod crowd;
mod deployment;
mod devtools;
mod disk;
mod failover;
mod machine;
mod mail_server;
mod network;
mod oidc_provider;
mod passkeys;
mod pgbouncer;
mod pooler;
mod previous;
mod program;
mod sentinel;
mod single_sign_on;
mod standby;
mod stripe_client;
mod tls;
mod topology;
mod up;
