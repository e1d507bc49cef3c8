//! The binary itself: started as a person or a service manager starts it, and asked over TCP.
#![cfg(test)]

mod cluster;
mod collector;
mod http;
mod process;
mod till;
mod wire;

mod administration;
mod commands;
mod connections;
mod dev;
mod faults;
mod hashing;
mod internal;
mod keys;
mod ledger;
mod legacy;
mod logs;
mod payments;
mod proxies;
mod readme;
mod refresh;
mod refusals;
mod revocation;
mod scarcity;
mod serve;
mod service_keys;
mod smuggling;
mod stopping;
mod torture;
mod traces;
mod upgrade;
mod users;
mod webhooks;
