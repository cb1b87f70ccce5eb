//! What each route answers, and what it refuses.

use forecastle_broker::Message;
use forecastle_frontend::ledger::{EventKind, InFlight, Ledger as _};
use forecastle_protos::ids::{RequestId, RunId};
use forecastle_protos::v1::{self, Outcome, control_message};
use forecastle_resources::Bytes;
use prost::Message as _;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::service::{MAX_BODY, OPERATOR_TOKEN, OTHER_TOKEN, Service, TOKEN, answer, completed, next_message};

fn code(body: &Value) -> &str {
    body["error"]["code"].as_str().unwrap_or_default()
}

fn field(body: &Value) -> &str {
    body["error"]["field"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn a_request_is_accepted_followed_and_its_result_read() {
    let service = Service::start().await;
    let body = json!({
        "requestType": "copy",
        "input": { "directory": service.input },
        "sla": { "priority": "urgent", "deadlineSeconds": 3600 },
        "labels": { "for": "a test" },
    });
    let response = service.request(Method::POST, "/v1/requests").json(&body).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    let accepted: Value = response.json().await.unwrap();
    assert_eq!(location, format!("/v1/requests/{}", accepted["requestId"].as_str().unwrap()));
    assert_eq!(accepted["created"], true);

    let (status, told) = service.get(&location).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!((&told["tenant"], &told["priority"]), (&json!("acme"), &json!("urgent")));
    assert_eq!(told["labels"]["for"], "a test");
    assert!(told["deadlineUnixMs"].is_string(), "numbers of 64 bits are texts: {told}");

    let ended = service.run_to_the_end(accepted["requestId"].as_str().unwrap()).await;
    assert_eq!(ended["state"], "REQUEST_STATE_SUCCEEDED");
    let (_, first) = service.get(&format!("{location}/result?limit=2")).await;
    assert_eq!(first["shards"].as_array().unwrap().len(), 2);
    assert_eq!(first["shards"][0]["files"][0], json!({ "path": "a.txt", "bytes": "5" }));
    let cursor = first["nextCursor"].as_str().unwrap();
    let (_, second) = service.get(&format!("{location}/result?limit=2&cursor={cursor}")).await;
    assert_eq!(second["shards"].as_array().unwrap().len(), 1);
    assert_eq!(second.get("nextCursor"), None, "the last page has no cursor");
    assert_eq!(second["state"], "REQUEST_STATE_SUCCEEDED");
}

#[tokio::test]
async fn the_same_key_is_the_same_request_and_another_body_a_conflict() {
    let service = Service::start().await;
    let submit = |key: Option<&'static str>, body: Value| {
        let request = service.request(Method::POST, "/v1/requests").json(&body);
        answer(match key {
            Some(key) => request.header("Idempotency-Key", key),
            None => request,
        })
    };
    let note = json!({ "requestType": "note" });
    let (created, first) = submit(Some("k-1"), note.clone()).await;
    let (known, second) = submit(Some("k-1"), json!({ "requestType": "note", "parameters": { "level": 3 } })).await;
    assert_eq!((created, known), (StatusCode::CREATED, StatusCode::OK), "a default that is spelled out is the same");
    assert_eq!(first["requestId"], second["requestId"]);
    let (known, third) = submit(None, json!({ "requestType": "note", "idempotencyKey": "k-1" })).await;
    assert_eq!((known, &third["requestId"]), (StatusCode::OK, &first["requestId"]), "header and field are one key");

    let (status, body) = submit(Some("k-1"), json!({ "requestType": "note", "parameters": { "level": 4 } })).await;
    assert_eq!((status, code(&body)), (StatusCode::CONFLICT, "idempotency-conflict"));
    let (status, body) = submit(Some("k-1"), json!({ "requestType": "note", "idempotencyKey": "k-2" })).await;
    assert_eq!((status, field(&body)), (StatusCode::UNPROCESSABLE_ENTITY, "idempotencyKey"));

    let other = service.request_as(OTHER_TOKEN, Method::POST, "/v1/requests").header("Idempotency-Key", "k-1");
    let (status, body) = answer(other.json(&note)).await;
    assert_eq!(status, StatusCode::CREATED, "another tenant's keys are its own");
    assert_ne!(body["requestId"], first["requestId"]);
}

#[tokio::test]
async fn what_was_accepted_stays_accepted_whatever_becomes_of_its_input() {
    let service = Service::start().await;
    let folder = service.input.join("moved");
    std::fs::create_dir(&folder).unwrap();
    let copy = json!({ "requestType": "copy", "input": { "directory": folder }, "idempotencyKey": "k" });
    let submit = |body: Value| {
        let request = service.request(Method::POST, "/v1/requests").json(&body);
        answer(request)
    };
    let (status, first) = submit(copy.clone()).await;
    assert_eq!(status, StatusCode::CREATED);
    std::fs::remove_dir(&folder).unwrap();
    let (status, again) = submit(copy.clone()).await;
    assert_eq!((status, &again["requestId"]), (StatusCode::OK, &first["requestId"]));
    assert_eq!(again["created"], Value::Null, "it was not created by this: {again}");
    let mut other = copy;
    other["sla"] = json!({ "priority": "urgent" });
    let (status, body) = submit(other).await;
    assert_eq!(
        (status, code(&body)),
        (StatusCode::UNPROCESSABLE_ENTITY, "input-unreadable"),
        "that was never accepted"
    );
}

#[tokio::test]
async fn the_items_of_a_list_are_what_its_paths_lead_to_each_once() {
    let service = Service::start().await;
    let input = service.input.to_str().unwrap();
    let paths = [format!("{input}/./a.txt"), format!("{input}//b.txt"), format!("{input}/x/../a.txt")];
    std::fs::create_dir(service.input.join("x")).unwrap();
    let request = service.submit(&json!({ "requestType": "pick", "input": { "items": { "paths": paths } } })).await;
    let shards = service.released(2).await.into_iter().map(|attempt| attempt.release.shard).collect();
    let specs = service.ledger.specs(shards).await.unwrap();
    let mut names: Vec<_> = specs.iter().flat_map(|spec| &spec.items).map(|item| item.name.clone()).collect();
    names.sort();
    let below_the_root = input.trim_start_matches('/');
    assert_eq!(names, [format!("{below_the_root}/a.txt"), format!("{below_the_root}/b.txt")]);
    assert_eq!(service.run_to_the_end(&request).await["state"], "REQUEST_STATE_SUCCEEDED");
    let none = json!({ "requestType": "pick", "input": { "items": { "paths": [] } } });
    let (status, body) = answer(service.request(Method::POST, "/v1/requests").json(&none)).await;
    assert_eq!((status, code(&body)), (StatusCode::UNPROCESSABLE_ENTITY, "invalid-input"));
}

#[tokio::test]
async fn every_bad_submission_gets_a_typed_error_that_names_the_field() {
    let service = Service::start().await;
    let outside = std::env::temp_dir();
    let copy = |input: Value| json!({ "requestType": "copy", "input": input }).to_string();
    let cases = [
        ("{\"requestType\": ".to_owned(), 400, "malformed-body", "requestType"),
        ("{\"requestType\": 7}".to_owned(), 400, "malformed-body", "requestType"),
        ("{\"requestTyp\": \"note\"}".to_owned(), 400, "unknown-field", "requestTyp"),
        (
            json!({ "requestType": "note", "sla": { "deadlineSeconds": [] } }).to_string(),
            400,
            "malformed-body",
            "sla.deadlineSeconds",
        ),
        (json!({ "requestType": "nothing" }).to_string(), 422, "unknown-request-type", "requestType"),
        ("{}".to_owned(), 422, "unknown-request-type", "requestType"),
        (
            json!({ "requestType": "note", "parameters": { "level": 10 } }).to_string(),
            422,
            "invalid-parameter",
            "parameters.level",
        ),
        (
            json!({ "requestType": "note", "parameters": { "levle": 1 } }).to_string(),
            422,
            "invalid-parameter",
            "parameters.levle",
        ),
        (
            json!({ "requestType": "note", "sla": { "priority": "soon" } }).to_string(),
            422,
            "invalid-priority",
            "sla.priority",
        ),
        (
            json!({ "requestType": "note", "sla": { "deadlineSeconds": -1 } }).to_string(),
            422,
            "invalid-deadline",
            "sla.deadlineSeconds",
        ),
        (json!({ "requestType": "note", "tenant": "other" }).to_string(), 422, "invalid-tenant", "tenant"),
        (
            json!({ "requestType": "note", "idempotencyKey": "k".repeat(300) }).to_string(),
            422,
            "invalid-idempotency-key",
            "idempotencyKey",
        ),
        (
            json!({ "requestType": "note", "labels": { "k": "v".repeat(300) } }).to_string(),
            422,
            "invalid-labels",
            "labels.k",
        ),
        (json!({ "requestType": "copy" }).to_string(), 422, "invalid-input", "input"),
        (copy(json!({ "directory": outside })), 422, "input-not-allowed", "input.directory"),
        (copy(json!({ "directory": service.input.join("../ledger") })), 422, "input-not-allowed", "input.directory"),
        (copy(json!({ "directory": service.input.join("nothing") })), 422, "input-unreadable", "input.directory"),
    ];
    for (body, status, wanted, at) in cases {
        let request = service.request(Method::POST, "/v1/requests").header("Content-Type", "application/json");
        let (told, answered) = answer(request.body(body.clone())).await;
        assert_eq!((told.as_u16(), code(&answered), field(&answered)), (status, wanted, at), "{body}: {answered}");
        assert!(!answered["error"]["message"].as_str().unwrap().is_empty(), "{body}");
    }
    let (_, list) = service.get("/v1/requests").await;
    assert_eq!(list, json!({}), "none of them was admitted");
}

#[tokio::test]
async fn malformed_json_is_located() {
    let service = Service::start().await;
    let request = service.request(Method::POST, "/v1/requests").header("Content-Type", "application/json");
    let (status, body) = answer(request.body("{\n \"requestType\": nonsense}")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(body["error"]["message"].as_str().unwrap().contains("line 2 column"), "{body}");
}

#[tokio::test]
async fn bodies_are_bounded_with_and_without_a_length_and_must_be_json() {
    let service = Service::start().await;
    let padded = |bytes: usize| {
        let body = r#"{"requestType":"note"}"#;
        format!("{body}{}", " ".repeat(bytes - body.len()))
    };
    let limit = usize::try_from(MAX_BODY).unwrap();
    let json_post = || service.request(Method::POST, "/v1/requests").header("Content-Type", "application/json");
    let (status, _) = answer(json_post().body(padded(limit))).await;
    assert_eq!(status, StatusCode::CREATED, "exactly the limit is accepted");
    for size in [limit + 1, 4 * limit] {
        let (status, body) = answer(json_post().body(padded(size))).await;
        assert_eq!((status, code(&body)), (StatusCode::PAYLOAD_TOO_LARGE, "body-too-large"));
        let parts = padded(size)
            .into_bytes()
            .chunks(1000)
            .map(|part| Ok::<_, std::io::Error>(part.to_vec()))
            .collect::<Vec<_>>();
        let chunked = reqwest::Body::wrap_stream(futures::stream::iter(parts));
        let (status, body) = answer(json_post().body(chunked)).await;
        assert_eq!((status, code(&body)), (StatusCode::PAYLOAD_TOO_LARGE, "body-too-large"), "without a length");
    }
    let typed = service.request(Method::POST, "/v1/requests").header("Content-Type", "text/plain").body("{}");
    let (status, body) = answer(typed).await;
    assert_eq!((status, field(&body)), (StatusCode::UNSUPPORTED_MEDIA_TYPE, "Content-Type"));
}

#[tokio::test]
async fn without_a_good_token_there_is_nothing_to_see() {
    let service = Service::start().await;
    let request = service.submit_note().await;
    let client = reqwest::Client::new();
    for path in ["/v1/requests", "/v1/types", "/v1/fleet", &format!("/v1/requests/{request}")] {
        for token in [None, Some("token-of-acme-0002"), Some("")] {
            let get = client.get(service.url(path));
            let response = match token {
                None => get.send().await.unwrap(),
                Some(token) => get.header("Authorization", format!("Bearer {token}")).send().await.unwrap(),
            };
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{path}");
            assert!(response.headers()["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
            let body: Value = response.json().await.unwrap();
            assert_eq!(code(&body), "unauthenticated");
            assert!(!body.to_string().contains("token-of"), "an answer never repeats a token");
        }
    }
    let document = client.get(service.url("/v1/openapi.json")).send().await.unwrap();
    assert_eq!(document.status(), StatusCode::OK, "the document is open to everybody");
    let document: Value = document.json().await.unwrap();
    assert_eq!(document["openapi"], "3.1.0");
}

#[tokio::test]
async fn another_tenants_requests_and_shards_do_not_exist() {
    let service = Service::start().await;
    let request = service.submit_note().await;
    service.run_to_the_end(&request).await;
    let nobodys = RequestId::new();
    let paths = |request: &str| {
        [
            (Method::GET, format!("/v1/requests/{request}")),
            (Method::POST, format!("/v1/requests/{request}/cancel")),
            (Method::GET, format!("/v1/requests/{request}/events")),
            (Method::GET, format!("/v1/requests/{request}/result")),
            (Method::GET, format!("/v1/shards/{request}.0.0")),
            (Method::GET, format!("/v1/shards/{request}.0.0/log")),
        ]
    };
    for ((method, path), (_, missing)) in paths(&request).into_iter().zip(paths(&nobodys.to_string())) {
        let (status, theirs) = answer(service.request_as(OTHER_TOKEN, method.clone(), &path)).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
        let (status, nobodys_body) = answer(service.request_as(OTHER_TOKEN, method, &missing)).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{missing}");
        let text = theirs.to_string().replace(&request, &nobodys.to_string());
        assert_eq!(text, nobodys_body.to_string(), "the answers tell nothing apart");
    }
    let (_, list) = answer(service.request_as(OTHER_TOKEN, Method::GET, "/v1/requests")).await;
    assert_eq!(list, json!({}));
    let (_, fleet) = service.get("/v1/fleet").await;
    let text = fleet.to_string();
    assert!(
        !text.contains("somebody else's") && !text.contains("type-of-other"),
        "whose shards run is not told: {fleet}"
    );
    let leases = fleet["workers"][0]["report"]["leases"].as_array().unwrap();
    assert_eq!(leases[0]["shardId"], "acme's shard", "one's own are");
    assert_eq!(leases[1]["cpuMillisNow"], 250, "and what the others take");
    assert_eq!(fleet.get("operator"), None);
    let (_, fleet) = answer(service.request_as(OPERATOR_TOKEN, Method::GET, "/v1/fleet")).await;
    assert_eq!(fleet["operator"], true);
    assert_eq!(fleet["workers"][0]["report"]["leases"][1]["requestType"], "type-of-other");
    // An operator sees the fleet, not other tenants' requests.
    let (status, _) = answer(service.request_as(OPERATOR_TOKEN, Method::GET, &format!("/v1/requests/{request}"))).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn an_operator_changes_shares_and_whatever_cannot_be_is_said() {
    let service = Service::start().await;
    service.workers_have(Some(Bytes::gib(4)));
    let mut heard = service.control_messages().await;
    let set =
        |token: &str, body: Value| answer(service.request_as(token, Method::POST, "/v1/fleet/shares").json(&body));
    let urgent = |cpu: u32| json!({ "priority": "urgent", "guaranteed": { "cpuMillis": cpu, "memoryBytes": "1024" } });
    let (status, body) = set(TOKEN, json!({ "fleet": "default", "shares": [urgent(1000)] })).await;
    assert_eq!((status, code(&body)), (StatusCode::FORBIDDEN, "operator-only"));
    for (body, wanted, code_of, at) in [
        (json!({ "shares": [urgent(1)] }), 422, "invalid-shares", "fleet"),
        (json!({ "fleet": "default", "workerId": "x", "shares": [urgent(1)] }), 422, "invalid-shares", "fleet"),
        (json!({ "fleet": "default" }), 422, "invalid-shares", "shares"),
        (json!({ "fleet": "default", "shares": [urgent(1), urgent(2)] }), 422, "invalid-shares", "shares[1].priority"),
        (json!({ "fleet": "default", "shares": [{ "priority": "now" }] }), 422, "invalid-shares", "shares[0].priority"),
        (json!({ "fleet": "other", "shares": [urgent(1)] }), 404, "no-such-worker", "fleet"),
        (json!({ "workerId": "x", "shares": [urgent(1)] }), 404, "no-such-worker", "workerId"),
        (json!({ "fleet": "default", "shares": [urgent(4001)] }), 409, "shares-do-not-fit", "shares"),
        (json!({ "fleet": "default", "share": [] }), 400, "unknown-field", "share"),
    ] {
        let (status, answered) = set(OPERATOR_TOKEN, body.clone()).await;
        assert_eq!((status.as_u16(), code(&answered), field(&answered)), (wanted, code_of, at), "{body}: {answered}");
    }

    let (status, asked) = set(OPERATOR_TOKEN, json!({ "fleet": "default", "shares": [urgent(1000)] })).await;
    assert_eq!((status, &asked["workerIds"]), (StatusCode::ACCEPTED, &json!([service.worker.to_string()])));
    let message = v1::ControlMessage::decode(&*next_message(&mut heard).await.body).unwrap();
    let Some(control_message::Kind::SetShares(told)) = message.kind else { panic!("{message:?}") };
    assert_eq!((&*told.fleet, &*told.shares[0].priority), ("default", "urgent"));
    assert_eq!(told.shares[0].guaranteed.as_ref().unwrap().cpu_millis, 1000);
}

#[tokio::test]
async fn what_is_no_route_no_method_or_no_id_is_said() {
    let service = Service::start().await;
    let (status, body) = service.get("/v2/requests").await;
    assert_eq!((status, code(&body)), (StatusCode::NOT_FOUND, "unknown-route"));
    let response = service.request(Method::DELETE, "/v1/requests").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    let allow = response.headers()["allow"].to_str().unwrap().to_owned();
    assert!(allow.contains("GET") && allow.contains("POST"), "{allow}");
    assert_eq!(code(&response.json().await.unwrap()), "method-not-allowed");
    for (path, wanted, at) in [
        ("/v1/requests/1", "invalid-id", "requestId"),
        ("/v1/requests/%ff", "invalid-path", ""),
        ("/v1/shards/1.2.3", "invalid-id", "shardId"),
        ("/v1/requests?limit=0", "invalid-query", "limit"),
        ("/v1/requests?state=asleep", "invalid-query", "state"),
        ("/v1/requests?cursor=x", "invalid-query", "cursor"),
        ("/v1/requests?limit=1&limit=2", "invalid-query", "limit"),
        ("/v1/requests?page=1", "unknown-query-parameter", "page"),
    ] {
        let (status, body) = service.get(path).await;
        assert_eq!((status, code(&body), field(&body)), (StatusCode::BAD_REQUEST, wanted, at), "{path}");
    }
}

#[tokio::test]
async fn cancelling_ends_a_request_tells_workers_and_can_be_repeated() {
    let service = Service::start().await;
    let mut control = service.control_messages().await;
    let request = service.submit_note().await;
    let attempt = service.released(1).await.remove(0);
    let run = RunId::new();
    service.tell(vec![service.event(run, &attempt, EventKind::Claimed)]).await;

    let path = format!("/v1/requests/{request}/cancel");
    let (status, told) = answer(service.request(Method::POST, &path)).await;
    assert_eq!((status, &told["state"]), (StatusCode::OK, &json!("REQUEST_STATE_CANCELLED")));
    let Message { body, .. } = next_message(&mut control).await;
    match v1::ControlMessage::decode(&*body).unwrap().kind {
        Some(control_message::Kind::Cancel(cancel)) => assert_eq!(cancel.run_ids, [run.to_string()]),
        other => panic!("workers were told {other:?}"),
    }
    let (status, again) = answer(service.request(Method::POST, &path)).await;
    assert_eq!((status, again), (StatusCode::OK, told));
}

#[tokio::test]
async fn requests_are_listed_newest_first_in_pages_and_by_state() {
    let service = Service::start().await;
    let mut submitted = Vec::new();
    for _ in 0..5 {
        submitted.push(service.submit_note().await);
    }
    answer(service.request(Method::POST, &format!("/v1/requests/{}/cancel", submitted[1]))).await;
    let (mut listed, mut cursor) = (Vec::new(), String::new());
    for _ in 0..3 {
        let (status, page) = service.get(&format!("/v1/requests?limit=2{cursor}")).await;
        assert_eq!(status, StatusCode::OK);
        let requests = page["requests"].as_array().unwrap();
        listed.extend(requests.iter().map(|r| r["requestId"].as_str().unwrap().to_owned()));
        cursor = page["nextCursor"].as_str().map(|next| format!("&cursor={next}")).unwrap_or_default();
    }
    assert_eq!(cursor, "", "the last page has no cursor");
    listed.reverse();
    assert_eq!(listed, submitted);
    let (_, cancelled) = service.get("/v1/requests?state=cancelled").await;
    assert_eq!(cancelled["requests"].as_array().unwrap().len(), 1);
    assert_eq!(cancelled["requests"][0]["requestId"], submitted[1]);
}

#[tokio::test]
async fn a_shard_is_explained_from_waiting_to_its_log() {
    let service = Service::start().await;
    service.workers_have(None);
    let request = service.submit_copy().await;
    let (work, last) = (format!("/v1/shards/{request}.0.0"), format!("/v1/shards/{request}.1.0"));
    let told = service.wait_for(&work, |told| told["state"] == "ready").await;
    assert!(told["why"].as_str().unwrap().contains("fleet default has no live worker"), "{told}");
    assert_eq!((&told["forecast"]["source"], &told["unit"]), (&json!("declared"), &json!("copy")));
    assert_eq!(told["reservation"]["vector"]["memoryBytes"], (64u64 << 20).to_string());
    assert_eq!(told["attempt"], 1);
    let (_, waiting) = service.get(&last).await;
    assert_eq!(waiting["state"], "waiting");
    let why = "stage last waits for stage work (0 of 2 shards have succeeded)";
    assert_eq!(waiting["why"], why);
    let (status, body) = service.get(&format!("{work}/log")).await;
    assert_eq!((status, code(&body)), (StatusCode::NOT_FOUND, "no-run-ended"));
    let (status, body) = service.get(&format!("/v1/shards/{request}.0.2")).await;
    assert_eq!((status, code(&body)), (StatusCode::NOT_FOUND, "unknown-shard"));

    service.workers_have(Some(Bytes::mib(512)));
    let released = service.released(2).await;
    let attempt = released.into_iter().find(|a| a.release.shard.index == 0).unwrap();
    let (_, told) = service.get(&work).await;
    assert_eq!((&told["state"], &told["queue"]), (&json!("released"), &json!(attempt.release.queue)));

    let run = RunId::new();
    service.tell(vec![service.event(run, &attempt, EventKind::Claimed)]).await;
    let (_, told) = service.get(&work).await;
    assert_eq!((&told["state"], &told["runId"]), (&json!("claimed"), &json!(run.to_string())));
    assert!(told["why"].as_str().unwrap().contains("running on worker worker-1"), "{told}");

    service.tell(vec![service.event(run, &attempt, completed(Outcome::TaskError, "it broke"))]).await;
    let (_, told) = service.get(&work).await;
    assert_eq!((&told["state"], &told["attempt"]), (&json!("waiting"), &json!(2)));
    let why = told["why"].as_str().unwrap();
    assert!(why.contains("backs off for another") && why.ends_with("it broke"), "{why}");
    assert_eq!(told["runs"][0]["completed"]["usage"]["memoryBytes"], (1u64 << 40).to_string());
    let (status, log) = service.get(&format!("{work}/log")).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(log["tail"], "a line of the log\nit broke");
    assert_eq!((&log["runId"], &log["outputUri"]), (&json!(run.to_string()), &json!("file:///out/1")));
}

/// A request of which one shard of two has succeeded, and the other is dead. Answers the request and the dead shard.
async fn one_dead(service: &Service) -> (String, String) {
    let request = service.submit_copy().await;
    let mut attempts = service.released(2).await;
    attempts.sort_by_key(|attempt| attempt.release.shard.index);
    let of_units =
        |attempt: &InFlight, outcome| service.event(RunId::new(), attempt, completed(outcome, "it broke for good"));
    // Nothing that is tried again.
    service
        .tell(vec![of_units(&attempts[0], Outcome::Succeeded), of_units(&attempts[1], Outcome::PermanentError)])
        .await;
    service.wait_for(&format!("/v1/requests/{request}"), |told| told["state"] == "REQUEST_STATE_FAILED").await;
    (request, attempts[1].release.shard.to_string())
}

#[tokio::test]
async fn a_dead_shard_is_found_shown_and_replayed_to_the_end_of_its_request() {
    let service = Service::start().await;
    let (request, shard) = one_dead(&service).await;
    let (status, list) = service.get("/v1/dead?requestType=copy&reason=task-failed&limit=1").await;
    assert_eq!((status, list["dead"].as_array().unwrap().len()), (StatusCode::OK, 1), "{list}");
    let dead = &list["dead"][0];
    assert_eq!((&dead["shardId"], &dead["requestId"]), (&json!(shard), &json!(request)));
    assert_eq!((&dead["unit"], &dead["stage"], &dead["attempts"]), (&json!("copy"), &json!("work"), &json!(1)));
    assert!(dead["reason"]["message"].as_str().unwrap().contains("it broke for good"), "{dead}");
    for nothing in ["requestType=note", "reason=poison", "diedBeforeUnixMs=1"] {
        let (status, list) = service.get(&format!("/v1/dead?{nothing}")).await;
        assert_eq!((status, &list["dead"]), (StatusCode::OK, &Value::Null), "{nothing}");
    }
    let (status, body) = service.get("/v1/dead?diedBeforeUnixMs=soon").await;
    assert_eq!((status, field(&body)), (StatusCode::BAD_REQUEST, "diedBeforeUnixMs"));

    let path = format!("/v1/dead/{shard}");
    let (status, shown) = service.get(&path).await;
    assert_eq!((status, &shown["shardId"]), (StatusCode::OK, &json!(shard)));
    assert!(shown["runs"][0]["completed"]["logTail"].as_str().unwrap().contains("a line of the log"), "{shown}");
    assert_eq!(shown["decisions"][0]["kind"], "dead");

    let (status, replayed) = answer(service.request(Method::POST, &format!("{path}/replay"))).await;
    assert_eq!((status, &replayed["attempt"]), (StatusCode::OK, &json!(2)), "{replayed}");
    assert_eq!(replayed["requestId"], request);
    let (_, told) = service.get(&format!("/v1/requests/{request}")).await;
    assert_eq!(told["state"], "REQUEST_STATE_RUNNING", "{told}");
    // A second one would be a second attempt.
    let (status, body) = answer(service.request(Method::POST, &format!("{path}/replay"))).await;
    assert_eq!((status, code(&body)), (StatusCode::NOT_FOUND, "not-dead"));
    let ended = service.run_to_the_end(&request).await;
    assert_eq!(ended["state"], "REQUEST_STATE_SUCCEEDED", "{ended}");
}

#[tokio::test]
async fn a_dead_shard_is_purged_once_and_its_request_stays_as_it_ended() {
    let service = Service::start().await;
    let (request, shard) = one_dead(&service).await;
    let purge = format!("/v1/dead/{shard}/purge");
    let (status, purged) = answer(service.request(Method::POST, &purge)).await;
    assert_eq!((status, &purged["shardId"]), (StatusCode::OK, &json!(shard)));
    for again in [purge, format!("/v1/dead/{shard}/replay")] {
        let (status, body) = answer(service.request(Method::POST, &again)).await;
        assert_eq!((status, code(&body), field(&body)), (StatusCode::NOT_FOUND, "not-dead", "shardId"));
    }
    assert_eq!(service.get("/v1/dead").await.1["dead"], Value::Null);
    let (_, told) = service.get(&format!("/v1/requests/{request}")).await;
    assert_eq!(told["state"], "REQUEST_STATE_FAILED");
}

#[tokio::test]
async fn another_tenants_dead_are_not_there() {
    let service = Service::start().await;
    let (_, shard) = one_dead(&service).await;
    let path = format!("/v1/dead/{shard}");
    let as_other = |method, path: &str| answer(service.request_as(OTHER_TOKEN, method, path));
    assert_eq!(as_other(Method::GET, "/v1/dead").await.1["dead"], Value::Null);
    for (method, path) in
        [(Method::GET, path.clone()), (Method::POST, format!("{path}/replay")), (Method::POST, format!("{path}/purge"))]
    {
        let (status, body) = as_other(method, &path).await;
        assert_eq!((status, code(&body)), (StatusCode::NOT_FOUND, "not-dead"), "{path}");
    }
    assert_eq!(service.get(&path).await.0, StatusCode::OK, "nothing was done to it");
}

#[tokio::test]
async fn types_and_fleet_are_shown_as_they_are() {
    let service = Service::start().await;
    let (status, types) = service.get("/v1/types").await;
    assert_eq!(status, StatusCode::OK);
    let note = types["types"].as_array().unwrap().iter().find(|t| t["name"] == "note").unwrap();
    assert_eq!(note["parameters"][0], json!({ "name": "level", "kind": "integer", "defaultJson": "3" }));
    assert_eq!(note["input"], "none");
    let (status, fleet) = service.get("/v1/fleet").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(fleet["workers"][0]["report"]["workerName"], "worker-1");
}

#[tokio::test]
async fn the_fleet_shows_queues_and_what_waits() {
    let service = Service::start().await;
    service.submit_copy().await;
    let queued = |fleet: &Value| fleet["queues"][0]["unclaimed"].as_str().is_some_and(|count| count == "2");
    let fleet = service.wait_for("/v1/fleet", queued).await;
    let queue = &fleet["queues"][0];
    assert_eq!((&queue["fleet"], &queue["priority"]), (&json!("default"), &json!("standard")));
    assert_eq!(queue["released"], "2");
    assert!(fleet["atUnixMs"].as_str().unwrap().parse::<u64>().unwrap() > 0);
    service.workers_have(None);
    service.submit_note().await;
    let fleet = service.wait_for("/v1/fleet", |fleet| !fleet["backlog"].is_null()).await;
    assert_eq!(fleet["backlog"][0], json!({ "fleet": "default", "priority": "standard", "heldBack": "1" }));
}

#[tokio::test]
async fn a_closed_ledger_is_unavailable_and_says_when_to_try_again() {
    let service = Service::start().await;
    service.ledger.close().await;
    let response =
        service.request(Method::POST, "/v1/requests").json(&json!({ "requestType": "note" })).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(response.headers()["retry-after"].to_str().unwrap().parse::<u32>().unwrap() > 0);
    assert_eq!(code(&response.json().await.unwrap()), "ledger-unavailable");
}
