//! The one consumer of replies, on a connection of its own: alarms of the broker block those that publish.
//!
//! The queue is exclusive, so it goes with its connection. It keeps its name for the life of the client: replies to
//! requests submitted before a loss still find it afterwards.

use std::sync::Arc;
use std::time::Duration;

use forecastle_protos::{JSON, v1};
use futures::StreamExt as _;
use lapin::message::Delivery;
use lapin::options::{BasicConsumeOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties, Consumer};
use prost::Message as _;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::pending::Pending;
use crate::{ClientOptions, Error};

/// The first pause before connecting again; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause between attempts to connect.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// lapin has no event for a connection that ended in good order, so its state is looked at as well, this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long to wait for the broker's goodbye.
const GOODBYE: Duration = Duration::from_secs(2);

/// Where replies come in.
pub(crate) struct ReplyLink {
    pub(crate) options: ClientOptions,
    /// Host and port, for errors.
    pub(crate) address: String,
    /// The name of the reply queue.
    pub(crate) queue: String,
    pub(crate) pending: Arc<Pending>,
    pub(crate) stop: Arc<Notify>,
}

/// A connection that consumes.
pub(crate) struct Session {
    connection: Connection,
    consumer: Consumer,
}

impl ReplyLink {
    /// One attempt to connect, declare and consume.
    pub(crate) async fn open(&self) -> Result<Session, Error> {
        match timeout(self.options.connect_timeout, self.try_open()).await {
            Ok(Ok(session)) => Ok(session),
            Ok(Err(error)) => Err(Error::connecting(&self.address, &error)),
            Err(_) => Err(Error::Unreachable {
                address: self.address.clone(),
                reason: format!("no answer within {:?}", self.options.connect_timeout),
            }),
        }
    }

    async fn try_open(&self) -> Result<Session, lapin::Error> {
        let name = format!("{} (replies)", self.options.name);
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let connection = Connection::connect(&self.options.url, properties).await?;
        let channel = connection.create_channel().await?;
        let exclusive = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(self.queue.as_str().into(), exclusive, FieldTable::default()).await?;
        let consume = BasicConsumeOptions { no_ack: true, exclusive: true, ..BasicConsumeOptions::default() };
        let consumer = channel
            .basic_consume(self.queue.as_str().into(), "forecastle-client".into(), consume, FieldTable::default())
            .await?;
        Ok(Session { connection, consumer })
    }

    /// Delivers replies until told to stop; connects again by itself.
    pub(crate) async fn run(self, first: Session) {
        let mut session = first;
        loop {
            self.pending.up();
            let Some(reason) = self.serve(&mut session).await else {
                self.pending.close();
                // It may be gone already.
                let _ = timeout(GOODBYE, session.connection.close(200, "closed".into())).await;
                return;
            };
            self.pending.down(&reason);
            drop(session);
            session = tokio::select! {
                session = self.open_again() => session,
                () = self.stop.notified() => {
                    self.pending.close();
                    return;
                }
            };
        }
    }

    /// Why the session ended, or `None` when told to stop.
    async fn serve(&self, session: &mut Session) -> Option<String> {
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            tokio::select! {
                () = self.stop.notified() => return None,
                next = session.consumer.next() => match next {
                    Some(Ok(delivery)) => self.deliver(&delivery),
                    Some(Err(error)) => return Some(error.to_string()),
                    None => return Some("the broker ended the consumer of replies".to_owned()),
                },
                _ = look.tick() => if !session.connection.status().connected() {
                    return Some("the connection ended".to_owned());
                },
            }
        }
    }

    async fn open_again(&self) -> Session {
        let mut pause = FIRST_PAUSE;
        loop {
            tokio::time::sleep(pause).await;
            match self.open().await {
                Ok(session) => return session,
                // For those who submit meanwhile. One reason may be that the broker has not noticed the loss yet and
                // keeps the queue locked.
                Err(error) => self.pending.down(&error.to_string()),
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn deliver(&self, delivery: &Delivery) {
        // Without a correlation id it answers nothing of ours.
        let Some(correlation) = delivery.properties.correlation_id().as_ref() else { return };
        let content_type = delivery.properties.content_type().as_ref().map(lapin::types::ShortString::as_str);
        self.pending.deliver(correlation.as_str(), read(content_type, &delivery.data));
    }
}

/// Reads a reply. Requests go out as protobuf, and replies come in the form of the request; JSON is read all the same.
fn read(content_type: Option<&str>, body: &[u8]) -> Result<v1::reply::Kind, String> {
    let reply = if content_type == Some(JSON) {
        serde_json::from_slice::<v1::Reply>(body).map_err(|error| error.to_string())?
    } else {
        v1::Reply::decode(body).map_err(|error| error.to_string())?
    };
    reply.kind.ok_or_else(|| "it is neither accepted, rejected nor finished".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use forecastle_protos::PROTOBUF;
    use proptest::prelude::*;

    #[test]
    fn reads_both_forms_and_says_what_is_wrong() {
        let accepted = v1::Accepted { request_id: "r".to_owned(), created: true };
        let kind = v1::reply::Kind::Accepted(accepted);
        let reply = v1::Reply { kind: Some(kind.clone()) };
        assert_eq!(read(Some(PROTOBUF), &reply.encode_to_vec()), Ok(kind.clone()));
        assert_eq!(read(None, &reply.encode_to_vec()), Ok(kind.clone()));
        assert_eq!(read(Some(JSON), &serde_json::to_vec(&reply).unwrap()), Ok(kind.clone()));
        let newer = br#"{"accepted": {"requestId": "r", "created": true, "newer": 1}, "newer": {}}"#;
        assert_eq!(read(Some(JSON), newer), Ok(kind));
        assert!(read(Some(PROTOBUF), &[]).unwrap_err().contains("neither"));
        assert!(read(Some(JSON), b"{").is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(body in prop::collection::vec(any::<u8>(), 0..64), json in any::<bool>()) {
            let _ = read(json.then_some(JSON), &body);
        }
    }
}
