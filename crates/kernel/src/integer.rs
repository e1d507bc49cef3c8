//! Integers within bounds, which every refusal names.

use serde::de::{self, Deserializer, Unexpected, Visitor};
use std::fmt;

/// Reads an integer from `min` to `max`: what is none, or is beyond, is refused with these bounds.
///
/// # Errors
/// When it is no integer within them.
pub fn within<'de, D: Deserializer<'de>>(deserializer: D, min: i64, max: i64) -> Result<i64, D::Error> {
    deserializer.deserialize_i64(Within { min, max })
}

struct Within {
    min: i64,
    max: i64,
}

impl Visitor<'_> for Within {
    type Value = i64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an integer from {} to {}", self.min, self.max)
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<i64, E> {
        if (self.min..=self.max).contains(&value) {
            Ok(value)
        } else {
            Err(E::invalid_value(Unexpected::Signed(value), &self))
        }
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<i64, E> {
        let beyond = |_| E::invalid_value(Unexpected::Unsigned(value), &self);
        i64::try_from(value).map_err(beyond).and_then(|value| self.visit_i64(value))
    }
}
