//! JSON schemas of messages, from the protobuf descriptors, in proto3's JSON mapping.
//!
//! What is sent to the frontend and what it answers differ: it takes numbers of 64 bits as numbers or texts and
//! refuses fields that it does not know; it answers such numbers as texts and leaves out what has its default value.

use std::collections::BTreeMap;

use forecastle_protos::DESCRIPTORS;
use prost_reflect::{
    DescriptorError, DescriptorPool, EnumDescriptor, FieldDescriptor, FileDescriptor, Kind, MessageDescriptor,
};
use serde_json::{Map, Value, json};

/// Fields that must be sent; proto3 itself has no such thing.
const REQUIRED: [(&str, &str); 1] = [("SubmitRequest", "requestType")];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Sent,
    Answered,
}

/// The schemas that a document refers to.
pub(super) struct Schemas {
    pool: DescriptorPool,
    sent: BTreeMap<String, Value>,
    answered: BTreeMap<String, Value>,
}

impl Schemas {
    /// Without any schema yet.
    pub(super) fn new() -> Result<Self, DescriptorError> {
        Ok(Self { pool: DescriptorPool::decode(DESCRIPTORS)?, sent: BTreeMap::new(), answered: BTreeMap::new() })
    }

    /// A reference to the schema of a message that clients send; `None` if there is no such message.
    pub(super) fn sent(&mut self, message: &str) -> Option<Value> {
        self.reference(message, Direction::Sent)
    }

    /// A reference to the schema of a message that the frontend answers.
    pub(super) fn answered(&mut self, message: &str) -> Option<Value> {
        self.reference(message, Direction::Answered)
    }

    /// All that was referred to, by name.
    pub(super) fn into_components(self) -> Map<String, Value> {
        let sent = self.sent.into_iter().map(|(name, schema)| (component(&name, Direction::Sent), schema));
        let answered = self.answered.into_iter().map(|(name, schema)| (component(&name, Direction::Answered), schema));
        sent.chain(answered).collect()
    }

    fn reference(&mut self, message: &str, direction: Direction) -> Option<Value> {
        let message = self.pool.get_message_by_name(&format!("forecastle.v1.{message}"))?;
        Some(self.message(&message, direction))
    }

    fn message(&mut self, message: &MessageDescriptor, direction: Direction) -> Value {
        match message.full_name() {
            "google.protobuf.Struct" => return self.structure(direction),
            "google.protobuf.Value" => return self.any_value(direction),
            "google.protobuf.ListValue" => return json!({ "type": "array", "items": self.any_value(direction) }),
            _ => {}
        }
        let name = message.name().to_owned();
        let reference = json!({ "$ref": format!("#/components/schemas/{}", component(&name, direction)) });
        let known = match direction {
            Direction::Sent => &mut self.sent,
            Direction::Answered => &mut self.answered,
        };
        if known.contains_key(&name) {
            return reference;
        }
        // A placeholder first: messages may contain themselves.
        known.insert(name.clone(), Value::Null);
        let schema = self.object(message, direction);
        match direction {
            Direction::Sent => self.sent.insert(name, schema),
            Direction::Answered => self.answered.insert(name, schema),
        };
        reference
    }

    fn structure(&mut self, direction: Direction) -> Value {
        json!({ "type": "object", "additionalProperties": self.any_value(direction) })
    }

    /// Any JSON, except that whole numbers must be exact in a double: protobuf's `Value` has no other numbers.
    fn any_value(&mut self, direction: Direction) -> Value {
        if direction == Direction::Answered {
            return json!({});
        }
        let reference = json!({ "$ref": format!("#/components/schemas/{}", component("Value", direction)) });
        let schema = json!({
            "description": "Any JSON. Whole numbers beyond 2^53 would not be exact and are refused; send them as texts.",
            "anyOf": [
                { "type": ["null", "boolean", "string"] },
                { "type": "integer", "minimum": -EXACT_IN_A_DOUBLE, "maximum": EXACT_IN_A_DOUBLE },
                { "type": "number", "not": { "type": "integer" } },
                { "type": "array", "items": reference },
                { "type": "object", "additionalProperties": reference },
            ],
        });
        self.sent.insert("Value".to_owned(), schema);
        reference
    }

    fn object(&mut self, message: &MessageDescriptor, direction: Direction) -> Value {
        let mut properties = Map::new();
        for field in message.fields() {
            properties.insert(field.json_name().to_owned(), self.field(&field, direction));
        }
        let mut schema = json!({ "type": "object", "properties": properties });
        if let Some(text) = comment(&message.parent_file(), message.path()) {
            schema["description"] = text.into();
        }
        if direction == Direction::Sent {
            schema["additionalProperties"] = false.into();
            let required = REQUIRED.iter().filter(|(of, _)| *of == message.name()).map(|(_, field)| *field);
            let required: Vec<_> = required.collect();
            if !required.is_empty() {
                schema["required"] = json!(required);
            }
            let exclusive = exclusive(message);
            if !exclusive.is_empty() {
                schema["allOf"] = exclusive.into();
            }
        }
        schema
    }

    fn field(&mut self, field: &FieldDescriptor, direction: Direction) -> Value {
        let mut schema = if field.is_map() {
            let entry = field.kind();
            let value = entry.as_message().map(MessageDescriptor::map_entry_value_field);
            let values = value.map_or_else(|| json!({}), |value| self.value(&value.kind(), direction));
            json!({ "type": "object", "additionalProperties": values })
        } else {
            let value = self.value(&field.kind(), direction);
            if field.is_list() {
                json!({ "type": "array", "items": value })
            } else if direction == Direction::Sent && field.supports_presence() {
                json!({ "anyOf": [value, { "type": "null" }] })
            } else {
                value
            }
        };
        if let Some(text) = comment(&field.parent_message().parent_file(), field.path()) {
            schema["description"] = text.into();
        }
        schema
    }

    fn value(&mut self, kind: &Kind, direction: Direction) -> Value {
        match kind {
            Kind::Message(message) => self.message(message, direction),
            Kind::Enum(names) => enumeration(names, direction),
            Kind::Bool => json!({ "type": "boolean" }),
            Kind::String => json!({ "type": "string" }),
            Kind::Bytes => json!({ "type": "string", "contentEncoding": "base64" }),
            Kind::Double => number(json!({ "type": "number", "format": "double" }), DECIMAL, direction),
            Kind::Float => number(json!({ "type": "number", "format": "float" }), DECIMAL, direction),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
                let whole = json!({ "type": "integer", "format": "int32", "minimum": i32::MIN, "maximum": i32::MAX });
                number(whole, SIGNED, direction)
            }
            Kind::Uint32 | Kind::Fixed32 => {
                let whole = json!({ "type": "integer", "format": "uint32", "minimum": 0, "maximum": u32::MAX });
                number(whole, UNSIGNED, direction)
            }
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => match direction {
                Direction::Answered => json!({ "type": "string", "format": "int64", "pattern": SIGNED }),
                Direction::Sent => {
                    let whole = json!({ "type": "integer", "minimum": i64::MIN, "maximum": i64::MAX });
                    number(whole, SIGNED, direction)
                }
            },
            Kind::Uint64 | Kind::Fixed64 => match direction {
                Direction::Answered => json!({ "type": "string", "format": "uint64", "pattern": UNSIGNED }),
                Direction::Sent => {
                    let whole = json!({ "type": "integer", "minimum": 0, "maximum": u64::MAX });
                    number(whole, UNSIGNED, direction)
                }
            },
        }
    }
}

/// The largest whole number below which all are exact in a double: 2^53 - 1.
const EXACT_IN_A_DOUBLE: i64 = 9_007_199_254_740_991;

const UNSIGNED: &str = "^[0-9]{1,20}$";
const SIGNED: &str = "^-?[0-9]{1,19}$";
const DECIMAL: &str = "^[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?$";

/// A number, which may also be sent as a text.
fn number(schema: Value, pattern: &str, direction: Direction) -> Value {
    match direction {
        Direction::Sent => json!({ "anyOf": [schema, { "type": "string", "pattern": pattern }] }),
        Direction::Answered => schema,
    }
}

fn enumeration(names: &EnumDescriptor, direction: Direction) -> Value {
    let texts: Vec<_> = names.values().map(|value| value.name().to_owned()).collect();
    let mut schema = json!({ "type": "string", "enum": texts });
    if direction == Direction::Sent {
        let numbers: Vec<_> = names.values().map(|value| value.number()).collect();
        schema = json!({ "anyOf": [schema, { "type": "integer", "enum": numbers }] });
    }
    if let Some(text) = comment(&names.parent_file(), names.path()) {
        schema["description"] = text.into();
    }
    schema
}

/// Of the fields of a oneof at most one: no two of them.
fn exclusive(message: &MessageDescriptor) -> Vec<Value> {
    let mut pairs = Vec::new();
    for oneof in message.oneofs().filter(|oneof| !oneof.is_synthetic()) {
        let names: Vec<_> = oneof.fields().map(|field| field.json_name().to_owned()).collect();
        for (place, first) in names.iter().enumerate() {
            for second in &names[place + 1..] {
                pairs.push(json!({ "not": { "required": [first, second] } }));
            }
        }
    }
    pairs
}

/// The name under which a schema is referred to. What clients send has a name of its own.
fn component(message: &str, direction: Direction) -> String {
    match direction {
        Direction::Sent => format!("{message}.sent"),
        Direction::Answered => message.to_owned(),
    }
}

/// The comment in the `.proto` file.
fn comment(file: &FileDescriptor, path: &[i32]) -> Option<String> {
    let info = file.file_descriptor_proto().source_code_info.as_ref()?;
    let location = info.location.iter().find(|location| location.path == path)?;
    let lines = location.leading_comments().lines().map(str::trim).filter(|line| !line.is_empty());
    let text = lines.collect::<Vec<_>>().join(" ");
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn components(sent: &[&str], answered: &[&str]) -> Map<String, Value> {
        let mut schemas = Schemas::new().unwrap();
        for message in sent {
            schemas.sent(message).unwrap();
        }
        for message in answered {
            schemas.answered(message).unwrap();
        }
        schemas.into_components()
    }

    #[test]
    fn a_message_that_is_sent_takes_no_unknown_field_and_one_of_a_oneof() {
        let components = components(&["SubmitRequest"], &[]);
        let request = &components["SubmitRequest.sent"];
        assert_eq!(request["additionalProperties"], false);
        assert_eq!(request["required"], json!(["requestType"]));
        let parameters = &request["properties"]["parameters"]["anyOf"][0];
        assert_eq!(parameters["additionalProperties"]["$ref"], "#/components/schemas/Value.sent");
        assert_eq!(components["Value.sent"]["anyOf"][1]["maximum"], EXACT_IN_A_DOUBLE);
        assert_eq!(request["properties"]["labels"]["additionalProperties"]["type"], "string");
        let exclusive = &components["Input.sent"]["allOf"];
        assert_eq!(*exclusive, json!([{ "not": { "required": ["directory", "items"] } }]));
    }

    #[test]
    fn answers_follow_the_json_mapping_of_proto3() {
        let components = components(&[], &["ShardExplanation", "RequestStatus"]);
        let status = &components["RequestStatus"]["properties"];
        assert_eq!(status["createdUnixMs"]["type"], "string");
        assert!(status["state"]["enum"].as_array().unwrap().contains(&json!("REQUEST_STATE_RUNNING")));
        assert_eq!(status["stages"]["items"]["$ref"], "#/components/schemas/StageStatus");
        assert_eq!(components["ResourceVector"]["properties"]["named"]["additionalProperties"]["format"], "uint64");
        assert!(components["RunEvent"]["properties"].get("completed").is_some(), "a oneof's fields are fields");
    }

    #[test]
    fn descriptions_are_the_comments_of_the_proto_files() {
        let components = components(&[], &["RequestList"]);
        let text = components["RequestList"]["properties"]["nextCursor"]["description"].as_str().unwrap();
        assert!(text.contains("empty at the end"), "{text}");
    }

    #[test]
    fn a_message_that_does_not_exist_is_none() {
        assert_eq!(Schemas::new().unwrap().answered("Nothing"), None);
    }
}
