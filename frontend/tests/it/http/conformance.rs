//! The document and the server agree: schemathesis makes requests from the one and judges what the other answers.

use std::path::Path;
use std::process::Stdio;

use forecastle_frontend::ingress::http::HttpOptions;
use forecastle_frontend::ledger::{Ledger as _, Listing};
use tokio::process::Command;

use super::service::{OPERATOR_TOKEN, Service};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_conforms_to_its_document_under_schemathesis() {
    let mut service = Service::start_with(HttpOptions::default(), 1024).await;
    // Event streams end only with their request.
    service.run_everything();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/run-schemathesis");
    let output = Command::new(&script)
        .arg(service.url(""))
        .env("FORECASTLE_TEST_TOKEN", OPERATOR_TOKEN)
        .env("FORECASTLE_TEST_INPUT", &service.input)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap_or_else(|error| panic!("cannot run {}: {error}", script.display()));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    let listing = Listing { tenant: "operations".to_owned(), state: None, before: None, limit: 500 };
    let (accepted, _) = service.ledger.list(listing).await.unwrap();
    assert!(accepted.len() >= 10, "only {} submissions were accepted: it proved little\n{out}", accepted.len());
}
