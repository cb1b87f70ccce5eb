//! `submit`: a request, and by default its progress and result.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use forecastle_protos::ids::RequestId;
use forecastle_protos::v1;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::api::Api;
use crate::failure::Failure;
use crate::inputs;
use crate::output::Output;
use crate::requests;
use crate::result;

const EXAMPLES: &str = "\
Examples:
  forecastle submit archive --input /data/in --param level=9
  forecastle submit thumbnails --items a.png b.png --priority urgent --deadline 10m
  forecastle submit archive --input /data/in --params-json @parameters.json --label team=search
  forecastle submit archive --input /data/in --key nightly-2026-11-24 --detach --json

Prints the request's id, then follows it: progress goes to standard error, the result's summary to standard output. \
With --detach it ends once the request is durable. `forecastle types NAME` shows a type's parameters.

The same --key and the same request are the same request, however often it is submitted: a script that may be run \
twice gives a key of its own. Without --key each run of this command makes a new request.";

/// Submit a request, follow it, and show its result
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Submit {
    /// The request type, as `forecastle types` lists them
    #[arg(value_name = "TYPE")]
    request_type: String,
    /// Read every file below this directory (on the frontend's machine, in one of its allowed roots)
    #[arg(long, value_name = "DIR", conflicts_with = "items")]
    input: Option<PathBuf>,
    /// Read these files
    #[arg(long, value_name = "FILE", num_args = 1..)]
    items: Vec<PathBuf>,
    /// A parameter; its declared kind decides how the value is read
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = inputs::pair)]
    parameters: Vec<(String, String)>,
    /// Parameters as a JSON object, from @FILE, or @- for standard input; --param goes before it
    #[arg(long, value_name = "JSON")]
    params_json: Option<String>,
    /// How soon it matters; the type has a default
    #[arg(long, value_name = "PRIORITY", value_parser = ["urgent", "standard", "batch"])]
    priority: Option<String>,
    /// After this time the result is of no use: 90s, 10m, 1h30m, 2d
    #[arg(long, value_name = "DURATION", value_parser = inputs::duration)]
    deadline: Option<Duration>,
    /// Makes a repeated submission the same request
    #[arg(long, value_name = "KEY", value_parser = key)]
    key: Option<String>,
    /// Something to keep with the request
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = inputs::pair)]
    labels: Vec<(String, String)>,
    /// Do not follow it
    #[arg(long)]
    detach: bool,
}

impl Submit {
    /// Submits, and follows unless detached.
    pub(crate) async fn run(self, api: &Api, output: Output) -> Result<(), Failure> {
        let given = self.params_json.as_deref().map(inputs::object).transpose()?.unwrap_or_default();
        let kinds = if self.parameters.is_empty() { Vec::new() } else { self.kinds(api).await };
        let request = self.request(given, &kinds)?;
        let accepted = api.submit(&request).await?;
        if !accepted.created {
            output.note("this key had been submitted before with the same request: it is the same request");
        }
        if self.detach {
            return if output.json { output.document(&accepted) } else { output.line(&accepted.request_id) };
        }
        if output.json {
            output.note(&accepted.request_id);
        } else {
            output.line(&accepted.request_id)?;
        }
        let id: RequestId = accepted
            .request_id
            .parse()
            .map_err(|error| Failure::Misunderstood(format!("the id of the accepted request: {error}")))?;
        let status = requests::follow_showing(api, output, id).await?;
        if output.json {
            output.document(&status)?;
        } else {
            output.line(&requests::summary(output, &status))?;
            result::preview(api, output, id).await?;
        }
        requests::ended(&status)
    }

    /// The declared kinds of the type's parameters. Without them values are read by their looks, and the frontend's
    /// refusal says what is wrong.
    async fn kinds(&self, api: &Api) -> Vec<v1::ParameterInfo> {
        let types = api.types().await.unwrap_or_default().types;
        types.into_iter().find(|info| info.name == self.request_type).map(|info| info.parameters).unwrap_or_default()
    }

    fn request(
        &self,
        mut parameters: Map<String, Value>,
        kinds: &[v1::ParameterInfo],
    ) -> Result<v1::SubmitRequest, Failure> {
        for (name, text) in &self.parameters {
            let kind = kinds.iter().find(|info| info.name == *name).map(|info| &*info.kind);
            parameters.insert(name.clone(), inputs::parameter(text, kind));
        }
        let parameters = if parameters.is_empty() {
            None
        } else {
            let parsed = serde_json::from_value(Value::Object(parameters));
            Some(parsed.map_err(|error| Failure::Usage(format!("parameters: {error}")))?)
        };
        let kind = match &self.input {
            Some(directory) => Some(v1::input::Kind::Directory(absolute(directory)?)),
            None if self.items.is_empty() => None,
            None => {
                let paths = self.items.iter().map(absolute).collect::<Result<_, _>>()?;
                Some(v1::input::Kind::Items(v1::ItemList { paths }))
            }
        };
        let sla = (self.priority.is_some() || self.deadline.is_some()).then(|| v1::Sla {
            priority: self.priority.clone().unwrap_or_default(),
            deadline_seconds: self.deadline.map(|deadline| deadline.as_secs_f64()).unwrap_or_default(),
        });
        Ok(v1::SubmitRequest {
            request_type: self.request_type.clone(),
            parameters,
            input: kind.map(|kind| v1::Input { kind: Some(kind) }),
            sla,
            idempotency_key: self.key.clone().unwrap_or_else(|| Uuid::new_v4().to_string()),
            labels: self.labels.iter().cloned().collect(),
            ..Default::default()
        })
    }
}

fn key(text: &str) -> Result<String, String> {
    match text.len() {
        1..=256 => Ok(text.to_owned()),
        _ => Err("a key has 1 to 256 bytes".to_owned()),
    }
}

/// The frontend knows nothing of this process's current directory.
fn absolute(path: &PathBuf) -> Result<String, Failure> {
    let wrong = |why: &str| Failure::Usage(format!("input {}: {why}", path.display()));
    let absolute = std::path::absolute(path).map_err(|error| wrong(&error.to_string()))?;
    absolute.into_os_string().into_string().map_err(|_| wrong("its name is not UTF-8, which JSON cannot express"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::{Arguments, Command};
    use clap::Parser as _;
    use serde_json::json;

    fn parse(arguments: &[&str]) -> Result<Submit, clap::Error> {
        let all = ["forecastle", "submit"].iter().chain(arguments);
        match Arguments::try_parse_from(all)?.command {
            Command::Submit(submit) => Ok(submit),
            other => panic!("{other:?}"),
        }
    }

    fn request(arguments: &[&str], given: Value) -> v1::SubmitRequest {
        let Value::Object(given) = given else { panic!("{given}") };
        let kinds = [v1::ParameterInfo { name: "version".to_owned(), kind: "text".to_owned(), ..Default::default() }];
        parse(arguments).unwrap().request(given, &kinds).unwrap()
    }

    #[test]
    fn everything_typed_is_in_the_request() {
        let arguments = [
            "archive",
            "--input",
            "/data/in",
            "--param",
            "level=9",
            "--param",
            "version=2",
            "--priority",
            "urgent",
            "--deadline",
            "10m",
            "--key",
            "k",
            "--label",
            "team=search",
        ];
        let request = request(&arguments, json!({"level": 1, "fast": true}));
        let value = serde_json::to_value(&request).unwrap();
        assert_eq!(
            value,
            json!({
                "requestType": "archive",
                "parameters": {"level": 9.0, "fast": true, "version": "2"},
                "input": {"directory": "/data/in"},
                "sla": {"priority": "urgent", "deadlineSeconds": 600.0},
                "idempotencyKey": "k",
                "labels": {"team": "search"},
            })
        );
    }

    #[test]
    fn paths_are_made_absolute_and_a_key_is_made_for_each_submission() {
        let one = request(&["archive", "--items", "a.txt", "/b.txt"], json!({}));
        let Some(v1::input::Kind::Items(items)) = one.input.unwrap().kind else { panic!() };
        let here = std::env::current_dir().unwrap();
        assert_eq!(items.paths, [here.join("a.txt").to_str().unwrap(), "/b.txt"]);
        assert_eq!(one.parameters, None);
        assert_eq!(one.sla, None);
        let other = request(&["archive"], json!({}));
        assert!(!one.idempotency_key.is_empty() && one.idempotency_key != other.idempotency_key);
    }

    #[test]
    fn wrong_usage_is_told_before_anything_is_sent() {
        let long = "k".repeat(257);
        for arguments in [
            &["archive", "--input", "/a", "--items", "b"][..],
            &["archive", "--param", "level"],
            &["archive", "--priority", "high"],
            &["archive", "--deadline", "soon"],
            &["archive", "--key", ""],
            &["archive", "--key", &long],
            &[],
        ] {
            assert_eq!(parse(arguments).unwrap_err().exit_code(), 2, "{arguments:?}");
        }
    }
}
