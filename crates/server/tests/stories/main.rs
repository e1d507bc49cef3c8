//! Stories: what a client of the service does and sees, through the whole router, on a real database.
#![cfg(test)]

mod row_security;
mod story;
mod surface;

mod admin;
mod attacks;
mod bad_input;
mod credits;
mod devices;
mod foreign_sites;
mod headers;
mod limits;
mod login;
mod logout;
mod refresh;
mod register;
mod validate;
