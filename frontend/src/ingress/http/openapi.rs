//! The OpenAPI document, from the table of operations and the messages' descriptors.

use std::sync::Arc;

use anyhow::Context as _;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use forecastle_protos::JSON;
use serde_json::{Map, Value, json};

use super::api::Serving;
use super::operation::{Access, Answer, Content, Fails, Operation};
use super::parameter::{Parameter, Place};
use super::schema::Schemas;

/// Answers the document.
pub(super) async fn document(State(serving): State<Arc<Serving>>) -> Response {
    ([(header::CONTENT_TYPE, JSON)], serving.document.clone()).into_response()
}

/// The document that describes these operations.
pub(super) fn describe(operations: &[Operation]) -> anyhow::Result<Value> {
    let mut schemas = Schemas::new().context("the compiled protobuf descriptors cannot be read")?;
    let mut paths: Map<String, Value> = Map::new();
    for operation in operations {
        let described = describe_one(operation, operations, &mut schemas)?;
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method] = described;
    }
    Ok(json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Forecastle",
            "version": env!("CARGO_PKG_VERSION"),
            "description":
                "Requests are broken into shards, which run where what they are forecast to need is free. JSON is \
                 proto3's mapping: numbers of 64 bits are texts, and fields with their default value are left out.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "security": [{ "token": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer", "description": "An API token. It decides the tenant." },
            },
            "schemas": schemas.into_components(),
        },
    }))
}

fn describe_one(operation: &Operation, all: &[Operation], schemas: &mut Schemas) -> anyhow::Result<Value> {
    let mut responses = Map::new();
    for answer in &operation.answers {
        responses.insert(answer.status.as_str().to_owned(), describe_answer(answer, all, schemas)?);
    }
    for fails in &operation.fails {
        responses.insert(fails.status.as_str().to_owned(), describe_failure(fails, schemas)?);
    }
    let parameters: Vec<_> = operation.parameters.iter().map(describe_parameter).collect();
    let mut described = json!({
        "operationId": operation.id,
        "summary": operation.summary,
        "parameters": parameters,
        "responses": responses,
    });
    if let Some(message) = operation.body {
        let schema = schemas.sent(message).with_context(|| format!("there is no message {message}"))?;
        described["requestBody"] = json!({ "required": true, "content": { JSON: { "schema": schema } } });
    }
    if operation.access == Access::Open {
        described["security"] = json!([]);
    }
    Ok(described)
}

fn describe_parameter(parameter: &Parameter) -> Value {
    json!({
        "name": parameter.name,
        "in": parameter.place.as_str(),
        "required": parameter.place == Place::Path,
        "description": parameter.description,
        "schema": (parameter.schema)(),
    })
}

fn describe_answer(answer: &Answer, all: &[Operation], schemas: &mut Schemas) -> anyhow::Result<Value> {
    let content = match answer.content {
        Content::Message(message) => {
            let schema = schemas.answered(message).with_context(|| format!("there is no message {message}"))?;
            json!({ JSON: { "schema": schema } })
        }
        Content::Events => json!({ "text/event-stream": { "schema": describe_events(schemas)? } }),
        Content::Document => json!({ JSON: { "schema": { "type": "object" } } }),
    };
    let mut described = json!({ "description": answer.description, "content": content });
    if let Some((name, description)) = answer.header {
        let header = json!({ "description": description, "required": true, "schema": { "type": "string" } });
        described["headers"] = json!({ name: header });
    }
    if let Some((parameter, pointer)) = answer.leads_to {
        let leads = |operation: &&Operation| operation.parameters.iter().any(|p| p.name == parameter);
        let links: Map<_, _> = all
            .iter()
            .filter(leads)
            .map(|operation| {
                let parameters = json!({ parameter: format!("$response.body#{pointer}") });
                (operation.id.to_owned(), json!({ "operationId": operation.id, "parameters": parameters }))
            })
            .collect();
        described["links"] = links.into();
    }
    Ok(described)
}

/// One event of the stream, as an object of its fields.
fn describe_events(schemas: &mut Schemas) -> anyhow::Result<Value> {
    let mut event = |name: &str, message: &str| {
        let schema = schemas.answered(message).with_context(|| format!("there is no message {message}"))?;
        anyhow::Ok(json!({
            "type": "object",
            "required": ["event", "data"],
            "properties": {
                "event": { "const": name },
                "data": { "type": "string", "contentMediaType": JSON, "contentSchema": schema },
            },
        }))
    };
    Ok(json!({ "oneOf": [event("status", "RequestStatus")?, event("finished", "Finished")?] }))
}

fn describe_failure(fails: &Fails, schemas: &mut Schemas) -> anyhow::Result<Value> {
    let schema = schemas.answered("ErrorBody").context("there is no message ErrorBody")?;
    let codes: Vec<_> = fails.codes.iter().map(|code| format!("`{code}`")).collect();
    let mut described = json!({
        "description": format!("{} Codes: {}.", fails.description, codes.join(", ")),
        "content": { JSON: { "schema": schema } },
    });
    let header = match fails.status.as_u16() {
        401 => Some(("WWW-Authenticate", "How to show a token.")),
        503 => Some(("Retry-After", "Seconds after which to try again.")),
        _ => None,
    };
    if let Some((name, description)) = header {
        let header = json!({ "description": description, "required": true, "schema": { "type": "string" } });
        described["headers"] = json!({ name: header });
    }
    Ok(described)
}

#[cfg(test)]
mod tests {
    use super::super::routes::operations;
    use super::*;

    #[test]
    fn every_operation_of_the_table_is_in_the_document() {
        let operations = operations();
        let document = describe(&operations).unwrap();
        for operation in &operations {
            let described = &document["paths"][operation.path][operation.method];
            assert_eq!(described["operationId"], operation.id);
            let open = described.get("security").is_some();
            assert_eq!(open, operation.access == Access::Open, "{}", operation.id);
            assert_eq!(described["responses"].get("401").is_some(), !open, "{}", operation.id);
        }
    }

    #[test]
    fn every_reference_of_the_document_leads_somewhere() {
        fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
            match value {
                Value::Object(map) => {
                    found.extend(map.get("$ref").and_then(Value::as_str));
                    map.values().for_each(|value| references(value, found));
                }
                Value::Array(values) => values.iter().for_each(|value| references(value, found)),
                _ => {}
            }
        }
        let document = describe(&operations()).unwrap();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 20);
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some_and(Value::is_object), "{reference}");
        }
    }

    #[test]
    fn a_submission_links_to_what_can_be_done_with_its_request() {
        let document = describe(&operations()).unwrap();
        let links = &document["paths"]["/v1/requests"]["post"]["responses"]["201"]["links"];
        for operation in ["getRequest", "cancelRequest", "watchRequest", "getResult"] {
            assert_eq!(links[operation]["parameters"]["requestId"], "$response.body#/requestId");
        }
    }
}
