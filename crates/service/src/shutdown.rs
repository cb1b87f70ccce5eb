//! Stopping: the first SIGTERM or SIGINT drains, the second hurries, the third ends the process.
//!
//! *Drain*: take nothing new, finish what runs. *Hurry*: give up what runs, leave what is durable, go. Who wants it
//! gone at once says it a third time, or sends SIGKILL: every program here survives both by design.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The exit status of a program that was told three times to stop, and gave up what it was doing.
pub const GAVE_UP: u8 = 4;

/// The tokens of one program. Cheap to clone; clones share them. Each implies those before it.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    drain: CancellationToken,
    hurry: CancellationToken,
    give_up: CancellationToken,
}

impl Shutdown {
    /// Stopped by [`Self::request_drain`] and [`Self::request_hurry`] only.
    pub fn new() -> Self {
        Self::default()
    }

    /// Stopped by SIGTERM and SIGINT too. From here on these signals do not end the process by themselves. Needs a
    /// runtime.
    pub fn on_signals() -> io::Result<Self> {
        let shutdown = Self::new();
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        tokio::spawn(shutdown.clone().listen(terminate, interrupt));
        Ok(shutdown)
    }

    async fn listen(self, mut terminate: Signal, mut interrupt: Signal) {
        while !self.give_up.is_cancelled() {
            let name = tokio::select! {
                Some(()) = terminate.recv() => "SIGTERM",
                Some(()) = interrupt.recv() => "SIGINT",
                else => return,
            };
            if self.hurry.is_cancelled() {
                tracing::warn!(signal = name, "giving up");
                self.request_hurry();
                self.give_up.cancel();
            } else if self.drain.is_cancelled() {
                tracing::warn!(signal = name, "stopping without grace; once more gives up");
                self.request_hurry();
            } else {
                tracing::info!(signal = name, "draining; once more leaves no grace");
                self.request_drain();
            }
        }
    }

    /// Asks to take nothing new and finish what runs.
    pub fn request_drain(&self) {
        self.drain.cancel();
    }

    /// Asks to give up what runs.
    pub fn request_hurry(&self) {
        self.drain.cancel();
        self.hurry.cancel();
    }

    /// Cancelled from draining on.
    pub fn drain_token(&self) -> CancellationToken {
        self.drain.clone()
    }

    /// Cancelled from hurrying on.
    pub fn hurry_token(&self) -> CancellationToken {
        self.hurry.clone()
    }

    /// Waits for draining.
    pub async fn draining(&self) {
        self.drain.cancelled().await;
    }

    /// Waits for hurrying.
    pub async fn hurrying(&self) {
        self.hurry.cancelled().await;
    }

    /// Waits until it was told for the third time: the program ends, whatever it is doing, with [`GAVE_UP`].
    pub async fn giving_up(&self) {
        self.give_up.cancelled().await;
    }

    /// True from draining on.
    pub fn is_draining(&self) -> bool {
        self.drain.is_cancelled()
    }

    /// True from hurrying on.
    pub fn is_hurrying(&self) -> bool {
        self.hurry.is_cancelled()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::process::{Signal, getpid, kill_process};

    use super::*;

    #[tokio::test]
    async fn the_first_signal_drains_the_second_hurries_and_the_third_gives_up() {
        let shutdown = Shutdown::on_signals().unwrap();
        let deadline = Duration::from_secs(10);
        assert!(!shutdown.is_draining());
        kill_process(getpid(), Signal::TERM).unwrap();
        tokio::time::timeout(deadline, shutdown.draining()).await.expect("SIGTERM drains");
        assert!(!shutdown.is_hurrying());
        kill_process(getpid(), Signal::INT).unwrap();
        tokio::time::timeout(deadline, shutdown.hurrying()).await.expect("SIGINT hurries");
        assert!(!shutdown.give_up.is_cancelled());
        kill_process(getpid(), Signal::TERM).unwrap();
        tokio::time::timeout(deadline, shutdown.giving_up()).await.expect("the third ends it");
    }

    #[test]
    fn hurrying_implies_draining() {
        let shutdown = Shutdown::new();
        let clone = shutdown.clone();
        shutdown.request_hurry();
        assert!(clone.is_draining() && clone.is_hurrying());
    }
}
