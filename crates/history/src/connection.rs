//! One way to ClickHouse: the client, its deadline, and errors that say what was being done.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use clickhouse::Client;
use clickhouse::query::Query;
use clickhouse::{RowOwned, RowRead};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::{Error, HistoryOptions, tls};

/// Under ClickHouse's own 3 s, so that a connection is not used just as it is closed.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(2);

/// Cheap to clone; clones share connections.
#[derive(Clone)]
pub(crate) struct Connection {
    /// Without a database: for making it.
    server: Client,
    /// In the database.
    client: Client,
    address: Arc<str>,
    database: Arc<str>,
    timeout: Duration,
}

impl Connection {
    /// Checks the options. Connects only when used.
    pub(crate) fn new(options: &HistoryOptions) -> Result<Self, Error> {
        options.validate()?;
        let mut server =
            transport(options)?.with_url(&options.url).with_product_info("forecastle", env!("CARGO_PKG_VERSION"));
        if let Some(user) = &options.user {
            server = server.with_user(user);
        }
        if let Some(password) = &options.password {
            server = server.with_password(password.expose());
        }
        Ok(Self {
            client: server.clone().with_database(&options.database),
            server,
            address: options.url.as_str().into(),
            database: options.database.as_str().into(),
            timeout: options.timeout(),
        })
    }

    /// Outside the database, which need not be there.
    pub(crate) fn server(&self) -> &Client {
        &self.server
    }

    /// In the database.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn database(&self) -> &str {
        &self.database
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Runs a statement as it is (`?` has no meaning) outside the database.
    pub(crate) async fn execute_on_server(&self, operation: &str, sql: &str) -> Result<(), Error> {
        self.within(operation, self.server.query_raw(sql).execute()).await
    }

    /// Runs a statement as it is (`?` has no meaning) in the database.
    pub(crate) async fn execute(&self, operation: &str, sql: &str) -> Result<(), Error> {
        self.within(operation, self.client.query_raw(sql).execute()).await
    }

    /// All rows of a query.
    pub(crate) async fn fetch<T: RowOwned + RowRead>(&self, operation: &str, query: Query) -> Result<Vec<T>, Error> {
        self.within(operation, query.fetch_all()).await
    }

    /// The only row of a query.
    pub(crate) async fn fetch_one<T: RowOwned + RowRead>(&self, operation: &str, query: Query) -> Result<T, Error> {
        self.within(operation, query.fetch_one()).await
    }

    /// Awaits `work`, but no longer than one statement may take.
    pub(crate) async fn within<T>(
        &self,
        operation: &str,
        work: impl Future<Output = clickhouse::error::Result<T>>,
    ) -> Result<T, Error> {
        match tokio::time::timeout(self.timeout, work).await {
            Ok(result) => result.map_err(|error| Error::from_client(operation, &self.address, error)),
            Err(_) => Err(Error::TimedOut {
                operation: operation.to_owned(),
                address: self.address.to_string(),
                timeout: self.timeout,
            }),
        }
    }
}

/// A transport with bounds of our own: the crate's panics on machines without certificates, and waits for ever.
fn transport(options: &HistoryOptions) -> Result<Client, Error> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector.set_keepalive(Some(Duration::from_mins(1)));
    connector.set_connect_timeout(Some(options.connect_timeout()));
    let mut builder = hyper_util::client::legacy::Client::builder(TokioExecutor::new());
    builder.pool_idle_timeout(POOL_IDLE_TIMEOUT);
    if !options.url.starts_with("https://") {
        return Ok(Client::with_http_client(builder.build(connector)));
    }
    connector.enforce_http(false);
    let https = HttpsConnectorBuilder::new().with_tls_config(tls::config(options.tls.as_ref())?).https_only();
    Ok(Client::with_http_client(builder.build(https.enable_http1().wrap_connector(connector))))
}
