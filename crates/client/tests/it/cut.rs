//! Connections that break or stall: a forwarder between the client and the broker, which the test cuts and mutes.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use forecastle_client::{Awaited, Client, ClientOptions, Error};
use lapin::uri::AMQPUri;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::broker::{Frontend, LONG, accepted, finished, request, url};

/// Forwards to the broker until cut; then refuses until mended.
struct Forwarder {
    url: String,
    state: Arc<Mutex<State>>,
    /// While true, what the broker says is kept back.
    muted: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    refusing: bool,
    open: Vec<JoinHandle<()>>,
}

impl Forwarder {
    async fn start() -> Self {
        let mut uri: AMQPUri = url().parse().unwrap();
        let broker = (uri.authority.host.clone(), uri.authority.port);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        "127.0.0.1".clone_into(&mut uri.authority.host);
        uri.authority.port = listener.local_addr().unwrap().port();
        let credentials = format!("{}:{}", uri.authority.userinfo.username, uri.authority.userinfo.password);
        let url = format!("amqp://{credentials}@127.0.0.1:{}/%2f", uri.authority.port);
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let muted = watch::Sender::new(false);
        let listening = muted.subscribe();
        let accepting = tokio::spawn(async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let (broker, listening) = (broker.clone(), listening.clone());
                let mut state = shared.lock().unwrap();
                if state.refusing {
                    continue;
                }
                state.open.push(tokio::spawn(async move {
                    let far = TcpStream::connect(broker).await.unwrap();
                    forward(near, far, listening).await;
                }));
            }
        });
        Self { url, state, muted, accepting }
    }

    fn mute(&self, muted: bool) {
        self.muted.send_replace(muted);
    }

    /// Ends every connection, and refuses new ones.
    fn cut(&self) {
        let mut state = self.state.lock().unwrap();
        state.refusing = true;
        state.open.drain(..).for_each(|connection| connection.abort());
    }

    fn mend(&self) {
        self.state.lock().unwrap().refusing = false;
    }
}

/// Forwards both ways. The end of either side is the end of both.
async fn forward(near: TcpStream, far: TcpStream, mut muted: watch::Receiver<bool>) {
    let (mut near_read, mut near_write) = near.into_split();
    let (mut far_read, mut far_write) = far.into_split();
    let back = async {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let length = far_read.read(&mut buffer).await.unwrap_or(0);
            let heard = muted.wait_for(|muted| !muted).await.is_ok();
            if length == 0 || !heard || near_write.write_all(&buffer[..length]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = back => {}
        _ = copy(&mut near_read, &mut far_write) => {}
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.cut();
        self.accepting.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_connection_ends_waiting_with_a_retryable_error_and_the_same_key_then_hears_the_replies() {
    let mut frontend = Frontend::new().await;
    let forwarder = Forwarder::start().await;
    let options = ClientOptions { url: forwarder.url.clone(), ..frontend.options() };
    let client = Client::connect(options).await.unwrap();

    let submission = client.submit(request("k")).await.unwrap();
    let first = frontend.receive().await;
    assert!(frontend.reply(&first, accepted("r-1")).await);
    assert_eq!(submission.accepted().await.unwrap().request_id, "r-1");

    let (lost, ()) = tokio::join!(timeout(LONG, submission.finished()), async { forwarder.cut() });
    let error = lost.expect("the loss was not noticed").unwrap_err();
    assert!(matches!(&error, Error::ConnectionLost { key, .. } if key == "k"), "{error:?}");
    assert!(error.is_retryable());
    assert!(error.to_string().contains("submitted again with key `k`"), "{error}");
    // What was known before stays known.
    assert_eq!(submission.accepted().await.unwrap().request_id, "r-1");

    forwarder.mend();
    let again = submit_until_it_works(&client, "k").await;
    let second = frontend.receive().await;
    assert_eq!(second.correlation(), first.correlation());
    assert_eq!(second.reply_to(), first.reply_to());
    // The frontend sends the final reply to the first submission's address, which is good again.
    assert!(frontend.reply(&first, finished("r-1")).await);
    assert_eq!(timeout(LONG, again.finished()).await.unwrap().unwrap().request_id, "r-1");

    client.close().await;
    frontend.end().await;
}

/// Retries as a producer would: the same request while the error is retryable.
async fn submit_until_it_works(client: &Client, key: &str) -> forecastle_client::Submission {
    let deadline = Instant::now() + LONG;
    loop {
        match client.submit(request(key)).await {
            Ok(submission) => return submission,
            Err(error) => {
                assert!(error.is_retryable(), "{error:?}");
                assert!(Instant::now() < deadline, "{error:?}");
            }
        }
    }
}

#[tokio::test]
async fn without_a_connection_a_submission_waits_no_longer_than_allowed() {
    let frontend = Frontend::new().await;
    let forwarder = Forwarder::start().await;
    let options =
        ClientOptions { url: forwarder.url.clone(), connect_timeout: Duration::from_millis(500), ..frontend.options() };
    let client = Client::connect(options).await.unwrap();
    let submission = client.submit(request("before")).await.unwrap();
    forwarder.cut();
    let lost = timeout(LONG, submission.finished()).await.unwrap().unwrap_err();
    assert!(lost.is_retryable(), "{lost:?}");
    let error = timeout(LONG, client.submit(request("after"))).await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }) && error.is_retryable(), "{error:?}");
    client.close().await;
    frontend.end().await;
}

#[tokio::test]
async fn a_broker_that_is_not_there_and_a_bad_password_are_told_apart_without_the_password() {
    // A port that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let nowhere = ClientOptions::new(format!("amqp://fred:s3cret@127.0.0.1:{port}/%2f"));
    let error = Client::connect(nowhere).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }) && error.is_retryable(), "{error:?}");
    assert!(!format!("{error} {error:?}").contains("s3cret"));

    let uri: AMQPUri = url().parse().unwrap();
    let (host, port) = (uri.authority.host, uri.authority.port);
    let stranger = ClientOptions::new(format!("amqp://nobody:s3cret@{host}:{port}/%2f"));
    let error = Client::connect(stranger).await.unwrap_err();
    assert!(matches!(error, Error::NotAllowed { .. }) && !error.is_retryable(), "{error:?}");
    assert!(!format!("{error} {error:?}").contains("s3cret"));
}

#[tokio::test]
async fn a_broker_that_does_not_confirm_is_a_timeout_and_others_wait_for_the_channel() {
    let frontend = Frontend::new().await;
    let forwarder = Forwarder::start().await;
    let options = ClientOptions {
        url: forwarder.url.clone(),
        channels: 1,
        // Far apart, so that the second gives up while the first still holds the channel.
        channel_timeout: Duration::from_millis(100),
        confirm_timeout: Duration::from_secs(2),
        ..frontend.options()
    };
    let client = Client::connect(options).await.unwrap();
    // Opens the channel.
    client.submit(request("before")).await.unwrap();

    forwarder.mute(true);
    let (first, second) = tokio::join!(client.submit(request("first")), client.submit(request("second")));
    for (error, what, named) in
        [(first.unwrap_err(), Awaited::Confirm, "first"), (second.unwrap_err(), Awaited::Channel, "second")]
    {
        let expected = matches!(&error, Error::Timeout { awaited, key } if *awaited == what && key == named);
        assert!(expected && error.is_retryable(), "{error:?}");
    }

    // The late confirm of the first is not taken for that of another.
    forwarder.mute(false);
    client.submit(request("after")).await.unwrap();
    client.close().await;
    frontend.end().await;
}
