//! One process of ours.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};

use crate::host::Host;

/// A running program. Dropping it kills it.
#[derive(Debug)]
pub struct Program {
    child: Child,
    log: PathBuf,
}

/// Where the workspace's programs are: beside this one, or above it if this is a test.
pub fn path(name: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own.parent().context("a program lies in target/<profile>")?;
    let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    let path = folder.join(name);
    anyhow::ensure!(path.exists(), "{} is missing: run cargo build --workspace first", path.display());
    Ok(path)
}

impl Program {
    /// Starts a program on `host`, or on this machine; what it prints is appended to `log`.
    pub fn start(
        name: &str,
        host: Option<&Host>,
        log: &Path,
        configure: impl FnOnce(&mut Command),
    ) -> anyhow::Result<Self> {
        let output = File::options().create(true).append(true).open(log)?;
        let mut command = match host {
            Some(host) => host.command(&path(name)?),
            None => Command::new(path(name)?),
        };
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        configure(&mut command);
        let child = command.spawn().with_context(|| format!("starting {name}"))?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// Its status, once it has ended.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Kills it as if the power had failed.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Its id.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Asks it to drain and waits until it has.
    pub fn terminate(&mut self, within: Duration) -> anyhow::Result<ExitStatus> {
        kill_process(self.pid(), Signal::TERM)?;
        self.wait(within)
    }

    /// Asks it to read its configuration again.
    pub fn reload(&self) -> anyhow::Result<()> {
        Ok(kill_process(self.pid(), Signal::HUP)?)
    }

    /// Stops it where it is, until [`Self::resume`].
    pub fn pause(&self) -> anyhow::Result<()> {
        Ok(kill_process(self.pid(), Signal::STOP)?)
    }

    /// Lets it go on.
    pub fn resume(&self) -> anyhow::Result<()> {
        Ok(kill_process(self.pid(), Signal::CONT)?)
    }

    /// Waits until it has ended.
    pub fn wait(&mut self, within: Duration) -> anyhow::Result<ExitStatus> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            anyhow::ensure!(Instant::now() < deadline, "it has not ended within {within:?}:\n{}", self.last_words());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The end of what it printed.
    pub fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended; nothing else can be done about a process that cannot be killed.
        self.kill().ok();
    }
}
