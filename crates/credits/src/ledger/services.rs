//! Apps that ask, and the users they charge: both are held while a batch is carried out, as callers' sessions are. A batch without apps
//! asks nothing.

use super::batch::{Actor, Order};
use super::error::LedgerError;
use super::model::Command;
use crate::{ChargedBy, HeldServices, SessionGuard};
use mana_kernel::UserId;
use sqlx::PgConnection;
use std::collections::HashSet;

/// What of the batch's keys and users was found, and stays so until the commit.
pub(super) async fn hold(
    connection: &mut PgConnection,
    guard: &dyn SessionGuard,
    orders: &[Order],
) -> Result<HeldServices, LedgerError> {
    let keys: HashSet<&str> = orders.iter().filter_map(|order| order.actor.key()).collect();
    if keys.is_empty() {
        return Ok(HeldServices::default());
    }
    let keys: Vec<&str> = keys.into_iter().collect();
    let users: HashSet<&UserId> =
        orders.iter().filter(|order| takes_for_app(order)).map(|order| &order.user).collect();
    let users: Vec<&UserId> = users.into_iter().collect();
    guard.hold_services(connection, &keys, &users).await.map_err(LedgerError::Port)
}

impl HeldServices {
    /// Whether the key behind an order is accepted no longer.
    pub(super) fn refuses_key(&self, actor: &Actor) -> bool {
        actor.key().is_some_and(|key| !self.keys.contains(key))
    }

    /// Who charged what is told of, by the service key that the line names.
    pub(crate) fn charged_by(&self, key: Option<&str>) -> ChargedBy {
        match key {
            Some(key) if self.bound_keys.contains(key) => ChargedBy::Service,
            Some(_) => ChargedBy::SharedService,
            None => ChargedBy::User,
        }
    }

    /// Whether an app takes from a user who is disabled. What is given back, or let go, it may still do.
    pub(super) fn spares(&self, order: &Order) -> bool {
        takes_for_app(order) && self.disabled.contains(&order.user)
    }
}

fn takes_for_app(order: &Order) -> bool {
    order.actor.key().is_some()
        && matches!(order.command, Some(Command::Spend(_) | Command::Hold { .. } | Command::Capture { .. }))
}
