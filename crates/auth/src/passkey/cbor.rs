//! The little of CBOR (RFC 8949) that authenticators write.

use ciborium::Value;

/// Deeper than anything that an authenticator has reason to write.
const DEPTH: usize = 8;

/// The next value, which is cut off `bytes`.
pub(super) fn take_value(bytes: &mut &[u8]) -> Option<Value> {
    ciborium::de::from_reader_with_recursion_limit(bytes, DEPTH).ok()
}

/// The next value as a map in which no key stands twice: two readers might take either.
pub(super) fn take_map(bytes: &mut &[u8]) -> Option<Vec<(Value, Value)>> {
    let Some(Value::Map(entries)) = take_value(bytes) else { return None };
    let is_plain = entries.iter().all(|(key, _)| key.is_integer() || key.is_text());
    let mut keys: Vec<_> = entries.iter().map(|(key, _)| key).collect();
    keys.sort_by(|one, other| one.partial_cmp(other).unwrap_or(std::cmp::Ordering::Equal));
    let is_unique = keys.array_windows().all(|[one, other]| one != other);
    (is_plain && is_unique).then_some(entries)
}

/// What stands under a text.
pub(super) fn under_text<'a>(map: &'a [(Value, Value)], key: &str) -> Option<&'a Value> {
    map.iter().find(|(known, _)| known.as_text() == Some(key)).map(|(_, value)| value)
}

/// What stands under a number.
pub(super) fn under_number(map: &[(Value, Value)], key: i64) -> Option<&Value> {
    map.iter().find(|(known, _)| as_number(known) == Some(key)).map(|(_, value)| value)
}

/// A number that fits.
pub(super) fn as_number(value: &Value) -> Option<i64> {
    value.as_integer().and_then(|number| number.try_into().ok())
}
