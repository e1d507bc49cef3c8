//! Accounts from and to other installations, and from other programs: as JSON lines or CSV, with the members of [`Row`].
//! Works at the command line, on the database.

mod export;
pub(crate) mod import;
mod row;

pub use export::{ExportError, export};
pub use import::{Counts, ImportError, Refused, Step, Target, import};
pub use row::{Format, Lines, Row, read};
