//! A database of a test's own, dropped at its end whatever that is.

use std::process::Command;
use std::sync::OnceLock;

use clickhouse::Client;
use forecastle_history::{History, HistoryOptions, Password};
use uuid::Uuid;

/// Where the server is.
#[derive(Debug, Clone)]
struct Server {
    url: String,
    user: Option<String>,
    password: Option<String>,
}

impl Server {
    fn find() -> &'static Self {
        static FOUND: OnceLock<Server> = OnceLock::new();
        FOUND.get_or_init(|| match std::env::var("FORECASTLE_TEST_CLICKHOUSE_URL") {
            Ok(url) => Self::from_url(&url),
            Err(_) => Self::of_the_stack(),
        })
    }

    /// `http://[user[:password]@]host:port`.
    fn from_url(url: &str) -> Self {
        let (scheme, rest) = url.split_once("://").expect("FORECASTLE_TEST_CLICKHOUSE_URL is a URL");
        let Some((credentials, host)) = rest.rsplit_once('@') else {
            return Self { url: url.to_owned(), user: None, password: None };
        };
        let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
        Self { url: format!("{scheme}://{host}"), user: Some(user.to_owned()), password: Some(password.to_owned()) }
    }

    fn of_the_stack() -> Self {
        let stack = concat!(env!("CARGO_MANIFEST_DIR"), "/../../infra/stack");
        let names = ["FORECASTLE_CLICKHOUSE_URL", "FORECASTLE_CLICKHOUSE_USER", "FORECASTLE_CLICKHOUSE_PASSWORD"];
        // The shell undoes its own quoting.
        let script = r#"exports=$("$0" env) || exit; eval "$exports"; for name; do printf '%s\n' "${!name}"; done"#;
        let output = Command::new("bash").args(["-c", script, stack]).args(names).output().expect("bash runs");
        assert!(
            output.status.success(),
            "there is no ClickHouse to test with: run `infra/stack up` or set FORECASTLE_TEST_CLICKHOUSE_URL\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let text = String::from_utf8(output.stdout).unwrap();
        let mut lines = text.lines().map(str::to_owned);
        let url = lines.next().filter(|url| !url.is_empty()).expect("infra/stack env names the URL of ClickHouse");
        Self { url, user: lines.next(), password: lines.next() }
    }
}

/// A database with a unique name. Dropping it drops the database, also when the test panics.
pub(crate) struct TestDatabase {
    pub(crate) options: HistoryOptions,
    pub(crate) history: History,
    /// In the database, for what the crate itself does not do.
    pub(crate) client: Client,
}

impl TestDatabase {
    /// Not migrated yet, so the database itself may not be there.
    pub(crate) async fn empty() -> Self {
        let server = Server::find();
        let database = format!("test_{}", Uuid::now_v7().simple());
        let options = HistoryOptions {
            url: server.url.clone(),
            database: database.clone(),
            user: server.user.clone(),
            password: server.password.clone().map(Password::new),
            ..HistoryOptions::default()
        };
        let history = History::new(options.clone()).unwrap();
        if let Err(error) = history.ping().await {
            panic!(
                "there is no ClickHouse to test with at {}: run `infra/stack up` or set \
                 FORECASTLE_TEST_CLICKHOUSE_URL ({error})",
                server.url
            );
        }
        let client = client(server).with_database(database);
        Self { options, history, client }
    }

    /// Migrated.
    pub(crate) async fn new() -> Self {
        let database = Self::empty().await;
        database.history.migrate().await.unwrap();
        database
    }

    /// Runs a statement as it is.
    pub(crate) async fn execute(&self, sql: &str) {
        self.client.query_raw(sql).execute().await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// The rows of a query, as JSON with numbers as numbers.
    pub(crate) async fn ask(&self, sql: &str) -> Vec<serde_json::Value> {
        let query = self.client.query_raw(sql).with_setting("output_format_json_quote_64bit_integers", "0");
        let mut cursor = query.fetch_bytes("JSONEachRow").unwrap();
        let bytes = cursor.collect().await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        serde_json::Deserializer::from_slice(&bytes).into_iter().collect::<Result<_, _>>().unwrap()
    }
}

fn client(server: &Server) -> Client {
    let mut client = Client::default().with_url(&server.url);
    if let Some(user) = &server.user {
        client = client.with_user(user);
    }
    if let Some(password) = &server.password {
        client = client.with_password(password);
    }
    client
}

impl Drop for TestDatabase {
    #[expect(clippy::print_stderr, reason = "the test has failed already")]
    fn drop(&mut self) {
        let statement = format!("DROP DATABASE IF EXISTS `{}` SYNC", self.options.database);
        // In a thread of its own: this one may be in the middle of a runtime.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(client(Server::find()).query_raw(&statement).execute())
        })
        .join();
        if !matches!(dropped, Ok(Ok(()))) {
            let problem = format!("the database {} is left behind: {dropped:?}", self.options.database);
            // A second panic would abort and hide the first.
            if std::thread::panicking() { eprintln!("{problem}") } else { panic!("{problem}") }
        }
    }
}
