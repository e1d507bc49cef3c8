//! The attacks of docs/THREATS.md that go across features: tried on every operation of the document, on all secrets at once, or
//! by many requests at once.

mod every_operation;
mod races;
mod secrets;
mod strange_input;

use crate::story::{Story, User};
use mana_kernel::Clock as _;
use serde_json::json;
use totp_rs::{Builder, Secret};

/// What somebody has besides a password.
struct SecondFactor {
    secret: String,
    recovery_codes: Vec<String>,
}

/// What an authenticator app shows now.
fn code_in(story: &Story, secret: &str) -> String {
    let totp = Builder::new().with_secret(Secret::try_from_base32(secret).unwrap()).build().unwrap();
    totp.generate(u64::try_from(story.clock.now().unix_timestamp()).unwrap()).to_string()
}

/// Sets an authenticator app up; its code of this moment is used up by that, so a minute passes.
async fn set_up_second_factor(story: &Story, user: &User) -> SecondFactor {
    let post = async |path: &str, body| {
        let reply = story.client.post(path, &body).bearer(&user.access_token).send().await;
        assert_eq!(reply.status, 200, "{path} {}", reply.json);
        reply
    };
    let enrolment = post("/api/v1/auth/two-factor/enrol", json!({})).await;
    let secret = enrolment.text("/secret").to_owned();
    let code = code_in(story, &secret);
    let confirmed = post("/api/v1/auth/two-factor/confirm", json!({"code": code})).await;
    let codes = confirmed.json["recoveryCodes"].as_array().unwrap();
    let recovery_codes = codes.iter().map(|code| code.as_str().unwrap().to_owned()).collect();
    story.clock.advance(time::Duration::minutes(1));
    SecondFactor { secret, recovery_codes }
}
