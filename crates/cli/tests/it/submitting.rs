//! `submit`: what it sends, what it makes of answers, and how often it tries.

use forecastle_protos::v1::{self, RequestState};

use crate::program::{Program, TOKEN};
use crate::server::{
    EVENTS, ID, RESULT, STATUS, Server, Then, accepted, broken_answer, error, event_of, message, shard_result, status,
    stream, unknown_route,
};

const SUBMIT: &str = "POST /v1/requests";

#[tokio::test]
async fn a_submission_is_followed_to_its_result() {
    let server = Server::new(|asked| match &*asked.what {
        SUBMIT => message(201, &accepted(true)),
        EVENTS => {
            let statuses = [status(RequestState::Running, 1), status(RequestState::Succeeded, 4)];
            stream(statuses.iter().map(event_of).collect(), Then::Hangs)
        }
        RESULT => {
            let shards = vec![shard_result(0), shard_result(1)];
            message(200, &v1::ResultManifest { shards, next_cursor: "0.1".to_owned(), ..Default::default() })
        }
        _ => unknown_route(),
    })
    .await;
    let program = Program::new(&server);
    let ran = program.run(&["submit", "archive", "--input", "in", "--label", "team=search"]).await;
    assert_eq!(ran.status, 0, "{ran:?}");
    let lines: Vec<_> = ran.stdout.lines().collect();
    assert_eq!(lines[0], ID);
    assert_eq!(lines[1], "succeeded after 3.5 s: 4 shards in 1 stage");
    assert_eq!(lines[3], "work/compress  file:///store/run-0 (1 file, 1 KiB)");
    assert_eq!(lines[5], format!("and more: forecastle result {ID}"));
    assert!(ran.stderr.contains("running: work 1/4"), "{ran:?}");

    let sent = &server.asked_of(SUBMIT)[0];
    assert_eq!(sent.header("authorization"), format!("Bearer {TOKEN}"));
    let body = sent.submitted();
    assert!(!body.idempotency_key.is_empty());
    assert_eq!(sent.header("idempotency-key"), body.idempotency_key);
    assert_eq!(body.labels["team"], "search");
    let folder = program.folder.path().canonicalize().unwrap().join("in");
    assert_eq!(body.input.unwrap().kind, Some(v1::input::Kind::Directory(folder.to_str().unwrap().to_owned())));
}

#[tokio::test]
async fn a_busy_frontend_and_a_broken_answer_are_tried_again_with_the_same_key() {
    let server = Server::new(|asked| match (&*asked.what, asked.before) {
        (SUBMIT, 0) => error(503, "ledger-unavailable", "", "the ledger cannot be used now"),
        (SUBMIT, 1) => broken_answer(201),
        (SUBMIT, _) => message(200, &accepted(false)),
        _ => unknown_route(),
    })
    .await;
    let ran = Program::new(&server).run(&["submit", "archive", "--detach"]).await;
    assert_eq!((ran.status, &*ran.stdout), (0, &*format!("{ID}\n")), "{ran:?}");
    let keys: Vec<_> = server.asked_of(SUBMIT).iter().map(|asked| asked.submitted().idempotency_key).collect();
    assert_eq!(keys.len(), 3);
    assert!(keys.iter().all(|key| !key.is_empty() && *key == keys[0]), "{keys:?}");
    assert!(ran.stderr.contains("it is the same request"), "{ran:?}");
}

#[tokio::test]
async fn what_the_frontend_refuses_is_told_once_with_code_field_and_hint() {
    for (status, code, field, hint) in [
        (409, "idempotency-conflict", "idempotencyKey", "choose another key"),
        (422, "invalid-parameter", "parameters.level", "forecastle types NAME"),
        (422, "unknown-request-type", "requestType", "forecastle types"),
        (413, "body-too-large", "", "the reason"),
    ] {
        let server = Server::new(move |_| error(status, code, field, "the reason")).await;
        let ran = Program::new(&server).run(&["submit", "archive", "--key", "k"]).await;
        assert_eq!((ran.status, &*ran.stdout), (4, ""), "{ran:?}");
        let place = if field.is_empty() { code.to_owned() } else { format!("{code}, {field}") };
        assert!(ran.stderr.starts_with(&format!("error: the reason ({place})\n")), "{ran:?}");
        assert!(ran.stderr.contains(hint), "{ran:?}");
        assert_eq!(server.asked().len(), 1);
    }
}

#[tokio::test]
async fn a_refused_token_says_where_it_came_from() {
    let server = Server::new(|_| error(401, "unauthenticated", "Authorization", "this token opens nothing here")).await;
    let ran = Program::new(&server).run(&["submit", "archive"]).await;
    assert_eq!(ran.status, 3, "{ran:?}");
    assert!(ran.stderr.contains("opens nothing here (unauthenticated, Authorization)"), "{ran:?}");
    assert!(ran.stderr.contains("came from FORECASTLE_TOKEN"), "{ran:?}");
    let ran = Program::new(&server).without("FORECASTLE_TOKEN").run(&["list"]).await;
    assert_eq!(ran.status, 3, "{ran:?}");
    assert!(
        ran.stderr.contains("no token was found in") && ran.stderr.contains(".forecastle/frontend/token"),
        "{ran:?}"
    );
}

#[tokio::test]
async fn the_token_of_a_frontend_started_here_is_found() {
    let server = Server::new(|_| message(200, &v1::RequestList::default())).await;
    let program = Program::new(&server).without("FORECASTLE_TOKEN");
    program.put(".forecastle/frontend/token", "fc-made-here-0123456789\n");
    assert_eq!(program.run(&["list"]).await.status, 0);
    program.put("named", "fc-named-0123456789");
    assert_eq!(program.run(&["list", "--token-file", "named"]).await.status, 0);
    let tokens: Vec<_> = server.asked().iter().map(|asked| asked.header("authorization").to_owned()).collect();
    assert_eq!(tokens, ["Bearer fc-made-here-0123456789", "Bearer fc-named-0123456789"]);
}

#[tokio::test]
async fn a_declared_text_stays_a_text_although_it_looks_like_a_number() {
    let server = Server::new(|asked| match &*asked.what {
        SUBMIT => message(201, &accepted(true)),
        "GET /v1/types" => {
            let parameter = |name: &str, kind: &str| v1::ParameterInfo {
                name: name.to_owned(),
                kind: kind.to_owned(),
                ..Default::default()
            };
            let parameters = vec![parameter("version", "text"), parameter("level", "integer")];
            let info = v1::RequestTypeInfo { name: "archive".to_owned(), parameters, ..Default::default() };
            message(200, &v1::RequestTypeList { types: vec![info] })
        }
        _ => unknown_route(),
    })
    .await;
    let arguments = ["submit", "archive", "--param", "version=2", "--param", "level=3", "--detach", "--json"];
    let ran = Program::new(&server).run(&arguments).await;
    assert_eq!(ran.document::<v1::Accepted>(), accepted(true));
    let body: serde_json::Value = serde_json::from_slice(&server.asked_of(SUBMIT)[0].body).unwrap();
    assert_eq!(body["parameters"], serde_json::json!({"version": "2", "level": 3.0}));
}

#[tokio::test]
async fn a_request_that_fails_is_exit_status_one_and_says_why() {
    let server = Server::new(|asked| match &*asked.what {
        SUBMIT => message(201, &accepted(true)),
        EVENTS => stream(vec![event_of(&status(RequestState::Failed, 3))], Then::Ends),
        RESULT => message(200, &v1::ResultManifest::default()),
        _ => unknown_route(),
    })
    .await;
    let ran = Program::new(&server).run(&["submit", "archive"]).await;
    assert_eq!(ran.status, 1, "{ran:?}");
    assert!(ran.stdout.contains("failed after 3.5 s: 3 of 4 shards in 1 stage succeeded"), "{ran:?}");
    assert!(ran.stdout.contains("why: shard 3: no such file (permanent-error)"), "{ran:?}");
    let ran = Program::new(&server).run(&["submit", "archive", "--json"]).await;
    assert_eq!(ran.status, 1, "{ran:?}");
    assert_eq!(ran.document::<v1::RequestStatus>(), status(RequestState::Failed, 3));
}

#[tokio::test]
async fn without_a_frontend_it_gives_up_after_trying_and_says_where_it_looked() {
    let server = Server::new(|_| unknown_route()).await;
    let url = server.url.clone();
    let program = Program::new(&server);
    drop(server);
    let ran = program.run(&["status", ID]).await;
    assert_eq!(ran.status, 3, "{ran:?}");
    assert!(ran.stderr.contains(&format!("cannot reach the frontend at {url}")), "{ran:?}");
    assert!(ran.stderr.contains("forecastle doctor"), "{ran:?}");
}

#[tokio::test]
async fn wrong_usage_sends_nothing() {
    let server = Server::new(|_| unknown_route()).await;
    let program = Program::new(&server);
    program.put("authorities.pem", "no certificate");
    for arguments in [
        &["submit"][..],
        &["submit", "archive", "--params-json", "[]"],
        &["submit", "archive", "--params-json", "@missing.json"],
        &["status", "not-an-id"],
        &["list", "--limit", "0"],
        &["list", "--token-file", "missing"],
        &["list", "--ca-file", "authorities.pem"],
        &["list", "--url", "ftp://x"],
    ] {
        let ran = program.run(arguments).await;
        assert_eq!((ran.status, &*ran.stdout), (2, ""), "{arguments:?}: {ran:?}");
        assert!(!ran.stderr.is_empty());
    }
    assert!(server.asked().is_empty(), "{:?}", server.asked_of(STATUS));
}
