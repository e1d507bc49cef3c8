//! Whether what somebody has proven is enough, and the sign-in that waits if it is not.

use super::model::{ChallengeToken, FactorMethod, TrustedDeviceToken};
use super::store;
use crate::account::model::User;
use crate::browser_cookie::BrowserCookie;
use crate::session::model::SessionError;
use crate::session::open::Device;
use crate::session::proof::{Method, Proof};
use crate::{Auth, Policy};
use cookie::time::Duration as CookieLife;
use http::HeaderValue;
use serde::Serialize;
use sqlx::PgConnection;
use time::Duration;
use utoipa::ToSchema;

/// How long the second factor is waited for.
pub(super) const CHALLENGE_TTL: Duration = Duration::minutes(10);

/// For clients that go on by cookies; the others get the token in the answer.
pub(super) const CHALLENGE_COOKIE: BrowserCookie = BrowserCookie {
    name: "mana.two_factor",
    secure_name: "__Host-mana.two_factor",
    life: CookieLife::minutes(10),
    is_shared: false,
};

/// Life in the browser is long; what counts is what the database says of the token.
pub(super) const TRUSTED_DEVICE_COOKIE: BrowserCookie = BrowserCookie {
    name: "mana.trusted_device",
    secure_name: "__Host-mana.trusted_device",
    life: CookieLife::days(400),
    is_shared: false,
};

/// A sign-in that waits for its second factor, if the transaction commits.
#[derive(Debug)]
pub(crate) struct Challenge {
    token: ChallengeToken,
    methods: Vec<FactorMethod>,
}

/// The first factor was right; a second one is needed.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SecondFactorRequired {
    /// Always true.
    two_factor_required: bool,
    /// Names the waiting sign-in for ten minutes: send it with the second factor to `/api/v1/auth/two-factor/verify`.
    #[schema(max_length = 64)]
    challenge_token: String,
    /// How the factor may be given.
    #[schema(max_items = 4)]
    methods: Vec<FactorMethod>,
}

impl Challenge {
    /// The body of the answer.
    pub(crate) fn answer(&self) -> SecondFactorRequired {
        SecondFactorRequired {
            two_factor_required: true,
            challenge_token: self.token.expose().to_owned(),
            methods: self.methods.clone(),
        }
    }

    /// The header that lets a browser go on with it.
    pub(crate) fn cookie(&self, policy: &Policy) -> Option<HeaderValue> {
        CHALLENGE_COOKIE.set(self.token.expose(), policy)
    }
}

/// Whether a proof lets its user in.
pub(crate) enum Judgement {
    /// It does.
    Enough(Proof),
    /// It needs a second factor. Commit, or the challenge is of nothing.
    Lacking(Challenge),
}

/// Judges a proof by what the user has set up and the policy asks. A trusted browser counts as a second factor, but not in place of one
/// that has yet to be set up.
pub(crate) async fn judge(
    connection: &mut PgConnection,
    auth: &Auth,
    user: &User,
    proof: Proof,
    device: &Device<'_>,
) -> Result<Judgement, SessionError> {
    let factors = store::find_factors(connection, &user.id).await?;
    let methods = factors.demanded(user.role, auth.policy.two_factor_required);
    if methods.is_empty() || proof.has_second_factor() {
        return Ok(Judgement::Enough(proof));
    }
    let now = auth.clock.now();
    let parse = |value: &str| TrustedDeviceToken::parse(value).ok();
    let tokens: Vec<_> = TRUSTED_DEVICE_COOKIE
        .read(device.headers, &auth.policy, parse)
        .iter()
        .map(|token| token.hash().as_bytes().to_vec())
        .collect();
    let may_trust = !methods.contains(&FactorMethod::Enrolment) && !tokens.is_empty();
    if may_trust && store::is_trusted_device(connection, &user.id, &tokens, now).await? {
        return Ok(Judgement::Enough(proof.and(Method::TrustedDevice)));
    }
    let token = ChallengeToken::generate(&*auth.rng);
    let pending = store::PendingSignIn {
        user_id: user.id.clone(),
        proof,
        device_id: device.id.clone().map(String::from),
        device_name: device.name.clone().map(String::from),
        remember_me: device.remember_me,
    };
    let expires_at = now.saturating_add(CHALLENGE_TTL);
    store::insert_pending(connection, token.hash(), &pending, now, expires_at).await?;
    Ok(Judgement::Lacking(Challenge { token, methods }))
}
