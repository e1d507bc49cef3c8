//! The way of the books from the TypeScript service that this one replaces: `import legacy`.
//!
//! That service kept a running total in a row and wrote beside it what it had done, and the two need not agree. What it wrote is lived
//! again by the state machine of [`super::model`], line by line, with the ids, times and texts that it had (`history.rs`); where that does
//! not come to what the row says, an adjustment with its reason makes up for it. So the wallet has what it had, and the books are true.
//!
//! Owns `credits.imported_wallets`.

mod answer;
mod bring;
mod history;
mod model;
mod order;
mod package;
mod store;

pub use bring::{BringError, Bringing, Brought, Sums, list_brought, sum_brought};
pub use model::{OldBalance, OldLine, OldOrder, Policy};
pub(crate) use order::BroughtOrder;
pub use package::{OldPackage, Sales, SoldAs, bring_packages};
