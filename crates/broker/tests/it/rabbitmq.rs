//! RabbitMQ: the suite, and what only a real broker can do, on the stack that all tests share.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use forecastle_broker::rabbitmq::{AmqpUrl, Options, RabbitMq, Tls};
use forecastle_broker::{Broker, Error, QueueKind, Topology};
use lapin::options::{ExchangeDeleteOptions, QueueDeleteOptions};
use lapin::{Connection, ConnectionProperties};

use crate::bench::{self, Subject, fill, interruption, quorum, receive, text};
use crate::conformance::conformance_of;
use crate::stack;

pub(crate) struct Real {
    url: String,
    broker: Arc<dyn Broker>,
}

async fn connect(url: &str) -> Arc<dyn Broker> {
    let connection_name = "forecastle-broker tests".to_owned();
    RabbitMq::connect(Options { connection_name, ..Options::to(url) }).await.unwrap()
}

async fn real() -> Real {
    let url = stack::shared_url();
    Real { broker: connect(&url).await, url }
}

#[async_trait]
impl Subject for Real {
    fn broker(&self) -> Arc<dyn Broker> {
        Arc::clone(&self.broker)
    }

    async fn another_connection(&self) -> Arc<dyn Broker> {
        connect(&self.url).await
    }

    /// Slips an acknowledgement of nothing into the channels of the queue's consumers, which the broker closes then,
    /// as it would after any fault of the client.
    async fn interrupt(&self, queue: &str) {
        let expression = format!(
            "length([gen_server:cast(proplists:get_value(channel_pid, C), \
             {{method, {{'basic.ack', 999999, false}}, none, noflow}}) || C <- rabbit_amqqueue:consumers_all(<<\"/\">>), \
             element(4, proplists:get_value(queue_name, C)) =:= <<\"{queue}\">>])."
        );
        assert_eq!(stack::shared_eval(expression).await.trim(), "1", "one consumer of {queue} is interrupted");
    }

    async fn remove(&self, declared: Topology) {
        let connection = Connection::connect(&self.url, ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        for queue in declared.queues.iter().filter(|queue| matches!(queue.kind, QueueKind::Quorum { .. })) {
            channel.queue_delete(queue.name.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
        }
        for exchange in &declared.exchanges {
            channel.exchange_delete(exchange.name.as_str().into(), ExchangeDeleteOptions::default()).await.unwrap();
        }
        connection.close(200, "OK".into()).await.unwrap();
        self.broker.close().await;
    }
}

mod conforms {
    use super::{conformance_of, real};
    conformance_of!(real());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_somebody_else_deletes_is_declared_again_and_its_consumer_comes_back() {
    bench::run(real().await, async |bench| {
        let queue = bench.queue("q", quorum()).await;
        let publisher = bench.publisher().await;
        let mut consumer = bench.consumer(&queue, 5).await;
        fill(&publisher, &queue, ["before"]).await;
        let held = receive(&mut consumer).await;
        let other = bench.another_connection().await;
        other.delete_queue(&queue).await.unwrap();
        interruption(&mut consumer).await;
        bench.until_depth(&queue, |depth| depth.consumers == 1).await;
        fill(&publisher, &queue, ["after"]).await;
        assert_eq!(text(&receive(&mut consumer).await), "after");
        // Its channel outlived the queue; whether the broker minds is no concern of the consumer.
        held.ack().await;
        fill(&publisher, &queue, ["and on"]).await;
        assert_eq!(text(&receive(&mut consumer).await), "and on");
        other.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exclusive_queue_is_there_again_after_its_last_consumer_closed() {
    bench::run(real().await, async |bench| {
        let queue = bench.queue("own", QueueKind::Exclusive { max_length: 10 }).await;
        let publisher = bench.publisher().await;
        for round in ["first", "second"] {
            let mut consumer = bench.consumer(&queue, 5).await;
            fill(&publisher, &queue, [round]).await;
            let delivery = receive(&mut consumer).await;
            assert_eq!(text(&delivery), round);
            assert!(delivery.ack().await);
            consumer.close().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_broker_that_is_not_there_is_given_up_in_time() {
    // A listener that never answers: connecting works, and then nothing happens.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = listener.local_addr().unwrap().port();
    let refusing = {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        closed.local_addr().unwrap().port()
    };
    for port in [silent, refusing] {
        let options =
            Options { connect_timeout_seconds: 1, ..Options::to(format!("amqp://me:secret@127.0.0.1:{port}/%2f")) };
        let start = Instant::now();
        let error = RabbitMq::connect(options).await.err().expect("nobody is there");
        assert!(start.elapsed() < Duration::from_secs(5));
        assert!(
            matches!(&error, Error::Unreachable { address, .. } if *address == format!("127.0.0.1:{port}")),
            "{error}"
        );
        assert!(error.is_retryable() && !error.to_string().contains("secret"));
    }
}

#[tokio::test]
async fn a_wrong_password_or_virtual_host_fails_at_once() {
    let url = stack::shared_url();
    let (start, host) = url.split_once('@').unwrap();
    let wrong_host = host.rsplit_once('/').unwrap().0;
    for url in [format!("amqp://forecastle:not-my-password@{host}"), format!("{start}@{wrong_host}/no-such-vhost")] {
        let begin = Instant::now();
        let error = RabbitMq::connect(Options::to(url)).await.err().expect("a refusal");
        assert!(matches!(error, Error::Refused { .. }), "{error}");
        assert!(begin.elapsed() < Duration::from_secs(10) && !error.to_string().contains("not-my-password"));
    }
}

#[tokio::test]
async fn unusable_options_fail_before_anything_is_tried() {
    let tls = Some(Tls { ca_file: Some("/does/not/exist".into()), ..Tls::default() });
    for options in [
        Options { url: AmqpUrl::new("nonsense"), ..Options::default() },
        Options { tls, ..Options::to("amqps://127.0.0.1:1") },
    ] {
        let error = RabbitMq::connect(options).await.err().expect("unusable");
        assert!(matches!(error, Error::Configuration(_)), "{error}");
    }
}
