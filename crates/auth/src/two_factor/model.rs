//! What a second factor is, and who needs one.

use crate::account::model::Role;
use mana_kernel::opaque_secret;
use mana_platform::config::TwoFactorRequired;
use serde::Serialize;
use utoipa::ToSchema;

opaque_secret! {
    /// Names a sign-in that waits for its second factor. Opens nothing by itself.
    ChallengeToken, ChallengeTokenHash, "mch_"
}

opaque_secret! {
    /// Marks a browser in which the second factor need not be given again.
    TrustedDeviceToken, TrustedDeviceTokenHash, "mtd_"
}

/// How a second factor can be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FactorMethod {
    /// A code of an authenticator app.
    Totp,
    /// One of the codes on paper.
    RecoveryCode,
    /// A passkey.
    Passkey,
    /// None is set up and one is required: set up an authenticator app now.
    Enrolment,
}

/// What an account has set up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Factors {
    /// An authenticator app, confirmed.
    pub(crate) has_totp: bool,
    /// Recovery codes that are left.
    pub(crate) recovery_codes: i64,
    /// Passkeys.
    pub(crate) has_passkey: bool,
}

impl Factors {
    /// How a second factor may be given after a first one of this account; none if none is asked for.
    pub(crate) fn demanded(self, role: Role, required: TwoFactorRequired) -> Vec<FactorMethod> {
        let is_required = match required {
            TwoFactorRequired::None => false,
            TwoFactorRequired::Admins => role == Role::Admin,
            TwoFactorRequired::All => true,
        };
        if !self.has_totp && !is_required {
            return Vec::new();
        }
        let mut methods = Vec::new();
        if self.has_totp {
            methods.push(FactorMethod::Totp);
        }
        if self.has_passkey {
            methods.push(FactorMethod::Passkey);
        }
        if methods.is_empty() {
            return vec![FactorMethod::Enrolment];
        }
        if self.recovery_codes > 0 {
            methods.push(FactorMethod::RecoveryCode);
        }
        methods
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_factor_is_asked_of_who_has_one_and_of_whom_the_policy_names() {
        let none = Factors::default();
        let totp = Factors { has_totp: true, recovery_codes: 3, has_passkey: false };
        let passkey = Factors { has_passkey: true, ..none };
        for required in [TwoFactorRequired::None, TwoFactorRequired::Admins, TwoFactorRequired::All] {
            assert_eq!(totp.demanded(Role::User, required), [FactorMethod::Totp, FactorMethod::RecoveryCode]);
        }
        assert_eq!(none.demanded(Role::Admin, TwoFactorRequired::None), []);
        assert_eq!(none.demanded(Role::User, TwoFactorRequired::Admins), []);
        assert_eq!(none.demanded(Role::Admin, TwoFactorRequired::Admins), [FactorMethod::Enrolment]);
        assert_eq!(none.demanded(Role::User, TwoFactorRequired::All), [FactorMethod::Enrolment]);
        assert_eq!(passkey.demanded(Role::User, TwoFactorRequired::None), [], "a passkey is another way in");
        assert_eq!(passkey.demanded(Role::User, TwoFactorRequired::All), [FactorMethod::Passkey]);
    }
}
