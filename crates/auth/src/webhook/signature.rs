//! What proves that a delivery is from here and of now: `t=<seconds>,v1=<hex>`, an HMAC-SHA-256 over `<seconds>.<body>` with the whole
//! secret, prefix and all, as its key. While one secret follows another there is a `v1` of each.

use super::model::WebhookSecret;
use aws_lc_rs::hmac;

/// The header that carries it.
pub(super) const HEADER: &str = "mana-signature";

/// Signs a body as of a time, in seconds of Unix.
pub(super) fn sign(secrets: &[WebhookSecret], at: i64, body: &str) -> String {
    let signed = format!("{at}.{body}");
    secrets.iter().fold(format!("t={at}"), |header, secret| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
        let tag = hmac::sign(&key, signed.as_bytes());
        tag.as_ref().iter().fold(format!("{header},v1="), |text, byte| format!("{text}{byte:02x}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use mana_platform::SystemRng;

    #[test]
    fn a_signature_is_what_others_compute_too() {
        let secret = WebhookSecret::parse("mana_whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA").unwrap();
        // printf '1700000000.{"id":"x"}' | openssl dgst -sha256 -hmac mana_whsec_AAAA…
        assert_eq!(
            sign(std::slice::from_ref(&secret), 1_700_000_000, "{\"id\":\"x\"}"),
            "t=1700000000,v1=f56d7753b63f6cf4dc18c4fbed6baebba2dc66cdc006577baf7456dab00ebbe6"
        );
        let both = sign(&[secret, WebhookSecret::generate(&SystemRng)], 1, "x");
        assert_eq!(both.matches(",v1=").count(), 2, "{both}");
    }
}
