//! The program itself: what it says and how it ends before it has connected to anything.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use forecastle_frontend::ledger::{Failure, Ledger as _, NextStep, RetryPolicy, sqlite::SqliteLedger};
use tempfile::TempDir;

/// A folder with a catalogue, and a broker that only listens.
struct Place {
    folder: TempDir,
    broker: TcpListener,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("catalogue.toml"), super::service::CATALOGUE).unwrap();
        let broker = TcpListener::bind("127.0.0.1:0").unwrap();
        broker.set_nonblocking(true).unwrap();
        Self { folder, broker }
    }

    fn command(&self, settings: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_forecastle-frontend"));
        command.current_dir(self.folder.path()).env_clear().stdin(Stdio::null());
        let broker = format!("broker.url=amqp://127.0.0.1:{}/%2f", self.broker.local_addr().unwrap().port());
        for setting in [&*broker, "history.enabled=false", "http.listen=127.0.0.1:0"].iter().chain(settings) {
            command.args(["--set", setting]);
        }
        command
    }

    /// Runs it; it must end by itself without having spoken to the broker.
    fn fails(&self, settings: &[&str], status: i32) -> String {
        let Output { status: ended, stderr, .. } = self.command(settings).output().unwrap();
        let words = String::from_utf8(stderr).unwrap();
        assert_eq!(ended.code(), Some(status), "{words}");
        let connected = self.broker.accept().map(drop).map_err(|error| error.kind());
        assert_eq!(connected, Err(std::io::ErrorKind::WouldBlock), "it connected to the broker: {words}");
        words
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }
}

#[test]
fn a_taken_port_ends_it_before_the_broker_is_bothered() {
    let place = Place::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for key in ["http.listen", "admin.listen"] {
        let words = place.fails(&[&format!("{key}={address}")], 1);
        assert!(words.contains(&address) && words.contains(key), "{words}");
    }
}

#[test]
fn tls_files_that_are_no_use_are_named_with_all_else_that_is_wrong() {
    let place = Place::new();
    std::fs::write(place.path("empty.pem"), "").unwrap();
    let tls = r#"http.tls={ certificate_file = "empty.pem", key_file = "missing.pem" }"#;
    let words = place.fails(&[tls, "input.allowed_roots=[\"/nowhere/at/all\"]"], 1);
    assert!(words.contains("http.tls.certificate_file empty.pem") && words.contains("/nowhere/at/all"), "{words}");
    let words = place.fails(&["http.max_body=0B"], 1);
    assert!(words.contains("http.max_body"), "{words}");
}

struct NoRetries;

impl RetryPolicy for NoRetries {
    fn after(&self, failure: &Failure<'_>) -> NextStep {
        NextStep::Fail { code: "failed", message: failure.error.to_owned() }
    }
}

#[test]
fn a_ledger_that_another_frontend_has_is_refused_with_a_status_of_its_own() {
    let place = Place::new();
    let _owner = SqliteLedger::open(&place.path("ledger"), std::sync::Arc::new(NoRetries)).unwrap();
    let words = place.fails(&["data.directory=ledger"], 3);
    let holder = format!("process {}", std::process::id());
    assert!(words.contains("in use by another frontend") && words.contains(&holder), "{words}");
}

#[test]
fn the_configuration_can_be_read_in_part() {
    let place = Place::new();
    let mut command = place.command(&[]);
    // The reader has gone before anything is written.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let ended = command.arg("configuration").stdout(writer).stderr(Stdio::piped()).output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    assert!(ended.stderr.is_empty(), "{}", String::from_utf8_lossy(&ended.stderr));
    let shown = place.command(&[]).arg("configuration").output().unwrap();
    assert!(String::from_utf8(shown.stdout).unwrap().contains("[http]"));
    assert!(!Path::new(&place.path(".forecastle")).exists(), "showing it makes nothing");
}

#[tokio::test]
async fn a_backup_is_taken_while_the_ledger_is_in_use_and_has_all_that_was_acknowledged() {
    let place = Place::new();
    let live = SqliteLedger::open(&place.path("ledger"), std::sync::Arc::new(NoRetries)).unwrap();
    let request = live.admit(super::ledger::admission(Some("k"))).await.unwrap().request;
    std::fs::create_dir(place.path("restored")).unwrap();
    let copy = place.path("restored/ledger.sqlite3");
    let backup = || {
        let mut command = place.command(&["data.directory=ledger"]);
        command.args(["backup", "--to"]).arg(&copy).output().unwrap()
    };
    let taken = backup();
    assert!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));
    let again = backup();
    let words = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(!again.status.success() && words.contains("ledger.sqlite3"), "nothing is overwritten: {words}");

    // As the book says to restore it.
    let database = rusqlite::Connection::open(&copy).unwrap();
    database.execute_batch("UPDATE attempts SET confirmed = 0 WHERE claimed = 0").unwrap();
    drop(database);
    let restored = SqliteLedger::open(&place.path("restored"), std::sync::Arc::new(NoRetries)).unwrap();
    assert_eq!(restored.id(), live.id());
    assert!(restored.status(request).await.unwrap().is_some());
    let again = restored.admit(super::ledger::admission(Some("k"))).await.unwrap();
    assert_eq!((again.request, again.created), (request, false));
}

#[test]
fn one_token_for_two_tenants_is_refused() {
    let place = Place::new();
    let one = r#"{ tenant = "a", token = "0123456789abcdef" }, { tenant = "b", token = "0123456789abcdef" }"#;
    let words = place.fails(&[&format!("http.tokens=[{one}]")], 1);
    assert!(words.contains("http.tokens[1]") && words.contains("another") && !words.contains("0123"), "{words}");
}
