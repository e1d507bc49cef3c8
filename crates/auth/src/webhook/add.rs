//! `POST /api/v1/admin/apps/{appId}/webhooks`: adds an endpoint and tells its secret, once.

use super::model::{
    AppName, CreatedWebhook, ENDPOINTS_OF_AN_APP, NewWebhook, WebhookDetails, WebhookError, read_url,
};
use super::{seal, store};
use crate::AuthState;
use crate::admin::Act;
use crate::security_event::EventKind;
use crate::token::root_secret::RootSecrets;
use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use mana_kernel::id::new_uuid;
use mana_kernel::{Clock, Rng, UserId};
use mana_platform::http::{ApiError, ClientInfo, FreshAdmin, ProblemBody, Valid};
use mana_platform::{Database, Outbound};
use sqlx::PgConnection;

/// Adds an endpoint to an app
///
/// From then on it hears of what happens in this app, and of what concerns every app; of spends from five seconds later at the latest. The
/// answer tells the secret that deliveries are signed with, and nothing tells it again. Needs a proof that is fresh.
#[utoipa::path(
    post, path = "/api/v1/admin/apps/{appId}/webhooks", tag = "admin",
    params(("appId" = String, Path, description = "The app", min_length = 1, max_length = 128)),
    request_body = NewWebhook,
    responses(
        (status = 201, description = "The endpoint", body = CreatedWebhook),
        (status = 400, description = "Nothing may be sent to the URL, or a body that does not fit", body = ProblemBody),
        (status = 403, description = "Not an administrator, or none who has just proven it", body = ProblemBody),
        (status = 404, description = "No such app", body = ProblemBody),
        (status = 409, description = "The app has as many as it may have", body = ProblemBody),
    ),
    security(("bearer" = [])),
)]
pub(crate) async fn add_webhook(
    State(auth): State<AuthState>,
    FreshAdmin(admin): FreshAdmin,
    client: ClientInfo,
    Path(app): Path<String>,
    Valid(new): Valid<NewWebhook>,
) -> Result<(StatusCode, Json<CreatedWebhook>), ApiError> {
    let app = AppName::try_from(app).map_err(|_| WebhookError::NotFound)?;
    read_url(new.url.as_str(), |url| auth.webhooks.outbound.may_reach(url))?;
    let by = (&*auth.clock, &*auth.rng);
    let act = Act::of_request(&auth, &admin, &client, None);
    let mut transaction = act.begin(&auth.database).await?;
    let created = insert(&mut transaction, &auth.root_secrets, by, &app, &new, Some(&admin.user_id)).await?;
    act.record_of_installation(&mut transaction, EventKind::WebhookAdded(created.details.id)).await?;
    transaction.commit().await?;
    auth.webhooks.listeners.forget();
    Ok((StatusCode::CREATED, Json(created)))
}

/// Adds an endpoint for whoever may use the command line.
///
/// # Errors
/// When nothing may be sent there, the app has as many as it may have, or the database fails.
pub async fn add(
    database: &Database,
    root_secrets: &RootSecrets,
    (clock, rng): (&dyn Clock, &dyn Rng),
    outbound: &Outbound,
    app: &AppName,
    new: &NewWebhook,
) -> Result<CreatedWebhook, WebhookError> {
    read_url(new.url.as_str(), |url| outbound.may_reach(url))?;
    let act = Act::of_operator((clock, rng), None);
    let mut transaction = act.begin(database).await?;
    let created = insert(&mut transaction, root_secrets, (clock, rng), app, new, None).await?;
    act.record_of_installation(&mut transaction, EventKind::WebhookAdded(created.details.id)).await?;
    transaction.commit().await?;
    Ok(created)
}

async fn insert(
    connection: &mut PgConnection,
    root_secrets: &RootSecrets,
    (clock, rng): (&dyn Clock, &dyn Rng),
    app: &AppName,
    new: &NewWebhook,
    by: Option<&UserId>,
) -> Result<CreatedWebhook, WebhookError> {
    if store::hold_endpoints_of(connection, app.as_str()).await? >= ENDPOINTS_OF_AN_APP {
        return Err(WebhookError::TooMany);
    }
    let details = WebhookDetails {
        id: new_uuid(clock, rng),
        app_id: app.as_str().to_owned(),
        url: new.url.as_str().to_owned(),
        events: new.events.events().to_vec(),
        spent_from: new.spent_from.map_or(1, mana_kernel::Amount::get),
        created_at: clock.now(),
        created_by: by.map(ToString::to_string),
        last_success_at: None,
        failing_since: None,
        last_error: None,
        disabled_at: None,
        waiting: 0,
        dead: 0,
    };
    store::insert_endpoint(connection, &details).await?;
    let secret = seal::make(connection, root_secrets, (clock, rng), details.id).await?;
    Ok(CreatedWebhook { secret, details })
}
