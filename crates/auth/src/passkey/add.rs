//! `POST /api/v1/auth/passkeys`: adds the passkey that the browser has created.

use super::add_options::within;
use super::ceremony::{self, Expected, Refusal, Registration};
use super::challenge;
use super::client_data::ClientData;
use super::encoded::Encoded;
use super::model::{CredentialType, PASSKEYS, Passkey, PasskeyError, Purpose, TRANSPORTS};
use super::store;
use crate::new_device::warn;
use crate::security_event::{self, EventKind, Origin};
use crate::session::device::Device;
use crate::session::hold::hold;
use crate::verification::ProtectionChange;
use crate::{Auth, AuthState};
use axum::Json;
use axum::extract::State;
use http::StatusCode;
use mana_kernel::Line;
use mana_platform::http::{ApiError, Caller, ClientInfo, Language, ProblemBody, Valid};
use serde::Deserialize;
use utoipa::ToSchema;

/// A new passkey.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AddPasskeyRequest {
    credential: NewPublicKeyCredential,
    /// What to call it; the browser and system when not given.
    name: Option<Line<1, 64>>,
}

/// What `toJSON()` of the new credential gives (`RegistrationResponseJSON`). Members that are not named here are not read.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct NewPublicKeyCredential {
    id: Encoded<22, 1364>,
    raw_id: Encoded<22, 1364>,
    #[expect(dead_code, reason = "there is one type; that it is this one is checked by reading it")]
    r#type: CredentialType,
    response: AttestationResponse,
}

/// What the authenticator gave.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct AttestationResponse {
    #[serde(rename = "clientDataJSON")]
    client_data_json: Encoded<2, 8192>,
    attestation_object: Encoded<2, 32768>,
    /// Ways to the authenticator; unknown ones are left out.
    #[schema(value_type = Option<Vec<Line<1, 32>>>, max_items = 16)]
    transports: Option<Transports>,
}

/// Ways to an authenticator that are known, each once.
#[derive(Debug, Default, Deserialize)]
#[serde(try_from = "Vec<Line<1, 32>>")]
struct Transports(Vec<String>);

impl TryFrom<Vec<Line<1, 32>>> for Transports {
    type Error = &'static str;

    fn try_from(given: Vec<Line<1, 32>>) -> Result<Self, &'static str> {
        if given.len() > 16 {
            return Err("must be 16 at most");
        }
        let is_given = |known: &&str| given.iter().any(|one| one.as_str() == *known);
        Ok(Self(TRANSPORTS.into_iter().filter(is_given).map(str::to_owned).collect()))
    }
}

/// Adds a passkey
///
/// In the session that asked for the options, within five minutes.
#[utoipa::path(
    post, path = "/api/v1/auth/passkeys", tag = "passkeys",
    request_body = AddPasskeyRequest,
    responses(
        (status = 201, description = "It signs in from now on", body = Passkey),
        (status = 400, description = "The options are too old or used up, or the passkey is not as it should be", body = ProblemBody),
        (status = 409, description = "It is registered already, or there are too many", body = ProblemBody),
    ),
    security(("bearer" = [])),
)]
pub(super) async fn add(
    State(auth): State<AuthState>,
    caller: Caller,
    client: ClientInfo,
    language: Language,
    Valid(request): Valid<AddPasskeyRequest>,
) -> Result<(StatusCode, Json<Passkey>), ApiError> {
    let origin = Origin::of_request(&client);
    let AddPasskeyRequest { credential, name } = request;
    let name = name.map_or_else(|| named_by_client(&client, language), String::from);
    let passkey = store_new(&auth, &caller, credential, name, (language, &origin)).await?;
    Ok((StatusCode::CREATED, Json(passkey)))
}

async fn store_new(
    auth: &Auth,
    caller: &Caller,
    given: NewPublicKeyCredential,
    name: String,
    (language, origin): (Language, &Origin),
) -> Result<Passkey, ApiError> {
    let response = &given.response;
    let data = ClientData::read(response.client_data_json.as_bytes());
    let data = data.ok_or(PasskeyError::NotAccepted(Refusal::ClientData))?;
    let challenge = challenge::use_up(auth, &data, Purpose::Registration, Some(within(caller))).await?;
    if given.id != given.raw_id {
        return Err(PasskeyError::NotAccepted(Refusal::CredentialId).into());
    }
    let registration = Registration {
        credential_id: given.raw_id.as_bytes(),
        client_data: &data,
        attestation_object: response.attestation_object.as_bytes(),
    };
    let relying_party = &auth.policy.relying_party;
    let expected = Expected { challenge, relying_party, needs_verification: true };
    let credential = ceremony::register(&registration, &expected).map_err(|refusal| {
        if refusal.is_of_page() { PasskeyError::ForeignOrigin } else { PasskeyError::NotAccepted(refusal) }
    })?;
    let now = auth.clock.now();
    let passkey = Passkey {
        id: mana_kernel::id::new_uuid(&*auth.clock, &*auth.rng),
        name,
        backed_up: credential.is_backed_up,
        transports: given.response.transports.unwrap_or_default().0,
        created_at: now,
        last_used_at: None,
    };
    let user = &caller.user_id;
    let mut transaction = auth.database.begin().await?;
    let owner = hold(&mut transaction, auth, caller).await?;
    if store::count_passkeys(&mut transaction, user).await? >= PASSKEYS {
        return Err(PasskeyError::TooMany.into());
    }
    let session = &caller.session_id;
    store::insert_passkey(&mut transaction, user, session, &passkey, &credential).await.map_err(|error| {
        match error.constraint() {
            Some("passkeys_credential_id_key") => PasskeyError::Exists,
            _ => PasskeyError::Database(error),
        }
    })?;
    let kind = EventKind::PasskeyAdded(passkey.id);
    security_event::record(&mut transaction, auth, kind, Some(user), Some(session), origin).await?;
    let change = ProtectionChange::PasskeyAdded;
    let mail = warn(&mut transaction, auth, &owner, change, Some(session), (language, origin)).await?;
    transaction.commit().await?;
    drop(mail);
    Ok(passkey)
}

/// As `Firefox on Windows`.
fn named_by_client(client: &ClientInfo, language: Language) -> String {
    let device = client.user_agent.as_deref().map(Device::of).unwrap_or_default();
    device.in_words(language)
}
