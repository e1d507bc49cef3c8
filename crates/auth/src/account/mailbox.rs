//! Which mailbox an address leads to, for counting people, and what may be kept of it after its account is gone.

use crate::Auth;
use crate::token::root_secret::{Purpose, RootSecretError};
use aws_lc_rs::hmac;

/// A mailbox: addresses that lead to the same one are equal, as far as it can be told from outside. Never shown and never mailed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mailbox(String);

/// Domains whose mailboxes have the same name with and without dots.
const DOTS_ARE_NOTHING: [&str; 2] = ["gmail.com", "googlemail.com"];

impl Mailbox {
    /// Of an address in its canonical form: without what stands behind a plus, and without dots where they mean nothing.
    pub(crate) fn of(email: &str) -> Self {
        let (local, domain) = email.rsplit_once('@').unwrap_or((email, ""));
        let local = match local.split_once('+') {
            Some((local, _)) if !local.is_empty() => local,
            _ => local,
        };
        if DOTS_ARE_NOTHING.contains(&domain) {
            return Self(format!("{}@gmail.com", local.replace('.', "")));
        }
        Self(format!("{local}@{domain}"))
    }

    /// What may be kept of it: under the newest root secret, and under each of the older ones, for what was kept before.
    pub(crate) fn hashes(&self, auth: &Auth) -> Result<Vec<Vec<u8>>, RootSecretError> {
        let secrets = &auth.root_secrets;
        let hash = |id| {
            let key = hmac::Key::new(hmac::HMAC_SHA256, &secrets.derive(id, Purpose::Mailboxes)?);
            Ok(hmac::sign(&key, self.0.as_bytes()).as_ref().to_vec())
        };
        secrets.ids().map(hash).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Mailbox;

    #[test]
    fn spellings_of_a_mailbox_are_one() {
        for (one, other) in [
            ("ada@example.com", "ada+shop@example.com"),
            ("ada@example.com", "ada+a+b@example.com"),
            ("ada.lovelace@gmail.com", "adalovelace@gmail.com"),
            ("a.d.a@gmail.com", "ada+x@googlemail.com"),
        ] {
            assert_eq!(Mailbox::of(one), Mailbox::of(other), "{one} {other}");
        }
        for (one, other) in [
            ("ada@example.com", "bob@example.com"),
            ("ada@example.com", "ada@example.org"),
            ("a.da@example.com", "ada@example.com"),
            ("+a@example.com", "+b@example.com"),
        ] {
            assert_ne!(Mailbox::of(one), Mailbox::of(other), "{one} {other}");
        }
    }
}
