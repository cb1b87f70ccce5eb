//! `watch`: streams that break, streams that are not there, and Ctrl-C.

use std::time::Duration;

use forecastle_protos::v1::{self, RequestState};
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use crate::program::{Program, finish};
use crate::server::{EVENTS, ID, STATUS, Server, Then, error, event_of, message, status, stream, unknown_route};

fn running(succeeded: u32) -> v1::RequestStatus {
    status(RequestState::Running, succeeded)
}

#[tokio::test]
async fn a_stream_that_breaks_is_opened_again_and_nothing_is_told_twice() {
    for then in [Then::Ends, Then::Breaks] {
        let server = Server::new(move |asked| match (&*asked.what, asked.before) {
            (EVENTS, 0) => {
                let half = event_of(&running(2))[..30].to_owned();
                stream(vec![": hello\n\n".to_owned(), event_of(&running(1)), half], then)
            }
            (EVENTS, _) => {
                stream(vec![event_of(&running(1)), event_of(&status(RequestState::Succeeded, 4))], Then::Hangs)
            }
            (STATUS, _) => message(200, &running(1)),
            _ => unknown_route(),
        })
        .await;
        let ran = Program::new(&server).run(&["watch", ID, "--json"]).await;
        assert_eq!(ran.status, 0, "{ran:?}");
        let told: Vec<v1::RequestStatus> = ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(told, [running(1), status(RequestState::Succeeded, 4)]);
        assert_eq!(server.asked_of(EVENTS).len(), 2);
        assert_eq!(server.asked_of(EVENTS)[0].header("accept"), "text/event-stream");
    }
}

#[tokio::test]
async fn without_streams_it_asks_until_the_end() {
    for stream_status in [404, 405, 503] {
        let server = Server::new(move |asked| match (&*asked.what, asked.before) {
            (EVENTS, _) if stream_status == 404 => unknown_route(),
            (EVENTS, _) if stream_status == 405 => error(405, "method-not-allowed", "", "no"),
            (EVENTS, _) => error(503, "ledger-unavailable", "", "later"),
            (STATUS, 0) => message(200, &running(1)),
            (STATUS, _) => message(200, &status(RequestState::Cancelled, 1)),
            _ => unknown_route(),
        })
        .await;
        let ran = Program::new(&server).run(&["watch", ID]).await;
        assert_eq!(ran.status, 1, "{ran:?}");
        assert!(ran.stdout.starts_with("cancelled after 3.5 s: 1 of 4 shards"), "{ran:?}");
        assert!(ran.stderr.contains("running: work 1/4"), "{ran:?}");
    }
}

#[tokio::test]
async fn a_frontend_that_goes_away_for_a_moment_is_waited_for() {
    let server = Server::new(|asked| match (&*asked.what, asked.before) {
        (EVENTS, 0) => stream(vec![event_of(&running(1))], Then::Breaks),
        (EVENTS, 1) | (STATUS, 0 | 1) => error(502, "", "", ""),
        (EVENTS, _) => stream(vec![event_of(&status(RequestState::Succeeded, 4))], Then::Ends),
        (STATUS, _) => message(200, &running(1)),
        _ => unknown_route(),
    })
    .await;
    let ran = Program::new(&server).run(&["watch", ID]).await;
    assert_eq!(ran.status, 0, "{ran:?}");
    assert!(server.asked_of(EVENTS).len() >= 3);
}

#[tokio::test]
async fn a_request_that_does_not_exist_ends_it_at_once() {
    let server = Server::new(|_| error(404, "unknown-request", "requestId", "there is no such request")).await;
    let ran = Program::new(&server).run(&["watch", ID]).await;
    assert_eq!(ran.status, 4, "{ran:?}");
    assert!(ran.stderr.contains("forecastle list"), "{ran:?}");
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn an_interruption_leaves_the_request_alone_and_says_how_to_go_on() {
    let server = Server::new(|asked| match &*asked.what {
        EVENTS => stream(vec![event_of(&running(1))], Then::Hangs),
        _ => unknown_route(),
    })
    .await;
    let program = Program::new(&server);
    let child = program.start(&["watch", ID]);
    let deadline = Instant::now() + Duration::from_secs(20);
    while server.asked_of(EVENTS).is_empty() {
        assert!(Instant::now() < deadline, "the stream was never opened");
        sleep(Duration::from_millis(5)).await;
    }
    // It listens for signals by the time it has asked for events.
    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().await.unwrap().success());
    let ran = finish(child).await;
    assert_eq!(ran.status, 130, "{ran:?}");
    for text in [format!("forecastle watch {ID}"), format!("forecastle cancel {ID}")] {
        assert!(ran.stderr.contains(&text), "{ran:?}");
    }
    assert!(server.asked().iter().all(|asked| !asked.what.ends_with("/cancel")));
}
