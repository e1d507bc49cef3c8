//! `import legacy`: everything that matters out of the database of the TypeScript service that this one replaces.
//!
//! User by user, each with all that is theirs in one transaction: an account without its wallet, or a wallet without its history, is
//! never there. What was brought is noted with it, so that an import that was cut off goes on where it was.

mod report;
mod run;
mod source;
mod tables;

pub(crate) use report::{Refused, Report};
pub(crate) use run::{LegacyError, Options, Step, run};
