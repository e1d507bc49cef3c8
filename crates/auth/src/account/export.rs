//! `GET /api/v1/auth/export`: everything that is kept of a person, for that person.
//!
//! Written as it is read, page by page, so that a long history takes no more memory than a short one. A failure on the way breaks the
//! answer off, which no reader of JSON takes for a whole one. So does the end of the session that asked.

use super::me;
use crate::session::hold::refuse_minted;
use crate::session::liveness::store::{Found, find};
use crate::{Auth, AuthState, DataPage, PortError, oauth, passkey, security_event, session, two_factor};
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use http::header;
use mana_kernel::UserId;
use mana_platform::DbError;
use mana_platform::http::{ApiError, Caller, ProblemBody, codes};
use serde_json::Value;
use sqlx::PgConnection;
use std::io;
use std::sync::Arc;
use time::{Duration, OffsetDateTime};
use tokio::time::timeout;
use utoipa::openapi::schema::{
    AdditionalProperties, ArrayBuilder, KnownFormat, ObjectBuilder, SchemaFormat, Type,
};
use utoipa::openapi::{Array, Object, Ref, RefOr, Schema};

/// How long somebody may take to read it.
const LONGEST: Duration = Duration::minutes(5);
/// How long the database may take for a page of it. The time limit of requests ends with the head of the answer.
const LONGEST_PAGE: std::time::Duration = std::time::Duration::from_secs(30);

/// The document. What is in `credits`, the ledger knows.
pub(crate) struct Exported;

impl utoipa::PartialSchema for Exported {
    fn schema() -> RefOr<Schema> {
        let factor = ObjectBuilder::new()
            .property("setUpAt", at())
            .required("setUpAt")
            .property("recoveryCodesLeft", recovery_codes())
            .required("recoveryCodesLeft")
            .additional_properties(Some(AdditionalProperties::FreeForm(false)))
            .build();
        ObjectBuilder::new()
            .property("user", Ref::from_schema_name("User"))
            .required("user")
            .property("sessions", all_of("Session"))
            .required("sessions")
            .property("securityEvents", all_of("SecurityEvent"))
            .required("securityEvents")
            .property("linkedAccounts", all_of("LinkedAccountResponse"))
            .required("linkedAccounts")
            .property("passkeys", all_of("Passkey"))
            .required("passkeys")
            .property("secondFactor", ArrayBuilder::new().items(factor).max_items(Some(1)))
            .required("secondFactor")
            .property("trustedDevices", all_of("TrustedDevice"))
            .required("trustedDevices")
            .additional_properties(Some(AdditionalProperties::FreeForm(false)))
            .into()
    }
}

fn at() -> Object {
    let format = SchemaFormat::KnownFormat(KnownFormat::DateTime);
    ObjectBuilder::new().schema_type(Type::String).format(Some(format)).build()
}

fn recovery_codes() -> Object {
    ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)).maximum(Some(10)).build()
}

/// A list that ends where the data do.
fn all_of(schema: &str) -> Array {
    ArrayBuilder::new().items(Ref::from_schema_name(schema)).max_items(Some(9_007_199_254_740_991)).build()
}

impl utoipa::ToSchema for Exported {}

/// Everything that is kept of the signed-in user
///
/// One JSON object: `user`, `sessions`, `securityEvents`, `linkedAccounts`, `passkeys`, `secondFactor` and `trustedDevices`, and in `credits` what the
/// ledger has: `wallet`, `transactions`, `usage`, `holds`, `purchases` (with what the payer told at the till, and tax), `refunds`, `disputes`,
/// `stripeCustomers` and `autoTopUp`. Secrets, as the hash of the password, are in none of it; nor from where others acted on the account.
#[utoipa::path(
    get, path = "/api/v1/auth/export", tag = "auth",
    responses(
        (status = 200, description = "All of it, as a file", body = Exported),
        (status = 403, description = "By a session that an app opened", body = ProblemBody),
    ),
    security(("bearer" = [])),
)]
pub(crate) async fn export(State(auth): State<AuthState>, caller: Caller) -> Result<Response, ApiError> {
    refuse_minted(&mut *auth.database.acquire().await?, &caller).await?;
    let user = me::read(&auth, &caller).await?;
    let user = serde_json::to_value(user).map_err(|_| ApiError::new(&codes::INTERNAL))?;
    let document = Document {
        lists: lists_of(&auth.0),
        auth: Arc::clone(&auth.0),
        deadline: auth.clock.now().saturating_add(LONGEST),
        caller,
        head: Some(format!("{{\"user\":{user}")),
        list: 0,
        after: None,
        is_in_list: false,
        is_done: false,
    };
    let body = Body::from_stream(stream::try_unfold(document, |mut document| async move {
        Ok::<_, io::Error>(document.next().await?.map(|chunk| (chunk, document)))
    }));
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"mana-export.json\""),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((headers, body).into_response())
}

/// A list of the document: who has it, its name, and what stands before and behind it.
#[derive(Debug, Clone, Copy)]
struct List {
    of: Owner,
    name: &'static str,
    before: &'static str,
    behind: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Sessions,
    SecurityEvents,
    LinkedAccounts,
    Passkeys,
    SecondFactor,
    TrustedDevices,
    Credits,
}

fn lists_of(auth: &Auth) -> Vec<List> {
    let mut lists = vec![
        List { of: Owner::Sessions, name: "sessions", before: ",", behind: "" },
        List { of: Owner::SecurityEvents, name: "securityEvents", before: ",", behind: "" },
        List { of: Owner::LinkedAccounts, name: "linkedAccounts", before: ",", behind: "" },
        List { of: Owner::Passkeys, name: "passkeys", before: ",", behind: "" },
        List { of: Owner::SecondFactor, name: "secondFactor", before: ",", behind: "" },
        List { of: Owner::TrustedDevices, name: "trustedDevices", before: ",", behind: "" },
    ];
    let of_credits = auth.personal_data.lists();
    for (number, name) in of_credits.iter().enumerate() {
        let is_last = number.saturating_add(1) == of_credits.len();
        lists.push(List {
            of: Owner::Credits,
            name,
            before: if number == 0 { ",\"credits\":{" } else { "," },
            behind: if is_last { "}" } else { "" },
        });
    }
    lists
}

/// The document, as far as it is written.
struct Document {
    auth: Arc<Auth>,
    /// Whose it is, as long as the session lives.
    caller: Caller,
    /// Whoever has not read it by then reads it no further.
    deadline: OffsetDateTime,
    lists: Vec<List>,
    /// What stands before the lists, until it is written.
    head: Option<String>,
    /// Which list is next.
    list: usize,
    /// Where in it.
    after: Option<String>,
    is_in_list: bool,
    is_done: bool,
}

impl Document {
    /// The next piece; none after the last.
    async fn next(&mut self) -> io::Result<Option<String>> {
        if let Some(head) = self.head.take() {
            return Ok(Some(head));
        }
        if self.is_done {
            return Ok(None);
        }
        let Some(list) = self.lists.get(self.list).copied() else {
            self.is_done = true;
            return Ok(Some("}".to_owned()));
        };
        let broken_off = || io::Error::other("the export can't be finished");
        if self.auth.clock.now() >= self.deadline {
            tracing::info!(list = list.name, "an export breaks off: its reader took too long");
            return Err(broken_off());
        }
        let page = page(&self.auth, &self.caller, list, self.after.as_deref());
        let Ok(page) = timeout(LONGEST_PAGE, page).await else {
            tracing::error!(list = list.name, "an export breaks off: the database says nothing");
            return Err(broken_off());
        };
        let page = page.map_err(|error| {
            let cause: &(dyn std::error::Error + 'static) = &*error;
            tracing::error!(cause, list = list.name, "an export breaks off");
            broken_off()
        })?;
        let Some(page) = page else {
            tracing::info!(list = list.name, "an export breaks off: its session has ended");
            return Err(broken_off());
        };
        let mut piece = String::new();
        let mut separator = ",";
        if !self.is_in_list {
            // Names are ours and need no escaping.
            piece.push_str(list.before);
            piece.push('"');
            piece.push_str(list.name);
            piece.push_str("\":[");
            separator = "";
        }
        for row in page.rows {
            piece.push_str(separator);
            piece.push_str(&row.to_string());
            separator = ",";
        }
        self.is_in_list = page.next.is_some();
        self.after = page.next;
        if !self.is_in_list {
            piece.push(']');
            piece.push_str(list.behind);
            self.list = self.list.saturating_add(1);
        }
        Ok(Some(piece))
    }
}

/// A page of a list, read as the user, in a transaction of its own: none stays open while a slow reader reads. One at a time: exports that held one
/// and waited for another would keep all connections from everybody. None if the session has ended: looked at after the page was read, so that
/// nothing is shown to who was the owner when the reading began.
async fn page(
    auth: &Auth,
    caller: &Caller,
    list: List,
    after: Option<&str>,
) -> Result<Option<DataPage>, PortError> {
    let boxed = |error: DbError| -> PortError { Box::new(error) };
    let (user, session) = (&caller.user_id, &caller.session_id);
    let begun = match list.of {
        // Which no user may read, as the secret lies there.
        Owner::SecondFactor => auth.database.begin().await,
        Owner::Sessions
        | Owner::SecurityEvents
        | Owner::LinkedAccounts
        | Owner::Passkeys
        | Owner::TrustedDevices
        | Owner::Credits => auth.database.begin_as(user).await,
    };
    let mut transaction = begun.map_err(boxed)?;
    let page = read(&mut transaction, auth, user, list, after).await?;
    let found = find(&mut transaction, session, user, auth.clock.now()).await.map_err(boxed)?;
    Ok(matches!(found, Found::Live { .. }).then_some(page))
}

async fn read(
    connection: &mut PgConnection,
    auth: &Auth,
    user: &UserId,
    list: List,
    after: Option<&str>,
) -> Result<DataPage, PortError> {
    let boxed = |error: DbError| -> PortError { Box::new(error) };
    match list.of {
        Owner::Sessions => session::store::list_all(connection, user, after).await.map_err(boxed),
        Owner::SecurityEvents => {
            security_event::store::list_all(connection, user, after).await.map_err(boxed)
        }
        Owner::LinkedAccounts => {
            let links = oauth::store::list_accounts(connection, user).await.map_err(boxed)?;
            let links = links.into_iter().map(oauth::LinkedAccountResponse::of);
            Ok(DataPage::of(links.map(row).collect(), None))
        }
        Owner::Passkeys => {
            let passkeys = passkey::store::list_passkeys(connection, user).await.map_err(boxed)?;
            Ok(DataPage::of(passkeys.into_iter().map(row).collect(), None))
        }
        Owner::SecondFactor => {
            let factor = two_factor::store::list_second_factor(connection, user).await;
            Ok(DataPage::of(factor.map_err(boxed)?.into_iter().map(row).collect(), None))
        }
        Owner::TrustedDevices => {
            let now = auth.clock.now();
            let devices = two_factor::store::list_trusted_devices(connection, user, now).await;
            Ok(DataPage::of(devices.map_err(boxed)?.into_iter().map(row).collect(), None))
        }
        Owner::Credits => auth.personal_data.page(connection, user, list.name, after).await,
    }
}

/// A row of a page.
pub(crate) fn row(row: impl serde::Serialize) -> Value {
    serde_json::to_value(row).unwrap_or_default()
}
