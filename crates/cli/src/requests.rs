//! Requests: `list`, `status`, `watch` and `cancel`.

use std::fmt::Write as _;

use clap::Args;
use forecastle_protos::ids::RequestId;
use forecastle_protos::v1::{self, RequestState};

use crate::api::{Api, PAGE};
use crate::failure::{Failure, has_ended, sentence, state_name};
use crate::follow::follow;
use crate::output::{Output, Tone, plain, printable};
use crate::progress::{self, Progress};
use crate::quantities::{now_ms, span};

const LIST_EXAMPLES: &str = "\
Examples:
  forecastle list
  forecastle list --state running --all
  forecastle list --json --limit 1";

/// List requests, the newest first
#[derive(Debug, Args)]
#[command(after_help = LIST_EXAMPLES)]
pub(crate) struct List {
    /// Only requests in this state
    #[arg(long, value_name = "STATE", value_parser = ["admitted", "running", "succeeded", "failed", "cancelled"])]
    state: Option<String>,
    /// The most requests
    #[arg(long, value_name = "NUMBER", default_value_t = 20, value_parser = limit)]
    limit: usize,
    /// Every request
    #[arg(long, conflicts_with = "limit")]
    all: bool,
}

fn limit(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| "it must be a number from 1".to_owned())
}

impl List {
    /// Asks for as many pages as it takes.
    pub(crate) async fn run(self, api: &Api, output: Output) -> Result<(), Failure> {
        let wanted = if self.all { usize::MAX } else { self.limit };
        let mut list = v1::RequestList::default();
        loop {
            let most = (wanted - list.requests.len()).min(PAGE);
            let page = api.list(self.state.as_deref(), most, &list.next_cursor).await?;
            let ends = page.requests.is_empty() || page.next_cursor.is_empty();
            list.requests.extend(page.requests);
            list.next_cursor = page.next_cursor;
            if ends || list.requests.len() >= wanted {
                break;
            }
        }
        if output.json {
            return output.document(&list);
        }
        if list.requests.is_empty() {
            output.note("no requests");
            return Ok(());
        }
        let now = now_ms();
        let rows = list.requests.iter().map(|status| row(output, status, now)).collect();
        output.table(&["REQUEST", "TYPE", "STATE", "SHARDS", "AGE", "TOOK", "LABELS"], rows)?;
        if !list.next_cursor.is_empty() {
            output.note("there are more: --limit or --all shows them");
        }
        Ok(())
    }
}

fn row(output: Output, status: &v1::RequestStatus, now: u64) -> Vec<comfy_table::Cell> {
    let (shards, succeeded) = progress::totals(status);
    let labels: Vec<_> = status.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    vec![
        plain(&status.request_id),
        plain(&status.request_type),
        output.state(status.state()),
        plain(format!("{succeeded}/{shards}")),
        plain(span(now.saturating_sub(status.created_unix_ms))),
        plain(took(status).unwrap_or_default()),
        plain(labels.join(" ")),
    ]
}

/// From submission to the end.
fn took(status: &v1::RequestStatus) -> Option<String> {
    (status.finished_unix_ms > 0).then(|| span(status.finished_unix_ms.saturating_sub(status.created_unix_ms)))
}

/// `status`.
pub(crate) async fn status(api: &Api, output: Output, id: RequestId) -> Result<(), Failure> {
    let status = api.status(id).await?;
    show(output, &status)
}

/// `cancel`.
pub(crate) async fn cancel(api: &Api, output: Output, id: RequestId) -> Result<(), Failure> {
    let status = api.cancel(id).await?;
    if output.json {
        return output.document(&status);
    }
    match status.state() {
        RequestState::Cancelled => output.line(&format!("request {id} is cancelled")),
        state if has_ended(state) => output.line(&format!("request {id} had {} before", state_name(state))),
        state => output.line(&format!("request {id} is being cancelled; it is {} still", state_name(state))),
    }
}

/// `watch`.
pub(crate) async fn watch(api: &Api, output: Output, id: RequestId) -> Result<(), Failure> {
    let status = if output.json {
        interruptible(id, follow(&api.following(id), |status| output.document_line(status))).await?
    } else {
        let status = follow_showing(api, output, id).await?;
        output.line(&summary(output, &status))?;
        status
    };
    ended(&status)
}

/// Follows with progress on standard error.
pub(crate) async fn follow_showing(api: &Api, output: Output, id: RequestId) -> Result<v1::RequestStatus, Failure> {
    let mut progress = Progress::new(output);
    let end = interruptible(
        id,
        follow(&api.following(id), |status| {
            progress.show(status);
            Ok(())
        }),
    )
    .await;
    progress.end();
    end
}

/// Ctrl-C ends the watching, not the request.
async fn interruptible<T>(id: RequestId, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::select! {
        done = work => done,
        // An error means that there are no signals here; then nothing can interrupt either.
        Ok(()) = tokio::signal::ctrl_c() => Err(Failure::Interrupted(id)),
    }
}

/// The exit status of a request that has ended.
pub(crate) fn ended(status: &v1::RequestStatus) -> Result<(), Failure> {
    match status.state() {
        RequestState::Succeeded => Ok(()),
        state => Err(Failure::Ended { id: status.request_id.clone(), state }),
    }
}

/// How a request ended, in a sentence or two.
pub(crate) fn summary(output: Output, status: &v1::RequestStatus) -> String {
    let state = status.state();
    let mut text = output.paint(state_name(state), Tone::of(state));
    // Writing to a string cannot fail.
    if let Some(took) = took(status) {
        let _ = write!(text, " after {took}");
    }
    let (shards, succeeded) = progress::totals(status);
    let _ = if succeeded == shards {
        write!(text, ": {}", progress::extent(status))
    } else {
        write!(text, ": {succeeded} of {} succeeded", progress::extent(status))
    };
    if status.oom_retries > 0 {
        let _ = write!(text, ", {} after a kill for memory", progress::retries(status.oom_retries));
    }
    if let Some(error) = &status.error {
        let _ = write!(text, "\nwhy: {}", sentence(error));
    }
    text
}

fn show(output: Output, status: &v1::RequestStatus) -> Result<(), Failure> {
    if output.json {
        return output.document(status);
    }
    let now = now_ms();
    let state = status.state();
    output.line(&format!("request   {}", printable(&status.request_id)))?;
    output.line(&format!("type      {}, priority {}", printable(&status.request_type), printable(&status.priority)))?;
    output.line(&format!("tenant    {}", printable(&status.tenant)))?;
    output.line(&format!("state     {}", output.paint(state_name(state), Tone::of(state))))?;
    output.line(&format!("created   {} ago", span(now.saturating_sub(status.created_unix_ms))))?;
    if let Some(took) = took(status) {
        output.line(&format!("took      {took}"))?;
    }
    if let Some(text) = deadline(status, now) {
        output.line(&format!("deadline  {text}"))?;
    }
    if !status.labels.is_empty() {
        let labels: Vec<_> = status.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        output.line(&format!("labels    {}", printable(&labels.join(" "))))?;
    }
    if status.oom_retries > 0 {
        output.line(&format!("memory    {} after a kill for memory", progress::retries(status.oom_retries)))?;
    }
    if let Some(error) = &status.error {
        output.line(&format!("why       {}", sentence(error)))?;
    }
    if status.stages.is_empty() {
        return output.line("It waits to be planned.");
    }
    let header = ["STAGE", "SHARDS", "WAITING", "IN FLIGHT", "SUCCEEDED", "FAILED", "CANCELLED"];
    let rows = status.stages.iter().map(|stage| {
        let numbers = [stage.shards, stage.waiting, stage.in_flight, stage.succeeded, stage.failed, stage.cancelled];
        [plain(&stage.name)].into_iter().chain(numbers.map(|number| plain(number.to_string()))).collect()
    });
    output.line("")?;
    output.table(&header, rows.collect())
}

/// When the result stops being of use.
fn deadline(status: &v1::RequestStatus, now: u64) -> Option<String> {
    let deadline = status.deadline_unix_ms;
    // What counts is when it ended, once it has.
    let reached = if status.finished_unix_ms > 0 { status.finished_unix_ms } else { now };
    match (deadline, status.finished_unix_ms) {
        (0, _) => None,
        _ if reached > deadline => Some(format!("missed by {}", span(reached - deadline))),
        (_, 0) => Some(format!("in {}", span(deadline - reached))),
        _ => Some(format!("met, {} before", span(deadline - reached))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIPE: Output = Output { json: false, terminal: false, screen: false, bars: false, colour: false };

    fn failed() -> v1::RequestStatus {
        v1::RequestStatus {
            request_id: "r".to_owned(),
            state: RequestState::Failed.into(),
            created_unix_ms: 1_000,
            finished_unix_ms: 4_500,
            stages: vec![v1::StageStatus {
                name: "work".to_owned(),
                shards: 3,
                succeeded: 2,
                failed: 1,
                ..Default::default()
            }],
            error: Some(v1::ErrorDetail {
                code: "permanent-error".to_owned(),
                message: "shard r.0.1: no such file".to_owned(),
                field: String::new(),
            }),
            oom_retries: 2,
            ..Default::default()
        }
    }

    #[test]
    fn a_summary_says_how_long_how_much_and_why() {
        assert_eq!(
            summary(PIPE, &failed()),
            "failed after 3.5 s: 2 of 3 shards in 1 stage succeeded, 2 retries after a kill for memory\n\
             why: shard r.0.1: no such file (permanent-error)"
        );
        let mut good = failed();
        (good.state, good.error, good.oom_retries) = (RequestState::Succeeded.into(), None, 0);
        good.stages[0].succeeded = 3;
        assert_eq!(summary(PIPE, &good), "succeeded after 3.5 s: 3 shards in 1 stage");
    }

    #[test]
    fn only_success_is_exit_status_zero() {
        let mut status = failed();
        assert_eq!(ended(&status).unwrap_err().exit_status(), 1);
        status.state = RequestState::Cancelled.into();
        assert_eq!(ended(&status).unwrap_err().exit_status(), 1);
        status.state = RequestState::Succeeded.into();
        assert!(ended(&status).is_ok());
    }

    #[test]
    fn a_deadline_is_judged_by_the_end_once_there_is_one() {
        let mut status = v1::RequestStatus::default();
        assert_eq!(deadline(&status, 5_000), None);
        status.deadline_unix_ms = 10_000;
        assert_eq!(deadline(&status, 5_000).unwrap(), "in 5.0 s");
        assert_eq!(deadline(&status, 12_000).unwrap(), "missed by 2.0 s");
        status.finished_unix_ms = 9_000;
        assert_eq!(deadline(&status, 99_000).unwrap(), "met, 1.0 s before");
    }
}
