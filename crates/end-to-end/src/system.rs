//! One frontend and some workers on a virtual host and a database of their own.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::host::Host;
use crate::program::Program;
use crate::stack::Stack;

/// How long a program may take until it is ready.
const START: Duration = Duration::from_secs(40);

/// The system.
#[derive(Debug)]
pub struct System {
    stack: Arc<Stack>,
    name: String,
    folder: TempDir,
    /// The frontend, while it runs.
    pub frontend: Option<Program>,
    /// The workers that run.
    pub workers: Vec<Program>,
    frontend_ports: (u16, u16),
    frontend_address: String,
    worker_count: usize,
    http: reqwest::Client,
}

/// Where and how a program runs: on this machine with nothing special, by default.
#[derive(Debug, Clone, Copy, Default)]
pub struct Surroundings<'a> {
    /// The host.
    pub host: Option<&'a Host>,
    /// Further variables.
    pub environment: &'a [(&'a str, &'a str)],
    /// Further settings.
    pub settings: &'a [&'a str],
}

impl Surroundings<'_> {
    /// An address where this machine reaches what the program listens on.
    fn address(&self) -> String {
        self.host.map_or_else(|| "127.0.0.1".to_owned(), |host| host.address().to_string())
    }

    /// A URL of this machine's loopback interface as the program reaches it.
    fn reach(&self, url: &str) -> String {
        self.host.map_or_else(|| url.to_owned(), |host| host.reach(url))
    }
}

/// A worker that was started.
#[derive(Debug)]
pub struct StartedWorker {
    /// The process.
    pub program: Program,
    /// Where its admin endpoint is.
    admin: String,
}

/// Ports for servers: below those that Linux takes for clients by itself, of which one could be taken between two lines
/// of a test.
const PORTS: std::ops::Range<u16> = 16_000..32_000;

/// A port that is free now, and that nobody else in this process is given.
fn free_port() -> anyhow::Result<u16> {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let ports = u32::from(PORTS.end - PORTS.start);
    for _ in 0..ports {
        // Processes begin apart from each other.
        let place = (std::process::id() * 97 + GIVEN.fetch_add(1, Ordering::Relaxed)) % ports;
        let port = PORTS.start + u16::try_from(place)?;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    anyhow::bail!("no port of {PORTS:?} is free")
}

impl System {
    /// A system that has not started anything, with this catalogue.
    pub fn new(stack: impl Into<Arc<Stack>>, catalogue: &str) -> anyhow::Result<Self> {
        let stack = stack.into();
        let name = format!("forecastle_test_{}", uuid::Uuid::now_v7().simple());
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("catalogue.toml"), catalogue)?;
        std::fs::create_dir(folder.path().join("input"))?;
        stack.add_virtual_host(&name)?;
        let frontend_ports = (free_port()?, free_port()?);
        let http = reqwest::Client::builder().timeout(Duration::from_secs(20)).build()?;
        let workers = Vec::new();
        let frontend_address = "127.0.0.1".to_owned();
        Ok(Self {
            stack,
            name,
            folder,
            frontend: None,
            workers,
            frontend_ports,
            frontend_address,
            worker_count: 0,
            http,
        })
    }

    /// The servers.
    pub fn stack(&self) -> &Stack {
        &self.stack
    }

    /// The folder that inputs may come from.
    pub fn input(&self) -> PathBuf {
        self.folder.path().join("input")
    }

    /// The folder that outputs go to.
    pub fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    /// The virtual host's URL.
    pub fn amqp_url(&self) -> anyhow::Result<String> {
        let url = self.stack.variable("FORECASTLE_AMQP_URL")?;
        let (server, _) = url.rsplit_once('/').context("FORECASTLE_AMQP_URL has no virtual host")?;
        Ok(format!("{server}/{}", self.name))
    }

    /// The URL of the frontend's API.
    pub fn api_url(&self) -> String {
        format!("http://{}:{}", self.frontend_address, self.frontend_ports.0)
    }

    /// The system's folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The file with the token that the frontend made.
    pub fn token_file(&self) -> PathBuf {
        self.folder.path().join("frontend/token")
    }

    /// Where crash points note that they were reached.
    pub fn crash_log(&self) -> PathBuf {
        self.folder.path().join("crashes")
    }

    /// The database of history.
    pub fn database(&self) -> &str {
        &self.name
    }

    fn configure(&self, command: &mut Command, surroundings: Surroundings<'_>) {
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        command
            .env("FORECASTLE__BROKER__URL", surroundings.reach(&self.amqp_url().unwrap_or_default()))
            .env("FORECASTLE_CRASH_LOG", self.crash_log())
            .envs(surroundings.environment.iter().copied())
            .current_dir(self.folder.path())
            .args(["--set", &format!("catalogue.path={}", path("catalogue.toml"))])
            .args(["--set", &format!("input.allowed_roots=[{:?}]", path("input"))]);
    }

    /// Starts the frontend with further environment and settings, and waits until it is ready.
    pub async fn start_frontend(&mut self, environment: &[(&str, &str)], settings: &[&str]) -> anyhow::Result<()> {
        self.launch_frontend(environment, settings)?;
        self.frontend_ready().await
    }

    /// Starts the frontend and does not wait.
    pub fn launch_frontend(&mut self, environment: &[(&str, &str)], settings: &[&str]) -> anyhow::Result<()> {
        let program = self.launch_frontend_in(Surroundings { host: None, environment, settings })?;
        self.frontend = Some(program);
        Ok(())
    }

    /// Starts the frontend somewhere and does not wait.
    pub fn launch_frontend_in(&mut self, surroundings: Surroundings<'_>) -> anyhow::Result<Program> {
        self.frontend_address = surroundings.address();
        self.frontend_program("frontend.log", self.frontend_ports, surroundings)
    }

    /// Starts a second frontend on the same virtual host and, unless `settings` say otherwise, on the same ledger.
    pub fn start_rival(&self, settings: &[&str]) -> anyhow::Result<Program> {
        let surroundings = Surroundings { settings, ..Surroundings::default() };
        self.frontend_program("rival.log", (free_port()?, free_port()?), surroundings)
    }

    fn frontend_program(
        &self,
        log: &str,
        (api, admin): (u16, u16),
        surroundings: Surroundings<'_>,
    ) -> anyhow::Result<Program> {
        let variable = |name: &str| self.stack.variable(name).map(str::to_owned);
        let (url, user, password) = (
            surroundings.reach(&variable("FORECASTLE_CLICKHOUSE_URL")?),
            variable("FORECASTLE_CLICKHOUSE_USER")?,
            variable("FORECASTLE_CLICKHOUSE_PASSWORD")?,
        );
        let (log, address) = (self.folder.path().join(log), surroundings.address());
        Program::start("forecastle-frontend", surroundings.host, &log, |command| {
            self.configure(command, surroundings);
            command
                .env("FORECASTLE__HISTORY__SERVER__URL", url)
                .env("FORECASTLE__HISTORY__SERVER__USER", user)
                .env("FORECASTLE__HISTORY__SERVER__DATABASE", &self.name)
                .env("FORECASTLE__HISTORY__PASSWORD", password)
                .args(["--set", &format!("data.directory={}", self.data().display())])
                .args(["--set", &format!("http.listen={address}:{api}")])
                .args(["--set", &format!("admin.listen={address}:{admin}")])
                .args(["--set", "sweeper.grace=3s"]);
            for setting in surroundings.settings {
                command.args(["--set", setting]);
            }
        })
    }

    /// The folder of the ledger.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("frontend")
    }

    /// The file of the catalogue.
    pub fn catalogue(&self) -> PathBuf {
        self.folder.path().join("catalogue.toml")
    }

    /// Waits until the frontend is ready.
    pub async fn frontend_ready(&mut self) -> anyhow::Result<()> {
        let admin = format!("{}:{}", self.frontend_address, self.frontend_ports.1);
        let api = format!("{}/v1/openapi.json", self.api_url());
        let frontend = self.frontend.as_mut().context("the frontend was not started")?;
        ready(&self.http, frontend, &admin).await?;
        // The API's listener comes last.
        let deadline = Instant::now() + START;
        while self.http.get(&api).send().await.is_err() {
            anyhow::ensure!(Instant::now() < deadline, "the API does not answer:\n{}", frontend.last_words());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Starts a worker and waits until it is ready.
    pub async fn start_worker(&mut self, capacity: &str, environment: &[(&str, &str)]) -> anyhow::Result<()> {
        let surroundings = Surroundings { environment, ..Surroundings::default() };
        let StartedWorker { mut program, admin } = self.launch_worker_in(capacity, surroundings)?;
        ready(&self.http, &mut program, &admin).await?;
        self.workers.push(program);
        Ok(())
    }

    /// Starts a worker somewhere and does not wait.
    pub fn launch_worker_in(
        &mut self,
        capacity: &str,
        surroundings: Surroundings<'_>,
    ) -> anyhow::Result<StartedWorker> {
        self.worker_count += 1;
        let number = self.worker_count;
        let admin = format!("{}:{}", surroundings.address(), free_port()?);
        let log = self.folder.path().join(format!("worker-{number}.log"));
        let program = Program::start("forecastle-worker", surroundings.host, &log, |command| {
            self.configure(command, surroundings);
            command
                .args(["--name", &format!("worker-{number}"), "--capacity", capacity])
                .args(["--set", &format!("admin.listen={admin}")])
                .args(["--set", &format!("store.root={}", self.store().display())])
                .args(["--set", &format!("scratch.root={}", self.folder.path().join("scratch").display())]);
            for setting in surroundings.settings {
                command.args(["--set", setting]);
            }
        })?;
        Ok(StartedWorker { program, admin })
    }

    /// Waits until a worker is ready.
    pub async fn worker_ready(&self, worker: &mut StartedWorker) -> anyhow::Result<()> {
        ready(&self.http, &mut worker.program, &worker.admin).await
    }

    /// The metrics of a worker, as Prometheus reads them.
    pub async fn metrics_of(&self, worker: &StartedWorker) -> anyhow::Result<String> {
        let answer = self.http.get(format!("http://{}/metrics", worker.admin)).send().await?;
        Ok(answer.error_for_status()?.text().await?)
    }

    async fn call(&self, request: reqwest::RequestBuilder) -> anyhow::Result<Value> {
        let token = std::fs::read_to_string(self.folder.path().join("frontend/token"))?;
        let response = request.bearer_auth(token.trim()).send().await?;
        let status = response.status();
        let body: Value = response.json().await?;
        anyhow::ensure!(status.is_success(), "{status}: {body}");
        Ok(body)
    }

    /// `GET` of the API.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.call(self.http.get(format!("{}{path}", self.api_url()))).await
    }

    /// `POST` to the API.
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.call(self.http.post(format!("{}{path}", self.api_url())).json(body)).await
    }

    /// Submits a request over the input folder, as often as it takes until it is accepted, and answers with its id.
    /// The key makes repeating it safe.
    pub async fn submit(&mut self, request_type: &str, key: &str) -> anyhow::Result<String> {
        let body = json!({
            "requestType": request_type,
            "input": { "directory": self.input() },
            "idempotencyKey": key,
        });
        let accepted = self.post("/v1/requests", &body).await?;
        Ok(accepted["requestId"].as_str().context("an answer without requestId")?.to_owned())
    }

    /// Waits until a request has ended and answers with its status. A frontend that is down is waited for.
    pub async fn finished(&self, request: &str, within: Duration) -> anyhow::Result<Value> {
        let deadline = Instant::now() + within;
        loop {
            let status = self.get(&format!("/v1/requests/{request}")).await;
            if let Ok(status) = &status
                && ["REQUEST_STATE_SUCCEEDED", "REQUEST_STATE_FAILED", "REQUEST_STATE_CANCELLED"]
                    .iter()
                    .any(|state| status["state"] == *state)
            {
                return Ok(status.clone());
            }
            if Instant::now() >= deadline {
                let words = self.frontend.as_ref().map(Program::last_words).unwrap_or_default();
                let workers: Vec<_> = self.workers.iter().map(Program::last_words).collect();
                anyhow::bail!(
                    "request {request} has not ended within {within:?}: {status:?}\nfrontend:\n{words}\nworkers:\n{}",
                    workers.join("\n--\n")
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The manifest that the request's last stage wrote.
    pub fn manifest(&self, request: &str) -> anyhow::Result<String> {
        let mut found = Vec::new();
        find(&self.store().join(request), "MANIFEST", &mut found)?;
        let path = found.first().with_context(|| format!("request {request} wrote no MANIFEST"))?;
        Ok(std::fs::read_to_string(path)?)
    }
}

fn find(folder: &Path, name: &str, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            find(&path, name, found)?;
        } else if path.file_name().is_some_and(|file| file == name) {
            found.push(path);
        }
    }
    found.sort();
    Ok(())
}

async fn ready(http: &reqwest::Client, program: &mut Program, admin: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + START;
    loop {
        if let Ok(answer) = http.get(format!("http://{admin}/readyz")).send().await
            && answer.status().is_success()
        {
            return Ok(());
        }
        if let Some(status) = program.ended()? {
            anyhow::bail!("it ended at start with {status}:\n{}", program.last_words());
        }
        anyhow::ensure!(Instant::now() < deadline, "it is not ready after {START:?}:\n{}", program.last_words());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl Drop for System {
    fn drop(&mut self) {
        // Workers first, then the frontend, then what they leave in the servers. Nothing here can be mended when it
        // fails, and the test's own result matters more.
        self.workers.clear();
        self.frontend = None;
        self.stack.delete_virtual_host(&self.name).ok();
        self.stack.run(&["clickhouse-query", &format!("DROP DATABASE IF EXISTS {}", self.name)]).ok();
    }
}
