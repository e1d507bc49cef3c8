//! One account in a file.

use serde::de::{Deserializer, Visitor};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::{self, BufRead};

/// An account as a line of JSON or a record of CSV. Only the address is needed. Names of columns as a database has them
/// (`email_verified`) are taken too; a member that is not known is refused, so that nothing is lost in silence.
#[derive(Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Row {
    /// Kept, so that whatever refers to the user goes on to; a new one without it.
    pub id: Option<String>,
    /// The address.
    pub email: String,
    /// Whether its owner has proven it.
    #[serde(alias = "email_verified", default, deserialize_with = "flag")]
    pub email_verified: Option<bool>,
    /// Name to show.
    pub name: Option<String>,
    /// `user`, `admin` or `service`.
    pub role: Option<String>,
    /// URL of a picture.
    pub image: Option<String>,
    /// When the account was made (RFC 3339).
    #[serde(alias = "created_at")]
    pub created_at: Option<String>,
    /// Since when it may not act (RFC 3339).
    #[serde(alias = "disabled_at")]
    pub disabled_at: Option<String>,
    /// Of bcrypt, scrypt, PBKDF2 or Argon2.
    #[serde(alias = "password_hash", skip_serializing_if = "Option::is_none")]
    pub password_hash: Option<String>,
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Row").field("id", &self.id).finish_non_exhaustive()
    }
}

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// An object a line.
    JsonLines,
    /// With a first line of names.
    Csv,
}

/// A row that was read, or why it can't be.
#[derive(Debug)]
pub struct Read {
    /// The line that it begins on.
    pub line: u64,
    /// Bytes read so far.
    pub bytes: u64,
    /// The row.
    pub row: Result<Row, String>,
}

/// The rows of a file.
pub type Lines<'a> = Box<dyn Iterator<Item = io::Result<Read>> + 'a>;

/// Reads a file, row by row.
pub fn read<'a>(input: impl BufRead + 'a, format: Format) -> Lines<'a> {
    match format {
        Format::JsonLines => Box::new(json_lines(input)),
        Format::Csv => Box::new(csv(input)),
    }
}

fn json_lines<'a>(mut input: impl BufRead + 'a) -> impl Iterator<Item = io::Result<Read>> + 'a {
    let (mut line, mut bytes) = (0_u64, 0_u64);
    std::iter::from_fn(move || {
        loop {
            let mut text = Vec::new();
            match input.read_until(b'\n', &mut text) {
                Ok(0) => return None,
                Ok(read) => bytes = bytes.saturating_add(u64::try_from(read).unwrap_or(u64::MAX)),
                Err(error) => return Some(Err(error)),
            }
            line = line.saturating_add(1);
            if text.trim_ascii().is_empty() {
                continue;
            }
            // The position within a line of its own says nothing.
            let told = |error: serde_json::Error| {
                let text = error.to_string();
                text.rsplit_once(" at line ").map_or(text.clone(), |(reason, _)| reason.to_owned())
            };
            let row = serde_json::from_slice(&text).map_err(told);
            return Some(Ok(Read { line, bytes, row }));
        }
    })
}

fn csv<'a>(input: impl BufRead + 'a) -> impl Iterator<Item = io::Result<Read>> + 'a {
    let mut rows =
        csv::ReaderBuilder::new().trim(csv::Trim::Headers).from_reader(input).into_deserialize::<Row>();
    std::iter::from_fn(move || {
        let line = rows.reader().position().line();
        let row = rows.next()?;
        let bytes = rows.reader().position().byte();
        Some(match row {
            Ok(row) => Ok(Read { line, bytes, row: Ok(row) }),
            Err(error) => match error.into_kind() {
                csv::ErrorKind::Io(error) => Err(error),
                csv::ErrorKind::Deserialize { err, .. } => {
                    Ok(Read { line, bytes, row: Err(err.kind().to_string()) })
                }
                csv::ErrorKind::UnequalLengths { expected_len, len, .. } => Ok(Read {
                    line,
                    bytes,
                    row: Err(format!("has {len} fields, and the first line has {expected_len}")),
                }),
                csv::ErrorKind::Utf8 { .. } => Ok(Read { line, bytes, row: Err("is no UTF-8".to_owned()) }),
                csv::ErrorKind::Seek | csv::ErrorKind::Serialize(_) | _ => {
                    Ok(Read { line, bytes, row: Err("can't be read as CSV".to_owned()) })
                }
            },
        })
    })
}

/// True or false, in the words of programs that write CSV.
fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    struct Flag;
    impl Visitor<'_> for Flag {
        type Value = Option<bool>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("true or false")
        }

        fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
            Ok(Some(value))
        }

        fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Self::Value, E> {
            self.visit_str(&value.to_string())
        }

        fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Self::Value, E> {
            match value {
                "true" | "t" | "1" => Ok(Some(true)),
                "false" | "f" | "0" => Ok(Some(false)),
                "" => Ok(None),
                other => Err(E::invalid_value(serde::de::Unexpected::Str(other), &self)),
            }
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
    }
    deserializer.deserialize_any(Flag)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str, format: Format) -> Vec<(u64, Result<Row, String>)> {
        read(text.as_bytes(), format).map(Result::unwrap).map(|read| (read.line, read.row)).collect()
    }

    #[test]
    fn a_line_of_json_is_an_account() {
        let text = "{\"email\":\"a@x.de\",\"emailVerified\":true}\n\n{\"email\":1}\n{\"email\":\"b@x.de\",\"password\":\"p\"}\nnonsense";
        let rows = rows(text, Format::JsonLines);
        assert_eq!(rows[0].1.as_ref().unwrap().email_verified, Some(true));
        assert_eq!(rows.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [1, 3, 4, 5]);
        for (place, named) in [(1, "string"), (2, "password"), (3, "expected")] {
            let reason = rows[place].1.as_ref().unwrap_err();
            assert!(reason.contains(named) && !reason.contains("line 1"), "{reason}");
        }
    }

    #[test]
    fn a_record_of_csv_is_an_account_with_quotes_and_empty_fields() {
        let text = "id,email,email_verified,name\n7,a@x.de,t,\"Love, Ada\nByron\"\n,b@x.de,,\n8,c@x.de,perhaps,\n9,d@x.de\n";
        let rows = rows(text, Format::Csv);
        let first = rows[0].1.as_ref().unwrap();
        assert_eq!((first.id.as_deref(), first.email_verified), (Some("7"), Some(true)));
        assert_eq!(first.name.as_deref(), Some("Love, Ada\nByron"));
        let second = rows[1].1.as_ref().unwrap();
        assert_eq!((&second.id, second.email_verified, &second.name), (&None, None, &None));
        assert!(rows[2].1.as_ref().unwrap_err().contains("true or false"), "{rows:?}");
        assert!(rows[3].1.is_err());
        assert_eq!(rows.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [2, 4, 5, 6]);
    }

    #[test]
    fn a_column_that_is_not_known_is_refused() {
        let rows = rows("email,password\na@x.de,secret\n", Format::Csv);
        assert!(rows[0].1.as_ref().unwrap_err().contains("password"), "{rows:?}");
    }
}
