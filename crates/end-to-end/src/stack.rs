//! The servers that a test uses.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::Context as _;
use reqwest::Method;
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
        let series = std::env::var("FORECASTLE_RABBITMQ_SERIES").unwrap_or_else(|_| "3".to_owned());
        Self::own_of(&series, rabbitmq_port, clickhouse_port)
    }

    /// The same, of this series of RabbitMQ.
    pub fn own_of(series: &str, rabbitmq_port: u16, clickhouse_port: u16) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        // All of them: those that are not given would come from the environment, which may name another stack's.
        let variables = [
            ("FORECASTLE_STACK_DIR", folder.path().display().to_string()),
            ("FORECASTLE_RABBITMQ_SERIES", series.to_owned()),
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

    /// Makes a virtual host, for the stack's user.
    pub fn add_virtual_host(&self, name: &str) -> anyhow::Result<()> {
        let user = self.variable("FORECASTLE_RABBITMQ_USER")?;
        self.manage(&Method::PUT, &format!("/api/vhosts/{name}"), "{}")?;
        let everything = r#"{"configure":".*","write":".*","read":".*"}"#;
        self.manage(&Method::PUT, &format!("/api/permissions/{name}/{user}"), everything)
    }

    /// Deletes a virtual host, with all that is on it.
    pub fn delete_virtual_host(&self, name: &str) -> anyhow::Result<()> {
        self.manage(&Method::DELETE, &format!("/api/vhosts/{name}"), "")
    }

    /// Asks RabbitMQ's management API, which answers sooner than its command line starts.
    fn manage(&self, method: &Method, path: &str, body: &'static str) -> anyhow::Result<()> {
        let url = format!("{}{path}", self.variable("FORECASTLE_RABBITMQ_MANAGEMENT_URL")?);
        let (user, password) =
            (self.variable("FORECASTLE_RABBITMQ_USER")?, self.variable("FORECASTLE_RABBITMQ_PASSWORD")?);
        let ask = async {
            let client = reqwest::Client::builder().timeout(Duration::from_secs(20)).build()?;
            let request = client.request(method.clone(), &url).basic_auth(user, Some(password));
            let answer = request.header("content-type", "application/json").body(body).send().await?;
            let status = answer.status();
            anyhow::ensure!(status.is_success(), "{method} {path}: {status} {}", answer.text().await?);
            Ok(())
        };
        // On a thread of its own: whoever asks may be on a runtime already, as a system that is dropped is.
        std::thread::scope(|scope| {
            let asked =
                scope.spawn(|| tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(ask));
            asked.join().map_err(|_| anyhow::anyhow!("asking RabbitMQ's management API panicked"))?
        })
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
