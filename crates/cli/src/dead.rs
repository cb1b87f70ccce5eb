//! `dead`: shards that failed for good are listed, shown, replayed and purged.

use std::time::Duration;

use clap::{Args, Subcommand};
use comfy_table::Cell;
use forecastle_protos::ids::ShardId;
use forecastle_protos::v1;

use crate::api::{Api, PAGE};
use crate::explanation;
use crate::failure::{Failure, sentence};
use crate::inputs::duration;
use crate::output::{Output, count, plain, printable};
use crate::quantities::{now_ms, span};

const EXAMPLES: &str = "\
Examples:
  forecastle dead list --reason out-of-memory
  forecastle dead show 01980000-0000-7000-8000-000000000000.0.3
  forecastle dead replay 01980000-0000-7000-8000-000000000000.0.3
  forecastle dead replay --all --type archive      after what broke them was mended
  forecastle dead purge --all --older-than 7d

A dead shard has used up a budget of its unit's `retry`, and its request has failed with it. It stays until it is \
replayed or purged, or its request is forgotten.";

/// List, show, replay or purge shards that failed for good
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Dead {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List them, the latest first
    List {
        #[command(flatten)]
        filter: Filter,
        /// The most shards
        #[arg(long, value_name = "NUMBER", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
        /// Every one
        #[arg(long, conflicts_with = "limit")]
        all: bool,
    },
    /// Show one with its runs, the ends of their logs, and what was decided of it
    Show {
        /// The shard, as `<request>.<stage>.<index>`
        #[arg(value_name = "SHARD")]
        shard: ShardId,
    },
    /// Give them another attempt, with fresh budgets; their requests run again, what had succeeded stays
    Replay(Chosen),
    /// Forget them; their requests stay as they ended
    Purge(Chosen),
}

/// Which of the dead.
#[derive(Debug, Args)]
struct Filter {
    /// Only of this request type
    #[arg(long = "type", value_name = "NAME")]
    request_type: Option<String>,
    /// Only with this code: task-failed, out-of-memory, timed-out, poison, attempts-exhausted, infeasible
    #[arg(long, value_name = "CODE")]
    reason: Option<String>,
    /// Only dead for longer than this: 90s, 10m, 1h30m, 2d
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    older_than: Option<Duration>,
}

/// Named ones, or all that a filter finds.
#[derive(Debug, Args)]
struct Chosen {
    /// The shards, each as `<request>.<stage>.<index>`
    #[arg(value_name = "SHARD", required_unless_present = "all",
          conflicts_with_all = ["all", "request_type", "reason", "older_than"])]
    shards: Vec<ShardId>,
    /// All of them, or with --type, --reason and --older-than those that match
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    filter: Filter,
}

impl Dead {
    /// Runs the command.
    pub(crate) async fn run(self, api: &Api, output: Output) -> Result<(), Failure> {
        match self.command {
            Command::List { filter, limit, all } => {
                list(api, output, &filter, if all { usize::MAX } else { limit as usize }).await
            }
            Command::Show { shard } => show(api, output, shard).await,
            Command::Replay(chosen) => replay(api, output, chosen).await,
            Command::Purge(chosen) => purge(api, output, chosen).await,
        }
    }
}

impl Filter {
    /// Asks for as many pages as it takes.
    async fn find(&self, api: &Api, wanted: usize) -> Result<v1::DeadList, Failure> {
        let died_before = self.older_than.map(|age| {
            let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
            now_ms().saturating_sub(age).to_string()
        });
        let filter = [
            ("requestType", self.request_type.as_deref().unwrap_or_default()),
            ("reason", self.reason.as_deref().unwrap_or_default()),
            ("diedBeforeUnixMs", died_before.as_deref().unwrap_or_default()),
        ];
        let mut list = v1::DeadList::default();
        loop {
            let most = (wanted - list.dead.len()).min(PAGE);
            let page = api.dead(&filter, most, &list.next_cursor).await?;
            let ends = page.dead.is_empty() || page.next_cursor.is_empty();
            list.dead.extend(page.dead);
            list.next_cursor = page.next_cursor;
            if ends || list.dead.len() >= wanted {
                return Ok(list);
            }
        }
    }
}

impl Chosen {
    /// What is named, or what is found now. What dies later is not among it.
    async fn shards(self, api: &Api) -> Result<Vec<ShardId>, Failure> {
        if !self.all {
            return Ok(self.shards);
        }
        let found = self.filter.find(api, usize::MAX).await?;
        let ids = found.dead.iter().map(|dead| dead.shard_id.parse());
        ids.collect::<Result<_, _>>().map_err(|error| Failure::Misunderstood(format!("{error}")))
    }
}

async fn list(api: &Api, output: Output, filter: &Filter, wanted: usize) -> Result<(), Failure> {
    let list = filter.find(api, wanted).await?;
    if output.json {
        return output.document(&list);
    }
    if list.dead.is_empty() {
        output.note("no dead shards");
        return Ok(());
    }
    let now = now_ms();
    let rows = list.dead.iter().map(|dead| row(dead, now)).collect();
    output.table(&["SHARD", "TYPE", "UNIT", "REASON", "ATTEMPTS", "DEAD FOR", "WHY"], rows)?;
    if !list.next_cursor.is_empty() {
        output.note("there are more: --limit or --all shows them");
    }
    Ok(())
}

/// How much of a reason a row shows, in characters. `dead show` has the whole.
const BRIEF: usize = 80;

fn row(dead: &v1::DeadShard, now: u64) -> Vec<Cell> {
    let reason = dead.reason.clone().unwrap_or_default();
    // The row says which shard it is.
    let message = reason.message.split_once("): ").map_or(&*reason.message, |(_, why)| why);
    let mut why: String = message.split_whitespace().collect::<Vec<_>>().join(" ");
    if why.chars().count() > BRIEF {
        why = why.chars().take(BRIEF - 1).chain(['…']).collect();
    }
    vec![
        plain(&dead.shard_id),
        plain(&dead.request_type),
        plain(&dead.unit),
        plain(&reason.code),
        plain(dead.attempts.to_string()),
        plain(span(now.saturating_sub(dead.died_unix_ms))),
        plain(why),
    ]
}

async fn show(api: &Api, output: Output, shard: ShardId) -> Result<(), Failure> {
    let dead = api.dead_shard(shard).await?;
    if output.json {
        return output.document(&dead);
    }
    // Only for the workers' names.
    let fleet = api.fleet().await.unwrap_or_default();
    output.text(&printable(&description(&dead, &fleet, now_ms())))
}

/// A dead shard in sentences.
fn description(dead: &v1::DeadShard, fleet: &v1::FleetStatus, now: u64) -> String {
    let mut lines = vec![
        format!(
            "Shard {}: unit {} of stage {}, for a request {}.",
            dead.shard_id, dead.unit, dead.stage, dead.request_type
        ),
        format!(
            "It has been dead for {}, after {}: {}.",
            span(now.saturating_sub(dead.died_unix_ms)),
            count(dead.attempts.into(), "attempt"),
            sentence(&dead.reason.clone().unwrap_or_default())
        ),
    ];
    let failures = dead.failures.unwrap_or_default();
    let counted: Vec<_> = [
        ("task errors", failures.errors),
        ("kills for memory", failures.out_of_memory),
        ("timeouts", failures.timeouts),
        ("lost workers", failures.lost),
        ("given back", failures.returned),
        ("stopped for others", failures.uncounted),
    ]
    .into_iter()
    .filter(|(_, number)| *number > 0)
    .map(|(what, number)| format!("{what} {number}"))
    .collect();
    if !counted.is_empty() {
        lines.push(format!("Counted since it was made or last replayed: {}.", counted.join(", ")));
    }
    for event in &dead.runs {
        if let Some(v1::run_event::Kind::Completed(completed)) = &event.kind {
            lines.push(explanation::run(event, completed, fleet));
            lines.extend(completed.log_tail.lines().map(|line| format!("    | {line}")));
            if !completed.output_uri.is_empty() {
                lines.push(format!("    what it left is in {}", completed.output_uri));
            }
        }
    }
    for decision in &dead.decisions {
        let ago = span(now.saturating_sub(decision.at_unix_ms));
        lines.push(format!("{ago} ago, attempt {}: {}, {}.", decision.attempt, decision.kind, decision.why));
    }
    lines.push("To try again: forecastle dead replay SHARD; to forget it: forecastle dead purge SHARD.".to_owned());
    lines.iter().fold(String::new(), |text, line| text + line + "\n")
}

async fn replay(api: &Api, output: Output, chosen: Chosen) -> Result<(), Failure> {
    let shards = chosen.shards(api).await?;
    let mut ordered = Vec::new();
    let refused = each(output, shards, async |shard| {
        let replayed = api.replay(shard).await?;
        if !output.json {
            output.line(&format!(
                "shard {shard}: attempt {} is ordered, and request {} runs again",
                replayed.attempt, replayed.request_id
            ))?;
        }
        ordered.push(replayed);
        Ok(())
    })
    .await?;
    finish(output, &ordered, ordered.len(), "replayed", refused)
}

async fn purge(api: &Api, output: Output, chosen: Chosen) -> Result<(), Failure> {
    let shards = chosen.shards(api).await?;
    let mut forgotten = Vec::new();
    let refused = each(output, shards, async |shard| {
        let purged = api.purge(shard).await?;
        if !output.json {
            output.line(&format!("shard {shard} is forgotten"))?;
        }
        forgotten.push(purged);
        Ok(())
    })
    .await?;
    finish(output, &forgotten, forgotten.len(), "purged", refused)
}

/// Does it for each. What the frontend refuses hides none of the others; the last one is told at the end.
async fn each(
    output: Output,
    shards: Vec<ShardId>,
    mut work: impl AsyncFnMut(ShardId) -> Result<(), Failure>,
) -> Result<Option<Failure>, Failure> {
    let mut refused: Option<Failure> = None;
    for shard in shards {
        match work(shard).await {
            Err(failure @ Failure::Rejected(_)) => {
                if let Some(earlier) = refused.replace(failure) {
                    output.note(&format!("error: {earlier}"));
                }
            }
            done => done?,
        }
    }
    Ok(refused)
}

fn finish(
    output: Output,
    done: &impl serde::Serialize,
    number: usize,
    verb: &str,
    refused: Option<Failure>,
) -> Result<(), Failure> {
    if output.json {
        output.document(done)?;
    } else if number == 0 && refused.is_none() {
        output.note(&format!("no dead shards; nothing is {verb}"));
    }
    refused.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dead() -> v1::DeadShard {
        v1::DeadShard {
            shard_id: "01980000-0000-7000-8000-000000000000.0.3".to_owned(),
            unit: "index".to_owned(),
            reason: Some(v1::ErrorDetail {
                code: "out-of-memory".to_owned(),
                message: format!("shard 0198….0.3 (index): it was killed\nfor memory {}", "x".repeat(100)),
                ..Default::default()
            }),
            died_unix_ms: 1_000,
            attempts: 5,
            failures: Some(v1::FailureCounts { out_of_memory: 5, ..Default::default() }),
            ..Default::default()
        }
    }

    #[test]
    fn a_row_says_why_in_one_short_line() {
        let why = row(&dead(), 61_000).pop().unwrap().content();
        assert!(why.starts_with("it was killed for memory x") && why.ends_with('…'), "{why}");
        assert_eq!(why.chars().count(), BRIEF);
    }

    #[test]
    fn a_description_counts_what_counted_shows_logs_and_says_what_to_do() {
        let completed = v1::Completed { log_tail: "first\nlast\n".to_owned(), ..Default::default() };
        let run = v1::RunEvent { kind: Some(v1::run_event::Kind::Completed(completed)), ..Default::default() };
        let decided = v1::Decision { kind: "dead".to_owned(), why: "five times".to_owned(), ..Default::default() };
        let shown = v1::DeadShard { runs: vec![run], decisions: vec![decided], ..dead() };
        let text = description(&shown, &v1::FleetStatus::default(), 61_000);
        assert!(text.contains("dead for 1 min 0 s, after 5 attempts"), "{text}");
        assert!(text.contains("kills for memory 5.") && !text.contains("timeouts"), "{text}");
        assert!(text.contains("    | first\n    | last\n") && text.contains("dead, five times."), "{text}");
        assert!(text.ends_with("forecastle dead purge SHARD.\n"), "{text}");
    }
}
