//! JSON into types, strictly, and with errors that a program can read.
//!
//! `serde_json` reports what is wrong as prose that repeats the value, which may be a password. This deserializer over
//! an already parsed [`Value`] keeps the kind of each error and the JSON Pointer to its place, and repeats nothing.

use mana_kernel::FieldError;
use serde::de::{
    self, Deserialize, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
    Visitor,
};
use serde_json::{Map, Number, Value};
use std::fmt;

/// Reads `value` as a `T`.
pub(super) fn read<T: for<'de> Deserialize<'de>>(value: Value) -> Result<T, FieldError> {
    T::deserialize(Strict(value)).map_err(|StrictError(error)| error)
}

/// The place of a number beyond 2^53 - 1 on either side, which not every reader of JSON holds exactly.
pub(super) fn find_huge_number(value: &Value) -> Option<String> {
    match value {
        Value::Number(number) => {
            let is_huge = number.as_f64().is_none_or(|number| number.abs() > 9_007_199_254_740_991.0);
            is_huge.then(String::new)
        }
        Value::Array(items) => items.iter().enumerate().find_map(|(index, item)| {
            find_huge_number(item).map(|rest| format!("{}{rest}", pointer_to(&index.to_string())))
        }),
        Value::Object(members) => members.iter().find_map(|(name, value)| {
            find_huge_number(value).map(|rest| format!("{}{rest}", pointer_to(name)))
        }),
        Value::Null | Value::Bool(_) | Value::String(_) => None,
    }
}

/// A [`Value`] in which no object has two members of one name.
pub(super) struct Unique(pub(super) Value);

#[derive(Debug)]
struct StrictError(FieldError);

impl StrictError {
    fn new(pointer: String, code: &'static str, detail: String) -> Self {
        Self(FieldError { pointer, code, detail })
    }

    fn under(mut self, segment: &str) -> Self {
        self.0.pointer = format!("{}{}", pointer_to(segment), self.0.pointer);
        self
    }
}

/// One step of a JSON Pointer, escaped, and cut where a hostile name would swell the answer.
fn pointer_to(segment: &str) -> String {
    let short: String = segment.chars().take(64).collect();
    format!("/{}", short.replace('~', "~0").replace('/', "~1"))
}

impl fmt::Display for StrictError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.detail)
    }
}
impl std::error::Error for StrictError {}

impl de::Error for StrictError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(String::new(), "invalid", message.to_string())
    }

    fn invalid_type(_: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::new(String::new(), "wrong_type", format!("must be {}", in_words(&expected.to_string())))
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::new(String::new(), "invalid", format!("must be {}", in_words(&expected.to_string())))
    }

    fn invalid_length(_: usize, expected: &dyn de::Expected) -> Self {
        Self::new(String::new(), "invalid", format!("must have {}", in_words(&expected.to_string())))
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Self::new(String::new(), "invalid", format!("must be one of {}", expected.join(", ")))
    }

    fn unknown_field(field: &str, known: &'static [&'static str]) -> Self {
        let detail = match known {
            [] => "is not a field of this operation, which has none here".to_owned(),
            known => format!("is not a field of this operation, which has here {}", known.join(", ")),
        };
        Self::new(pointer_to(field), "unknown", detail)
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(pointer_to(field), "missing", "is required".to_owned())
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::new(pointer_to(field), "duplicate", "appears twice".to_owned())
    }
}

/// serde's name of a type in words for the author of a client.
fn in_words(expected: &str) -> &str {
    match expected {
        "i8" | "i16" | "i32" | "i64" | "u8" | "u16" | "u32" | "u64" | "usize" => "an integer",
        "a map" => "an object",
        "a sequence" => "an array",
        text if text.starts_with("struct ") => "an object",
        text => text,
    }
}

struct Strict(Value);

impl<'de> Deserializer<'de> for Strict {
    type Error = StrictError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, StrictError> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(value),
            Value::Number(number) => visit_number(&number, visitor),
            Value::String(text) => visitor.visit_string(text),
            Value::Array(items) => visitor.visit_seq(Items { items: items.into_iter(), index: 0 }),
            Value::Object(members) => visitor.visit_map(Members { members: members.into_iter(), next: None }),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, StrictError> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, StrictError> {
        visitor.visit_newtype_struct(self)
    }

    /// serde would also take an array for a struct, its fields by position.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, StrictError> {
        if self.0.is_object() {
            self.deserialize_any(visitor)
        } else {
            Err(de::Error::invalid_type(Unexpected::Unit, &"an object"))
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, StrictError> {
        let Value::String(text) = self.0 else {
            return Err(de::Error::invalid_type(Unexpected::Unit, &"a string"));
        };
        visitor.visit_enum(text.into_deserializer())
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

fn visit_number<'de, V: Visitor<'de>>(number: &Number, visitor: V) -> Result<V::Value, StrictError> {
    if let Some(value) = number.as_u64() {
        visitor.visit_u64(value)
    } else if let Some(value) = number.as_i64() {
        visitor.visit_i64(value)
    } else {
        visitor.visit_f64(number.as_f64().unwrap_or(f64::NAN))
    }
}

struct Items {
    items: std::vec::IntoIter<Value>,
    index: usize,
}

impl<'de> SeqAccess<'de> for Items {
    type Error = StrictError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, StrictError> {
        let Some(item) = self.items.next() else {
            return Ok(None);
        };
        let index = self.index;
        self.index = index.saturating_add(1);
        seed.deserialize(Strict(item)).map(Some).map_err(|error| error.under(&index.to_string()))
    }
}

struct Members {
    members: serde_json::map::IntoIter,
    next: Option<(String, Value)>,
}

impl<'de> MapAccess<'de> for Members {
    type Error = StrictError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, StrictError> {
        let Some((name, value)) = self.members.next() else {
            return Ok(None);
        };
        let key = seed.deserialize(name.as_str().into_deserializer())?;
        self.next = Some((name, value));
        Ok(Some(key))
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, StrictError> {
        let Some((name, value)) = self.next.take() else {
            return Err(de::Error::custom("a value was asked for before its name"));
        };
        seed.deserialize(Strict(value)).map_err(|error| error.under(&name))
    }
}

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueVisitor).map(Self)
    }
}

struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }
    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(Unique(item)) = access.next_element()? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(name) = access.next_key::<String>()? {
            // Under such a name serde_json would parse the text of a member as JSON of its own, past every limit.
            if name.starts_with("$serde_json::private::") {
                return Err(de::Error::custom("a name is not allowed"));
            }
            let Unique(value) = access.next_value()?;
            if members.insert(name, value).is_some() {
                return Err(de::Error::custom("an object has two members of one name"));
            }
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mana_kernel::Amount;
    use proptest::prelude::*;
    use serde::Deserialize;
    use serde_json::json;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Order {
        amount: Amount,
        note: Option<String>,
        #[serde(default)]
        tags: Vec<String>,
    }

    fn refusal(value: Value) -> (String, &'static str) {
        let error = read::<Order>(value).unwrap_err();
        (error.pointer, error.code)
    }

    #[test]
    fn what_fits_is_read() {
        let order = read::<Order>(json!({"amount": 3, "note": null, "tags": ["a"]})).unwrap();
        assert_eq!((order.amount.get(), order.note, order.tags), (3, None, vec!["a".to_owned()]));
    }

    #[test]
    fn each_fault_is_named_with_its_place() {
        assert_eq!(refusal(json!({})), ("/amount".into(), "missing"));
        assert_eq!(refusal(json!({"amount": 1, "a/b": 1})), ("/a~1b".into(), "unknown"));
        assert_eq!(refusal(json!({"amount": 1, "tags": ["a", 2]})), ("/tags/1".into(), "wrong_type"));
        assert_eq!(refusal(json!([1, "by position", []])), (String::new(), "wrong_type"));
        for amount in [json!(0), json!(-1), json!(9_007_199_254_740_992_u64), json!(u64::MAX)] {
            assert_eq!(refusal(json!({"amount": amount})), ("/amount".into(), "invalid"));
        }
        for amount in [json!("1"), json!(1.5), json!(1e3), json!(1e30), json!(true), json!(null), json!([1])]
        {
            assert_eq!(refusal(json!({"amount": amount})), ("/amount".into(), "wrong_type"));
        }
        for amount in [json!("1"), json!(1.5), json!(0)] {
            let error = read::<Order>(json!({"amount": amount})).unwrap_err();
            assert_eq!(error.detail, "must be an integer from 1 to 9007199254740991");
        }
    }

    #[test]
    fn a_refusal_does_not_repeat_the_value() {
        let error = read::<Order>(json!({"amount": "hunter2"})).unwrap_err();
        assert!(!format!("{error:?}").contains("hunter2"));
    }

    #[test]
    fn a_number_that_not_every_reader_holds_is_found() {
        let value = json!({"a": [1, {"b/c": 18_446_744_073_709_551_615_u64}]});
        assert_eq!(find_huge_number(&value).as_deref(), Some("/a/1/b~1c"));
        assert_eq!(find_huge_number(&json!([-9_007_199_254_740_991_i64, 0.5, "1e99"])), None);
        assert_eq!(find_huge_number(&json!(-1e30)).as_deref(), Some(""));
    }

    #[test]
    fn a_name_that_means_something_to_the_parser_is_refused() {
        assert!(
            serde_json::from_str::<Unique>(r#"{"x": {"$serde_json::private::RawValue": "[1]"}}"#).is_err()
        );
    }

    #[test]
    fn a_name_given_twice_is_refused_at_any_depth() {
        assert!(serde_json::from_str::<Unique>(r#"{"a": [{"b": 1, "b": 2}]}"#).is_err());
        assert_eq!(
            serde_json::from_str::<Unique>(r#"{"b": 1, "a": 2}"#).unwrap().0.to_string(),
            r#"{"b":1,"a":2}"#
        );
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            // Few enough digits for serde_json to read them exactly.
            (any::<i16>(), 0_u8..100).prop_map(|(whole, hundredths)| {
                serde_json::from_str(&format!("{whole}.{hundredths:02}")).unwrap_or_default()
            }),
            "\\PC{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            let names = "amount|note|tags|[a-z~/\u{0}]{0,4}";
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map(names, inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back_the_same(value in any_json()) {
            let Unique(read) = serde_json::from_str(&value.to_string()).unwrap();
            prop_assert_eq!(read.to_string(), value.to_string());
        }

        #[test]
        fn any_bytes_are_json_without_a_name_twice_or_refused(bytes in "[\\[\\]{}:,\"ab\\\\u0-9eE.+ -]{0,40}") {
            let strict = serde_json::from_str::<Unique>(&bytes);
            let lenient = serde_json::from_str::<Value>(&bytes);
            prop_assert!(strict.is_err() || lenient.is_ok(), "nothing is read that is no JSON");
            if let Ok(Unique(read)) = strict {
                prop_assert_eq!(read, lenient.unwrap());
            }
        }

        #[test]
        fn a_refusal_is_short_and_points_into_the_body(value in any_json()) {
            match read::<Order>(value.clone()) {
                Ok(order) => {
                    prop_assert_eq!(value["amount"].as_i64(), Some(order.amount.get()));
                    prop_assert_eq!(value["note"].as_str(), order.note.as_deref());
                }
                Err(error) => {
                    prop_assert!(error.pointer.chars().count() <= 8 * 66 && error.detail.len() <= 200);
                    let exists = error.pointer.is_empty() || value.pointer(&error.pointer).is_some();
                    prop_assert!(exists || error.code == "missing", "{error:?} in {value}");
                }
            }
        }

        #[test]
        fn a_name_given_twice_is_refused_wherever_it_stands(name in "[a-z]{1,4}", depth in 0_usize..20) {
            let object = format!("{{\"{name}\":1,\"\\u{:04x}{}\":2}}", u32::from(name.as_bytes()[0]), &name[1..]);
            let nested = format!("{}{object}{}", "[".repeat(depth), "]".repeat(depth));
            prop_assert!(serde_json::from_str::<Unique>(&nested).is_err());
            prop_assert!(serde_json::from_str::<Value>(&nested).is_ok(), "the control: it is JSON");
        }
    }
}
