//! What administrators do to purchases and to what is for sale, written down in the transaction in which it is done.

use super::act::Act;
use crate::security_event::EventKind;
use mana_kernel::UserId;
use mana_platform::DbError;
use sqlx::PgConnection;

/// What an administrator does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SalesDeed<'a> {
    /// Money of a purchase goes back.
    PurchaseRefunded {
        /// To whom.
        user: &'a UserId,
        /// Of which purchase.
        purchase: &'a str,
        /// How much, in the smallest unit of its currency.
        amount_cents: i64,
    },
    /// A package is made, or has a new version.
    PackageChanged {
        /// Which.
        package: &'a str,
    },
}

/// Writes down what was done; who did it has held the office since before.
///
/// # Errors
/// When the database fails: then it must not be done.
pub async fn record_sale(
    connection: &mut PgConnection,
    act: &Act<'_>,
    deed: &SalesDeed<'_>,
) -> Result<(), DbError> {
    match *deed {
        SalesDeed::PurchaseRefunded { user, purchase, amount_cents } => {
            let kind = EventKind::PurchaseRefunded { amount_cents, purchase: purchase.to_owned() };
            act.record(connection, kind, user).await
        }
        SalesDeed::PackageChanged { package } => {
            act.record_of_installation(connection, EventKind::PackageChanged(package.to_owned())).await
        }
    }
}
