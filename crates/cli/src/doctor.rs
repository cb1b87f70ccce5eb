//! `doctor`: is everything there, and what to do if not.

use std::os::unix::fs::PermissionsExt as _;

use clap::Args;
use reqwest::Url;
use serde::Serialize;

use crate::api::Api;
use crate::diagnosis::{self, Check, Verdict};
use crate::failure::Failure;
use crate::output::{Output, Tone, printable};
use crate::probe;
use crate::token::is_local;

const EXAMPLES: &str = "\
Examples:
  forecastle doctor
  eval \"$(infra/stack env)\"; forecastle doctor     looks at the local RabbitMQ and ClickHouse as well
  forecastle doctor --admin-url http://127.0.0.1:7071 --json

Each check is ok, warn or fail, with what to do. The exit status is 0 without a fail, 3 if the frontend cannot be \
reached or refuses the token, else 1.";

/// Check the frontend, its workers and what they need
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Doctor {
    /// The frontend's admin endpoint, to ask whether it is ready
    #[arg(long = "admin-url", value_name = "URL", env = "FORECASTLE_ADMIN_URL")]
    admin: Option<Url>,
    /// RabbitMQ, to look at directly (a password in it is not used)
    #[arg(long = "amqp-url", value_name = "URL", env = "FORECASTLE_AMQP_URL", hide_env_values = true)]
    amqp: Option<String>,
    /// ClickHouse, to look at directly
    #[arg(long = "clickhouse-url", value_name = "URL", env = "FORECASTLE_CLICKHOUSE_URL", hide_env_values = true)]
    clickhouse: Option<String>,
}

#[derive(Serialize)]
struct Report<'a> {
    checks: &'a [Check],
}

impl Doctor {
    /// Makes every check, whatever the others say.
    pub(crate) async fn run(self, api: &Api, output: Output) -> Result<(), Failure> {
        let mut checks = vec![token(api)];
        let unreachable = !frontend(api, &mut checks).await;
        if let Some(url) = self.admin {
            checks.push(ready(api, url).await);
        }
        if let Some(url) = &self.amqp {
            checks.push(probe::rabbitmq(url).await);
        }
        if let Some(url) = &self.clickhouse {
            checks.push(probe::clickhouse(api, url).await);
        }
        if output.json {
            output.document(&Report { checks: &checks })?;
        } else {
            checks.iter().try_for_each(|check| output.line(&line(output, check)))?;
        }
        match checks.iter().filter(|check| check.verdict == Verdict::Fail).count() {
            0 => Ok(()),
            failed => Err(Failure::Unhealthy { failed, unreachable }),
        }
    }
}

fn line(output: Output, check: &Check) -> String {
    let (word, tone) = match check.verdict {
        Verdict::Ok => ("ok  ", Tone::Good),
        Verdict::Warn => ("warn", Tone::Doubtful),
        Verdict::Fail => ("fail", Tone::Bad),
    };
    let advice = if check.advice.is_empty() { String::new() } else { format!("\n        {}", check.advice) };
    format!("{}  {}", output.paint(word, tone), printable(&format!("{}: {}{advice}", check.name, check.found)))
}

/// Whether there is a token, and whether it is kept well.
fn token(api: &Api) -> Check {
    const NAME: &str = "token";
    let search = api.search();
    let Some(token) = &search.token else {
        return Check::fail(NAME, search.explained(), "ask the frontend's operator for one");
    };
    if api.url().scheme() == "http" && !is_local(api.url()) {
        let found = format!("it goes to {} without encryption", api.url());
        return Check::warn(NAME, found, "use https:, which the frontend speaks with the option http.tls");
    }
    let open = token.file.as_ref().and_then(|file| {
        let mode = std::fs::metadata(file).ok()?.permissions().mode();
        (mode & 0o077 != 0).then(|| file.display().to_string())
    });
    match open {
        Some(file) => Check::warn(NAME, format!("others can read {file}"), format!("chmod 600 {file}")),
        None => Check::ok(NAME, format!("from {}", token.from)),
    }
}

/// The frontend, and what it knows. False if it cannot be reached or refuses the token.
async fn frontend(api: &Api, checks: &mut Vec<Check>) -> bool {
    const NAME: &str = "frontend";
    match api.description().await {
        Ok(description) => checks.push(diagnosis::version(&description)),
        // The next question meets the same, and tells.
        Err(Failure::Unreachable { .. } | Failure::Unavailable { .. }) => {}
        Err(failure) => {
            let advice = "is something else at this URL?";
            checks.push(Check::warn("version", format!("the frontend does not tell: {failure}"), advice));
        }
    }
    let types = match api.types().await {
        Ok(types) => types,
        Err(failure) => {
            let advice = match &failure {
                Failure::Unauthorised { token, .. } => token.clone(),
                Failure::Unavailable { .. } => "its log says why".to_owned(),
                _ => "start it with forecastle-frontend, or name its URL with --url (FORECASTLE_URL)".to_owned(),
            };
            checks.push(Check::fail(NAME, failure.to_string(), advice));
            return false;
        }
    };
    checks.push(Check::ok(NAME, format!("{} answers and takes the token", api.url())));
    match api.fleet().await {
        Ok(fleet) => {
            checks.extend(diagnosis::workers(&fleet));
            checks.extend(diagnosis::runnable(&types, &fleet));
        }
        Err(failure) => checks.push(Check::fail("workers", failure.to_string(), "the frontend's log says why")),
    }
    true
}

async fn ready(api: &Api, mut url: Url) -> Check {
    url.set_path("/readyz");
    match api.look(url).await {
        Ok((status, body)) => diagnosis::readiness(status.as_u16(), &body),
        Err(reason) => Check::fail("readiness", reason, "is --admin-url the frontend's option admin.listen?"),
    }
}
