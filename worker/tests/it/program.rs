//! The worker's program against the real RabbitMQ: real commands, in processes of their own.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use forecastle_broker::rabbitmq::{Options, RabbitMq};
use forecastle_broker::{Address, Broker, ConsumeOptions, Consumer, ConsumerEvent, Message, Publisher, layout};
use forecastle_protos::headers::ShardHeaders;
use forecastle_protos::ids::{LedgerId, RequestId, RunId, ShardId};
use forecastle_protos::v1::run_event::Kind;
use forecastle_protos::v1::{self, Outcome};
use forecastle_protos::{PROTOBUF, names};
use forecastle_resources::{Bytes, CpuMillis, Priority, Reservation, ResourceVector, SizeClass};
use forecastle_worker::crash_points;
use prost::Message as _;
use rustix::process::{Pid, Signal, kill_process};

const CATALOGUE: &str = r#"
version = 1
[types.tests]
input = "items"
[[types.tests.stages]]
name = "only"
over = "items"
units = ["checksum", "nap", "stubborn"]
[units.checksum]
command = ["/usr/bin/sha256sum", "--", "{inputs}"]
invoke = "once"
stdout = "checksums.txt"
[units.nap]
command = ["/bin/sleep", "600"]
invoke = "once"
[units.stubborn]
command = ["/bin/sh", "-c", "trap '' TERM; while :; do sleep 1; done"]
invoke = "once"
"#;

/// How long anything may take on a slow machine.
const PATIENCE: Duration = Duration::from_mins(1);

fn url() -> String {
    if let Ok(url) = std::env::var("FORECASTLE_TEST_AMQP_URL") {
        return url;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../infra/stack");
    let output = Command::new(script).arg("env").output().ok();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("export FORECASTLE_AMQP_URL="));
    let Some(value) = line else {
        panic!("there is no RabbitMQ to test against: run `infra/stack up`, or set FORECASTLE_TEST_AMQP_URL")
    };
    value.trim_matches(['\'', '"']).to_owned()
}

/// A fleet, a ledger and folders of one test's own.
struct Stage {
    broker: Arc<dyn Broker>,
    publisher: Arc<dyn Publisher>,
    events: Box<dyn Consumer>,
    fleet: String,
    ledger: LedgerId,
    folder: tempfile::TempDir,
    waiting: Vec<v1::RunEvent>,
}

impl Stage {
    async fn set() -> Self {
        let broker = RabbitMq::connect(Options::to(url())).await.unwrap();
        let (fleet, ledger) = (format!("test-{}", RunId::new()), LedgerId::new());
        broker.declare(&layout::shards([fleet.as_str()]).and(layout::completions(ledger))).await.unwrap();
        let options = ConsumeOptions { window: 100, exclusive: true, tag: "worker tests".to_owned() };
        let events = broker.consumer(&names::completions_queue(ledger), options).await.unwrap();
        let publisher = broker.publisher(16).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("input")).unwrap();
        std::fs::write(folder.path().join("catalogue.toml"), CATALOGUE).unwrap();
        Self { broker, publisher, events, fleet, ledger, folder, waiting: Vec::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts the program.
    fn worker(&self, crash_at: Option<&str>) -> Program {
        let mut command = Command::new(env!("CARGO_BIN_EXE_forecastle-worker"));
        let set = |key: &str, value: &dyn std::fmt::Display| format!("--set={key}={value}");
        command
            .args(["--fleet", &self.fleet, "--capacity", "cpu=1,memory=512MiB", "--name", "tested"])
            .arg("--catalogue")
            .arg(self.path("catalogue.toml"))
            .arg(set("store.root", &self.path("store").display()))
            .arg(set("scratch.root", &self.path("scratch").display()))
            .arg(set("input.allowed_roots", &format_args!("['{}']", self.path("input").display())))
            .arg(set("drain.grace", &"1s"))
            .arg(set("runner.checkpoint_within", &"1min"))
            .env("FORECASTLE__BROKER__URL", url())
            .env("FORECASTLE_CRASH_LOG", self.path("crashes"))
            .env_remove("FORECASTLE_CRASH_AT")
            .stderr(Stdio::from(std::fs::File::options().create(true).append(true).open(self.path("log")).unwrap()));
        if let Some(point) = crash_at {
            command.env("FORECASTLE_CRASH_AT", point);
        }
        Program { child: command.spawn().unwrap() }
    }

    async fn publish(&self, unit: &str, items: &[&str]) -> ShardId {
        let shard = ShardId { request: RequestId::new(), stage: 0, index: 0 };
        let vector = ResourceVector::new(CpuMillis(500), Bytes::mib(64));
        let headers = ShardHeaders {
            ledger: self.ledger,
            shard,
            attempt: 1,
            request_type: "tests".to_owned(),
            tenant: "tests".to_owned(),
            priority: Priority::Standard,
            class: SizeClass::S,
            reservation: Reservation::new(vector, Duration::from_secs(5)),
            quantile: 1.0,
            model_version: "declared".to_owned(),
            deadline_unix_ms: None,
            traceparent: None,
        };
        let item = |name: &&str| {
            let path = self.path("input").join(name);
            std::fs::write(&path, name).unwrap();
            v1::Item { path: path.display().to_string(), name: (*name).to_owned(), bytes: name.len() as u64 }
        };
        let body = v1::Shard {
            stage: "only".to_owned(),
            unit: unit.to_owned(),
            items: items.iter().map(item).collect(),
            timeout_ms: 120_000,
            released_unix_ms: forecastle_worker::clock::now_unix_ms(),
            shard_id: shard.to_string(),
            attempt: 1,
            ..Default::default()
        };
        let message = Message {
            body: body.encode_to_vec().into(),
            headers: headers.encode(),
            content_type: Some(PROTOBUF.to_owned()),
            persistent: true,
            ..Message::default()
        };
        let queue = names::shard_queue(&self.fleet, Priority::Standard, SizeClass::S);
        let outcome = self.publisher.publish(Address::exchange(names::SHARDS, queue), message).await.unwrap();
        assert!(outcome.outcome().await.is_confirmed());
        shard
    }

    async fn event(&mut self) -> v1::RunEvent {
        let deadline = Instant::now() + PATIENCE;
        while self.waiting.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(next) = tokio::time::timeout(left, self.events.next()).await else {
                panic!("no event came:\n{}", std::fs::read_to_string(self.path("log")).unwrap_or_default())
            };
            if let Some(ConsumerEvent::Delivery(delivery)) = next {
                self.waiting = v1::EventBatch::decode(&*delivery.message.body).unwrap().events;
                self.waiting.reverse();
                delivery.ack().await;
            }
        }
        self.waiting.pop().unwrap()
    }

    async fn completion(&mut self) -> (v1::RunEvent, v1::Completed) {
        loop {
            let event = self.event().await;
            if let Some(Kind::Completed(completed)) = event.kind.clone() {
                return (event, completed);
            }
        }
    }

    /// Messages of this fleet that wait.
    async fn ready(&self) -> u32 {
        let queue = names::shard_queue(&self.fleet, Priority::Standard, SizeClass::S);
        self.broker.depth(&queue).await.unwrap().unwrap().ready
    }

    async fn strike(self) {
        for (priority, class) in Priority::ALL.into_iter().flat_map(|p| SizeClass::ALL.map(|c| (p, c))) {
            self.broker.delete_queue(&names::shard_queue(&self.fleet, priority, class)).await.unwrap();
        }
        self.events.close().await;
        self.broker.delete_queue(&names::completions_queue(self.ledger)).await.unwrap();
        self.broker.close().await;
    }
}

/// The program; killed if the test fails.
struct Program {
    child: Child,
}

impl Program {
    fn terminate(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
    }

    async fn status(&mut self) -> std::process::ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the worker does not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends it in good order.
    async fn end(mut self) {
        self.terminate();
        assert_eq!(self.status().await.code(), Some(0));
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn a_real_command_runs_within_what_it_reserved_and_its_output_is_referenced() {
    let mut stage = Stage::set().await;
    let worker = stage.worker(None);
    let shard = stage.publish("checksum", &["a", "b"]).await;
    let claim = stage.event().await;
    assert!(matches!(claim.kind, Some(Kind::Claimed(_))), "{claim:?}");
    let (event, completed) = stage.completion().await;
    assert_eq!((&event.shard_id, &event.run_id), (&shard.to_string(), &claim.run_id));
    assert_eq!((completed.outcome(), completed.exit_code), (Outcome::Succeeded, 0), "{completed:?}");
    assert_eq!(completed.files.iter().map(|file| file.path.as_str()).collect::<Vec<_>>(), ["checksums.txt"]);
    let usage = completed.usage.clone().unwrap();
    assert!(usage.memory_bytes > 0 && usage.memory_bytes <= Bytes::mib(64).0, "{usage:?}");
    assert!((1..10_000).contains(&usage.duration_ms) || usage.duration_ms == 0, "{usage:?}");
    let output = completed.output_uri.strip_prefix("file://").unwrap_or(&completed.output_uri).to_owned();
    let text = std::fs::read_to_string(Path::new(&output).join("checksums.txt")).unwrap();
    assert_eq!(text.lines().count(), 2, "{text}");

    // What does not end within the grace is handed on.
    let nap = stage.publish("nap", &[]).await;
    assert_eq!(stage.event().await.shard_id, nap.to_string());
    worker.end().await;
    let (event, completed) = stage.completion().await;
    assert_eq!((event.shard_id, completed.outcome()), (nap.to_string(), Outcome::Drained));
    stage.strike().await;
}

#[tokio::test]
async fn a_worker_that_crashes_at_any_point_leaves_its_shard_to_the_broker_or_to_the_ledger() {
    let mut reached = BTreeSet::new();
    for point in crash_points::ALL {
        let mut stage = Stage::set().await;
        let mut worker = stage.worker(Some(point));
        let shard = stage.publish("checksum", &["a"]).await;
        assert_eq!(worker.status().await.signal(), Some(Signal::ABORT.as_raw()), "{point}");
        let crashed = std::fs::read_to_string(stage.path("crashes")).unwrap_or_default();
        reached.extend(crashed.lines().map(str::to_owned));

        let before_ack =
            [crash_points::CLAIM_BEFORE_EVENT.name(), crash_points::CLAIM_AFTER_EVENT.name()].contains(point);
        if *point != crash_points::CLAIM_BEFORE_EVENT.name() {
            // The ledger knows of the run, so that it can declare it lost.
            let claim = stage.event().await;
            assert!(matches!(claim.kind, Some(Kind::Claimed(_))), "{point}: {claim:?}");
            assert_eq!(claim.shard_id, shard.to_string(), "{point}");
        }
        if before_ack {
            // The broker still has it: another worker runs it.
            let second = stage.worker(None);
            let (event, completed) = stage.completion().await;
            assert_eq!((event.shard_id, completed.outcome()), (shard.to_string(), Outcome::Succeeded), "{point}");
            second.end().await;
            assert_eq!(stage.ready().await, 0, "{point}");
        } else if *point == crash_points::COMPLETION_AFTER_CONFIRM.name() {
            assert_eq!(stage.completion().await.1.outcome(), Outcome::Succeeded);
        }
        // After the acknowledgement the broker has it only if that was not on the wire yet when the process died. Then
        // another run follows, of which the ledger knows as it does of this one.
        stage.strike().await;
    }
    let declared: BTreeSet<String> = crash_points::ALL.iter().map(|point| (*point).to_owned()).collect();
    assert_eq!(reached, declared, "every point was reached");
}

#[tokio::test]
async fn the_third_signal_ends_the_worker_and_all_that_it_runs_at_once() {
    let mut stage = Stage::set().await;
    let mut worker = stage.worker(None);
    let nap = stage.publish("stubborn", &[]).await;
    let claim = stage.event().await;
    assert_eq!(claim.shard_id, nap.to_string());
    let run = claim.run_id.parse().unwrap();
    crate::bench::until(|| crate::bench::lives(run), "the command to live").await;
    for said in ["draining", "without grace", "giving up"] {
        worker.terminate();
        crate::bench::until(|| std::fs::read_to_string(stage.path("log")).unwrap().contains(said), said).await;
    }
    assert_eq!(worker.status().await.code(), Some(4));
    crate::bench::until(|| !crate::bench::lives(run), "the command to die with its worker").await;
    stage.strike().await;
}

#[test]
fn a_wrong_configuration_is_named_as_a_whole_and_wrong_usage_has_a_status_of_its_own() {
    let run =
        |arguments: &[&str]| Command::new(env!("CARGO_BIN_EXE_forecastle-worker")).args(arguments).output().unwrap();
    let wrong = run(&["--check", "--catalogue", "/nowhere/catalogue.toml", "--fleet", "No Fleet"]);
    let text = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert_eq!(wrong.status.code(), Some(1), "{text}");
    assert!(text.contains("fleet:") && text.contains("/nowhere/catalogue.toml"), "{text}");
    let unknown = run(&["--check", "--set", "claming.hold=1s"]);
    let text = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert_eq!(unknown.status.code(), Some(1), "{text}");
    assert!(text.contains("claming"), "{text}");
    assert_eq!(run(&["--capacity", "cpu=many"]).status.code(), Some(2));
    let help = run(&["--help"]);
    assert!(help.status.success() && String::from_utf8_lossy(&help.stdout).contains("Exit status"));

    let folder = tempfile::tempdir().unwrap();
    let catalogue = folder.path().join("catalogue.toml");
    std::fs::write(&catalogue, CATALOGUE).unwrap();
    let sound = run(&["--check", "--catalogue", catalogue.to_str().unwrap()]);
    assert!(sound.status.success(), "{}", String::from_utf8_lossy(&sound.stderr));
}
