//! Messages to and from AMQP's properties.

use forecastle_protos::headers::{HeaderValue, Headers};
use lapin::BasicProperties;
use lapin::message::Delivery as Delivered;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use crate::{Error, Message};

const TRANSIENT: u8 = 1;
const PERSISTENT: u8 = 2;

/// A name in AMQP's terms, if it fits.
pub(crate) fn short(name: &str) -> Result<ShortString, Error> {
    ShortString::try_new(name).map_err(|_| Error::Refused {
        object: name.chars().take(64).collect(),
        reason: "a name has at most 255 bytes".to_owned(),
    })
}

/// The properties of `message`, with its `number` in `app-id`, by which the publisher knows it again when it is
/// returned. Headers that are [`HeaderValue::Other`] cannot be written and are left out.
pub(crate) fn properties(message: &Message, number: u64) -> Result<BasicProperties, Error> {
    let mut properties = BasicProperties::default()
        .with_delivery_mode(if message.persistent { PERSISTENT } else { TRANSIENT })
        .with_app_id(short(&number.to_string())?);
    if !message.headers.is_empty() {
        let mut table = FieldTable::default();
        for (name, value) in &message.headers {
            if let Some(value) = encode(value) {
                table.insert(short(name)?, value);
            }
        }
        properties = properties.with_headers(table);
    }
    if let Some(value) = &message.content_type {
        properties = properties.with_content_type(short(value)?);
    }
    if let Some(value) = &message.message_id {
        properties = properties.with_message_id(short(value)?);
    }
    if let Some(value) = &message.reply_to {
        properties = properties.with_reply_to(short(value)?);
    }
    if let Some(value) = &message.correlation_id {
        properties = properties.with_correlation_id(short(value)?);
    }
    if let Some(value) = &message.kind {
        properties = properties.with_type(short(value)?);
    }
    Ok(properties)
}

/// The number that [`properties`] wrote.
pub(crate) fn number(properties: &BasicProperties) -> Option<u64> {
    properties.app_id().as_ref()?.as_str().parse().ok()
}

/// What was delivered, as a message.
pub(crate) fn message(delivered: &mut Delivered) -> Message {
    let properties = &delivered.properties;
    let text = |value: &Option<ShortString>| value.as_ref().map(ToString::to_string);
    Message {
        headers: properties.headers().as_ref().map(headers).unwrap_or_default(),
        content_type: text(properties.content_type()),
        message_id: text(properties.message_id()),
        reply_to: text(properties.reply_to()),
        correlation_id: text(properties.correlation_id()),
        kind: text(properties.kind()),
        persistent: *properties.delivery_mode() == Some(PERSISTENT),
        body: std::mem::take(&mut delivered.data).into(),
    }
}

fn headers(table: &FieldTable) -> Headers {
    table.into_iter().map(|(name, value)| (name.to_string(), decode(value))).collect()
}

fn encode(value: &HeaderValue) -> Option<AMQPValue> {
    Some(match value {
        HeaderValue::Text(text) => AMQPValue::LongString(text.as_str().into()),
        HeaderValue::Int(int) => AMQPValue::LongLongInt(*int),
        HeaderValue::Float(float) => AMQPValue::Double(*float),
        HeaderValue::Bool(bool) => AMQPValue::Boolean(*bool),
        HeaderValue::Other(_) => return None,
    })
}

fn decode(value: &AMQPValue) -> HeaderValue {
    match value {
        AMQPValue::Boolean(bool) => HeaderValue::Bool(*bool),
        AMQPValue::ShortShortInt(int) => HeaderValue::Int((*int).into()),
        AMQPValue::ShortShortUInt(int) => HeaderValue::Int((*int).into()),
        AMQPValue::ShortInt(int) => HeaderValue::Int((*int).into()),
        AMQPValue::ShortUInt(int) => HeaderValue::Int((*int).into()),
        AMQPValue::LongInt(int) => HeaderValue::Int((*int).into()),
        AMQPValue::LongUInt(int) => HeaderValue::Int((*int).into()),
        AMQPValue::LongLongInt(int) => HeaderValue::Int(*int),
        AMQPValue::Timestamp(seconds) => {
            i64::try_from(*seconds).map_or(HeaderValue::Other("timestamp"), HeaderValue::Int)
        }
        AMQPValue::Float(float) => HeaderValue::Float((*float).into()),
        AMQPValue::Double(float) => HeaderValue::Float(*float),
        AMQPValue::ShortString(text) => HeaderValue::Text(text.to_string()),
        AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes())
            .map_or(HeaderValue::Other("binary"), |text| HeaderValue::Text(text.to_owned())),
        AMQPValue::DecimalValue(_) => HeaderValue::Other("decimal"),
        AMQPValue::FieldArray(_) => HeaderValue::Other("array"),
        AMQPValue::FieldTable(_) => HeaderValue::Other("table"),
        AMQPValue::ByteArray(_) => HeaderValue::Other("binary"),
        AMQPValue::Void => HeaderValue::Other("nothing"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_foreign_value_becomes_a_header_value() {
        let cases = [
            (AMQPValue::ShortShortInt(-1), HeaderValue::Int(-1)),
            (AMQPValue::LongUInt(u32::MAX), HeaderValue::Int(u32::MAX.into())),
            (AMQPValue::Timestamp(5), HeaderValue::Int(5)),
            (AMQPValue::Timestamp(u64::MAX), HeaderValue::Other("timestamp")),
            (AMQPValue::Float(0.5), HeaderValue::Float(0.5)),
            (AMQPValue::LongString(vec![0xff].into()), HeaderValue::Other("binary")),
            (AMQPValue::FieldTable(FieldTable::default()), HeaderValue::Other("table")),
            (AMQPValue::Void, HeaderValue::Other("nothing")),
        ];
        for (foreign, ours) in cases {
            assert_eq!(decode(&foreign), ours);
        }
    }

    #[test]
    fn a_returned_message_is_known_by_its_number() {
        let written = properties(&Message::default(), 17).unwrap();
        assert_eq!(number(&written), Some(17));
        assert_eq!(number(&BasicProperties::default()), None);
    }

    #[test]
    fn headers_without_a_codec_are_left_out() {
        let headers = [("x-death".to_owned(), HeaderValue::Other("array"))].into();
        let written = properties(&Message { headers, ..Message::default() }, 1).unwrap();
        assert!(written.headers().as_ref().unwrap().inner().is_empty());
    }
}
