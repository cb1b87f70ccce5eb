//! One active frontend, and a catalogue that changes while it runs.

use std::time::{Duration, Instant};

use forecastle_end_to_end::stack::Stack;
use forecastle_end_to_end::system::System;

use crate::{catalogue, write_files};

/// The exit status of a frontend that finds another one.
const ANOTHER_IS_ACTIVE: i32 = 3;

fn copying() -> String {
    catalogue(
        r#"
command = ["/bin/cat", "{input}"]
stdout = "{name}.copy"
reserve = { cpu = "100m", memory = "32MiB", duration = "1s" }
"#,
    )
}

#[tokio::test]
async fn a_second_frontend_is_refused_on_the_same_ledger_and_on_the_same_virtual_host() {
    let mut system = System::new(Stack::shared().unwrap(), &copying()).unwrap();
    write_files(&system.input(), 1);
    system.start_frontend(&[], &[]).await.unwrap();

    let mut same_ledger = system.start_rival(&[]).unwrap();
    let status = same_ledger.wait(Duration::from_secs(30)).unwrap();
    let words = same_ledger.last_words();
    assert_eq!(status.code(), Some(ANOTHER_IS_ACTIVE), "{words}");
    assert!(words.contains("is in use by another frontend (process "), "{words}");

    let mut other_ledger = system.start_rival(&["data.directory=other-ledger"]).unwrap();
    let status = other_ledger.wait(Duration::from_mins(2)).unwrap();
    let words = other_ledger.last_words();
    assert_eq!(status.code(), Some(ANOTHER_IS_ACTIVE), "{words}");
    assert!(words.contains("another frontend is active on this virtual host"), "{words}");
    assert!(words.contains("stop it, or give this one a virtual host of its own"), "{words}");

    // The first one has noticed nothing.
    system.start_worker("cpu=1,memory=1GiB", &[]).await.unwrap();
    let request = system.submit("work", "k").await.unwrap();
    let ended = system.finished(&request, Duration::from_secs(30)).await.unwrap();
    assert_eq!(ended["state"], "REQUEST_STATE_SUCCEEDED", "{ended}");
}

/// Waits until the frontend says so.
async fn says(system: &System, words: &str) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let said = system.frontend.as_ref().unwrap().last_words();
        if said.contains(words) {
            return;
        }
        assert!(Instant::now() < deadline, "it never says `{words}`:\n{said}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn types(system: &System) -> Vec<String> {
    let listed = system.get("/v1/types").await.unwrap();
    let types = listed["types"].as_array().unwrap();
    types.iter().map(|listed| listed["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_changed_catalogue_with_errors_leaves_the_old_one_in_force_until_it_is_mended() {
    let mut system = System::new(Stack::shared().unwrap(), &copying()).unwrap();
    write_files(&system.input(), 1);
    system.start_frontend(&[], &[]).await.unwrap();
    system.start_worker("cpu=1,memory=1GiB", &[]).await.unwrap();

    // A type that names a unit which is not there.
    let renamed = copying().replace("[types.work", "[types.renamed").replace("[[types.work", "[[types.renamed");
    std::fs::write(system.catalogue(), renamed.replace(r#"units = ["unit"]"#, r#"units = ["gone"]"#)).unwrap();
    says(&system, "the changed catalogue has errors; the old one stays in force").await;
    says(&system, "gone").await;
    assert_eq!(types(&system).await, ["work"]);
    let request = system.submit("work", "k").await.unwrap();
    let ended = system.finished(&request, Duration::from_secs(30)).await.unwrap();
    assert_eq!(ended["state"], "REQUEST_STATE_SUCCEEDED", "{ended}");

    std::fs::write(system.catalogue(), renamed).unwrap();
    says(&system, "the catalogue was reloaded").await;
    assert_eq!(types(&system).await, ["renamed"]);
    let error = system.submit("work", "another").await.unwrap_err().to_string();
    assert!(error.contains("unknown-request-type"), "{error}");
}
