//! The servers that a test uses.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::{Command, Output};

use anyhow::Context as _;
use tempfile::TempDir;

/// RabbitMQ and ClickHouse, by way of `infra/stack`.
#[derive(Debug)]
pub struct Stack {
    script: PathBuf,
    /// What `infra/stack env` says.
    variables: HashMap<String, String>,
    /// A stack of this test's own goes with it.
    own: Option<TempDir>,
}

fn script() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../infra/stack")
}

impl Stack {
    /// This checkout's stack, which must be up. Tests share it, each on a virtual host and a database of its own.
    pub fn shared() -> anyhow::Result<Self> {
        let mut stack = Self { script: script(), variables: HashMap::new(), own: None };
        stack.read_environment().context("the stack is not up: run infra/stack up")?;
        stack.run(&["status"]).context("the stack is not up: run infra/stack up")?;
        Ok(stack)
    }

    /// A stack of this test's own, for tests that kill servers; of the series of RabbitMQ that the environment names. It
    /// takes five ports from `rabbitmq_port` on and two from `clickhouse_port` on.
    pub fn own(rabbitmq_port: u16, clickhouse_port: u16) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        // All of them: those that are not given would come from the environment, which may name another stack's.
        let variables = [
            ("FORECASTLE_STACK_DIR", folder.path().display().to_string()),
            ("FORECASTLE_RABBITMQ_PORT", rabbitmq_port.to_string()),
            ("FORECASTLE_RABBITMQ_MANAGEMENT_PORT", (rabbitmq_port + 1).to_string()),
            ("FORECASTLE_RABBITMQ_PROMETHEUS_PORT", (rabbitmq_port + 2).to_string()),
            ("FORECASTLE_RABBITMQ_DIST_PORT", (rabbitmq_port + 3).to_string()),
            ("FORECASTLE_EPMD_PORT", (rabbitmq_port + 4).to_string()),
            ("FORECASTLE_CLICKHOUSE_HTTP_PORT", clickhouse_port.to_string()),
            ("FORECASTLE_CLICKHOUSE_TCP_PORT", (clickhouse_port + 1).to_string()),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value)).into();
        let mut stack = Self { script: script(), variables, own: Some(folder) };
        stack.run(&["up"])?;
        stack.read_environment()?;
        Ok(stack)
    }

    /// A variable of `infra/stack env`.
    pub fn variable(&self, name: &str) -> anyhow::Result<&str> {
        self.variables.get(name).map(String::as_str).with_context(|| format!("infra/stack env does not say {name}"))
    }

    /// Runs a command of `infra/stack`.
    pub fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let Output { status, stdout, stderr } =
            Command::new(&self.script).args(arguments).envs(&self.variables).output().context("infra/stack")?;
        let text = String::from_utf8_lossy(&stdout).into_owned();
        let errors = String::from_utf8_lossy(&stderr);
        anyhow::ensure!(status.success(), "infra/stack {} failed: {text}{errors}", arguments.join(" "));
        Ok(text)
    }

    fn read_environment(&mut self) -> anyhow::Result<()> {
        for line in self.run(&["env"])?.lines() {
            if let Some((name, value)) = line.strip_prefix("export ").and_then(|rest| rest.split_once('=')) {
                self.variables.insert(name.to_owned(), value.trim_matches(['\'', '"']).to_owned());
            }
        }
        Ok(())
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if self.own.is_some() {
            // Nothing more can be done about servers that do not stop.
            self.run(&["down"]).ok();
        }
    }
}
