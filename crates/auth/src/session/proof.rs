//! By what somebody has proven who they are.

/// One way to prove it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    /// The account's password.
    Password,
    /// A link or code that was mailed to the account's address.
    Mail,
    /// Another service that the account is linked to.
    Provider,
    /// A passkey whose authenticator saw that somebody was there.
    Passkey,
    /// A passkey whose authenticator verified its user, by PIN or body: two factors in one.
    VerifiedPasskey,
    /// A time-based code.
    Code,
    /// A recovery code.
    RecoveryCode,
    /// A browser that a second factor was given in before, and that the person asked to remember.
    TrustedDevice,
}

const METHODS: [Method; 8] = [
    Method::Password,
    Method::Mail,
    Method::Provider,
    Method::Passkey,
    Method::VerifiedPasskey,
    Method::Code,
    Method::RecoveryCode,
    Method::TrustedDevice,
];

impl Method {
    /// As in the database.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Mail => "mail",
            Self::Provider => "provider",
            Self::Passkey => "passkey",
            Self::VerifiedPasskey => "verified_passkey",
            Self::Code => "code",
            Self::RecoveryCode => "recovery_code",
            Self::TrustedDevice => "trusted_device",
        }
    }

    /// Whether it may come first. What may not proves nothing by itself.
    fn is_first(self) -> bool {
        matches!(self, Self::Password | Self::Mail | Self::Provider | Self::Passkey | Self::VerifiedPasskey)
    }
}

/// All that somebody has proven it by, in the order in which they did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Proof(Vec<Method>);

impl Proof {
    /// Nothing: somebody else has vouched for them.
    pub(crate) fn nothing() -> Self {
        Self(Vec::new())
    }

    /// By one method.
    pub(crate) fn of(method: Method) -> Self {
        Self(vec![method])
    }

    /// And by another.
    pub(crate) fn and(mut self, method: Method) -> Self {
        self.0.push(method);
        self
    }

    /// Whether two factors are proven: one that may come first with another of another kind, or a passkey that verifies its user.
    pub(crate) fn has_second_factor(&self) -> bool {
        if self.0.contains(&Method::VerifiedPasskey) {
            return true;
        }
        let has_first = self.0.iter().any(|method| method.is_first() && *method != Method::Passkey);
        let has_second = self.0.iter().any(|method| !method.is_first() || *method == Method::Passkey);
        has_first && has_second
    }

    /// Whether it was by one of these, among others.
    pub(crate) fn is_by(&self, methods: &[Method]) -> bool {
        self.0.iter().any(|method| methods.contains(method))
    }

    /// As in the database.
    pub(crate) fn names(&self) -> Vec<String> {
        self.0.iter().map(|method| method.as_str().to_owned()).collect()
    }

    /// From the database. What is unknown proves nothing.
    pub(crate) fn from_names(names: &[String]) -> Self {
        let known = |name: &String| METHODS.into_iter().find(|method| method.as_str() == name);
        Self(names.iter().filter_map(known).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_factors_are_two_of_different_kinds_or_a_passkey_that_verifies() {
        for first in [Method::Password, Method::Mail, Method::Provider] {
            assert!(!Proof::of(first).has_second_factor(), "{first:?}");
            assert!(!Proof::of(first).and(Method::Password).has_second_factor(), "{first:?}");
            for second in [Method::Code, Method::RecoveryCode, Method::Passkey, Method::TrustedDevice] {
                assert!(Proof::of(first).and(second).has_second_factor(), "{first:?} {second:?}");
            }
        }
        assert!(!Proof::nothing().has_second_factor());
        assert!(!Proof::of(Method::Passkey).has_second_factor());
        assert!(Proof::of(Method::VerifiedPasskey).has_second_factor());
        assert!(!Proof::of(Method::Code).and(Method::RecoveryCode).has_second_factor());
    }

    #[test]
    fn a_proof_reads_back_from_its_names() {
        let all = METHODS.into_iter().fold(Proof(Vec::new()), Proof::and);
        assert_eq!(Proof::from_names(&all.names()), all);
        assert_eq!(Proof::from_names(&["clairvoyance".to_owned()]), Proof(Vec::new()));
    }
}
