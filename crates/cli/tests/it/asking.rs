//! Everything that asks and prints.

use forecastle_protos::v1::{self, RequestState};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::program::Program;
use crate::server::{ID, RESULT, STATUS, Server, error, message, shard_result, status, unknown_route};

#[tokio::test]
async fn a_list_is_paged_until_there_is_enough() {
    let server = Server::new(|asked| {
        let next_cursor = if asked.query.contains("cursor=7") { String::new() } else { "7".to_owned() };
        let requests = vec![status(RequestState::Running, 1), status(RequestState::Failed, 2)];
        message(200, &v1::RequestList { requests, next_cursor })
    })
    .await;
    let program = Program::new(&server);
    let ran = program.run(&["list", "--all", "--state", "running", "--json"]).await;
    assert_eq!(ran.document::<v1::RequestList>().requests.len(), 4);
    let queries: Vec<_> = server.asked().into_iter().map(|asked| asked.query).collect();
    assert_eq!(queries, ["state=running&limit=500", "state=running&limit=500&cursor=7"]);

    let ran = program.run(&["list", "--limit", "2"]).await;
    assert_eq!(ran.status, 0, "{ran:?}");
    assert_eq!(server.asked()[2].query, "limit=2");
    assert!(ran.stdout.contains("REQUEST") && ran.stdout.contains("running") && ran.stdout.contains("2/4"), "{ran:?}");
    assert!(ran.stderr.contains("there are more"), "{ran:?}");
}

#[tokio::test]
async fn a_result_is_every_page_as_one_document_and_files_are_paths() {
    let server = Server::new(|asked| match &*asked.what {
        RESULT => {
            let first = !asked.query.contains("cursor=");
            let next_cursor = if first { "0.0".to_owned() } else { String::new() };
            let shards = vec![shard_result(u32::from(!first))];
            let state = RequestState::Succeeded.into();
            message(200, &v1::ResultManifest { request_id: ID.to_owned(), state, shards, next_cursor })
        }
        _ => unknown_route(),
    })
    .await;
    let program = Program::new(&server);
    let manifest: v1::ResultManifest = program.run(&["result", ID, "--json"]).await.document();
    assert_eq!(manifest.shards, [shard_result(0), shard_result(1)]);
    assert_eq!((&*manifest.next_cursor, manifest.state()), ("", RequestState::Succeeded));
    let ran = program.run(&["result", ID, "--files"]).await;
    assert_eq!(ran.stdout, "/store/run-0/out.zst\n/store/run-1/out.zst\n");
    assert!(program.run(&["result", ID]).await.stdout.contains("compress"));
}

#[tokio::test]
async fn status_cancel_logs_and_explain_print_what_they_are_told() {
    let shard = format!("{ID}.0.3");
    let name = shard.clone();
    let server = Server::new(move |asked| {
        if asked.what == STATUS {
            message(200, &status(RequestState::Running, 1))
        } else if asked.what == format!("POST /v1/requests/{ID}/cancel") {
            message(200, &status(RequestState::Cancelled, 1))
        } else if asked.what == format!("GET /v1/shards/{name}/log") {
            message(200, &v1::ShardLog { tail: "first\nlast".to_owned(), run_id: "r".to_owned(), ..Default::default() })
        } else if asked.what == format!("GET /v1/shards/{name}") {
            let why = "it waits for its turn".to_owned();
            message(
                200,
                &v1::ShardExplanation { shard_id: name.clone(), state: "ready".to_owned(), why, ..Default::default() },
            )
        } else {
            unknown_route()
        }
    })
    .await;
    let program = Program::new(&server);
    let ran = program.run(&["status", ID]).await;
    assert!(ran.status == 0 && ran.stdout.contains("state     running") && ran.stdout.contains("STAGE"), "{ran:?}");
    assert_eq!(
        program.run(&["status", ID, "--json"]).await.document::<v1::RequestStatus>(),
        status(RequestState::Running, 1)
    );
    let ran = program.run(&["cancel", ID]).await;
    assert_eq!((ran.status, &*ran.stdout), (0, &*format!("request {ID} is cancelled\n")));
    assert_eq!(program.run(&["logs", &shard]).await.stdout, "first\nlast\n");
    // The fleet is only asked for names; without it there are none.
    let ran = program.run(&["explain", &shard]).await;
    assert!(ran.status == 0 && ran.stdout.contains("it waits for its turn"), "{ran:?}");
    assert_eq!(program.run(&["explain", &shard, "--json"]).await.document::<v1::ShardExplanation>().state, "ready");
}

#[tokio::test]
async fn the_dead_are_listed_shown_replayed_and_purged() {
    let shards = [3, 4, 5].map(|index| format!("{ID}.0.{index}"));
    let named = shards.clone();
    let server = Server::new(move |asked| {
        let dead = |shard: &String| v1::DeadShard { shard_id: shard.clone(), attempts: 3, ..Default::default() };
        let of = |shard: &str, what: &str| asked.what == format!("{what}/v1/dead/{shard}");
        if asked.what == "GET /v1/dead" {
            message(200, &v1::DeadList { dead: named.iter().map(dead).collect(), ..Default::default() })
        } else if of(&named[0], "GET ") {
            message(200, &dead(&named[0]))
        } else if of(&format!("{}/replay", named[1]), "POST ") {
            error(404, "not-dead", "shardId", "shard is not dead")
        } else if asked.what.ends_with("/replay") {
            let replayed = v1::Replayed { shard_id: named[0].clone(), request_id: ID.to_owned(), attempt: 4 };
            message(200, &replayed)
        } else if asked.what.ends_with("/purge") {
            message(200, &v1::Purged { shard_id: named[0].clone() })
        } else {
            unknown_route()
        }
    })
    .await;
    let program = Program::new(&server);
    let ran = program.run(&["dead", "list", "--type", "archive", "--reason", "poison", "--limit", "2"]).await;
    assert!(ran.status == 0 && ran.stdout.contains(&shards[0]) && ran.stdout.contains("ATTEMPTS"), "{ran:?}");
    assert_eq!(server.asked()[0].query, "requestType=archive&reason=poison&limit=2");
    program.run(&["dead", "list", "--older-than", "7d", "--all", "--json"]).await.document::<v1::DeadList>();
    assert!(server.asked()[1].query.starts_with("diedBeforeUnixMs="), "{:?}", server.asked()[1]);
    let ran = program.run(&["dead", "show", &shards[0]]).await;
    assert!(ran.status == 0 && ran.stdout.contains("after 3 attempts"), "{ran:?}");

    // What is refused hides none of the others, and is told.
    let ran = program.run(&["dead", "replay", "--all", "--reason", "poison"]).await;
    assert_eq!((ran.status, ran.stdout.lines().count()), (4, 2), "{ran:?}");
    assert!(ran.stdout.contains("attempt 4 is ordered") && ran.stderr.contains("not-dead"), "{ran:?}");
    let ran = program.run(&["dead", "purge", &shards[0], &shards[2], "--json"]).await;
    assert_eq!(ran.document::<Vec<v1::Purged>>().len(), 2);

    // Never all by mistake.
    for arguments in
        [&["dead", "purge"][..], &["dead", "purge", "--reason", "poison"], &["dead", "purge", &shards[0], "--all"]]
    {
        let ran = program.run(arguments).await;
        assert_eq!((ran.status, &*ran.stdout), (2, ""), "{arguments:?}: {ran:?}");
    }
}

#[tokio::test]
async fn an_answer_that_is_not_the_frontends_is_exit_status_three() {
    for (code, body) in [(200, "<html>"), (404, "<html>"), (500, "oops"), (302, "")] {
        let server = Server::new(move |_| {
            use axum::response::IntoResponse as _;
            (axum::http::StatusCode::from_u16(code).unwrap(), [("location", "/elsewhere")], body).into_response()
        })
        .await;
        let ran = Program::new(&server).run(&["list"]).await;
        assert_eq!((ran.status, &*ran.stdout), (3, ""), "{code}: {ran:?}");
        assert_eq!(server.asked().len(), 1, "{code}");
    }
}

fn archive() -> v1::RequestTypeList {
    let stage = v1::StageInfo { name: "work".to_owned(), units: vec!["compress".to_owned()], depends_on: Vec::new() };
    let info = v1::RequestTypeInfo {
        name: "archive".to_owned(),
        fleet: "default".to_owned(),
        input: "directory".to_owned(),
        stages: vec![stage],
        ..Default::default()
    };
    v1::RequestTypeList { types: vec![info] }
}

fn fleet(units: &[&str]) -> v1::FleetStatus {
    let report = v1::LoadReport {
        worker_name: "north".to_owned(),
        fleet: "default".to_owned(),
        units: units.iter().map(ToString::to_string).collect(),
        capacity: Some(v1::ResourceVector { cpu_millis: 1000, memory_bytes: 1 << 30, ..Default::default() }),
        enforcement: "cgroup-v2".to_owned(),
        interval_seconds: 1.0,
        ..Default::default()
    };
    v1::FleetStatus { workers: vec![v1::WorkerStatus { report: Some(report), age_ms: 10 }], ..Default::default() }
}

async fn frontend(units: &'static [&'static str]) -> Server {
    Server::new(move |asked| match &*asked.what {
        "GET /v1/openapi.json" => message(200, &serde_json::json!({"info": {"version": env!("CARGO_PKG_VERSION")}})),
        "GET /v1/types" => message(200, &archive()),
        "GET /v1/fleet" => message(200, &fleet(units)),
        "GET /readyz" => message(503, &serde_json::json!({"ready": false, "waiting_for": ["history"]})),
        "GET /ping" => axum::response::IntoResponse::into_response("Ok.\n"),
        _ => unknown_route(),
    })
    .await
}

#[tokio::test]
async fn types_and_fleet_are_listed_and_an_unknown_type_is_named_with_the_known() {
    let server = frontend(&["compress"]).await;
    let program = Program::new(&server);
    assert!(program.run(&["types"]).await.stdout.contains("archive"));
    assert!(program.run(&["types", "archive"]).await.stdout.contains("forecastle submit archive --input DIR"));
    assert_eq!(program.run(&["types", "--json"]).await.document::<v1::RequestTypeList>(), archive());
    let ran = program.run(&["types", "archiv"]).await;
    assert!(ran.status == 4 && ran.stderr.contains("there are: archive"), "{ran:?}");
    let ran = program.run(&["fleet"]).await;
    assert!(
        ran.stdout.contains("north") && ran.stdout.contains("1 core, 1 GiB") && ran.stdout.contains("live"),
        "{ran:?}"
    );
}

#[tokio::test]
async fn the_doctor_finds_what_is_missing_and_says_what_to_do() {
    let server = frontend(&["compress"]).await;
    let ran = Program::new(&server).run(&["doctor"]).await;
    assert_eq!(ran.status, 0, "{ran:?}");
    assert!(ran.stdout.lines().all(|line| line.starts_with("ok")), "{ran:?}");

    let server = frontend(&[]).await;
    let program = Program::new(&server).with("FORECASTLE_ADMIN_URL", server.url.clone());
    let ran = program.run(&["doctor"]).await;
    assert_eq!(ran.status, 1, "{ran:?}");
    for text in ["fail  type archive: no live worker of fleet default has: compress", "the frontend waits for: history"]
    {
        assert!(ran.stdout.contains(text), "{ran:?}");
    }
    let report: serde_json::Value = program.run(&["doctor", "--json"]).await.document();
    assert!(report["checks"].as_array().unwrap().iter().any(|check| check["verdict"] == "fail"), "{report}");
    // Whoever is asked about readiness or history gets no token.
    let others = server.asked().into_iter().filter(|asked| asked.what == "GET /readyz");
    assert!(others.map(|asked| asked.header("authorization").to_owned()).all(|header| header.is_empty()));
}

#[tokio::test]
async fn the_doctor_looks_at_the_servers_behind_too() {
    let amqp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = amqp.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = amqp.accept().await.unwrap();
        let mut header = [0; 8];
        stream.read_exact(&mut header).await.unwrap();
        stream.write_all(&[1, 0, 0, 0]).await.unwrap();
    });
    let server = frontend(&["compress"]).await;
    let program = Program::new(&server)
        .with("FORECASTLE_AMQP_URL", format!("amqp://fred:s3cret@{address}/%2f"))
        .with("FORECASTLE_CLICKHOUSE_URL", server.url.replace("http://", "http://fred:s3cret@"));
    let ran = program.run(&["doctor"]).await;
    assert_eq!(ran.status, 0, "{ran:?}");
    assert!(ran.stdout.contains("ok    RabbitMQ") && ran.stdout.contains("ok    ClickHouse"), "{ran:?}");
    assert!(!ran.stdout.contains("s3cret"), "{ran:?}");
    assert!(server.asked_of("GET /ping").iter().all(|asked| asked.header("authorization").is_empty()));
}

#[tokio::test]
async fn the_doctor_tells_an_absent_frontend_from_a_refused_token() {
    let refusing =
        Server::new(|_| error(401, "unauthenticated", "Authorization", "this token opens nothing here")).await;
    let ran = Program::new(&refusing).run(&["doctor"]).await;
    assert_eq!(ran.status, 3, "{ran:?}");
    assert!(ran.stdout.contains("fail  frontend: this token opens nothing here"), "{ran:?}");
    let program = Program::new(&refusing);
    drop(refusing);
    let ran = program.run(&["doctor"]).await;
    assert_eq!(ran.status, 3, "{ran:?}");
    assert!(ran.stdout.contains("fail  frontend: cannot reach"), "{ran:?}");
}

#[tokio::test]
async fn completions_and_help_need_no_frontend() {
    let server = Server::new(|_| unknown_route()).await;
    let program = Program::new(&server);
    for shell in ["bash", "zsh", "fish"] {
        let ran = program.run(&["completions", shell]).await;
        assert!(ran.status == 0 && ran.stdout.contains("explain"), "{shell}");
    }
    let help = program.run(&["--help"]).await;
    assert!(help.status == 0 && help.stdout.contains("Examples:") && help.stdout.contains("Exit status:"), "{help:?}");
    assert!(program.run(&["submit", "--help"]).await.stdout.contains("--params-json @parameters.json"));
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn a_newer_frontend_is_understood() {
    let server = Server::new(|asked| {
        let mut answer = match &*asked.what {
            STATUS => serde_json::to_value(status(RequestState::Running, 1)).unwrap(),
            "GET /v1/requests" => {
                let requests = vec![status(RequestState::Running, 1)];
                serde_json::to_value(v1::RequestList { requests, next_cursor: String::new() }).unwrap()
            }
            _ => return unknown_route(),
        };
        let newer = serde_json::json!({ "nested": [1, null] });
        answer["fromTheFuture"] = newer.clone();
        for inner in ["requests", "stages"] {
            if let Some(first) = answer[inner].get_mut(0) {
                first["fromTheFuture"] = newer.clone();
            }
        }
        message(200, &answer)
    })
    .await;
    let program = Program::new(&server);
    let ran = program.run(&["status", ID]).await;
    assert!(ran.status == 0 && ran.stdout.contains("running"), "{ran:?}");
    let ran = program.run(&["list"]).await;
    assert!(ran.status == 0 && ran.stdout.contains(ID), "{ran:?}");
}
