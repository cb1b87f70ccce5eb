//! A command, once or once for each item, in one cage.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use forecastle_catalogue::{Command, Invoke, RenderError, Template};
use forecastle_protos::v1::Outcome;
use forecastle_task::Item;

use crate::adjustment::AllocationFile;
use crate::enforcement::cage;
use crate::enforcement::launcher::protocol::LaunchOrder;
use crate::runner::checkpoint_file;
use crate::runner::enclosure::{CagedEnd, Enclosure, Surroundings};
use crate::runner::environment::{Paths, environment};
use crate::runner::launch::{Conclusion, Farewell, Launcher, Streams};
use crate::runner::logs::open_pipe;
use crate::runner::output_store::StoreError;
use crate::runner::starting::{Kind, Waiting};
use crate::runner::stop_cause::StopCause;
use crate::runner::verdict::{Evidence, Verdict, judge};

/// What a command has: its folders, its items, and what is around it.
#[derive(Debug)]
pub(crate) struct CommandRun<'a> {
    pub(crate) around: Surroundings<'a>,
    pub(crate) command: &'a Command,
    pub(crate) items: &'a [Item],
    /// The file with the results of earlier stages.
    pub(crate) upstream: &'a Path,
    /// What an earlier attempt left.
    pub(crate) checkpoint: Option<&'a Path>,
    /// The file with what it may use.
    pub(crate) allocation: &'a AllocationFile,
    pub(crate) launcher: &'a Path,
}

impl CommandRun<'_> {
    /// Runs it to its end. Then none of its processes is left, nor its cage.
    pub(crate) async fn run(&self) -> CagedEnd {
        let (mut enclosure, waiting) = match self.around.set_up(Kind::Command).await {
            Ok(begun) => begun,
            Err(end) => return end,
        };
        let verdict = self.invocations(&mut enclosure, waiting).await;
        enclosure.take_down(verdict, String::new()).await
    }

    async fn invocations(&self, enclosure: &mut Enclosure, waiting: Waiting) -> Verdict {
        let mut ready = match waiting {
            Waiting::Launcher(launcher) => Some(launcher),
            Waiting::Task(_) => None,
        };
        let items: Vec<Option<&Item>> = match self.command.invoke {
            Invoke::Each => self.items.iter().map(Some).collect(),
            Invoke::Once => vec![None],
        };
        let mut last = Verdict::succeeded(0);
        for item in items {
            if let Some(cause) = enclosure.watch.now() {
                return Verdict::stopped(&cause);
            }
            last = self.invocation(item, enclosure, ready.take()).await;
            if !last.is_success() {
                break;
            }
        }
        last
    }

    /// One process, by way of the launcher that waits, if one does.
    async fn invocation(&self, item: Option<&Item>, enclosure: &mut Enclosure, ready: Option<Launcher>) -> Verdict {
        let (order, stdout) = match self.prepare(item) {
            Ok(prepared) => prepared,
            Err(failure) => return failure.verdict(),
        };
        let stdout = match self.open_stdout(stdout).await {
            Ok(stdout) => stdout,
            Err(failure) => return failure.verdict(),
        };
        let conclusion = match self.invoke(&order, stdout, enclosure, ready).await {
            Ok(conclusion) => conclusion,
            Err(error) => {
                let report = Err(format!("{} cannot be started: {error}", self.launcher.display()));
                Conclusion { report, cause: None }
            }
        };
        enclosure.note(&conclusion.report);
        let out_of_memory = cage::is_out_of_memory(&enclosure.cage).await;
        judge(&Evidence {
            command: self.command,
            program: order.argv.first().map_or("", String::as_str),
            item: item.map(|item| item.name.as_str()),
            report: conclusion.report.as_ref().map_err(String::as_str),
            out_of_memory,
            cause: conclusion.cause.as_ref(),
            log_tail: &enclosure.logs.tail(),
        })
    }

    async fn invoke(
        &self,
        order: &LaunchOrder,
        stdout: Option<File>,
        enclosure: &mut Enclosure,
        ready: Option<Launcher>,
    ) -> io::Result<Conclusion> {
        let launcher = match ready {
            Some(launcher) => launcher,
            None => Launcher::start(self.launcher, enclosure.cage.joining())?,
        };
        let (stderr, err) = open_pipe()?;
        let (said, out) = match stdout {
            Some(result) => (None, OwnedFd::from(result)),
            None => open_pipe().map(|(said, out)| (Some(said), out))?,
        };
        let stdin = File::open("/dev/null")?.into();
        let launched = launcher.launch(order, Streams { stdin, stdout: out, stderr: err }).await?;
        let following = enclosure.logs.follow(said, stderr);
        let conclusion = launched.conclude(&enclosure.cage, &enclosure.watch, |cause| self.farewell(cause)).await;
        following.finish(&mut enclosure.logs).await;
        Ok(conclusion)
    }

    /// One that is to be run again is told to end and may leave a checkpoint.
    fn farewell(&self, cause: &StopCause) -> Farewell {
        let time = self.around.options.checkpoint_within.0;
        if self.keeps_checkpoints() && cause.continues() && time > Duration::ZERO {
            Farewell::Signal(time)
        } else {
            Farewell::Nothing
        }
    }

    fn prepare(&self, item: Option<&Item>) -> Result<(LaunchOrder, Option<String>), Failure> {
        let text = |path: &Path| path.to_str().map(str::to_owned).ok_or_else(|| Failure::Path(path.to_owned()));
        let mut values: BTreeMap<&str, String> =
            self.around.spec.parameters.iter().map(|(name, value)| (name.as_str(), value.to_string())).collect();
        values.insert("output", text(self.around.folder.output())?);
        values.insert("scratch", text(self.around.scratch.work())?);
        values.insert("upstream", text(self.upstream)?);
        if let Some(item) = item {
            values.insert("input", text(&item.path)?);
            values.insert("name", item.name.clone());
        }
        let stdout = self.command.stdout.as_ref().map(|stdout| stdout.render(&|name| values.get(name).cloned()));
        let stdout = stdout.transpose()?;
        // The same path, but never an option.
        if let Some(name) = values.get_mut("name").filter(|name| name.starts_with('-')) {
            name.insert_str(0, "./");
        }
        let inputs = self.items.iter().map(|item| text(&item.path)).collect::<Result<Vec<_>, _>>()?;
        let argv = self.command.arguments(&inputs, &|name| values.get(name).cloned())?;
        let mut environment = self.environment();
        if self.keeps_checkpoints() {
            environment
                .insert("FORECASTLE_CHECKPOINT_OUT".to_owned(), text(&checkpoint_file::part(self.around.folder))?);
            if let Some(left) = self.checkpoint {
                environment.insert("FORECASTLE_CHECKPOINT_FILE".to_owned(), text(left)?);
            }
        }
        let order = LaunchOrder { argv, environment, directory: self.around.scratch.work().to_owned() };
        if let Some(item) = item.filter(|item| item.name.contains('/')) {
            self.make_parents(item)?;
        }
        Ok((order, stdout))
    }

    /// One process for the whole shard: a checkpoint of one among several items would say nothing of the others.
    fn keeps_checkpoints(&self) -> bool {
        self.command.invoke == Invoke::Once
    }

    fn environment(&self) -> BTreeMap<String, String> {
        let paths = Paths {
            output: self.around.folder.output(),
            scratch: self.around.scratch.work(),
            allocation: self.allocation.path(),
        };
        environment(self.around.spec, self.command, &paths)
    }

    /// Makes the folders for `{output}/{name}` and `{scratch}/{name}`, where an argument holds these.
    fn make_parents(&self, item: &Item) -> Result<(), Failure> {
        let holds = |template: &Template, name| template.placeholders().any(|found| found == name);
        let both = |other| self.command.argv.iter().any(|argument| holds(argument, other) && holds(argument, "name"));
        if both("output") {
            self.around.folder.make_parents(&item.name)?;
        }
        if both("scratch") {
            let path = self.around.scratch.work().join(&item.name);
            let parent = path.parent().unwrap_or(self.around.scratch.work());
            std::fs::create_dir_all(parent).map_err(|source| StoreError::Io {
                action: "create",
                path: parent.to_owned(),
                source,
            })?;
        }
        Ok(())
    }

    /// The file for a standard output that is a result.
    async fn open_stdout(&self, name: Option<String>) -> Result<Option<File>, Failure> {
        let Some(name) = name else { return Ok(None) };
        let folder = self.around.folder.clone();
        match tokio::task::spawn_blocking(move || folder.create_file(&name)).await {
            Ok(file) => Ok(Some(file?)),
            Err(error) => Err(Failure::Worker(error.to_string())),
        }
    }
}

/// Why a process was not even tried.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the command cannot be put together: {0}")]
    Render(#[from] RenderError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the path {} is not UTF-8", .0.display())]
    Path(PathBuf),
    #[error("the worker failed: {0}")]
    Worker(String),
}

impl Failure {
    fn verdict(&self) -> Verdict {
        let passing = match self {
            Self::Render(_) | Self::Path(_) => false,
            Self::Store(error) => error.is_retryable(),
            Self::Worker(_) => true,
        };
        Verdict::failed(if passing { Outcome::TaskError } else { Outcome::PermanentError }, self.to_string())
    }
}
