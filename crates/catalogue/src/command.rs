//! Commands: an argv of templates, never a shell.
//!
//! Placeholders and their values, all of them text in UTF-8:
//!
//! | placeholder | value | where |
//! | --- | --- | --- |
//! | `{input}` | path of the item | arguments, `invoke = "each"` |
//! | `{name}` | the item's name in outputs, its path below the input's directory, `/` kept | arguments and `stdout`, `invoke = "each"` |
//! | `{inputs}` | paths of all items of the shard, each an argument of its own | as a whole argument, `invoke = "once"` |
//! | `{output}` | the run's output folder | arguments |
//! | `{scratch}` | a folder that is gone after the run | arguments |
//! | `{upstream}` | path of a JSON file with the results of the stages that this one depends on | arguments |
//! | `{…}` | a parameter that every type which uses the unit declares | arguments, and `stdout` unless it is a text |

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::error::Problem;
use crate::parameter::ParameterKind;
use crate::request_type::RequestType;
use crate::section::{Section, join};
use crate::suggestion;
use crate::template::{RenderError, Template};

/// Names of the placeholders that are not parameters. No parameter may have one of these names.
pub const PLACEHOLDERS: [&str; 6] = ["input", "inputs", "name", "output", "scratch", "upstream"];

/// How often a command runs for one shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Invoke {
    /// Once for each item.
    #[default]
    Each,
    /// Once for the whole shard.
    Once,
}

/// What an exit code says about a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitMeaning {
    /// It did what it should.
    Succeeded,
    /// It failed, and may succeed another time.
    Retryable,
    /// It failed, and would fail again.
    Permanent,
}

/// A command. Made only by reading a catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Command {
    /// The arguments. The first is the program: an absolute path without placeholders.
    pub argv: Vec<Template>,
    /// Where standard output goes: a path below the run's output folder. Without it, standard output is dropped.
    pub stdout: Option<Template>,
    /// How often it runs for one shard.
    pub invoke: Invoke,
    /// Environment variables, taken as they are.
    pub env: BTreeMap<String, String>,
    /// Exit codes of success. Never empty.
    pub successful_exit_codes: BTreeSet<u8>,
    /// Exit codes of failures that may pass. If empty, every failure may.
    pub retryable_exit_codes: BTreeSet<u8>,
}

impl Command {
    /// The arguments of one invocation: `{inputs}` becomes one argument for each of `inputs`, every other template
    /// exactly one argument. `value` answers for the other placeholders.
    pub fn arguments(
        &self,
        inputs: &[String],
        value: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Vec<String>, RenderError> {
        let mut arguments = Vec::with_capacity(self.argv.len() + inputs.len());
        for template in &self.argv {
            if template.as_placeholder() != Some("inputs") {
                arguments.push(template.render(value)?);
            } else if inputs.iter().any(|input| input.contains('\0')) {
                return Err(RenderError::Nul { name: "inputs".to_owned() });
            } else {
                arguments.extend_from_slice(inputs);
            }
        }
        Ok(arguments)
    }

    /// What an exit code says.
    pub fn exit_meaning(&self, code: i32) -> ExitMeaning {
        let is_in = |codes: &BTreeSet<u8>| u8::try_from(code).is_ok_and(|code| codes.contains(&code));
        if is_in(&self.successful_exit_codes) {
            ExitMeaning::Succeeded
        } else if self.retryable_exit_codes.is_empty() || is_in(&self.retryable_exit_codes) {
            ExitMeaning::Retryable
        } else {
            ExitMeaning::Permanent
        }
    }

    /// Reads the entries of a unit that make a command. Faults are noted; `None` if there is no list of arguments.
    pub(crate) fn read(section: &mut Section<'_>, users: &[&RequestType]) -> Option<Self> {
        let invoke = section.take("invoke").unwrap_or_default();
        let scope = Scope { users, invoke };
        let argv = read_argv(section, &scope);
        let stdout = read_stdout(section, &scope);
        let env = read_env(section);
        let successful = read_codes(section, "successful_exit_codes").unwrap_or_else(|| BTreeSet::from([0]));
        if successful.is_empty() {
            section.invalid("successful_exit_codes", "must not be empty");
        }
        let retryable = read_codes(section, "retryable_exit_codes").unwrap_or_default();
        for code in successful.intersection(&retryable) {
            section.invalid("retryable_exit_codes", format!("{code} is an exit code of success"));
        }
        Some(Self {
            argv: argv?,
            stdout,
            invoke,
            env,
            successful_exit_codes: successful,
            retryable_exit_codes: retryable,
        })
    }

    /// True if some argument is made of items.
    pub(crate) fn reads_items(&self) -> bool {
        self.argv.iter().flat_map(Template::placeholders).any(|name| matches!(name, "input" | "inputs" | "name"))
    }
}

fn read_argv(section: &mut Section<'_>, scope: &Scope<'_>) -> Option<Vec<Template>> {
    let arguments = section.list::<String>("command")?;
    if arguments.is_empty() {
        section.invalid("command", "must not be empty: the program stands first");
    }
    let mut argv = Vec::with_capacity(arguments.len());
    for (index, text) in arguments {
        let key = format!("{}[{index}]", section.at("command"));
        let template = match Template::parse(&text) {
            Ok(template) => template,
            Err(error) => {
                section.problems().push(key, error);
                continue;
            }
        };
        if index == 0 {
            let sound = template.as_literal().is_some_and(|path| path.starts_with('/') && !path.ends_with('/'));
            if !sound {
                let why = "the program must be an absolute path without placeholders, such as `/usr/bin/xz`";
                section.problems().push(&key, Problem::Invalid(why.to_owned()));
            }
        } else {
            let whole = template.as_placeholder().is_some();
            for problem in template.placeholders().filter_map(|name| scope.fault_in_argument(name, whole)) {
                section.problems().push(&key, problem);
            }
        }
        argv.push(template);
    }
    Some(argv)
}

fn read_stdout(section: &mut Section<'_>, scope: &Scope<'_>) -> Option<Template> {
    let text: String = section.take("stdout")?;
    let template = Template::parse(&text).map_err(|error| section.problem("stdout", error)).ok()?;
    for problem in template.placeholders().filter_map(|name| scope.fault_in_stdout(name)) {
        section.problem("stdout", problem);
    }
    // No value is empty, a dot or two, or begins or ends with a slash: any other text stands for all of them.
    let sample = template.render(&|_| Some("x".to_owned())).unwrap_or_default();
    if sample.split('/').any(|part| matches!(part, "" | "." | "..")) {
        section.invalid("stdout", "must be a path below the output folder, such as `{name}.xz`");
    }
    if scope.invoke == Invoke::Each && !template.placeholders().any(|name| name == "name") {
        section.invalid("stdout", "must hold `{name}`, or the items of a shard would write the same file");
    }
    Some(template)
}

fn read_env(section: &mut Section<'_>) -> BTreeMap<String, String> {
    let Some(env) = section.section("env") else { return BTreeMap::new() };
    let (at, problems) = (env.path().to_owned(), env.problems());
    let fault = |name: &str, why: &str| problems.push(join(&at, name), Problem::Invalid(why.to_owned()));
    let entries = env.rest::<String>();
    for (name, value) in &entries {
        if name.is_empty() || name.contains(['=', '\0']) {
            fault(name, "the name of a variable must not be empty or hold `=` or NUL");
        }
        if value.contains('\0') {
            fault(name, "must not hold NUL");
        }
    }
    entries.into_iter().collect()
}

fn read_codes(section: &mut Section<'_>, key: &'static str) -> Option<BTreeSet<u8>> {
    Some(section.list::<u8>(key)?.into_iter().map(|(_, code)| code).collect())
}

/// What can stand between braces in one unit.
struct Scope<'a> {
    users: &'a [&'a RequestType],
    invoke: Invoke,
}

impl Scope<'_> {
    fn fault_in_argument(&self, name: &str, whole: bool) -> Option<Problem> {
        let why = match (name, self.invoke) {
            ("output" | "scratch" | "upstream", _) | ("input" | "name", Invoke::Each) => return None,
            ("inputs", Invoke::Once) if whole => return None,
            ("inputs", Invoke::Once) => "must be an argument of its own",
            ("inputs", Invoke::Each) => "has a value only with invoke = \"once\"; here each item has its `{input}`",
            ("input" | "name", Invoke::Once) => {
                "has a value only with invoke = \"each\"; here all items are `{inputs}`"
            }
            _ => return self.fault_in_parameter(name, &PLACEHOLDERS),
        };
        Some(Problem::Placeholder { name: name.to_owned(), why: why.to_owned(), suggestion: None })
    }

    fn fault_in_stdout(&self, name: &str) -> Option<Problem> {
        if name == "name" && self.invoke == Invoke::Each {
            return None;
        }
        let why = if PLACEHOLDERS.contains(&name) {
            "has no value in `stdout`, which is a path below the output folder"
        } else if self.users.iter().any(|user| {
            user.parameters.get(name).is_some_and(|parameter| matches!(parameter.kind, ParameterKind::Text { .. }))
        }) {
            "is a text that the producer chooses, which may not be part of a path"
        } else {
            let known: &[&str] = if self.invoke == Invoke::Each { &["name"] } else { &[] };
            return self.fault_in_parameter(name, known);
        };
        Some(Problem::Placeholder { name: name.to_owned(), why: why.to_owned(), suggestion: None })
    }

    /// A placeholder that can only be a parameter: every type that uses the unit must declare it.
    fn fault_in_parameter(&self, name: &str, placeholders: &[&str]) -> Option<Problem> {
        let without: Vec<&str> = self
            .users
            .iter()
            .filter(|user| !user.parameters.contains_key(name))
            .map(|user| user.name.as_str())
            .collect();
        let problem = |why: String, suggestion: Option<&str>| {
            Some(Problem::Placeholder { name: name.to_owned(), why, suggestion: suggestion.map(str::to_owned) })
        };
        if self.users.is_empty() {
            let near = suggestion::nearest(name, placeholders.iter().copied());
            return problem("is no placeholder, and no request type uses this unit".to_owned(), near);
        }
        if without.is_empty() {
            return None;
        }
        if without.len() < self.users.len() {
            let types = without.join("`, `");
            return problem(format!("is no parameter of `{types}`, which uses this unit too"), None);
        }
        let parameters = self.users.iter().flat_map(|user| user.parameters.keys()).map(String::as_str);
        let near = suggestion::nearest(name, placeholders.iter().copied().chain(parameters));
        problem("is neither a placeholder nor a parameter of the types that use this unit".to_owned(), near)
    }
}
