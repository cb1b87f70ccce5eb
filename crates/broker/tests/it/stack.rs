//! `infra/stack`, the local RabbitMQ: the one that is up, and others of a test's own.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tokio::sync::Mutex;

/// One stack of a test's own at a time: they are for breaking, not for load.
pub(crate) static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../infra/stack")
}

/// Runs a command that must succeed.
pub(crate) fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?} failed:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

fn url_in(environment: &Output) -> Option<String> {
    let text = String::from_utf8_lossy(&environment.stdout);
    let value = text.lines().find_map(|line| line.strip_prefix("export FORECASTLE_AMQP_URL="))?;
    Some(value.trim_matches(['\'', '"']).to_owned())
}

/// The URL of the RabbitMQ that tests share.
pub(crate) fn shared_url() -> String {
    if let Ok(url) = std::env::var("FORECASTLE_TEST_AMQP_URL") {
        return url;
    }
    let environment = Command::new(script()).arg("env").output();
    environment.ok().as_ref().and_then(url_in).unwrap_or_else(|| {
        panic!("there is no RabbitMQ to test against: run `infra/stack up`, or set FORECASTLE_TEST_AMQP_URL")
    })
}

/// Evaluates Erlang in the RabbitMQ that tests share.
pub(crate) async fn shared_eval(expression: String) -> String {
    blocking(move || {
        let output = run(Command::new(script()).args(["rabbitmqctl", "eval", &expression]));
        String::from_utf8_lossy(&output.stdout).into_owned()
    })
    .await
}

/// Runs what blocks away from the test's runtime, where clients have to go on.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(failed) => std::panic::resume_unwind(failed.into_panic()),
    }
}

/// A RabbitMQ of a test's own, to be broken. Gone when dropped, also when the test fails.
pub(crate) struct OwnStack {
    directory: PathBuf,
    port: u16,
}

impl OwnStack {
    /// Starts it from nothing. Tests that run at the same time need ports of their own.
    pub(crate) async fn start(port: u16) -> Self {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("broker-stack-{port}"));
        let stack = Self { directory, port };
        // What an earlier run left behind that was killed.
        stack.remove();
        stack.script(&["start-rabbitmq"]).await;
        stack
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(script());
        let port = |offset: u16| (self.port + offset).to_string();
        command
            .args(arguments)
            .env("FORECASTLE_STACK_DIR", &self.directory)
            .env("FORECASTLE_RABBITMQ_PORT", port(0))
            .env("FORECASTLE_RABBITMQ_MANAGEMENT_PORT", port(1))
            .env("FORECASTLE_RABBITMQ_PROMETHEUS_PORT", port(2))
            .env("FORECASTLE_RABBITMQ_DIST_PORT", port(3))
            .env("FORECASTLE_EPMD_PORT", port(4));
        command
    }

    /// Runs the script, for instance `kill-rabbitmq` or `rabbitmqctl …`.
    pub(crate) async fn script(&self, arguments: &[&str]) {
        let mut command = self.command(arguments);
        blocking(move || run(&mut command)).await;
    }

    pub(crate) async fn url(&self) -> String {
        let mut command = self.command(&["env"]);
        let environment = blocking(move || run(&mut command)).await;
        url_in(&environment).expect("infra/stack env prints FORECASTLE_AMQP_URL")
    }

    /// A file or folder in the stack's directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn remove(&self) {
        if self.directory.exists() {
            run(&mut self.command(&["reset"]));
            std::fs::remove_dir_all(&self.directory).expect("the stack's directory can be removed");
        }
    }
}

impl Drop for OwnStack {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // A second panic would hide the first.
            let _ = self.command(&["reset"]).output();
            let _ = std::fs::remove_dir_all(&self.directory);
        } else {
            self.remove();
        }
    }
}
