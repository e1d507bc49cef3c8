//! Stories: what a client of the service does and sees, through the whole router, on a real database.
#![cfg(test)]

mod observed;
mod passkeys;
mod proof;
mod provider;
mod row_security;
mod smtp;
mod story;
mod surface;
mod threats;
mod two_factor;

mod account;
mod admin;
mod administration;
mod attacks;
mod bad_input;
mod bonuses;
mod credits;
mod devices;
mod foreign_sites;
mod headers;
mod importing;
mod keys;
mod ledger;
mod ledger_faults;
mod limits;
mod liveness;
mod login;
mod logout;
mod mail_flows;
mod mails;
mod moving;
mod new_devices;
mod oauth;
mod oauth_attacks;
mod oauth_linking;
mod passwords;
mod refresh;
mod refresh_under_fire;
mod register;
mod retention;
mod service_keys;
mod single_sign_on;
mod validate;
