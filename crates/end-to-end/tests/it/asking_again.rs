//! A producer that has restarted asks again, and hears how its request ended.

use std::time::Duration;

use forecastle_client::{Client, ClientOptions};
use forecastle_end_to_end::stack::Stack;
use forecastle_end_to_end::system::System;
use forecastle_protos::v1::{self, RequestState};

use crate::{catalogue, write_files};

const LONG: Duration = Duration::from_mins(1);

#[tokio::test]
async fn a_producer_that_restarted_hears_of_a_request_that_runs_and_of_one_that_has_ended() {
    let copying = catalogue(
        r#"
command = ["/bin/cat", "{input}"]
stdout = "{name}.copy"
reserve = { cpu = "100m", memory = "32MiB", duration = "1s" }
"#,
    );
    let mut system = System::new(Stack::shared().unwrap(), &copying).unwrap();
    write_files(&system.input(), 2);
    system.start_frontend(&[], &[]).await.unwrap();
    let options = ClientOptions::new(system.amqp_url().unwrap());
    let request = v1::SubmitRequest {
        request_type: "work".to_owned(),
        input: Some(v1::Input { kind: Some(v1::input::Kind::Directory(system.input().display().to_string())) }),
        idempotency_key: "k".to_owned(),
        ..Default::default()
    };

    // The first life goes before there is anybody to run the work.
    let first = Client::connect(options.clone()).await.unwrap();
    let accepted = first.submit(request.clone()).await.unwrap().accepted().await.unwrap();
    assert!(accepted.created);
    first.close().await;

    let second = Client::connect(options.clone()).await.unwrap();
    let submission = second.submit(request.clone()).await.unwrap();
    assert!(!submission.accepted().await.unwrap().created);
    system.start_worker("cpu=1,memory=1GiB", &[]).await.unwrap();
    let ended = tokio::time::timeout(LONG, submission.finished()).await.unwrap().unwrap();
    assert_eq!((&ended.request_id, ended.state()), (&accepted.request_id, RequestState::Succeeded));
    second.close().await;

    // The third asks after the end, and after the frontend has restarted.
    system.frontend.as_mut().unwrap().terminate(LONG).unwrap();
    system.start_frontend(&[], &[]).await.unwrap();
    let third = Client::connect(options).await.unwrap();
    let submission = third.submit(request).await.unwrap();
    assert_eq!(tokio::time::timeout(LONG, submission.finished()).await.unwrap().unwrap(), ended);
    assert!(!submission.accepted().await.unwrap().created);
    third.close().await;
}
