//! Bad input: a clear typed error that names what is wrong; nothing is lost, and the programs go on.

use std::time::Duration;

use forecastle_broker::rabbitmq::{self, AmqpUrl, RabbitMq};
use forecastle_broker::{Address, Broker, ConsumeOptions, ConsumerEvent, Message, PublishOutcome};
use forecastle_end_to_end::stack::Stack;
use forecastle_end_to_end::system::System;
use forecastle_protos::headers::{HeaderValue, Headers};
use forecastle_protos::names;
use forecastle_resources::{Priority, SizeClass};

use crate::{catalogue, write_files};

fn sleeping() -> String {
    catalogue(
        r#"
command = ["/bin/cat", "{input}"]
stdout = "{name}.copy"
reserve = { cpu = "100m", memory = "32MiB", duration = "1s" }
retry = { errors = 1, backoff = "100ms" }
"#,
    )
}

async fn broker(system: &System) -> std::sync::Arc<dyn Broker> {
    let options = rabbitmq::Options { url: AmqpUrl::new(system.amqp_url().unwrap()), ..rabbitmq::Options::default() };
    RabbitMq::connect(options).await.unwrap()
}

#[tokio::test]
async fn a_path_that_vanishes_between_planning_and_running_fails_the_request_and_names_the_path() {
    let mut system = System::new(Stack::shared().unwrap(), &sleeping()).unwrap();
    write_files(&system.input(), 2);
    system.start_frontend(&[], &[]).await.unwrap();
    let request = system.submit("work", "k").await.unwrap();
    // Planned, and nobody is there to run it yet.
    let planned = async {
        loop {
            let status = system.get(&format!("/v1/requests/{request}")).await.unwrap();
            if status["state"] == "REQUEST_STATE_RUNNING" {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), planned).await.unwrap();
    let gone = system.input().join("file-0001");
    std::fs::remove_file(&gone).unwrap();
    system.start_worker("cpu=1,memory=1GiB", &[]).await.unwrap();
    let status = system.finished(&request, Duration::from_secs(30)).await.unwrap();
    assert_eq!(status["state"], "REQUEST_STATE_FAILED", "{status}");
    let message = status["error"]["message"].as_str().unwrap();
    assert!(message.contains("file-0001"), "{message}");
}

#[tokio::test]
async fn a_shard_without_headers_or_with_nonsense_in_them_stops_nobody() {
    let mut system = System::new(Stack::shared().unwrap(), &sleeping()).unwrap();
    write_files(&system.input(), 2);
    system.start_frontend(&[], &[]).await.unwrap();
    system.start_worker("cpu=1,memory=1GiB", &[]).await.unwrap();
    let broker = broker(&system).await;
    let publisher = broker.publisher(10).await.unwrap();
    let nonsense = [
        Message { persistent: true, ..Message::default() },
        Message { body: vec![0xff; 64].into(), persistent: true, ..Message::default() },
        Message {
            headers: [
                ("x-fc-shard-id".to_owned(), HeaderValue::Text("not-a-shard".to_owned())),
                ("x-fc-memory-bytes".to_owned(), HeaderValue::Int(-1)),
            ]
            .into(),
            persistent: true,
            ..Message::default()
        },
    ];
    let queue = names::shard_queue("default", Priority::Standard, SizeClass::S);
    for message in nonsense {
        let to = Address::exchange(names::SHARDS, queue.clone());
        assert_eq!(publisher.publish(to, message).await.unwrap().outcome().await, PublishOutcome::Confirmed);
    }
    // The worker goes on.
    let request = system.submit("work", "k").await.unwrap();
    let status = system.finished(&request, Duration::from_secs(30)).await.unwrap();
    assert_eq!(status["state"], "REQUEST_STATE_SUCCEEDED", "{status}");
    // And nothing of it is left in a queue: the ledger has taken it.
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    loop {
        let returned = broker.depth(names::RETURNED).await.unwrap().unwrap();
        let waiting = broker.depth(&queue).await.unwrap().unwrap();
        if returned.ready == 0 && waiting.ready == 0 {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{returned:?} {waiting:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_shard_that_lost_its_headers_becomes_a_transition_and_its_next_attempt_succeeds() {
    let slow = catalogue(
        r#"
command = ["/usr/bin/perl", "-e", "select(undef, undef, undef, 1); print 1", "--", "{input}"]
stdout = "{name}.out"
reserve = { cpu = "1", memory = "32MiB", duration = "2s" }
minimum = { cpu = "1" }
retry = { backoff = "100ms" }
"#,
    );
    let mut system = System::new(Stack::shared().unwrap(), &slow).unwrap();
    write_files(&system.input(), 4);
    system.start_frontend(&[], &[]).await.unwrap();
    system.start_worker("cpu=1,memory=1GiB", &[]).await.unwrap();
    let request = system.submit("work", "k").await.unwrap();
    // The worker runs one shard and holds another; a third waits in the queue, where it loses its headers.
    let broker = broker(&system).await;
    let queue = names::shard_queue("default", Priority::Standard, SizeClass::S);
    let options = ConsumeOptions { window: 1, exclusive: false, tag: "test".to_owned() };
    let mut consumer = broker.consumer(&queue, options).await.unwrap();
    let stolen = loop {
        match tokio::time::timeout(Duration::from_secs(20), consumer.next()).await.unwrap() {
            Some(ConsumerEvent::Delivery(delivery)) => break delivery,
            Some(ConsumerEvent::Interrupted) => {}
            None => panic!("the consumer ended"),
        }
    };
    let stripped = Message { headers: Headers::new(), ..stolen.message.clone() };
    let shard = stolen.message.message_id.clone().unwrap();
    let (shard, _) = shard.rsplit_once('#').unwrap();
    let publisher = broker.publisher(1).await.unwrap();
    let to = Address::exchange(names::SHARDS, queue.clone());
    assert_eq!(publisher.publish(to, stripped).await.unwrap().outcome().await, PublishOutcome::Confirmed);
    stolen.ack().await;
    consumer.close().await;
    let status = system.finished(&request, Duration::from_mins(1)).await.unwrap();
    assert_eq!(status["state"], "REQUEST_STATE_SUCCEEDED", "{status}");
    let explained = system.get(&format!("/v1/shards/{shard}")).await.unwrap();
    assert_eq!(explained["runs"][0]["attempt"], 2, "the first attempt was taken back: {explained}");
}
