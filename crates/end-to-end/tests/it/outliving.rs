//! A shard that runs for longer than the broker lets a delivery stay unacknowledged.

use std::time::{Duration, Instant};

use forecastle_broker::rabbitmq::{self, RabbitMq};
use forecastle_broker::{Address, ConsumeOptions, ConsumerEvent, Message, PublishOutcome, Queue, QueueKind, Topology};
use forecastle_end_to_end::stack::Stack;
use forecastle_end_to_end::system::System;

use crate::catalogue;

/// The shortest that RabbitMQ supports: it looks once a minute.
const TIMEOUT: &str = "ok = application:set_env(rabbit, consumer_timeout, 60000).";

/// Longer than it takes the broker to notice.
const RUNS_FOR: &str = "150";

/// Holds a delivery of a queue of its own until the broker takes it away, and answers how long that took.
async fn held_until_taken_away(url: &str) -> Duration {
    let broker = RabbitMq::connect(rabbitmq::Options::to(url)).await.unwrap();
    let kind = QueueKind::Quorum { max_length: None, delivery_limit: 100, dead_letter: None, consumer_timeout: None };
    let queue = Queue { name: "held".to_owned(), kind, bindings: Vec::new() };
    broker.declare(&Topology { exchanges: Vec::new(), queues: vec![queue] }).await.unwrap();
    let sent = broker.publisher(1).await.unwrap().publish(Address::queue("held"), Message::default()).await.unwrap();
    assert_eq!(sent.outcome().await, PublishOutcome::Confirmed);
    let options = ConsumeOptions { window: 1, exclusive: false, tag: "holds".to_owned() };
    let mut consumer = broker.consumer("held", options).await.unwrap();
    let Some(ConsumerEvent::Delivery(delivery)) = consumer.next().await else { panic!("nothing to hold") };
    let since = Instant::now();
    let next = tokio::time::timeout(Duration::from_mins(4), consumer.next()).await;
    assert!(matches!(next, Ok(Some(ConsumerEvent::Interrupted))), "the broker's timeout has no effect: {next:?}");
    drop(delivery);
    since.elapsed()
}

#[tokio::test]
async fn a_shard_outlives_a_timeout_of_one_minute_and_runs_once() {
    let unit = format!(
        r#"
command = ["/bin/sleep", "{RUNS_FOR}"]
invoke = "once"
stdout = "out"
reserve = {{ cpu = "100m", memory = "16MiB", duration = "150s" }}
"#
    );
    let mut system = System::new(Stack::own(5822, 18322).unwrap(), &catalogue(&unit)).unwrap();
    system.stack().run(&["rabbitmqctl", "eval", TIMEOUT]).unwrap();
    std::fs::write(system.input().join("a"), "a").unwrap();
    system.start_frontend(&[], &[]).await.unwrap();
    system.start_worker("cpu=1,memory=1GiB", &[]).await.unwrap();
    let request = system.submit("work", "k").await.unwrap();
    let url = system.amqp_url().unwrap();
    let (status, held) = tokio::join!(system.finished(&request, Duration::from_mins(4)), held_until_taken_away(&url));
    let status = status.unwrap();
    assert_eq!(status["state"], "REQUEST_STATE_SUCCEEDED", "{status}");
    assert!(held < Duration::from_secs(150), "the shard ran for longer than a delivery may be held: {held:?}");
    let explained = system.get(&format!("/v1/shards/{request}.0.0")).await.unwrap();
    assert_eq!(explained["runs"].as_array().unwrap().len(), 1, "{explained}");
    assert_eq!(explained["attempt"], 1, "{explained}");
}
