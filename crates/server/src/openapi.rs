//! The OpenAPI document: what the routes say of themselves, and what holds for all of them.

mod export;

use http::Method;
use mana_platform::http::page::is_opened_by_people;
use mana_platform::rate_limit::RouteClass;
use utoipa::Number;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::schema::{SchemaType, Type};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{
    ContentBuilder, InfoBuilder, Object, ObjectBuilder, OpenApi, OpenApiBuilder, Ref, RefOr, Required, Schema,
};

/// The document, without a server or a database.
pub fn document() -> OpenApi {
    let mut document = OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("Mana Core Auth")
                .version(env!("CARGO_PKG_VERSION"))
                .description(Some("Accounts and prepaid credits for a family of apps. Errors are explained at /docs/errors."))
                .license(Some(utoipa::openapi::LicenseBuilder::new().name("MIT OR Apache-2.0").build()))
                .build(),
        )
        .build();
    for part in [
        mana_auth::routes().into_openapi(),
        mana_auth::internal_routes().into_openapi(),
        mana_credits::routes().into_openapi(),
        mana_credits::internal_routes().into_openapi(),
        crate::health::routes().into_openapi(),
        crate::health::metrics_routes().into_openapi(),
    ] {
        document.merge(part);
    }
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("JWT")
        .description(Some("The accessToken of a sign-in"))
        .build();
    let cookie = ApiKeyValue::with_description(
        "mana.session_token",
        "The session cookie; __Secure- before it over https",
    );
    let service_key = ApiKeyValue::with_description(
        "X-Service-Key",
        "The key of an app's backend, which acts for users; never beside a bearer token",
    );
    if let Some(components) = &mut document.components {
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
        components.add_security_scheme("cookie", SecurityScheme::ApiKey(ApiKey::Cookie(cookie)));
        components.add_security_scheme("serviceKey", SecurityScheme::ApiKey(ApiKey::Header(service_key)));
    }
    export::add_credits(&mut document);
    add_internal_paths(&mut document);
    let named_by_clients = bodies_with_a_key(&document);
    for (path, item) in &mut document.paths.paths {
        for (method, operation) in operations(item) {
            refuse_null(operation);
            add_key_header(operation, &named_by_clients);
            bound_list(operation, path);
            add_common_answers(operation, &method, path);
            add_headers(operation, path);
        }
    }
    document
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (Method, &mut Operation)> {
    [
        (Method::GET, &mut item.get),
        (Method::POST, &mut item.post),
        (Method::PUT, &mut item.put),
        (Method::PATCH, &mut item.patch),
        (Method::DELETE, &mut item.delete),
    ]
    .into_iter()
    .filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

/// What is under `/api/v1/credits/` and, for older services, under `/api/v1/internal/credits/` too.
const ALSO_INTERNAL: [&str; 9] = [
    "balance/{userId}",
    "use",
    "use/batch",
    "refund",
    "holds",
    "holds/{id}",
    "holds/{id}/capture",
    "holds/{id}/release",
    "holds/{id}/extend",
];

/// Describes each of these at its second path.
fn add_internal_paths(document: &mut OpenApi) {
    let paths = &mut document.paths.paths;
    for name in ALSO_INTERNAL {
        let path = format!("/api/v1/credits/{name}");
        let Some(mut item) = paths.get(&path).cloned() else { continue };
        for (method, operation) in operations(&mut item) {
            operation.operation_id = operation.operation_id.take().map(|id| format!("internal_{id}"));
            operation.description = Some(format!("`{method} {path}`, where older services look for it."));
        }
        paths.insert(format!("/api/v1/internal/credits/{name}"), item);
    }
}

/// A body that may be left out is still no `null`: takes the object out of the choice that an `Option` is described by.
fn refuse_null(operation: &mut Operation) {
    let Some(RefOr::T(body)) = &mut operation.request_body else { return };
    for content in body.content.values_mut() {
        let RefOr::T(content) = content else { continue };
        if let Some(RefOr::T(Schema::OneOf(choice))) = &content.schema {
            content.schema = choice.items.iter().find(|item| matches!(item, RefOr::Ref(_))).cloned();
        }
    }
}

/// References to the schemas of bodies that may name their request. Whoever reads such a body reads the header too.
fn bodies_with_a_key(document: &OpenApi) -> Vec<RefOr<Schema>> {
    let schemas = document.components.iter().flat_map(|components| &components.schemas);
    schemas
        .filter(|(_, schema)| {
            matches!(schema, RefOr::T(Schema::Object(object)) if object.properties.contains_key("idempotencyKey"))
        })
        .map(|(name, _)| Ref::from_schema_name(name).into())
        .collect()
}

/// The header that names a request as its body may.
fn add_key_header(operation: &mut Operation, named_by_clients: &[RefOr<Schema>]) {
    let Some(RefOr::T(body)) = &operation.request_body else { return };
    let mut contents = body.content.values().filter_map(|content| match content {
        RefOr::T(content) => content.schema.as_ref(),
        RefOr::Ref(_) => None,
    });
    if !contents.any(|schema| named_by_clients.contains(schema)) {
        return;
    }
    let text = ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).max_length(Some(255));
    let header = ParameterBuilder::new()
        .name("Idempotency-Key")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some("Name of this request, as `idempotencyKey` in the body; a UUID will do. Sent again under it, it is done once"))
        .schema(Some(text.build()));
    operation.parameters.get_or_insert_default().push(RefOr::T(header.build()));
}

/// Lists without pages, and how long they are at most. Whoever reads them from the database says so there, too.
const LISTS: [(&str, usize); 11] = [
    ("/api/v1/auth/sessions", 500),
    ("/api/v1/admin/users/{userId}/sessions", 500),
    ("/api/v1/auth/oauth", 16),
    ("/api/v1/auth/linked-accounts", 100),
    ("/api/v1/auth/trusted-devices", 100),
    ("/api/v1/auth/passkeys", 25),
    ("/api/v1/admin/service-keys", 1_000),
    ("/api/v1/admin/apps/{appId}/webhooks", 10),
    ("/api/v1/credits/packages", 1_000),
    ("/api/v1/admin/packages", 1_000),
    ("/api/v1/credits/purchases", 500),
];

/// Says how long an answer is at most that is a list: a page as long as its `limit` may be.
fn bound_list(operation: &mut Operation, path: &str) {
    let page = operation.parameters.iter().flatten().find_map(|parameter| match parameter {
        RefOr::T(Parameter { name, schema: Some(RefOr::T(Schema::Object(schema))), .. })
            if name == "limit" =>
        {
            match schema.maximum {
                Some(Number::Int(maximum)) => usize::try_from(maximum).ok(),
                Some(Number::UInt(maximum)) => Some(maximum),
                Some(Number::Float(_)) | None => None,
            }
        }
        RefOr::T(_) | RefOr::Ref(_) => None,
    });
    let listed = LISTS.iter().find(|(known, _)| *known == path).map(|(_, most)| *most);
    for response in operation.responses.responses.values_mut() {
        let RefOr::T(response) = response else { continue };
        for content in response.content.values_mut() {
            let RefOr::T(content) = content else { continue };
            if let Some(RefOr::T(Schema::Array(list))) = &mut content.schema {
                list.max_items = list.max_items.or(page).or(listed);
            }
        }
    }
}

/// What any operation may answer, so that no handler has to say it.
fn add_common_answers(operation: &mut Operation, method: &Method, path: &str) {
    let takes_json = match &operation.request_body {
        Some(RefOr::T(body)) => body.content.contains_key("application/json"),
        Some(RefOr::Ref(_)) | None => false,
    };
    let has_parameters = operation.parameters.as_ref().is_some_and(|parameters| !parameters.is_empty());
    let mut answers = vec![
        ("500", "Our fault; the cause is in the log"),
        ("503", "Our fault and passing: see Retry-After"),
    ];
    if RouteClass::of(method, Some(path)).is_some_and(|class| class != RouteClass::Refresh) {
        answers.push(("429", "Over the rate limit: see Retry-After"));
    }
    let service_key = SecurityRequirement::new("serviceKey", [""; 0]);
    if operation.security.iter().flatten().any(|accepted| *accepted == service_key) {
        let lacks = "The service key lacks the scope or acts as another app, or a browser sent it for a page of a foreign site";
        answers.push(("403", lacks));
    }
    if *method != Method::GET {
        answers.push(("403", "Sent by a browser for a page of a foreign site"));
    }
    let needs_credential = operation
        .security
        .as_ref()
        .is_some_and(|accepted| accepted.iter().all(|one| *one != SecurityRequirement::default()));
    if needs_credential {
        answers.push(("401", "No accepted credential"));
    }
    if takes_json || has_parameters {
        answers.push(("400", "The request does not fit"));
    }
    if operation.request_body.is_some() {
        answers.extend([
            ("413", "The body is larger than the operation takes, which is 64 KiB but for batches"),
            ("415", "The body is not of the media type"),
        ]);
    }
    // Said by the reader of heads, which knows neither operations nor problems.
    let too_large = ResponseBuilder::new().description("The head of the request is over 32 KiB").build();
    operation.responses.responses.entry("431".to_owned()).or_insert(RefOr::T(too_large));
    for (status, description) in answers {
        operation.responses.responses.entry(status.to_owned()).or_insert_with(|| problem(description));
    }
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(response) = response else { continue };
        // A handler names the schema of its problems; the media type is the same for all.
        if !status.starts_with('2')
            && let Some(content) = response.content.shift_remove("application/json")
        {
            response.content.insert("application/problem+json".to_owned(), content);
        }
        let is_told_on_a_page = is_opened_by_people(path) && TOLD_ON_A_PAGE.contains(&status.as_str());
        if is_told_on_a_page && response.content.contains_key("application/problem+json") {
            let page = Object::with_type(SchemaType::Type(Type::String));
            let page = ContentBuilder::new().schema(Some(Schema::Object(page))).build();
            response.content.entry("text/html".to_owned()).or_insert(page.into());
        }
    }
}

/// Paths that answer with the version of a balance.
const VERSIONED: [&str; 3] = [
    "/api/v1/credits/balance",
    "/api/v1/credits/balance/{userId}",
    "/api/v1/internal/credits/balance/{userId}",
];

/// Headers that say something of an answer, where they may be.
fn add_headers(operation: &mut Operation, path: &str) {
    let has = |wanted: &str| {
        operation.parameters.iter().flatten().any(|parameter| match parameter {
            RefOr::T(parameter) => parameter.name == wanted,
            RefOr::Ref(_) => false,
        })
    };
    let (has_pages, is_repeatable) = (has("cursor"), has("Idempotency-Key"));
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(response) = response else { continue };
        let is_success = status.starts_with('2');
        let is_kept = is_success || KEPT_REFUSALS.contains(&status.as_str());
        let is_versioned = VERSIONED.contains(&path) && is_success;
        for (name, is_there, kind, description) in [
            (
                "Link",
                has_pages && is_success,
                text(2048),
                "The next page, as `rel=\"next\"`; absent on the last",
            ),
            (
                "ETag",
                is_versioned,
                text(32),
                "Version of the wallet, for `If-Match`; weak for a past balance",
            ),
            ("Idempotency-Hit", is_repeatable && is_kept, text(4), "`true` if it was answered before"),
            ("WWW-Authenticate", status == "401", text(255), "How to authenticate (RFC 6750)"),
            ("Retry-After", WAITING.contains(&status.as_str()), seconds(), "Seconds to wait"),
            ("Location", status.starts_with('3'), text(4096), "Where it goes on"),
        ] {
            if is_there {
                let header = HeaderBuilder::new().schema(Some(kind)).description(Some(description));
                response.headers.insert(name.to_owned(), header.build().into());
            }
        }
    }
}

/// Refusals that are remembered under the key of a request, and answered again.
const KEPT_REFUSALS: [&str; 4] = ["400", "404", "409", "412"];
/// After these it may be tried again.
const WAITING: [&str; 2] = ["429", "503"];

fn text(most: usize) -> Object {
    ObjectBuilder::new().schema_type(Type::String).max_length(Some(most)).build()
}

fn seconds() -> Object {
    ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)).maximum(Some(86_400)).build()
}

/// Failures that a page tells of to who asks for HTML, where people open the route in a browser.
const TOLD_ON_A_PAGE: [&str; 4] = ["404", "429", "500", "503"];

fn problem(description: &str) -> RefOr<Response> {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    RefOr::T(
        ResponseBuilder::new().description(description).content("application/problem+json", content).build(),
    )
}
