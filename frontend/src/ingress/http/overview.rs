//! The catalogue as producers see it.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use forecastle_catalogue::RequestType;
use forecastle_protos::v1;

use super::api::Serving;
use super::failure::json;

/// Every request type.
pub(super) async fn types(State(serving): State<Arc<Serving>>) -> Response {
    let catalogue = serving.api.catalogue.current();
    json(StatusCode::OK, &v1::RequestTypeList { types: catalogue.types().values().map(describe).collect() })
}

fn describe(request_type: &RequestType) -> v1::RequestTypeInfo {
    v1::RequestTypeInfo {
        name: request_type.name.to_string(),
        description: request_type.description.clone(),
        fleet: request_type.fleet.clone(),
        input: request_type.input.as_str().to_owned(),
        parameters: request_type
            .parameters
            .iter()
            .map(|(name, parameter)| v1::ParameterInfo {
                name: name.clone(),
                kind: parameter.kind.as_str().to_owned(),
                required: parameter.default.is_none(),
                description: parameter.description.clone(),
                default_json: parameter
                    .default
                    .clone()
                    .map(|default| serde_json::Value::from(default).to_string())
                    .unwrap_or_default(),
            })
            .collect(),
        stages: request_type
            .stages
            .iter()
            .map(|stage| v1::StageInfo {
                name: stage.name.clone(),
                units: stage.units.iter().map(ToString::to_string).collect(),
                depends_on: stage.depends_on.clone(),
            })
            .collect(),
    }
}
