//! What AMQP 0-9-1 can carry. Checked before a message is on its way, because the broker's answer to a violation is
//! to close the channel or the connection, with everything else that is on it.

use forecastle_protos::headers::HeaderValue;

use crate::{Address, Error, Message};

/// The most bytes of a name, key or short property: AMQP's short strings.
pub(crate) const SHORT_STRING_BYTES: usize = 255;

/// The most bytes of all properties together. They travel in one frame; RabbitMQ's frames hold 128 KiB by default.
const PROPERTIES_BYTES: usize = 100 * 1024;

/// The largest body by default: RabbitMQ's own limit from 4.0 (16 MiB; 128 MiB before).
pub(crate) const BODY_BYTES: u64 = 16 * 1024 * 1024;

/// Checks that `message` can be sent `to` where it goes.
pub(crate) fn check(to: &Address, message: &Message, body_bytes: u64) -> Result<(), Error> {
    short("exchange", &to.exchange)?;
    short("routing key", &to.routing_key)?;
    let properties = [
        ("content type", &message.content_type),
        ("message id", &message.message_id),
        ("reply-to", &message.reply_to),
        ("correlation id", &message.correlation_id),
        ("kind", &message.kind),
    ];
    let mut total = 0;
    for (name, value) in properties {
        let value = value.as_deref().unwrap_or_default();
        short(name, value)?;
        total += value.len();
    }
    for (name, value) in &message.headers {
        if name.len() > SHORT_STRING_BYTES {
            let start: String = name.chars().take(32).collect();
            return Err(Error::Message(format!(
                "the name of header {start}… has {} bytes, and AMQP carries {SHORT_STRING_BYTES}",
                name.len()
            )));
        }
        // A type, a length, and the longest fixed value: 16 bytes at most beside the texts.
        total += name.len() + 16;
        if let HeaderValue::Text(text) = value {
            total += text.len();
        }
    }
    if total > PROPERTIES_BYTES {
        return Err(Error::Message(format!("its headers have {total} bytes, the limit is {PROPERTIES_BYTES}")));
    }
    let body = u64::try_from(message.body.len()).unwrap_or(u64::MAX);
    if body > body_bytes {
        return Err(Error::Message(format!("its body has {body} bytes, the limit is {body_bytes}")));
    }
    Ok(())
}

fn short(what: &str, text: &str) -> Result<(), Error> {
    if text.len() > SHORT_STRING_BYTES {
        return Err(Error::Message(format!("its {what} has {} bytes, AMQP carries {SHORT_STRING_BYTES}", text.len())));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(to: &Address, message: &Message) -> String {
        check(to, message, 100).unwrap_err().to_string()
    }

    #[test]
    fn whatever_amqp_cannot_carry_is_named() {
        let (to, long) = (Address::queue("q"), "x".repeat(256));
        assert!(check(&to, &Message::default(), 100).is_ok());
        assert!(refusal(&Address::queue(long.clone()), &Message::default()).contains("routing key"));
        assert!(refusal(&Address::exchange(long.clone(), ""), &Message::default()).contains("exchange"));
        let message = Message { reply_to: Some(long.clone()), ..Message::default() };
        assert!(refusal(&to, &message).contains("reply-to"));
        let message = Message { body: vec![0; 101].into(), ..Message::default() };
        assert!(refusal(&to, &message).contains("its body has 101 bytes"));
        let headers = [(long, HeaderValue::Int(1))].into();
        assert!(refusal(&to, &Message { headers, ..Message::default() }).contains("header xxx"));
        let headers = [("h".to_owned(), HeaderValue::Text("x".repeat(PROPERTIES_BYTES)))].into();
        assert!(refusal(&to, &Message { headers, ..Message::default() }).contains("headers have"));
    }
}
