//! Listening, TLS and the drain.

use std::time::Duration;

use forecastle_frontend::ingress::http::{HttpOptions, Server};
use forecastle_service::TlsOptions;
use reqwest::{Certificate, Method, StatusCode};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::service::{PATIENCE, Service, TOKEN};

#[tokio::test]
async fn a_taken_port_says_so_and_what_to_change() {
    let service = Service::start().await;
    let options = HttpOptions { listen: service.address, ..HttpOptions::default() };
    let error = Server::bind(&options).await.err().expect("the port is taken").to_string();
    assert!(error.contains(&service.address.to_string()) && error.contains("http.listen"), "{error}");
}

#[tokio::test]
async fn a_request_in_hand_is_answered_although_the_server_was_told_to_stop() {
    let mut service = Service::start().await;
    let body = json!({ "requestType": "note" }).to_string();
    let (begin, end) = body.split_at(5);
    let mut client = TcpStream::connect(service.address).await.unwrap();
    let head = format!(
        "POST /v1/requests HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        body.len()
    );
    client.write_all(head.as_bytes()).await.unwrap();
    // The handler has begun to read once it says that it wants the body.
    let mut line = [0; 25];
    client.read_exact(&mut line).await.unwrap();
    assert_eq!(&line, b"HTTP/1.1 100 Continue\r\n\r\n");
    client.write_all(begin.as_bytes()).await.unwrap();
    service.stop.cancel();
    // It no longer listens, and the request in hand goes on.
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while TcpStream::connect(service.address).await.is_ok() {
        assert!(tokio::time::Instant::now() < deadline, "it still listens");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    client.write_all(end.as_bytes()).await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    let tasks = std::mem::replace(&mut service.tasks, tokio::task::JoinSet::new());
    drop(service);
    tokio::time::timeout(PATIENCE, tasks.join_all()).await.expect("the server ends");
}

#[tokio::test]
async fn an_idle_connection_does_not_delay_the_stop() {
    let mut service = Service::start().await;
    assert_eq!(service.get("/v1/types").await.0, StatusCode::OK);
    let idle = TcpStream::connect(service.address).await.unwrap();
    assert_eq!(service.get("/v1/types").await.0, StatusCode::OK, "the idle connection has been taken");
    service.stop.cancel();
    let tasks = std::mem::replace(&mut service.tasks, tokio::task::JoinSet::new());
    drop(service);
    tokio::time::timeout(Duration::from_secs(8), tasks.join_all()).await.expect("well before the drain's patience");
    drop(idle);
}

#[tokio::test]
async fn with_a_certificate_only_tls_is_spoken() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let (certificate_file, key_file) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&certificate_file, made.cert.pem()).unwrap();
    std::fs::write(&key_file, made.signing_key.serialize_pem()).unwrap();
    let tls = TlsOptions { certificate_file, key_file };
    let service = Service::start_with(HttpOptions { tls: Some(tls), ..HttpOptions::default() }, 16).await;

    let certificate = Certificate::from_pem(made.cert.pem().as_bytes()).unwrap();
    let client = reqwest::Client::builder().tls_certs_only([certificate]).timeout(PATIENCE).build().unwrap();
    let secure = format!("https://{}/v1/types", service.address);
    let response = client.get(&secure).bearer_auth(TOKEN).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let untrusting = reqwest::Client::builder().tls_certs_only([]).timeout(PATIENCE).build().unwrap();
    assert!(untrusting.get(&secure).bearer_auth(TOKEN).send().await.is_err(), "who does not know the certificate");
    assert!(service.request(Method::GET, "/v1/types").send().await.is_err(), "without TLS there is no answer");
}

#[tokio::test]
async fn tls_files_that_are_no_use_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let (missing, empty) = (folder.path().join("missing.pem"), folder.path().join("empty.pem"));
    std::fs::write(&empty, "").unwrap();
    for (certificate_file, key_file, wanted) in
        [(missing.clone(), empty.clone(), "certificate_file"), (empty.clone(), empty.clone(), "has no certificate")]
    {
        let tls = Some(TlsOptions { certificate_file, key_file });
        let listen = ([127, 0, 0, 1], 0).into();
        let error = Server::bind(&HttpOptions { listen, tls, ..HttpOptions::default() }).await.err().unwrap();
        assert!(format!("{error:#}").contains(wanted), "{error:#}");
    }
}
