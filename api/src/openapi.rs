//! The OpenAPI document: every route with its parameters, bodies, answers and refusals.
//!
//! Schemas come from the types, refusals from the codes. What a type can't say, which of them a route answers with, is
//! said here, once for each route.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};

use crate::code::{Code, Retry};
use crate::routes::{self, Method, ROUTES, Role, Route};
use crate::{answer, batch, context, event, explain, export, letter, parameters as of, refusal, sent, tail, usage};

/// A parameter of a route.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// Whether it stands in the path; else in the query.
    pub path: bool,
    /// Whether it must be there.
    pub required: bool,
    /// What it does, for people.
    pub description: String,
    /// Its values.
    pub schema: Value,
}

/// What a route answers when it does what it is asked.
struct Answer {
    status: u16,
    when: &'static str,
    /// Media type and schema of the body; of several, the client chooses by a parameter.
    body: Vec<(&'static str, Value)>,
}

/// Responses that several routes have, each named after the first of them.
#[derive(Default)]
struct Shared(Map<String, Value>);

impl Shared {
    fn reference(&mut self, name: String, response: Value) -> Value {
        let known = self.0.iter().find(|(_, known)| **known == response).map(|(name, _)| name.clone());
        let name = known.unwrap_or_else(|| {
            self.0.insert(name.clone(), response);
            name
        });
        json!({"$ref": format!("#/components/responses/{name}")})
    }
}

const JSON: &str = "application/json";

/// The document as text.
pub fn text() -> String {
    // A value that was made of values can't fail to be written.
    serde_json::to_string_pretty(&document()).unwrap_or_default() + "\n"
}

/// The document.
pub fn document() -> Value {
    let mut schemas = generator();
    let mut paths = Map::new();
    let mut refused = Shared::default();
    for route in &ROUTES {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.as_str().to_ascii_lowercase()] = operation(&mut schemas, &mut refused, route);
    }
    schemas.subschema_for::<tail::Frame<tail::TailEvent<'static>>>();
    schemas.subschema_for::<export::Exported>();
    schemas.subschema_for::<export::LastLine>();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "LoggerHub",
            "version": "1",
            "description": "Send logs, read them, watch them. The key alone says which tenant is meant. Every answer and \
                refusal is JSON; a refusal's code does not change. Unknown parameters are refused. The text to this \
                document is docs/api.md.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [
            {"name": "send", "description": "Events, into LoggerHub."},
            {"name": "read", "description": "Events and batches, out of it."},
            {"name": "dead letters", "description": "Lines that could not be events."},
            {"name": "about", "description": "The API itself."},
        ],
        "paths": paths,
        "components": {
            "schemas": schemas.take_definitions(true),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "`Authorization: Bearer lh_<id>_<secret>`"},
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "`X-API-Key: lh_<id>_<secret>`"},
            },
            "responses": refused.0,
            "headers": headers(),
            "examples": examples(),
        },
    })
}

/// The parameters of a route.
pub fn parameters(route: &Route) -> Vec<Parameter> {
    let mut schemas = generator();
    let mut parameters = Vec::new();
    if route.path.contains("{id}") {
        parameters.push(Parameter {
            name: "id".into(),
            path: true,
            required: true,
            description: "The id; what is no id names nothing.".into(),
            schema: json!({"type": "string", "format": "uuid"}),
        });
    }
    if route.path.contains("{name}") {
        parameters.push(Parameter {
            name: "name".into(),
            path: true,
            required: true,
            description: "A field's name, as it is typed in a query.".into(),
            schema: json!({"type": "string", "minLength": 1, "maxLength": of::MAX_VALUE, "format": "loggerhub-field"}),
        });
    }
    parameters.extend(match (route.method, route.path) {
        (Method::Post, routes::LOGS | routes::DATA_FAST | routes::DATA | routes::DATA_BARE) => {
            query::<of::Send>(&mut schemas)
        }
        (Method::Get, routes::LIST) => query::<of::List>(&mut schemas),
        (Method::Get, routes::SEARCH) => query::<of::Search>(&mut schemas),
        (Method::Get, routes::EXPORT) => query::<of::Export>(&mut schemas),
        (Method::Get, routes::EXPLAIN) => query::<of::Explain>(&mut schemas),
        (Method::Get, routes::ASK) => query::<of::Ask>(&mut schemas),
        (Method::Get, routes::HISTOGRAM) => query::<of::Histogram>(&mut schemas),
        (Method::Get, routes::FACETS | routes::FIELDS) => query::<of::Chosen>(&mut schemas),
        (Method::Get, routes::VALUES) => query::<of::OfField>(&mut schemas),
        (Method::Get, routes::COMPLETE) => query::<of::Complete>(&mut schemas),
        (Method::Get, routes::CONTEXT) => query::<of::OfContext>(&mut schemas),
        (Method::Get, routes::BATCH) => query::<of::OfBatch>(&mut schemas),
        (Method::Get, routes::USAGE) => query::<of::OfUsage>(&mut schemas),
        (Method::Get, routes::LETTERS) => query::<of::ListLetters>(&mut schemas),
        (Method::Delete, routes::LETTERS) => query::<of::Purge>(&mut schemas),
        (Method::Get, routes::TAIL | routes::TAIL_EVENTS) => query::<of::Tail>(&mut schemas),
        _ => Vec::new(),
    });
    parameters
}

fn generator() -> SchemaGenerator {
    let at = |settings: &mut SchemaSettings| settings.definitions_path = "/components/schemas".into();
    SchemaSettings::draft2020_12().with(at).for_serialize().into_generator()
}

/// A struct's fields as parameters.
fn query<T: JsonSchema>(schemas: &mut SchemaGenerator) -> Vec<Parameter> {
    let schema = Value::from(T::json_schema(schemas));
    let required: Vec<_> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let fields = schema["properties"].as_object().into_iter().flatten();
    let parameter = |(name, schema): (&String, &Value)| {
        let mut schema = schema.clone();
        let description = without(&mut schema, "description");
        // An absent parameter is left out, and is no `null`.
        if let Some(kinds) = schema["type"].as_array() {
            schema["type"] = kinds.iter().find(|kind| **kind != "null").cloned().unwrap_or_default();
        }
        Parameter {
            name: name.clone(),
            path: false,
            required: required.contains(&name.as_str()) && schema["type"] != "array",
            description: description.as_str().unwrap_or_default().replace('\n', " "),
            schema,
        }
    };
    fields.map(parameter).collect()
}

fn without(schema: &mut Value, field: &str) -> Value {
    schema.as_object_mut().and_then(|fields| fields.remove(field)).unwrap_or_default()
}

fn operation(schemas: &mut SchemaGenerator, refused: &mut Shared, route: &Route) -> Value {
    let (answers, codes) = (answers(schemas, route), codes(route));
    let mut responses: Map<String, Value> = refusals(schemas, &codes)
        .into_iter()
        .map(|(status, response)| (status.clone(), refused.reference(format!("{status}.{}", id(route)), response)))
        .collect();
    for Answer { status, when, body } in answers {
        let mut response = json!({"description": when});
        for (form, schema) in body {
            response["content"][form] = json!({"schema": schema});
        }
        if route.path == routes::USAGE {
            response["content"]["text/csv"] = json!({"schema": {"type": "string"}});
        }
        if route.role == Role::Ingest {
            let names = ["RateLimit", "RateLimit-Policy"];
            response["headers"] = names.iter().map(|name| (*name, header(name))).collect();
        }
        let links = links(route);
        if !links.is_empty() {
            response["links"] = links.into();
        }
        responses.insert(status.to_string(), response);
    }
    let mut parameters: Vec<Value> = parameters(route).into_iter().map(parameter).collect();
    let mut operation = json!({
        "operationId": id(route),
        "summary": route.summary,
        "tags": [tag(route)],
        "responses": responses,
    });
    operation["description"] = match route.scope {
        Some(scope) => format!("The key needs the scope `{scope:?}`.{}", more(route)).into(),
        None => "No key is needed.".into(),
    };
    operation["security"] = match route.scope {
        Some(_) => json!([{"bearer": []}, {"header": []}]),
        None => json!([]),
    };
    if route.role == Role::Ingest {
        parameters.extend(headers_of_sending());
        operation["requestBody"] = body_of_sending(schemas);
    }
    if (route.method, route.path) == (Method::Post, routes::REDRIVE) {
        let schema = schemas.subschema_for::<letter::Redrive>();
        operation["requestBody"] = json!({"required": true, "content": {JSON: {"schema": schema, "examples": {
            "ids": {"value": {"ids": ["01955d6e-9d3c-7aa0-8000-000000000000"]}},
            "filter": {"value": {"filter": {"code": ["refused"], "pipeline": "default"}}},
            "all": {"value": {"all": true}},
        }}}});
    }
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    operation
}

fn parameter(parameter: Parameter) -> Value {
    let Parameter { name, path, required, description, schema } = parameter;
    let place = if path { "path" } else { "query" };
    json!({"name": name, "in": place, "required": required, "description": description, "schema": schema})
}

fn id(route: &Route) -> &'static str {
    match (route.method, route.path) {
        (_, routes::LOGS) => "send",
        (_, routes::DATA_FAST) => "sendFast",
        (_, routes::DATA) => "sendAndWait",
        (_, routes::DATA_BARE) => "sendAndWaitBare",
        (_, routes::LIST) => "listEvents",
        (_, routes::EVENT) => "getEvent",
        (_, routes::CONTEXT) => "getContext",
        (_, routes::SEARCH) => "searchEvents",
        (_, routes::EXPORT) => "exportEvents",
        (_, routes::EXPLAIN) => "explainQuery",
        (_, routes::ASK) => "ask",
        (_, routes::HISTOGRAM) => "getHistogram",
        (_, routes::FACETS) => "getFacets",
        (_, routes::FIELDS) => "listFields",
        (_, routes::VALUES) => "listValues",
        (_, routes::COMPLETE) => "completeQuery",
        (_, routes::BATCH) => "getBatch",
        (_, routes::USAGE) => "getUsage",
        (_, routes::ME) => "getMe",
        (Method::Get, routes::LETTERS) => "listDeadLetters",
        (_, routes::LETTERS) => "purgeDeadLetters",
        (Method::Get, routes::LETTER) => "getDeadLetter",
        (_, routes::LETTER) => "purgeDeadLetter",
        (_, routes::REDRIVE) => "redriveDeadLetters",
        (_, routes::REDRIVE_ONE) => "redriveDeadLetter",
        (_, routes::TAIL) => "watchEvents",
        (_, routes::TAIL_EVENTS) => "followEvents",
        (_, routes::OPENAPI) => "getOpenapi",
        _ => "getIndex",
    }
}

fn tag(route: &Route) -> &'static str {
    match route.role {
        Role::Ingest => "send",
        Role::Search if route.path.starts_with(routes::LETTERS) => "dead letters",
        Role::Search | Role::Tail => "read",
        Role::Gateway => "about",
    }
}

/// What else is to be known of a route.
fn more(route: &Route) -> &'static str {
    match (route.method, route.path) {
        (Method::Get, routes::BATCH) => " With the batch's receipt, `Ingest` does.",
        (_, routes::TAIL_EVENTS) => {
            " An event comes without a name, with its id as `id` and a `TailEvent` as data; `ready`, `dropped`, `notice` and \
             `end` have names, and JSON as data."
        }
        (_, routes::EXPORT) => {
            " Each line of NDJSON is an `Exported`, but for the last, which is a `LastLine`; in a CSV and a text the last \
             line begins with `# export`. The header `loggerhub-events` says how many events match, where that is known."
        }
        (Method::Delete, routes::LETTERS) => " Give `all=true`, or a filter, and not both.",
        (_, routes::TAIL) => {
            " A browser, which can set no header, offers the key as the subprotocol `loggerhub.key.<key>` beside \
             `loggerhub`. Each text frame is a `Frame`."
        }
        _ => "",
    }
}

fn answers(schemas: &mut SchemaGenerator, route: &Route) -> Vec<Answer> {
    fn json<T: JsonSchema>(schemas: &mut SchemaGenerator, status: u16, when: &'static str) -> Answer {
        Answer { status, when, body: vec![(JSON, schemas.subschema_for::<T>().into())] }
    }
    match (route.method, route.path) {
        (_, routes::LOGS | routes::DATA_FAST) => {
            vec![json::<sent::Accepted>(schemas, 202, "The batch is on the queue's disk: a promise.")]
        }
        (_, routes::DATA | routes::DATA_BARE) => vec![
            json::<sent::Accepted>(schemas, 200, "An earlier request stored the same under this `Idempotency-Key`."),
            json::<sent::Accepted>(schemas, 201, "The batch is stored."),
            json::<sent::Accepted>(schemas, 202, "The batch is on the queue's disk; after 10 s it was not heard of."),
        ],
        (_, routes::LIST | routes::SEARCH) => vec![json::<event::Listing>(schemas, 200, "A page.")],
        (_, routes::EXPORT) => {
            let forms = ["application/x-ndjson", "text/csv", "text/plain"];
            let body = forms.map(|form| (form, json!({"type": "string"}))).into();
            vec![Answer { status: 200, when: "The events, and a line that says whether these are all.", body }]
        }
        (_, routes::EXPLAIN) => vec![json::<explain::Explanation>(schemas, 200, "What was understood.")],
        (_, routes::ASK) => vec![json::<answer::Answer>(schemas, 200, "Events, a table or a chart.")],
        (_, routes::HISTOGRAM) => vec![json::<answer::Series>(schemas, 200, "A line for each level.")],
        (_, routes::FACETS) => vec![json::<answer::Facets>(schemas, 200, "The values.")],
        (_, routes::FIELDS) => vec![json::<answer::Fields>(schemas, 200, "The fields.")],
        (_, routes::VALUES) => vec![json::<answer::Values>(schemas, 200, "The values.")],
        (_, routes::COMPLETE) => vec![json::<answer::Completions>(schemas, 200, "What may stand there.")],
        (_, routes::CONTEXT) => {
            vec![json::<context::Context>(schemas, 200, "The event, and what is around it.")]
        }
        (_, routes::EVENT) => vec![json::<event::Event>(schemas, 200, "The event.")],
        (_, routes::BATCH) => vec![json::<batch::Batch>(schemas, 200, "The batch.")],
        (_, routes::USAGE) => {
            vec![json::<usage::Usage>(schemas, 200, "What was used; with `format=csv` as `text/csv`.")]
        }
        (_, routes::ME) => vec![json::<usage::Me>(schemas, 200, "The tenant and the key.")],
        (Method::Get, routes::LETTERS) => vec![json::<letter::Letters>(schemas, 200, "A page.")],
        (Method::Get, routes::LETTER) => vec![json::<letter::WholeLetter>(schemas, 200, "The dead letter.")],
        (Method::Delete, _) => vec![json::<letter::Purged>(schemas, 200, "How many were purged.")],
        (_, routes::REDRIVE | routes::REDRIVE_ONE) => {
            vec![json::<letter::Marked>(schemas, 202, "How many are tried again, within seconds.")]
        }
        (_, routes::TAIL_EVENTS) => {
            let body = vec![("text/event-stream", json!({"type": "string"}))];
            vec![Answer { status: 200, when: "Events without an end.", body }]
        }
        (_, routes::TAIL) => vec![Answer { status: 101, when: "The WebSocket.", body: Vec::new() }],
        (_, routes::OPENAPI) => {
            vec![Answer { status: 200, when: "This document.", body: vec![(JSON, json!({"type": "object"}))] }]
        }
        _ => vec![Answer { status: 200, when: "What there is.", body: vec![(JSON, json!({"type": "object"}))] }],
    }
}

/// What an answer can be followed by.
fn links(route: &Route) -> Map<String, Value> {
    let link = |operation: &str, id: &str| {
        (operation.to_owned(), json!({"operationId": operation, "parameters": {"id": format!("$response.body#/{id}")}}))
    };
    match (route.method, route.path) {
        (Method::Post, routes::LOGS | routes::DATA_FAST | routes::DATA | routes::DATA_BARE) => {
            let (name, mut batch) = link("getBatch", "batch_id");
            batch["parameters"]["receipt"] = "$response.body#/receipt".into();
            Map::from_iter([(name, batch)])
        }
        (Method::Get, routes::LIST | routes::SEARCH) => {
            ["getEvent", "getContext"].map(|of| link(of, "items/0/id")).into_iter().collect()
        }
        (Method::Get, routes::LETTERS) => ["getDeadLetter", "redriveDeadLetter", "purgeDeadLetter"]
            .map(|of| link(of, "items/0/id"))
            .into_iter()
            .collect(),
        _ => Map::new(),
    }
}

/// The codes that a route refuses with, through the gateway.
fn codes(route: &Route) -> BTreeSet<Code> {
    use Code::*;
    let mut codes = BTreeSet::from([InvalidRequest, Overloaded]);
    if route.scope.is_some() {
        codes.extend([MissingApiKey, SeveralApiKeys, InvalidApiKey, ScopeMissing, TenantMismatch]);
        codes.extend([InvalidParameter, Internal]);
    }
    match route.role {
        Role::Ingest => codes.extend([
            TenantSuspended,
            EmptyBatch,
            InvalidJson,
            TooDeep,
            EventTooLarge,
            TooManyEvents,
            BodyTooLarge,
            DecompressedTooLarge,
            BodyTimeout,
            BodyIncomplete,
            UnsupportedEncoding,
            UnsupportedContentType,
            InvalidIdempotencyKey,
            IdempotencyKeyReused,
            QueueFull,
            QuotaExceeded,
            QueueUnavailable,
        ]),
        Role::Search => codes.extend([TooManyQueries, QueryTimeout, StoreUnavailable, SchemaUpgrading]),
        Role::Tail => {
            codes.extend([TooManyTails, StoreUnavailable, InvalidQuery, TooManyQueries, NotFound, SchemaUpgrading])
        }
        Role::Gateway => {}
    }
    if route.role != Role::Gateway {
        codes.extend([UpstreamUnavailable, UpstreamFailed, UpstreamTimeout, IncompleteBody]);
    }
    match (route.method, route.path) {
        (_, routes::LIST) | (Method::Get, routes::LETTERS) => codes.extend([InvalidCursor]),
        (_, routes::SEARCH) => codes.extend([InvalidCursor, InvalidQuery, QueryTooBroad]),
        (_, routes::TAIL) => codes.extend([InvalidUpgrade]),
        (_, routes::EXPORT) => codes.extend([InvalidCursor, InvalidQuery, QueryTooBroad, NotFound]),
        (_, routes::EXPLAIN) => codes.extend([InvalidQuery]),
        (_, routes::ASK) => codes.extend([InvalidCursor, InvalidQuery, QueryTooBroad]),
        (_, routes::HISTOGRAM | routes::FACETS | routes::FIELDS | routes::VALUES) => {
            codes.extend([InvalidQuery, QueryTooBroad]);
        }
        (_, routes::BATCH) => codes.extend([InvalidReceipt, NotFound, Expired]),
        (_, routes::EVENT | routes::LETTER) => codes.extend([NotFound]),
        (_, routes::CONTEXT) => codes.extend([NotFound, InvalidCursor]),
        (_, routes::REDRIVE_ONE) => codes.extend([NotFound, NotRedrivable]),
        (_, routes::REDRIVE) => codes.extend([BodyTooLarge, BodyTimeout]),
        _ => {}
    }
    codes
}

/// The refusals by status, each with the codes that it can have.
fn refusals(schemas: &mut SchemaGenerator, codes: &BTreeSet<Code>) -> BTreeMap<String, Value> {
    let mut by_status: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    for code in codes {
        for status in code.statuses() {
            by_status.entry(*status).or_default().push(*code);
        }
    }
    let any: Value = schemas.subschema_for::<refusal::Refusal>().into();
    let response = |(status, codes): (u16, Vec<Code>)| {
        let texts: Vec<_> = codes.iter().map(|code| code.as_str()).collect();
        let meanings: Vec<_> = codes.iter().map(|code| format!("`{code}`: {}", code.meaning())).collect();
        let only = json!({"properties": {"error": {"properties": {"code": {"enum": texts}}}}});
        let examples: Map<String, Value> = texts
            .iter()
            .map(|text| ((*text).to_owned(), json!({"$ref": format!("#/components/examples/{text}")})))
            .collect();
        let mut response = json!({
            "description": meanings.join("\n\n"),
            "content": {JSON: {"schema": {"allOf": [any, only]}, "examples": examples}},
        });
        let mut headers = Map::new();
        if codes.iter().any(|code| matches!(code.retry(), Retry::After(_))) {
            headers.insert("Retry-After".into(), header("Retry-After"));
        }
        if codes.contains(&Code::QuotaExceeded) {
            headers.extend(["RateLimit", "RateLimit-Policy"].map(|name| (name.to_owned(), header(name))));
        }
        if status == 401 {
            headers.insert("WWW-Authenticate".into(), header("WWW-Authenticate"));
        }
        if !headers.is_empty() {
            response["headers"] = headers.into();
        }
        (status.to_string(), response)
    };
    by_status.into_iter().map(response).collect()
}

fn examples() -> Map<String, Value> {
    let example = |code: &Code| {
        let value = refusal::Refusal::new(*code, code.meaning());
        (code.as_str().to_owned(), json!({"value": value}))
    };
    Code::ALL.iter().map(example).collect()
}

fn header(name: &str) -> Value {
    json!({"$ref": format!("#/components/headers/{name}")})
}

fn headers() -> Value {
    json!({
        "Retry-After": {
            "description": "Seconds after which to send the request again.",
            "schema": {"type": "integer", "minimum": 0},
        },
        "WWW-Authenticate": {"description": "How to send a key.", "schema": {"type": "string"}},
        "RateLimit-Policy": {
            "description": "The tenant's quotas: burst, and the time in which it is earned. Only of a tenant that has some.",
            "schema": {"type": "string"},
        },
        "RateLimit": {
            "description": "What is left of them, and when it is whole again.",
            "schema": {"type": "string"},
        },
    })
}

fn headers_of_sending() -> [Value; 2] {
    [
        json!({
            "name": "Idempotency-Key", "in": "header", "required": false,
            "description": "Within 72 hours the same key of the same tenant is the same batch, however often it is sent.",
            "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
        }),
        json!({
            "name": "Content-Encoding", "in": "header", "required": false,
            "description": "How the body is compressed.",
            "schema": {"type": "string", "enum": ["gzip", "zstd", "identity"]},
        }),
    ]
}

fn body_of_sending(schemas: &mut SchemaGenerator) -> Value {
    let event: Value = schemas.subschema_for::<sent::Sent>().into();
    let json = json!({"anyOf": [
        event,
        // The good ones are kept, and the others become dead letters.
        {"type": "array", "contains": event},
    ]});
    json!({
        "required": true,
        "description": "A JSON object, an array of them, or objects one after another. At most 20 MiB, sent and \
            decompressed, 10,000 events, 1 MiB an event, 32 levels deep. Of an array's items and of lines the good ones \
            are kept, and the bad ones become dead letters; a body without a good one is refused.",
        "content": {
            JSON: {"schema": json, "examples": {
                "one": {"value": {"service": "shop", "level": "INFO", "message": "paid", "metadata": {"order": 17}}},
                "several": {"value": [{"message": "one"}, {"message": "two"}]},
            }},
            "application/x-ndjson": {
                "schema": {"type": "string", "format": "loggerhub-lines"},
                "examples": {"lines": {"value": "{\"message\":\"one\"}\n{\"message\":\"two\"}\n"}},
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every `$ref` of a document.
    fn refs<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|value| refs(value, found));
            }
            Value::Array(values) => values.iter().for_each(|value| refs(value, found)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_route_has_an_id_of_its_own() {
        let document = document();
        let mut found = Vec::new();
        refs(&document, &mut found);
        assert!(!found.is_empty());
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
        let ids: BTreeSet<_> = ROUTES.iter().map(id).collect();
        assert_eq!(ids.len(), ROUTES.len());
    }

    #[test]
    fn every_code_is_a_routes_or_a_methods() {
        let mut said: BTreeSet<Code> = ROUTES.iter().flat_map(codes).collect();
        // Of what is no route, and of a method that a route does not have.
        said.extend([Code::NotFound, Code::MethodNotAllowed]);
        assert_eq!(said, Code::ALL.iter().copied().collect());
    }
}
