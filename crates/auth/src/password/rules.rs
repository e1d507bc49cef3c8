//! What a new password must meet, and the only way to one that may be hashed.

use super::known::KnownPasswords;
use super::model::{NewPassword, PasswordError, Refusal};
use super::own_words::{is_made_of, words_of_address};
use super::range::RangeLookup;
use secrecy::{ExposeSecret as _, SecretString};

/// The rules of this installation.
#[derive(Debug)]
pub struct PasswordRules {
    /// Code points that a new password needs at least.
    pub min_length: usize,
    /// Names that an attacker would try here.
    pub product_names: Vec<String>,
    /// What attackers try everywhere.
    pub known: KnownPasswords,
    /// Who is asked about the rest, if anybody.
    pub range: Option<RangeLookup>,
}

/// A password that has met the rules.
#[derive(Debug)]
pub(super) struct AcceptedPassword(SecretString);

impl AcceptedPassword {
    pub(super) fn into_secret(self) -> SecretString {
        self.0
    }
}

impl PasswordRules {
    /// Lets a password pass that may be used for the account of the address. `field` is where the client sent it.
    pub(super) async fn accept(
        &self,
        password: NewPassword,
        address: &str,
        field: &'static str,
    ) -> Result<AcceptedPassword, PasswordError> {
        let refuse = |refusal| Err(PasswordError::Refused { refusal, field });
        let (length, secret) = (password.length(), password.into_secret());
        let text = secret.expose_secret();
        if length < self.min_length {
            return refuse(Refusal::TooShort(self.min_length));
        }
        if is_made_of(text, &self.product_names) {
            return refuse(Refusal::ProductName);
        }
        if is_made_of(text, &[words_of_address(address), self.product_names.clone()].concat()) {
            return refuse(Refusal::OwnAddress);
        }
        if self.known.contain(text) {
            return refuse(Refusal::Common);
        }
        if let Some(range) = &self.range
            && range.contains(text).await
        {
            return refuse(Refusal::Breached);
        }
        Ok(AcceptedPassword(secret))
    }
}
