//! The binary `mana-core-auth`: joins accounts and credits into one service, and gives it a command line.

mod accept;
pub mod app;
pub mod cli;
mod dev;
mod docs;
pub mod doctor;
mod drain;
pub mod errors;
mod health;
mod legacy;
pub mod openapi;
mod places;
mod ports;
mod serve;
mod source;
mod upgrade;
mod way_out;
pub mod workers;
