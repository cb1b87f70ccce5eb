//! A queue for requests that only one test uses, and the frontend's side of it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use forecastle_client::{Client, ClientOptions};
use forecastle_protos::{PROTOBUF, v1};
use futures::StreamExt as _;
use lapin::message::Delivery;
use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer};
use prost::Message as _;
use tokio::time::timeout;

/// Longer than anything takes that works.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// The broker's URL: from `FORECASTLE_TEST_AMQP_URL`, else from the local stack.
pub(crate) fn url() -> String {
    if let Ok(url) = std::env::var("FORECASTLE_TEST_AMQP_URL") {
        return url;
    }
    let stack = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../infra/stack");
    let output = Command::new(&stack).arg("env").output().unwrap_or_else(|e| panic!("{}: {e}", stack.display()));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines()
        .find_map(|line| line.strip_prefix("export FORECASTLE_AMQP_URL="))
        .map(|value| value.trim_matches(['\'', '"']).to_owned())
        .expect("no RabbitMQ to test on: run `infra/stack up`, or set FORECASTLE_TEST_AMQP_URL")
}

/// The test in the frontend's place.
pub(crate) struct Frontend {
    connection: Connection,
    channel: Channel,
    consumer: Option<Consumer>,
    pub(crate) queue: String,
}

impl Frontend {
    /// With a queue that is there, and read.
    pub(crate) async fn new() -> Self {
        let mut frontend = Self::idle(&[]).await;
        let options = BasicConsumeOptions { no_ack: true, ..Default::default() };
        let queue = frontend.queue.as_str().into();
        let consumer = frontend.channel.basic_consume(queue, "test".into(), options, FieldTable::default());
        frontend.consumer = Some(consumer.await.unwrap());
        frontend
    }

    /// With a queue that nobody reads.
    pub(crate) async fn idle(arguments: &[(&str, AMQPValue)]) -> Self {
        let connection = Connection::connect(&url(), ConnectionProperties::default())
            .await
            .unwrap_or_else(|e| panic!("no RabbitMQ to test on ({e}): run `infra/stack up`"));
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        let queue = format!("forecastle.test.client.{}", uuid::Uuid::new_v4());
        let mut table = FieldTable::default();
        // The broker deletes it after a test that panics.
        table.insert("x-expires".into(), AMQPValue::LongInt(120_000));
        for (name, value) in arguments {
            table.insert((*name).into(), value.clone());
        }
        let durable = QueueDeclareOptions { durable: true, ..Default::default() };
        channel.queue_declare(queue.as_str().into(), durable, table).await.unwrap();
        Self { connection, channel, consumer: None, queue }
    }

    pub(crate) fn options(&self) -> ClientOptions {
        ClientOptions { requests_queue: self.queue.clone(), ..ClientOptions::new(url()) }
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.options()).await.unwrap()
    }

    /// The next request, as it came.
    pub(crate) async fn receive(&mut self) -> Request {
        let consumer = self.consumer.as_mut().expect("this queue is not read");
        let delivery = timeout(LONG, consumer.next()).await.expect("no request came").unwrap().unwrap();
        Request(delivery)
    }

    /// Sends a reply. False if nobody can receive it.
    pub(crate) async fn reply(&self, to: &Request, kind: v1::reply::Kind) -> bool {
        let name = match &kind {
            v1::reply::Kind::Accepted(_) => "accepted",
            v1::reply::Kind::Rejected(_) => "rejected",
            v1::reply::Kind::Finished(_) => "finished",
        };
        self.reply_bytes(to, name, &v1::Reply { kind: Some(kind) }.encode_to_vec()).await
    }

    pub(crate) async fn reply_bytes(&self, to: &Request, name: &str, body: &[u8]) -> bool {
        let properties = BasicProperties::default()
            .with_content_type(PROTOBUF.into())
            .with_type(name.into())
            .with_correlation_id(to.correlation().into());
        let options = BasicPublishOptions { mandatory: true, ..Default::default() };
        let confirm = self.channel.basic_publish("".into(), to.reply_to().into(), options, body, properties);
        confirm.await.unwrap().await.unwrap() == Confirmation::Ack(None)
    }

    /// Deletes the queue.
    pub(crate) async fn end(self) {
        self.channel.queue_delete(self.queue.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
        self.connection.close(200, "done".into()).await.unwrap();
    }
}

/// A request that came.
pub(crate) struct Request(pub(crate) Delivery);

impl Request {
    pub(crate) fn body(&self) -> v1::SubmitRequest {
        v1::SubmitRequest::decode(&*self.0.data).unwrap()
    }

    pub(crate) fn correlation(&self) -> &str {
        self.0.properties.correlation_id().as_ref().unwrap().as_str()
    }

    pub(crate) fn reply_to(&self) -> &str {
        self.0.properties.reply_to().as_ref().unwrap().as_str()
    }
}

pub(crate) fn request(key: &str) -> v1::SubmitRequest {
    v1::SubmitRequest {
        request_type: "archive".to_owned(),
        idempotency_key: key.to_owned(),
        tenant: "acme".to_owned(),
        ..Default::default()
    }
}

pub(crate) fn accepted(id: &str) -> v1::reply::Kind {
    v1::reply::Kind::Accepted(v1::Accepted { request_id: id.to_owned(), created: true })
}

pub(crate) fn finished(id: &str) -> v1::reply::Kind {
    let state = v1::RequestState::Succeeded.into();
    let status = v1::RequestStatus { request_id: id.to_owned(), state, ..Default::default() };
    v1::reply::Kind::Finished(v1::Finished { status: Some(status) })
}
