//! The answer to a sign-in by which an app gets tokens, however it was proven.

use super::end::Ended;
use super::login::TokenResponse;
use super::model::SessionError;
use super::open::{Admission, Device, admit};
use super::proof::Proof;
use crate::Auth;
use crate::account::model::User;
use crate::security_event::Origin;
use crate::token::{AppId, refresh};
use crate::two_factor::SecondFactorRequired;
use axum::Json;
use axum::response::{IntoResponse as _, Response};
use http::header;
use mana_platform::db::Transaction;
use serde::Serialize;
use utoipa::ToSchema;

/// Tokens, or the question for a second factor.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum LoginResponse {
    /// Signed in.
    SignedIn(Box<TokenResponse>),
    /// Half way there.
    SecondFactor(SecondFactorRequired),
}

/// Lets a user in who has proven to be it, with a first pair of tokens for the app and the session's cookie, or asks for a second factor.
/// Commits.
pub(crate) async fn sign_in(
    transaction: Transaction,
    auth: &Auth,
    user: &User,
    proof: Proof,
    device: Device<'_>,
    app: &AppId,
    origin: &Origin,
) -> Result<Response, SessionError> {
    let answer = |tokens| Json(LoginResponse::SignedIn(Box::new(tokens))).into_response();
    sign_in_answering(transaction, auth, user, proof, (device, app), origin, answer).await
}

/// The same with another answer to who is in.
pub(crate) async fn sign_in_answering(
    mut transaction: Transaction,
    auth: &Auth,
    user: &User,
    proof: Proof,
    (device, app): (Device<'_>, &AppId),
    origin: &Origin,
    answer: impl FnOnce(TokenResponse) -> Response,
) -> Result<Response, SessionError> {
    let opened = match admit(&mut transaction, auth, user, proof, device, origin).await? {
        Admission::Opened(opened) => opened,
        Admission::Challenged(challenge) => {
            transaction.commit().await?;
            let set_cookie = challenge.cookie(&auth.policy).map(|value| [(header::SET_COOKIE, value)]);
            let answer = LoginResponse::SecondFactor(challenge.answer());
            return Ok((set_cookie, Json(answer)).into_response());
        }
    };
    let tokens = refresh::open_chain(&mut transaction, auth, &opened.user, &opened.session, app).await?;
    let (.., cookie) = opened.commit(transaction, auth, Ended::default()).await?;
    let set_cookie = cookie.map(|value| [(header::SET_COOKIE, value)]);
    Ok((set_cookie, answer(tokens)).into_response())
}
