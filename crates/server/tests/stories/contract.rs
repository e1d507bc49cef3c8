//! Whatever a story is answered is held against the OpenAPI document: its status is there, and each of its fields keeps the bounds that
//! the document states. So they are true in all that the stories do, and no story has to say it.

use crate::surface::document;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::Response;
use http::{Method, header};
use serde_json::Value;
use std::sync::LazyLock;

static DOCUMENT: LazyLock<Value> = LazyLock::new(document);

/// The router, whose answers are looked at before anybody gets them.
pub(crate) fn watched(router: Router) -> Router {
    router.layer(middleware::from_fn(look))
}

async fn look(request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let (head, body) = next.run(request).await.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    if let Some(operation) = operation(&method, &path) {
        let (status, place) = (head.status.as_u16(), format!("{method} {path}"));
        let answer = &operation["responses"][status.to_string()];
        assert!(answer.is_object(), "{place} answers with {status}, which is not documented");
        let media_type = head.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media_type = media_type.unwrap_or_default().split(';').next().unwrap_or_default();
        if media_type.ends_with("json") && !body.is_empty() {
            let schema = &answer["content"][media_type]["schema"];
            assert!(
                schema.is_object(),
                "{place} answers {status} with {media_type}, which is not documented"
            );
            let broken = broken(schema, &serde_json::from_slice(&body).unwrap());
            assert_eq!(broken, None, "{place} answers with {status}: {}", String::from_utf8_lossy(&body));
        }
    }
    Response::from_parts(head, Body::from(body))
}

fn operation(method: &Method, path: &str) -> Option<&'static Value> {
    let paths = DOCUMENT["paths"].as_object().unwrap();
    let segments: Vec<_> = path.split('/').collect();
    let is_it = |template: &str| {
        let known: Vec<_> = template.split('/').collect();
        let mut pairs = known.iter().zip(&segments);
        known.len() == segments.len() && pairs.all(|(known, given)| known == given || known.starts_with('{'))
    };
    let item =
        paths.get(path).or_else(|| paths.iter().find(|(template, _)| is_it(template)).map(|(_, item)| item));
    // `get` is another method than `GET`, and none that is documented.
    let operations = item?.as_object()?;
    operations.iter().find(|(name, _)| name.to_uppercase() == method.as_str()).map(|(_, operation)| operation)
}

/// Where a value is not as its schema says, if it is not.
fn broken(schema: &Value, value: &Value) -> Option<String> {
    if let Some(reference) = schema["$ref"].as_str() {
        return broken(DOCUMENT.pointer(reference.trim_start_matches('#')).unwrap(), value);
    }
    let all = schema["allOf"].as_array().into_iter().flatten();
    if let Some(found) = all.into_iter().find_map(|part| broken(part, value)) {
        return Some(found);
    }
    for choice in ["oneOf", "anyOf"] {
        if let Some(parts) = schema[choice].as_array() {
            let found: Vec<_> = parts.iter().map(|part| broken(part, value)).collect();
            if !found.iter().any(Option::is_none) {
                return found.into_iter().flatten().last();
            }
        }
    }
    let kinds: Vec<_> = match schema["type"].as_array() {
        Some(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        None => schema["type"].as_str().into_iter().collect(),
    };
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_i64() || number.is_u64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    if !kinds.is_empty() && !kinds.contains(&kind) {
        return Some(format!("{value} is no {kinds:?}"));
    }
    let size = match value {
        Value::String(text) => text.chars().count(),
        Value::Array(items) => items.len(),
        Value::Object(members) => members.len(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    };
    let bound = |name: &str| schema[name].as_i64();
    let size = i64::try_from(size).unwrap();
    let number = value.as_i64().unwrap_or_default();
    let within = |least: &str, number: i64, most: &str| {
        bound(least).is_none_or(|least| least <= number) && bound(most).is_none_or(|most| number <= most)
    };
    let keeps = match kind {
        "string" => within("minLength", size, "maxLength"),
        "integer" => within("minimum", number, "maximum"),
        "array" => within("minItems", size, "maxItems"),
        "object" => within("minProperties", size, "maxProperties"),
        _ => true,
    };
    if !keeps {
        return Some(format!("{value} is out of bounds: {schema}"));
    }
    if let Some(listed) = schema["enum"].as_array().filter(|listed| kind != "null" && !listed.contains(value))
    {
        return Some(format!("{value} is none of {listed:?}"));
    }
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if kind == "object" && value.get(name).is_none() {
            return Some(format!("{name} is missing"));
        }
    }
    let in_items = value.as_array().into_iter().flatten().find_map(|item| broken(&schema["items"], item));
    let in_members = schema["properties"].as_object().into_iter().flatten().find_map(|(name, property)| {
        let found = value.get(name).and_then(|member| broken(property, member));
        found.map(|found| format!("{name}: {found}"))
    });
    in_items.or(in_members)
}

#[test]
fn a_value_out_of_bounds_is_seen() {
    use serde_json::json;
    let schema = json!({"type": "object", "required": ["a"], "properties": {
        "a": {"type": ["string", "null"], "maxLength": 2},
        "b": {"type": "array", "maxItems": 1, "items": {"type": "integer", "minimum": 1, "maximum": 2}},
    }});
    for good in [json!({"a": "é!"}), json!({"a": null, "b": [2]}), json!({"a": "", "b": []})] {
        assert_eq!(broken(&schema, &good), None, "{good}");
    }
    for bad in [
        json!({}),
        json!({"a": "abc"}),
        json!({"a": 1}),
        json!({"a": "a", "b": [0]}),
        json!({"a": "a", "b": [1, 2]}),
        json!({"a": "a", "b": [1.5]}),
    ] {
        assert!(broken(&schema, &bad).is_some(), "{bad}");
    }
}
