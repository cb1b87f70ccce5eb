//! ClickHouse goes away, in the quiet and in the middle of a batch.

use std::time::Duration;

use forecastle_history::{Error, History, HistoryOptions, Password};
use tokio::net::TcpListener;
use uuid::Uuid;

use crate::database::TestDatabase;
use crate::proxy::Proxy;
use crate::sample_runs::run;

async fn through_proxy(database: &TestDatabase) -> (Proxy, History) {
    let proxy = Proxy::start(&database.options.url).await;
    let url = format!("http://{}", proxy.address);
    (proxy, History::new(HistoryOptions { url, ..database.options.clone() }).unwrap())
}

#[tokio::test]
async fn when_nobody_listens_the_error_is_retryable_and_names_the_url_but_no_password() {
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let options = HistoryOptions {
        url: format!("http://{address}"),
        user: Some("sink".to_owned()),
        password: Some(Password::new("hunter2")),
        ..HistoryOptions::default()
    };
    let history = History::new(options).unwrap();
    let migrate = history.migrate().await.unwrap_err();
    let insert = history.writer().insert_runs(&[run(Uuid::now_v7(), 0)]).await.unwrap_err();
    for error in [migrate, insert] {
        let text = format!("{error} {error:?}");
        assert!(error.is_retryable(), "{text}");
        assert!(error.to_string().contains(&format!("http://{address}")) && !text.contains("hunter2"), "{text}");
    }
}

#[tokio::test]
async fn a_batch_is_written_once_over_an_outage() {
    let database = TestDatabase::new().await;
    let (mut proxy, history) = through_proxy(&database).await;
    let (writer, request) = (history.writer(), Uuid::now_v7());
    let batches: Vec<Vec<_>> = (0..3).map(|batch| (0..5).map(|i| run(request, batch * 5 + i)).collect()).collect();
    writer.insert_runs(&batches[0]).await.unwrap();
    proxy.stop().await;
    let error = writer.insert_runs(&batches[1]).await.unwrap_err();
    assert!(error.is_retryable(), "{error:?}");
    proxy.restart().await;
    writer.insert_runs(&batches[1]).await.unwrap();
    writer.insert_runs(&batches[2]).await.unwrap();
    assert_eq!(database.history.count_runs(Some(request)).await.unwrap(), 15);
}

#[tokio::test]
async fn a_batch_whose_answer_was_lost_is_not_stored_twice() {
    let database = TestDatabase::new().await;
    let (proxy, history) = through_proxy(&database).await;
    let (writer, request) = (history.writer(), Uuid::now_v7());
    writer.insert_runs(&[run(request, 0)]).await.unwrap();
    let batch: Vec<_> = (1..2000).map(|index| run(request, index)).collect();
    proxy.swallow_answers(true);
    let error = writer.insert_runs(&batch).await.unwrap_err();
    assert!(error.is_retryable(), "{error:?}");
    // It did arrive.
    let arrived = async {
        while database.history.count_runs(Some(request)).await.unwrap() < 2000 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), arrived).await.expect("the batch arrived before its answer was lost");
    proxy.swallow_answers(false);
    writer.insert_runs(&batch).await.unwrap();
    let stored = database.ask("SELECT count() AS rows FROM runs").await;
    assert_eq!(stored[0]["rows"], 2000);
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up_in_time() {
    // Accepts by its backlog and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let history = History::new(HistoryOptions { url, timeout_seconds: 1, ..HistoryOptions::default() }).unwrap();
    let error = history.ping().await.unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }) && error.is_retryable(), "{error:?}");
}

#[tokio::test]
async fn a_wrong_password_is_not_retried_and_not_repeated() {
    let database = TestDatabase::empty().await;
    let options = HistoryOptions {
        user: Some("nobody_of_this_name".to_owned()),
        password: Some(Password::new("hunter2")),
        ..database.options.clone()
    };
    let error = History::new(options).unwrap().ping().await.unwrap_err();
    assert!(matches!(&error, Error::Refused { code: Some(_), .. }) && !error.is_retryable(), "{error:?}");
    assert!(!format!("{error} {error:?}").contains("hunter2"));
}
