//! Whatever a story is answered is held against the OpenAPI document: its status is there, its headers are, and each of its fields keeps the
//! bounds that the document states. Whatever page it is shown can be used by keyboard and read aloud. So that is true in all that the stories
//! do, and no story has to say it.

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
    let media_type = head.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = media_type.unwrap_or_default().split(';').next().unwrap_or_default();
    // Mails as they were sent, and the browser of the API, which is somebody else's.
    let is_ours = !path.starts_with("/dev/outbox/") && !path.starts_with("/docs/");
    if media_type == "text/html" && is_ours && !body.is_empty() {
        let page = String::from_utf8_lossy(&body);
        assert_eq!(unusable(&page), None, "{method} {path} shows {page}");
    }
    if let Some(operation) = operation(&method, &path) {
        let (status, place) = (head.status.as_u16(), format!("{method} {path}"));
        let answer = &operation["responses"][status.to_string()];
        assert!(answer.is_object(), "{place} answers with {status}, which is not documented");
        for (name, is_always_there) in HEADERS {
            let (is_there, is_said) =
                (head.headers.contains_key(name), answer["headers"].get(name).is_some());
            assert!(is_said || !is_there, "{place} answers {status} with {name}, which is not documented");
            assert!(is_there || !is_said || !is_always_there, "{place} answers {status} without {name}");
        }
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

/// Headers that say something of an answer, and whether they are there wherever they are documented.
const HEADERS: [(&str, bool); 6] = [
    ("Link", false),
    ("ETag", true),
    ("Idempotency-Hit", false),
    ("WWW-Authenticate", true),
    ("Retry-After", true),
    ("Location", true),
];

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
    if let Some(members) = value.as_object().filter(|_| schema["additionalProperties"] == false) {
        let known = schema["properties"].as_object();
        let unknown = members.keys().find(|name| known.is_none_or(|known| !known.contains_key(*name)));
        if let Some(name) = unknown {
            return Some(format!("{name} is not documented"));
        }
    }
    let in_items = value.as_array().into_iter().flatten().find_map(|item| broken(&schema["items"], item));
    let in_members = schema["properties"].as_object().into_iter().flatten().find_map(|(name, property)| {
        let found = value.get(name).and_then(|member| broken(property, member));
        found.map(|found| format!("{name}: {found}"))
    });
    in_items.or(in_members)
}

/// A tag of a page, its attributes, and the text up to the next one.
struct Tag<'a> {
    name: &'a str,
    attributes: &'a str,
    text: &'a str,
}

impl Tag<'_> {
    fn has(&self, attribute: &str) -> bool {
        self.attributes.contains(attribute)
    }
}

fn tags(page: &str) -> Vec<Tag<'_>> {
    let pieces = page.split('<').skip(1);
    let tags = pieces.map(|piece| {
        let (tag, text) = piece.split_once('>').unwrap_or((piece, ""));
        let (name, attributes) = tag.split_once([' ', '\n']).unwrap_or((tag, ""));
        Tag { name, attributes, text: text.trim() }
    });
    tags.collect()
}

/// What hinders whoever has no mouse or does not see the page, if anything does.
fn unusable(page: &str) -> Option<String> {
    let tags = tags(page);
    let all = |name: &str| tags.iter().filter(|tag| tag.name == name).count();
    let first = |name: &str| tags.iter().find(|tag| tag.name == name);
    if !first("html").is_some_and(|html| ["lang=\"en\"", "lang=\"de\""].iter().any(|lang| html.has(lang))) {
        return Some("no language is named".to_owned());
    }
    if first("title").is_none_or(|title| title.text.is_empty()) {
        return Some("there is no title".to_owned());
    }
    if (all("main"), all("h1")) != (1, 1) {
        return Some("it has not one main part with one heading".to_owned());
    }
    if tags.iter().filter(|tag| tag.has("autofocus")).count() > 1 {
        return Some("two fields want the focus".to_owned());
    }
    let mut in_label = false;
    for tag in &tags {
        match tag.name {
            "label" => in_label = !tag.text.is_empty(),
            "/label" => in_label = false,
            "input" | "select" | "textarea" if !tag.has("type=\"hidden\"") => {
                if !in_label {
                    return Some(format!("a field has no label: {}", tag.attributes));
                }
                let tells_what = !tag.has("type=\"password\"") && !tag.has("type=\"email\"");
                if !tells_what && !tag.has("autocomplete=") {
                    return Some(format!("nothing fills a field in: {}", tag.attributes));
                }
            }
            "button" | "a" | "th" if tag.text.is_empty() => {
                return Some(format!("nothing is said of a {}", tag.name));
            }
            "img" if !tag.has("alt=") => return Some("a picture says nothing".to_owned()),
            _ if tag.has("onclick") || tag.has("tabindex") => {
                return Some(format!("a {} asks for a mouse or an order of its own", tag.name));
            }
            _ => {}
        }
    }
    let tells =
        |role: &str| tags.iter().any(|tag| tag.has(&format!("role=\"{role}\"")) && tag.text.is_empty());
    (tells("alert") || tells("status")).then(|| "news are empty".to_owned())
}

#[test]
fn a_page_that_hinders_somebody_is_seen() {
    let page = "<html lang=\"en\"><title>A</title><main><h1>B</h1><p role=\"alert\">No.</p><form><input type=\"hidden\" name=\"t\">\
        <label>E-mail <input type=\"email\" autocomplete=\"username\" autofocus></label><button>Go</button></form></main></html>";
    assert_eq!(unusable(page), None);
    for (good, bad) in [
        (" lang=\"en\"", ""),
        ("<title>A</title>", ""),
        ("h1>", "p>"),
        ("E-mail ", ""),
        ("<label>E-mail <input type=\"email\"", "E-mail <input type=\"email\""),
        (" autocomplete=\"username\"", ""),
        (">Go<", "><"),
        (">No.<", "><"),
        ("<button>", "<button autofocus>"),
        ("<button>", "<button tabindex=\"1\">"),
        ("<form>", "<form><img src=\"a.png\">"),
    ] {
        assert!(page.contains(good));
        assert!(unusable(&page.replace(good, bad)).is_some(), "{good} {bad}");
    }
}

#[test]
fn a_value_out_of_bounds_is_seen() {
    use serde_json::json;
    let schema = json!({"type": "object", "required": ["a"], "properties": {
        "a": {"type": ["string", "null"], "maxLength": 2},
        "b": {"type": "array", "maxItems": 1, "items": {"type": "integer", "minimum": 1, "maximum": 2}},
    }});
    let closed =
        json!({"type": "object", "additionalProperties": false, "properties": {"a": {"type": "string"}}});
    assert_eq!(broken(&closed, &json!({"a": ""})), None);
    assert!(broken(&closed, &json!({"b": ""})).is_some());
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
