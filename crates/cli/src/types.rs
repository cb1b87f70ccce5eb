//! `types`: what can be asked for.

use std::fmt::Write as _;

use forecastle_protos::v1;

use crate::api::Api;
use crate::failure::Failure;
use crate::output::{Output, plain, printable};

/// All types, or one in detail.
pub(crate) async fn run(api: &Api, output: Output, name: Option<&str>) -> Result<(), Failure> {
    let list = api.types().await?;
    let Some(name) = name else {
        return if output.json { output.document(&list) } else { overview(output, &list) };
    };
    let Some(info) = list.types.iter().find(|info| info.name == name) else {
        let known: Vec<_> = list.types.iter().map(|info| &*info.name).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        return Err(Failure::Rejected(v1::ErrorDetail {
            code: "unknown-request-type".to_owned(),
            message: format!("there is no request type `{name}`; there are: {known}"),
            field: String::new(),
        }));
    };
    if output.json { output.document(info) } else { output.text(&printable(&details(info))) }
}

fn overview(output: Output, list: &v1::RequestTypeList) -> Result<(), Failure> {
    if list.types.is_empty() {
        output.note("the frontend's catalogue has no request types");
        return Ok(());
    }
    let rows = list.types.iter().map(|info| {
        let parameters: Vec<_> = info.parameters.iter().map(brief).collect();
        [&*info.name, &*info.input, &*parameters.join(" "), &*info.description].map(plain).to_vec()
    });
    output.table(&["TYPE", "INPUT", "PARAMETERS", "DESCRIPTION"], rows.collect())?;
    output.note("NAME=… must be given, [NAME=DEFAULT] may; `forecastle types NAME` tells more");
    Ok(())
}

/// `level=…` if it is required, else `[level=3]`.
fn brief(parameter: &v1::ParameterInfo) -> String {
    if parameter.required {
        format!("{}=…", parameter.name)
    } else {
        format!("[{}={}]", parameter.name, parameter.default_json)
    }
}

fn details(info: &v1::RequestTypeInfo) -> String {
    let mut text = format!("{}\n", info.name);
    // Writing to a string cannot fail.
    if !info.description.is_empty() {
        let _ = writeln!(text, "  {}", info.description);
    }
    let _ = writeln!(text, "\nruns in fleet {}; input: {}", info.fleet, info.input);
    if !info.parameters.is_empty() {
        text.push_str("\nparameters:\n");
        let width = info.parameters.iter().map(|parameter| parameter.name.chars().count()).max().unwrap_or(0);
        for parameter in &info.parameters {
            let needed =
                if parameter.required { "required".to_owned() } else { format!("default {}", parameter.default_json) };
            let line = format!("  {:<width$}  {}, {needed}  {}", parameter.name, parameter.kind, parameter.description);
            let _ = writeln!(text, "{}", line.trim_end());
        }
    }
    if !info.stages.is_empty() {
        text.push_str("\nstages:\n");
        for stage in &info.stages {
            let after = match stage.depends_on.join(", ") {
                none if none.is_empty() => String::new(),
                stages => format!(", after {stages}"),
            };
            let _ = writeln!(text, "  {}: {}{after}", stage.name, stage.units.join(", "));
        }
    }
    let _ = writeln!(text, "\nexample:\n  {}", example(info));
    text
}

fn example(info: &v1::RequestTypeInfo) -> String {
    let input = match &*info.input {
        "directory" => " --input DIR",
        "items" => " --items FILE…",
        _ => "",
    };
    let mut text = format!("forecastle submit {}{input}", info.name);
    for parameter in info.parameters.iter().filter(|parameter| parameter.required) {
        // Writing to a string cannot fail.
        let _ = write!(text, " --param {}={}", parameter.name, parameter.kind.to_uppercase());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive() -> v1::RequestTypeInfo {
        let parameter = |name: &str, required, default: &str| v1::ParameterInfo {
            name: name.to_owned(),
            kind: "integer".to_owned(),
            required,
            description: format!("the {name}"),
            default_json: default.to_owned(),
        };
        let stage = |name: &str, units: &[&str], after: &[&str]| v1::StageInfo {
            name: name.to_owned(),
            units: units.iter().map(ToString::to_string).collect(),
            depends_on: after.iter().map(ToString::to_string).collect(),
        };
        v1::RequestTypeInfo {
            name: "archive".to_owned(),
            description: "Archives a tree.".to_owned(),
            fleet: "default".to_owned(),
            input: "directory".to_owned(),
            parameters: vec![parameter("level", false, "3"), parameter("seed", true, "")],
            stages: vec![stage("work", &["compress", "index"], &[]), stage("manifest", &["manifest"], &["work"])],
        }
    }

    #[test]
    fn details_teach_how_to_submit() {
        let expected = "\
archive
  Archives a tree.

runs in fleet default; input: directory

parameters:
  level  integer, default 3  the level
  seed   integer, required  the seed

stages:
  work: compress, index
  manifest: manifest, after work

example:
  forecastle submit archive --input DIR --param seed=INTEGER
";
        assert_eq!(details(&archive()), expected);
    }

    #[test]
    fn the_overview_tells_what_must_be_given() {
        assert_eq!(archive().parameters.iter().map(brief).collect::<Vec<_>>(), ["[level=3]", "seed=…"]);
    }
}
