//! Typed ids. Clients see them as opaque text; new ones are UUIDv7 (RFC 9562), so they sort by creation.

use crate::{Clock, Rng};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

/// Why a text is not an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 64 letters, digits, '-' or '_'")]
pub struct InvalidId;

/// A new UUIDv7 from the injected clock and randomness.
pub fn new_uuid(clock: &dyn Clock, rng: &dyn Rng) -> Uuid {
    let mut random = [0; 10];
    rng.fill(&mut random);
    uuid_at(clock.now(), random)
}

/// The first of the UUIDv7 that were made at `time`: those before it are older.
pub fn first_uuid_at(time: OffsetDateTime) -> Uuid {
    uuid_at(time, [0; 10])
}

fn uuid_at(time: OffsetDateTime, random: [u8; 10]) -> Uuid {
    let millis = u64::try_from(time.unix_timestamp_nanos().div_euclid(1_000_000)).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
}

fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// A new id.
            pub fn new(clock: &dyn Clock, rng: &dyn Rng) -> Self {
                Self(new_uuid(clock, rng).to_string())
            }

            /// The id as clients and the database see it.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                if is_id(&text) { Ok(Self(text)) } else { Err(InvalidId) }
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::try_from(text.to_owned())
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id! {
    /// A person's account. Imported users keep the id they had (32 characters of base62).
    UserId
}
text_id! {
    /// A sign-in on a device.
    SessionId
}
text_id! {
    /// One app's chain of refresh tokens under a session.
    RefreshChainId
}
text_id! {
    /// One HTTP request, in its answer, its log lines and its problem.
    RequestId
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "Uuid")]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new id.
            pub fn new(clock: &dyn Clock, rng: &dyn Rng) -> Self {
                Self(new_uuid(clock, rng))
            }
        }

        // By way of a text: a UUID of its own accord would also be read from a list of numbers.
        impl TryFrom<String> for $name {
            type Error = uuid::Error;

            fn try_from(text: String) -> Result<Self, uuid::Error> {
                text.parse().map(Self)
            }
        }

        impl From<$name> for Uuid {
            fn from(id: $name) -> Self {
                id.0
            }
        }
    };
}

uuid_id! {
    /// A transaction of the ledger.
    TransactionId
}
uuid_id! {
    /// Mana set aside.
    HoldId
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_id_is_short_and_plain() {
        assert!("0b7Gx_-".parse::<UserId>().is_ok());
        for bad in ["", "a b", "a'b", "ä", &"x".repeat(65)] {
            assert_eq!(bad.parse::<UserId>(), Err(InvalidId), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn an_id_is_kept_to_the_letter_or_refused(text in "[A-Za-z0-9_-]{0,70}|\\PC{0,70}") {
            match text.parse::<UserId>() {
                Ok(id) => {
                    prop_assert!(id.as_str().len() <= 64);
                    prop_assert_eq!(id.to_string(), text);
                }
                Err(InvalidId) => prop_assert!(!is_id(&text)),
            }
        }
    }
}
