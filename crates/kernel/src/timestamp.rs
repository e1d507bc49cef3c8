//! Times that clients name.

use serde::{Deserialize, Serialize};
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, Schema, SchemaFormat, Type};

/// Why a text is not a time that a client may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a time as 2026-01-31T12:00:00Z, of the years 2000 to 9998")]
pub struct InvalidTimestamp;

/// A time that a client names: in UTC whatever its offset was, and in whole microseconds, which is what the database keeps. What is finer
/// is cut off, so that it reads back as it was.
///
/// Its year is from 2000 to 9998: there, it has a name in every offset. To turn a time at the end of the calendar is a panic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Timestamp(#[serde(with = "time::serde::rfc3339")] OffsetDateTime);

impl Timestamp {
    /// The time.
    pub const fn get(self) -> OffsetDateTime {
        self.0
    }
}

impl std::str::FromStr for Timestamp {
    type Err = InvalidTimestamp;

    fn from_str(text: &str) -> Result<Self, InvalidTimestamp> {
        let time = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| InvalidTimestamp)?;
        let time = time.checked_to_offset(UtcOffset::UTC).ok_or(InvalidTimestamp)?;
        if !(2000..=9998).contains(&time.year()) {
            return Err(InvalidTimestamp);
        }
        Ok(Self(to_microseconds(time)))
    }
}

impl TryFrom<String> for Timestamp {
    type Error = InvalidTimestamp;

    fn try_from(text: String) -> Result<Self, InvalidTimestamp> {
        text.parse()
    }
}

impl utoipa::PartialSchema for Timestamp {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            .description(Some(
                "RFC 3339, of the years 2000 to 9998. What is finer than a microsecond is cut off",
            ))
            .into()
    }
}

impl utoipa::ToSchema for Timestamp {}

/// The time without what is finer than a microsecond.
pub fn to_microseconds(time: OffsetDateTime) -> OffsetDateTime {
    time.replace_microsecond(time.microsecond()).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use time::macros::datetime;

    #[test]
    fn a_time_is_in_utc_and_whole_microseconds() {
        for (text, expected) in [
            ("2026-01-31T12:00:00Z", datetime!(2026-01-31 12:00 UTC)),
            ("2026-01-31T12:00:00+02:00", datetime!(2026-01-31 10:00 UTC)),
            ("2027-01-01T00:00:00.123456789Z", datetime!(2027-01-01 0:00:00.123456 UTC)),
            ("2000-01-01T00:00:00Z", datetime!(2000-01-01 0:00 UTC)),
            ("9998-12-31T23:59:59.9999999Z", datetime!(9998-12-31 23:59:59.999999 UTC)),
            ("9999-01-01T00:00:00+23:59", datetime!(9998-12-31 0:01 UTC)),
        ] {
            let time: Timestamp = text.parse().unwrap();
            assert_eq!((time.get(), time.get().offset()), (expected, UtcOffset::UTC), "{text}");
        }
    }

    #[test]
    fn what_some_offset_has_no_name_for_is_refused() {
        for bad in [
            "9999-12-31T23:59:59-01:00",
            "9999-12-31T23:59:59Z",
            "9999-01-01T00:00:00Z",
            "1999-12-31T23:59:59Z",
            "2000-01-01T00:00:00+00:01",
            "0000-01-01T00:00:00+23:59",
            "0001-01-01T00:00:00Z",
            "-2026-01-31T12:00:00Z",
            "+10000-01-01T00:00:00Z",
            "2026-01-31",
            "2026-01-31T12:00:00",
            "tomorrow",
            "",
        ] {
            assert_eq!(bad.parse::<Timestamp>(), Err(InvalidTimestamp), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_read_has_a_name_in_every_offset_and_reads_back(
            text in "[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9](\\.[0-9]{1,12})?(Z|[+-][0-2][0-9]:[0-5][0-9])",
        ) {
            if let Ok(time) = text.parse::<Timestamp>() {
                for (hours, rest) in [(-25, -59), (25, 59)] {
                    let offset = UtcOffset::from_hms(hours, rest, rest).unwrap();
                    prop_assert!(time.get().checked_to_offset(offset).is_some());
                }
                prop_assert_eq!(time.get().nanosecond() % 1000, 0);
                let written = time.get().format(&Rfc3339).unwrap();
                prop_assert_eq!(written.parse(), Ok(time));
            }
        }
    }
}
