//! The secrets of endpoints, sealed under a root secret and each bound to its own row.

use super::model::{WebhookError, WebhookSecret};
use super::store::{self, SealedSecret};
use crate::token::root_secret::{Purpose, RootSecrets};
use mana_kernel::id::new_uuid;
use mana_kernel::{Clock, Rng};
use sqlx::PgConnection;
use uuid::Uuid;

/// Makes a secret for an endpoint, and stores it sealed.
pub(super) async fn make(
    connection: &mut PgConnection,
    root_secrets: &RootSecrets,
    (clock, rng): (&dyn Clock, &dyn Rng),
    endpoint: Uuid,
) -> Result<WebhookSecret, WebhookError> {
    let (id, secret) = (new_uuid(clock, rng), WebhookSecret::generate(rng));
    let sealed = root_secrets.seal(secret.expose().as_bytes(), Purpose::WebhookSecrets, &name(id), rng)?;
    let row = SealedSecret { id, sealed, version: root_secrets.current_id().to_owned() };
    store::insert_secret(connection, endpoint, &row, clock.now()).await?;
    Ok(secret)
}

/// Opens one. What went wrong says nothing of it.
pub(super) fn open(root_secrets: &RootSecrets, row: &SealedSecret) -> Result<WebhookSecret, String> {
    let plain = root_secrets
        .open(&row.sealed, Purpose::WebhookSecrets, &name(row.id), &row.version)
        .map_err(|error| error.to_string())?;
    let text = std::str::from_utf8(&plain).ok().and_then(|text| WebhookSecret::parse(text).ok());
    text.ok_or_else(|| "its secret is not what this version writes".to_owned())
}

/// What a sealed secret is bound to.
pub(super) fn name(id: Uuid) -> String {
    format!("webhook secret {id}")
}
