//! How far a request is, while it runs: a bar for each stage on a terminal, now and then a line elsewhere.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use forecastle_protos::v1::{self, RequestState};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::failure::{has_ended, state_name};
use crate::output::{Output, count, printable};

/// The shortest time between two lines that only tell of more shards.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Shows progress on standard error.
pub(crate) enum Progress {
    Bars(Bars),
    Lines {
        output: Output,
        told: Option<(Instant, RequestState, usize)>,
    },
    /// Nothing: the answer itself tells.
    Silent,
}

impl Progress {
    /// What suits standard error.
    pub(crate) fn new(output: Output) -> Self {
        if output.json {
            Self::Silent
        } else if output.bars {
            Self::Bars(Bars::new())
        } else {
            Self::Lines { output, told: None }
        }
    }

    /// Shows a status.
    pub(crate) fn show(&mut self, status: &v1::RequestStatus) {
        match self {
            Self::Bars(bars) => bars.show(status),
            Self::Lines { output, told } => {
                let (state, stages) = (status.state(), status.stages.len());
                let is_news =
                    told.is_none_or(|(at, was, had)| (state, stages) != (was, had) || at.elapsed() >= LINE_EVERY);
                // The summary tells of the end.
                if is_news && !has_ended(state) {
                    *told = Some((Instant::now(), state, stages));
                    output.note(&line(status));
                }
            }
            Self::Silent => {}
        }
    }

    /// Leaves the screen as the last status was, or takes the bars away.
    pub(crate) fn end(&mut self) {
        if let Self::Bars(bars) = self {
            bars.end();
        }
    }
}

/// A bar for each stage.
pub(crate) struct Bars {
    all: MultiProgress,
    /// Until the request is planned.
    waiting: ProgressBar,
    stages: BTreeMap<String, ProgressBar>,
}

impl Bars {
    fn new() -> Self {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let waiting = all.add(ProgressBar::new_spinner().with_message("waits to be planned"));
        waiting.enable_steady_tick(Duration::from_millis(120));
        Self { all, waiting, stages: BTreeMap::new() }
    }

    fn show(&mut self, status: &v1::RequestStatus) {
        if !status.stages.is_empty() {
            self.waiting.finish_and_clear();
        }
        let width = status.stages.iter().map(|stage| stage.name.chars().count()).max().unwrap_or(0);
        for stage in &status.stages {
            let bar = self.stages.entry(stage.name.clone()).or_insert_with(|| {
                let bar = self.all.add(ProgressBar::new(0)).with_style(style());
                bar.with_prefix(printable(&format!("{:<width$}", stage.name)))
            });
            bar.set_length(stage.shards.into());
            bar.set_position(u64::from(stage.succeeded) + u64::from(stage.failed) + u64::from(stage.cancelled));
            bar.set_message(details(stage));
        }
    }

    fn end(&mut self) {
        self.waiting.finish_and_clear();
        for bar in self.stages.values() {
            bar.abandon();
        }
    }
}

fn style() -> ProgressStyle {
    // The template is a constant that a test parses; without it the bars would only be plainer.
    ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}

const TEMPLATE: &str = "{prefix} [{bar:30}] {pos}/{len} {msg}";

/// What of a stage a bar does not show: `3 in flight, 1 failed`.
fn details(stage: &v1::StageStatus) -> String {
    [(stage.in_flight, "in flight"), (stage.failed, "failed"), (stage.cancelled, "cancelled")]
        .into_iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, what)| format!("{number} {what}"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// A status in a line: `running: work 3/10 (2 in flight), manifest 0/1`.
pub(crate) fn line(status: &v1::RequestStatus) -> String {
    let stages: Vec<_> = status
        .stages
        .iter()
        .map(|stage| {
            let details = details(stage);
            let details = if details.is_empty() { details } else { format!(" ({details})") };
            format!("{} {}/{}{details}", stage.name, stage.succeeded, stage.shards)
        })
        .collect();
    let state = state_name(status.state());
    let retries = match status.oom_retries {
        0 => String::new(),
        number => format!("; {} after a kill for memory", retries(number)),
    };
    let stages = if stages.is_empty() { "waits to be planned".to_owned() } else { stages.join(", ") };
    printable(&format!("{state}: {stages}{retries}"))
}

/// `1 retry`, `2 retries`.
pub(crate) fn retries(number: u32) -> String {
    if number == 1 { "1 retry".to_owned() } else { format!("{number} retries") }
}

/// Shards of all stages, and those that have succeeded.
pub(crate) fn totals(status: &v1::RequestStatus) -> (u64, u64) {
    status.stages.iter().fold((0, 0), |(shards, succeeded), stage| {
        (shards + u64::from(stage.shards), succeeded + u64::from(stage.succeeded))
    })
}

/// `12 shards in 3 stages`.
pub(crate) fn extent(status: &v1::RequestStatus) -> String {
    format!("{} in {}", count(totals(status).0, "shard"), count(status.stages.len() as u64, "stage"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> v1::RequestStatus {
        let stage = |name: &str, shards, succeeded, in_flight| v1::StageStatus {
            name: name.to_owned(),
            shards,
            succeeded,
            in_flight,
            ..Default::default()
        };
        v1::RequestStatus {
            state: RequestState::Running.into(),
            stages: vec![stage("work", 10, 3, 2), stage("manifest", 1, 0, 0)],
            ..Default::default()
        }
    }

    #[test]
    fn a_line_tells_every_stage() {
        let mut status = status();
        assert_eq!(line(&status), "running: work 3/10 (2 in flight), manifest 0/1");
        status.oom_retries = 1;
        status.stages[0].failed = 1;
        assert_eq!(
            line(&status),
            "running: work 3/10 (2 in flight, 1 failed), manifest 0/1; 1 retry after a kill for memory"
        );
        assert_eq!(extent(&status), "11 shards in 2 stages");
        assert_eq!(line(&v1::RequestStatus::default()), "unknown: waits to be planned");
    }

    #[test]
    fn the_bars_take_any_status_and_their_template_is_valid() {
        assert!(ProgressStyle::with_template(TEMPLATE).is_ok());
        let mut bars = Bars::new();
        bars.show(&v1::RequestStatus::default());
        bars.show(&status());
        assert_eq!(bars.stages["work"].position(), 3);
        assert_eq!(bars.stages["work"].length(), Some(10));
        bars.end();
    }
}
