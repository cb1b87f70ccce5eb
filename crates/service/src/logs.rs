//! Logs: `tracing` events on standard error, as text or as JSON.

use std::io::IsTerminal as _;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people; in colour on a terminal.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LogOptions {
    /// How lines look.
    pub format: LogFormat,
    /// Levels by target, as `tracing-subscriber` reads them: `info`, `warn,forecastle_broker=debug`.
    pub filter: String,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { format: LogFormat::Text, filter: "info,lapin=error".to_owned() }
    }
}

/// Why there are no logs.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter cannot be read.
    #[error("`{filter}` is not a filter for logs such as `info` or `warn,forecastle_broker=debug`")]
    Filter {
        /// As configured.
        filter: String,
        /// What is wrong with it.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// Somebody has installed another before.
    #[error("logs are installed already")]
    AlreadyInstalled(#[source] tracing_subscriber::util::TryInitError),
}

/// Sends the events of the whole process to standard error. Once a process.
pub fn install(options: &LogOptions) -> Result<(), LogError> {
    let colours = std::io::stderr().is_terminal();
    subscriber(options, std::io::stderr, colours)?.try_init().map_err(LogError::AlreadyInstalled)
}

fn subscriber<W>(options: &LogOptions, writer: W, colours: bool) -> Result<Box<dyn Subscriber + Send + Sync>, LogError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::builder()
        .parse(&options.filter)
        .map_err(|source| LogError::Filter { filter: options.filter.clone(), source })?;
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(colours);
    Ok(match options.format {
        LogFormat::Text => Box::new(registry.with(layer)),
        LogFormat::Json => Box::new(registry.with(layer.json().flatten_event(true))),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, filter: &str) -> String {
        let captured = Captured::default();
        let writer = captured.clone();
        let options = LogOptions { format, filter: filter.to_owned() };
        let subscriber = subscriber(&options, move || writer.clone(), false).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(shards = 3, "released");
            tracing::debug!("not at this level");
        });
        let bytes = captured.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn json_is_one_object_a_line_with_the_fields_of_the_event() {
        let text = logged(LogFormat::Json, "info");
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["message"], "released");
        assert_eq!(line["shards"], 3);
        assert_eq!(line["level"], "INFO");
    }

    #[test]
    fn text_obeys_the_filter() {
        let text = logged(LogFormat::Text, "info");
        assert!(text.contains("released") && text.contains("shards=3") && !text.contains("not at this"), "{text}");
        assert_eq!(logged(LogFormat::Text, "warn"), "");
    }

    #[test]
    fn a_filter_that_is_none_is_repeated() {
        let options = LogOptions { filter: "forecastle=loud".to_owned(), ..LogOptions::default() };
        let error = install(&options).unwrap_err().to_string();
        assert!(error.contains("forecastle=loud"), "{error}");
    }
}
