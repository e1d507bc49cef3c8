//! Bounded texts. A field whose type is one of these can hold no control character and no surprise of length.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaType, Type};

/// Why a text does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidText {
    /// Too short or too long, in code points.
    #[error("must be {0} to {1} characters long")]
    Length(usize, usize),
    /// Holds what no line of text has.
    #[error("must not contain control characters")]
    Control,
}

fn check(text: &str, min: usize, max: usize, is_refused: fn(char) -> bool) -> Result<(), InvalidText> {
    if text.chars().any(is_refused) {
        return Err(InvalidText::Control);
    }
    if (min..=max).contains(&text.chars().count()) { Ok(()) } else { Err(InvalidText::Length(min, max)) }
}

macro_rules! bounded_text {
    ($(#[$doc:meta])* $name:ident refuses $refuses:expr, pattern $pattern:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name<const MIN: usize, const MAX: usize>(String);

        impl<const MIN: usize, const MAX: usize> $name<MIN, MAX> {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        // Empty, where that fits.
        impl<const MAX: usize> Default for $name<0, MAX> {
            fn default() -> Self {
                Self(String::new())
            }
        }

        impl<const MIN: usize, const MAX: usize> TryFrom<String> for $name<MIN, MAX> {
            type Error = InvalidText;

            fn try_from(text: String) -> Result<Self, InvalidText> {
                check(&text, MIN, MAX, $refuses)?;
                Ok(Self(text))
            }
        }

        impl<const MIN: usize, const MAX: usize> From<$name<MIN, MAX>> for String {
            fn from(text: $name<MIN, MAX>) -> Self {
                text.0
            }
        }

        impl<const MIN: usize, const MAX: usize> utoipa::PartialSchema for $name<MIN, MAX> {
            fn schema() -> RefOr<Schema> {
                ObjectBuilder::new()
                    .schema_type(SchemaType::Type(Type::String))
                    .min_length(Some(MIN))
                    .max_length(Some(MAX))
                    .pattern(Some($pattern))
                    // Else readers of the document make one up from the pattern, of characters that nobody would send.
                    .examples(["text"])
                    .into()
            }
        }

        impl<const MIN: usize, const MAX: usize> utoipa::ToSchema for $name<MIN, MAX> {
            fn name() -> Cow<'static, str> {
                Cow::Owned(format!("{}{MIN}To{MAX}", stringify!($name)))
            }
        }
    };
}

/// As JSON Schema writes what [`Line`] takes.
const NO_CONTROL: &str = r"^[^\u0000-\u001f\u007f-\u009f]*$";
/// The same with line breaks and tabs.
const NO_OTHER_CONTROL: &str = r"^[^\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f]*$";

bounded_text! {
    /// One line of `MIN` to `MAX` code points without control characters.
    Line refuses char::is_control, pattern NO_CONTROL
}
bounded_text! {
    /// Text of `MIN` to `MAX` code points that may have line breaks and tabs, but no other control character.
    Paragraph refuses |character| character.is_control() && !matches!(character, '\n' | '\r' | '\t'), pattern NO_OTHER_CONTROL
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn length_counts_code_points_and_control_characters_are_refused() {
        type Short = Line<1, 3>;
        assert!(Short::try_from("äöü".to_owned()).is_ok());
        assert_eq!(Short::try_from(String::new()).err(), Some(InvalidText::Length(1, 3)));
        assert_eq!(Short::try_from("abcd".to_owned()).err(), Some(InvalidText::Length(1, 3)));
        for bad in ["\0", "a\nb", "\u{85}"] {
            assert_eq!(Short::try_from(bad.to_owned()).err(), Some(InvalidText::Control));
        }
        assert!(Paragraph::<1, 9>::try_from("a\r\n\tb".to_owned()).is_ok());
        assert!(Paragraph::<1, 9>::try_from("a\0".to_owned()).is_err());
    }

    proptest! {
        #[test]
        fn a_line_is_kept_to_the_letter_or_refused(text in "(?s).{0,12}") {
            match Line::<1, 8>::try_from(text.clone()) {
                Ok(line) => {
                    prop_assert!((1..=8).contains(&text.chars().count()) && !text.chars().any(char::is_control));
                    prop_assert_eq!(String::from(line), text);
                }
                Err(InvalidText::Control) => prop_assert!(text.chars().any(char::is_control)),
                Err(InvalidText::Length(1, 8)) => prop_assert!(!(1..=8).contains(&text.chars().count())),
                Err(other) => prop_assert!(false, "{other}"),
            }
        }
    }
}
