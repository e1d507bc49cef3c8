//! Amounts of mana. One mana is one EUR cent; there are no fractions.

use crate::integer::within;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, Schema, SchemaFormat, Type};
use utoipa::openapi::{RefOr, schema};

/// The largest amount the service takes or shows: the last integer that every JSON reader holds exactly (2^53 - 1).
pub const MAX_MANA: i64 = 9_007_199_254_740_991;

/// Why a number is not an amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be an integer from 1 to 9007199254740991")]
pub struct InvalidAmount;

/// A sum would leave the range of mana.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the sum leaves the range of mana")]
pub struct OutOfRange;

/// A quantity of mana, 0 to [`MAX_MANA`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub struct Mana(i64);

impl Mana {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// The quantity, if it is in range.
    pub const fn new(value: i64) -> Option<Self> {
        if value >= 0 && value <= MAX_MANA { Some(Self(value)) } else { None }
    }

    /// As a plain integer.
    pub const fn get(self) -> i64 {
        self.0
    }

    /// The sum of both.
    ///
    /// # Errors
    /// When it exceeds [`MAX_MANA`].
    pub fn plus(self, other: Self) -> Result<Self, OutOfRange> {
        self.0.checked_add(other.0).and_then(Self::new).ok_or(OutOfRange)
    }

    /// What is left after taking `other`.
    ///
    /// # Errors
    /// When `other` is more than there is.
    pub fn minus(self, other: Self) -> Result<Self, OutOfRange> {
        self.0.checked_sub(other.0).and_then(Self::new).ok_or(OutOfRange)
    }
}

impl TryFrom<i64> for Mana {
    type Error = OutOfRange;

    fn try_from(value: i64) -> Result<Self, OutOfRange> {
        Self::new(value).ok_or(OutOfRange)
    }
}

impl From<Mana> for i64 {
    fn from(mana: Mana) -> Self {
        mana.get()
    }
}

/// What a command moves: a positive quantity of mana, 1 to [`MAX_MANA`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(into = "i64")]
pub struct Amount(Mana);

impl Amount {
    /// The amount as a quantity.
    pub const fn mana(self) -> Mana {
        self.0
    }

    /// As a plain integer.
    pub const fn get(self) -> i64 {
        self.0.0
    }
}

impl TryFrom<i64> for Amount {
    type Error = InvalidAmount;

    fn try_from(value: i64) -> Result<Self, InvalidAmount> {
        match Mana::new(value) {
            Some(mana) if mana > Mana::ZERO => Ok(Self(mana)),
            _ => Err(InvalidAmount),
        }
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::try_from(within(deserializer, 1, MAX_MANA)?).map_err(D::Error::custom)
    }
}

impl From<Amount> for i64 {
    fn from(amount: Amount) -> Self {
        amount.get()
    }
}

fn integer_schema(minimum: i64) -> RefOr<Schema> {
    ObjectBuilder::new()
        .schema_type(schema::SchemaType::Type(Type::Integer))
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
        .minimum(Some(minimum))
        .maximum(Some(MAX_MANA))
        .into()
}

impl utoipa::PartialSchema for Mana {
    fn schema() -> RefOr<Schema> {
        integer_schema(0)
    }
}
impl utoipa::ToSchema for Mana {}

impl utoipa::PartialSchema for Amount {
    fn schema() -> RefOr<Schema> {
        integer_schema(1)
    }
}
impl utoipa::ToSchema for Amount {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_is_positive_and_exact_in_json() {
        for bad in [0, -1, i64::MIN, MAX_MANA + 1, i64::MAX] {
            assert_eq!(Amount::try_from(bad), Err(InvalidAmount), "{bad}");
        }
        assert_eq!(Amount::try_from(MAX_MANA).map(Amount::get), Ok(MAX_MANA));
    }

    #[test]
    fn sums_never_leave_the_range() {
        let max = Mana::new(MAX_MANA).unwrap();
        let one = Mana::new(1).unwrap();
        assert_eq!(max.plus(one), Err(OutOfRange));
        assert_eq!(Mana::ZERO.minus(one), Err(OutOfRange));
        assert_eq!(max.minus(one).and_then(|rest| rest.plus(one)), Ok(max));
    }
}
