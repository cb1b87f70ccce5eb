//! `forecastle top` on a terminal, over a system that works.

use std::time::Duration;

use forecastle_end_to_end::program;
use forecastle_end_to_end::stack::Stack;
use forecastle_end_to_end::system::System;
use rustix::process::Signal;
use serde_json::json;

use crate::pseudo_terminal::PseudoTerminal;
use crate::{catalogue, write_files};

/// Two of four shards run on one worker and hold 40 MiB each; two wait.
async fn system() -> (System, String) {
    let unit = r#"
command = ["/usr/bin/perl", "-e", "vec($x, 40 * 1048576, 8) = 1; sleep 100", "--", "{input}"]
stdout = "{name}.txt"
reserve = { cpu = "500m", memory = "128MiB", duration = "1s" }
"#;
    let mut system = System::new(Stack::shared().unwrap(), &catalogue(unit)).unwrap();
    write_files(&system.input(), 4);
    system.start_frontend(&[], &[]).await.unwrap();
    system.start_worker("cpu=1,memory=1GiB", &[]).await.unwrap();
    let request = system.submit("work", "top").await.unwrap();
    (system, request)
}

struct Top {
    terminal: PseudoTerminal,
    before: String,
}

impl Top {
    async fn start(system: &System) -> Self {
        let mut terminal = PseudoTerminal::new(80, 24);
        let before = terminal.settings();
        let (url, token) = (system.api_url(), system.token_file().display().to_string());
        let arguments = ["--url", &url, "--token-file", &token, "top", "--interval", "200ms"];
        terminal.start(&program::path("forecastle").unwrap(), &arguments);
        let top = Self { terminal, before };
        top.terminal.wait_for("a worker", |text| text.contains("worker-1")).await;
        assert!(top.terminal.has_other_screen() && top.terminal.cursor_is_hidden());
        assert_ne!(top.terminal.settings(), top.before, "keys come one by one");
        top
    }

    /// It has ended with this status, and the terminal is as it was.
    async fn ends_with(mut self, status: u32) -> String {
        assert_eq!(self.terminal.ended().await, status, "{}", self.terminal.text());
        assert_eq!(self.terminal.settings(), self.before);
        assert!(!self.terminal.has_other_screen() && !self.terminal.cursor_is_hidden());
        self.terminal.text()
    }
}

#[tokio::test]
async fn top_shows_what_is_reserved_and_used_and_leaves_the_terminal_as_it_was() {
    let (mut system, request) = system().await;
    let mut top = Top::start(&system).await;

    // Two runs of 500 millicores and 128 MiB, each of which holds 40 MiB and a little more; two wait in their queue.
    let drawn = top
        .terminal
        .wait_for("what the runs use", |text| {
            text.contains("/1/1 ") && text.contains("M/256M/1G") && text.matches("M/128M").count() == 2
        })
        .await;
    assert!(drawn.contains("1 worker  2 runs"), "{drawn}");
    let used = |line: &&str| {
        let mib = line.split_once("M/128M").and_then(|(before, _)| before.rsplit(' ').next()?.parse::<f64>().ok());
        mib.is_some_and(|mib| (40.0..60.0).contains(&mib))
    };
    let drawn = top.terminal.wait_for("40 MiB in each run", |text| text.lines().filter(used).count() == 2).await;
    assert!(drawn.contains("work ") && drawn.contains("standard"), "{drawn}");
    let waits = |text: &str| {
        let line = text.lines().find(|line| line.starts_with("default standard"));
        line.is_some_and(|line| line.split_whitespace().any(|word| word == "2"))
    };
    top.terminal.wait_for("the two that wait", waits).await;
    assert!(!drawn.contains(&request), "80 columns are too few for a whole shard: {drawn}");
    assert!(drawn.contains("█") && drawn.contains("▒"), "{drawn}");

    top.terminal.resize(140, 30);
    top.terminal.wait_for("a whole shard", |text| text.contains(&format!("{request}.0."))).await;
    top.terminal.press("s");
    top.terminal.wait_for("the order", |text| text.contains("sort: memory")).await;
    top.terminal.press("/nothing has this\r");
    top.terminal.wait_for("the filter", |text| text.contains("no worker matches")).await;
    top.terminal.press("\u{1b}");
    top.terminal.wait_for("all of it", |text| text.contains("worker-1")).await;
    top.terminal.press("p");
    top.terminal.wait_for("the pause", |text| text.contains("PAUSED")).await;
    top.terminal.press("p");
    top.terminal.wait_for("no pause", |text| !text.contains("PAUSED")).await;

    // A frontend that goes and comes back.
    system.frontend.as_mut().unwrap().kill().unwrap();
    let old = top.terminal.wait_for("that it is old", |text| text.contains("old: cannot reach")).await;
    assert!(old.contains("worker-1"), "what was known stays: {old}");
    system.start_frontend(&[], &[]).await.unwrap();
    top.terminal.wait_for("news", |text| !text.contains("old:")).await;
    top.terminal.press("q");
    top.ends_with(0).await;

    let mut interrupted = Top::start(&system).await;
    interrupted.terminal.press("\u{3}");
    interrupted.ends_with(130).await;

    let told = Top::start(&system).await;
    told.terminal.signal(Signal::TERM);
    told.ends_with(130).await;

    system.post(&format!("/v1/requests/{request}/cancel"), &json!({})).await.unwrap();
    let ended = system.finished(&request, Duration::from_secs(30)).await.unwrap();
    assert_eq!(ended["state"], "REQUEST_STATE_CANCELLED", "{ended}");

    // An error that does not pass: another token is wanted now.
    let refused = Top::start(&system).await;
    system.frontend.as_mut().unwrap().kill().unwrap();
    let tokens = r#"http.tokens=[{ tenant = "somebody", token = "another-token-0001" }]"#;
    system.start_frontend(&[], &[tokens]).await.unwrap();
    let text = refused.ends_with(3).await;
    assert!(text.contains("error: this token opens nothing here"), "{text}");
}
