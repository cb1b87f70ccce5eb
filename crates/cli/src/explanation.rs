//! What is known of a shard, in sentences: what was predicted and by what, what is reserved, where it waits and why,
//! what each run used. Pure.

use std::fmt::Write as _;

use forecastle_protos::v1::{self, Outcome, run_event};

use crate::output::count;
use crate::quantities::{bytes, bytes_f64, cores, percent, quantile, span, span_f64, vector};

/// The sentences, one a line, each with its line break.
pub(crate) fn sentences(shard: &v1::ShardExplanation, fleet: &v1::FleetStatus) -> String {
    let mut lines = vec![what(shard), now(shard, fleet)];
    if let Some(forecast) = &shard.forecast {
        lines.push(predicted(forecast));
    }
    if let Some(reservation) = &shard.reservation {
        lines.push(reserved(shard, reservation));
    }
    lines.extend(ladder(shard));
    let runs: Vec<_> = shard
        .runs
        .iter()
        .filter_map(|event| match &event.kind {
            Some(run_event::Kind::Completed(completed)) => Some(run(event, completed, fleet)),
            _ => None,
        })
        .collect();
    if runs.is_empty() {
        lines.push("No run of it has ended yet.".to_owned());
    }
    lines.extend(runs);
    lines.iter().fold(String::new(), |text, line| text + line + "\n")
}

fn what(shard: &v1::ShardExplanation) -> String {
    let reads = match shard.input_items {
        0 => "reads no items".to_owned(),
        items => format!("reads {} ({})", count(items.into(), "item"), bytes(shard.input_bytes)),
    };
    format!("Shard {}: unit {} of stage {}; it {reads}.", shard.shard_id, shard.unit, shard.stage)
}

fn now(shard: &v1::ShardExplanation, fleet: &v1::FleetStatus) -> String {
    let verb = if ["succeeded", "failed"].contains(&&*shard.state) { "has" } else { "is" };
    // What the frontend tells by itself is not said twice.
    let told = |part: &str| !part.is_empty() && shard.why.contains(part);
    let mut text = format!("It {verb} {}", shard.state);
    if !told(&format!("attempt {}", shard.attempt)) {
        let _ = write!(text, " (attempt {})", shard.attempt);
    }
    // Writing to a string cannot fail.
    if !shard.why.is_empty() {
        let _ = write!(text, ": {}", shard.why);
    }
    text.push('.');
    if told(&shard.worker_id) {
        let _ = write!(text, " Its run is {}.", shard.run_id);
    } else if !shard.worker_id.is_empty() {
        let _ = write!(text, " Worker {} runs it, as run {}.", worker(&shard.worker_id, fleet), shard.run_id);
    } else if !shard.queue.is_empty() && !told(&shard.queue) {
        let _ = write!(text, " Its queue is {}.", shard.queue);
    }
    text
}

fn worker<'a>(id: &'a str, fleet: &'a v1::FleetStatus) -> &'a str {
    let report = fleet.workers.iter().filter_map(|worker| worker.report.as_ref()).find(|report| report.worker_id == id);
    report.map(|report| &*report.worker_name).filter(|name| !name.is_empty()).unwrap_or(id)
}

fn predicted(forecast: &v1::Forecast) -> String {
    let by = match &*forecast.source {
        "declared" => "What the catalogue declares for this unit".to_owned(),
        "profile" => "What was learnt from earlier runs of this unit".to_owned(),
        "model" => "The trained model".to_owned(),
        "default" => "The default, since nothing is declared or known of this unit,".to_owned(),
        "" => "A forecaster that is not named".to_owned(),
        other => format!("The forecaster `{other}`"),
    };
    let version = match &*forecast.model_version {
        "" => String::new(),
        version => format!(" (version {version})"),
    };
    let mut need: Vec<_> = forecast.need.iter().collect();
    need.sort_by(|a, b| a.probability.total_cmp(&b.probability));
    if need.is_empty() {
        return format!("{by}{version} gave no quantiles.");
    }
    let list = |what: fn(&v1::NeedQuantile) -> String| {
        let values: Vec<_> = need.iter().map(|need| (what(need), quantile(need.probability))).collect();
        let same = values.windows(2).all(|pair| pair[0].0 == pair[1].0);
        match values.first() {
            Some((value, _)) if same => value.clone(),
            _ => values.iter().map(|(value, name)| format!("{value} at {name}")).collect::<Vec<_>>().join(", "),
        }
    };
    let mut text = format!(
        "{by}{version} predicts memory: {}; CPU: {}; duration: {}",
        list(|need| bytes_f64(need.memory_bytes)),
        list(|need| cores(need.cpu_millis)),
        list(|need| span_f64(need.duration_ms)),
    );
    if need.iter().any(|need| need.io_bytes_per_second > 0.0) {
        let _ = write!(text, "; I/O: {}", list(|need| format!("{}/s", bytes_f64(need.io_bytes_per_second))));
    }
    text + "."
}

fn reserved(shard: &v1::ShardExplanation, reservation: &v1::Reservation) -> String {
    let held = reservation.vector.as_ref().map(vector).unwrap_or_default();
    let mut text = format!("Reserved for this attempt: {held}, for an expected {}", span(reservation.duration_ms));
    if !shard.size_class.is_empty() {
        let _ = write!(text, "; size class {}", shard.size_class);
    }
    match &shard.forecast {
        // What was declared is one number, whatever the quantile.
        Some(forecast) if forecast.source != "declared" && forecast.quantile > 0.0 && forecast.quantile < 1.0 => {
            let _ = write!(text, "; the memory is the {} of what is predicted", quantile(forecast.quantile));
        }
        _ => {}
    }
    text + "."
}

/// What follows a kill for memory.
fn ladder(shard: &v1::ShardExplanation) -> Option<String> {
    let steps = &shard.forecast.as_ref()?.memory_ladder_bytes;
    let held = shard.reservation.as_ref()?.vector.as_ref()?.memory_bytes;
    let next: Vec<_> = steps.iter().filter(|step| **step > held).map(|step| bytes(*step)).collect();
    (!next.is_empty()).then(|| format!("If it is killed for memory, the next attempts get {}.", next.join(", then ")))
}

/// What one run used, and how it ended.
pub(crate) fn run(event: &v1::RunEvent, completed: &v1::Completed, fleet: &v1::FleetStatus) -> String {
    let mut text = format!(
        "Attempt {} on worker {} (run {}) {}",
        event.attempt,
        worker(&event.worker_id, fleet),
        event.run_id,
        outcome(completed)
    );
    if !completed.error.is_empty() {
        let _ = write!(text, ": {}", completed.error);
    }
    text.push('.');
    match (&completed.usage, &completed.reservation) {
        (Some(usage), reservation) => {
            let held = reservation.as_ref().and_then(|reservation| reservation.vector.as_ref());
            let _ = write!(text, " {}", used(usage, held, completed.waited_ms));
        }
        (None, _) => text.push_str(" What it used was not measured."),
    }
    text += &adjusted(completed);
    text
}

/// How its lease changed while it ran.
fn adjusted(completed: &v1::Completed) -> String {
    let Some(start) = completed.adjustments.first().map(|change| change.at_unix_ms) else { return String::new() };
    let start = if completed.started_unix_ms == 0 { start } else { completed.started_unix_ms };
    let change = |change: &v1::Adjusted| {
        let after = span(change.at_unix_ms.saturating_sub(start));
        let to = match (change.from == change.to, &change.to) {
            (false, Some(to)) => format!(" to {}", vector(to)),
            _ => String::new(),
        };
        format!("{}{to} after {after} ({})", change.change, change.reason)
    };
    let changes: Vec<_> = completed.adjustments.iter().map(change).collect();
    let further = match completed.further_adjustments {
        0 => String::new(),
        further => format!(", and {further} more"),
    };
    format!(" Its lease changed: {}{further}.", changes.join(", "))
}

fn outcome(completed: &v1::Completed) -> String {
    match completed.outcome() {
        Outcome::Unspecified => "ended, nobody knows how".to_owned(),
        Outcome::Succeeded => "succeeded".to_owned(),
        Outcome::TaskError | Outcome::PermanentError if completed.signal != 0 => {
            format!("was ended by signal {}", completed.signal)
        }
        Outcome::TaskError => format!("failed with exit status {}", completed.exit_code),
        Outcome::PermanentError => format!("failed for good with exit status {}", completed.exit_code),
        Outcome::OutOfMemory => "was killed for memory".to_owned(),
        Outcome::Timeout => "took too long and was stopped".to_owned(),
        Outcome::WorkerLost => "was lost with its worker".to_owned(),
        Outcome::Preempted => "was stopped to make room for others".to_owned(),
        Outcome::Drained => "was stopped because its worker drained".to_owned(),
        Outcome::Cancelled => "was cancelled".to_owned(),
        Outcome::Unsupported => "was not run: its worker does not know the unit or could not read it".to_owned(),
    }
}

/// Used against reserved.
fn used(usage: &v1::Usage, held: Option<&v1::ResourceVector>, waited_ms: u64) -> String {
    let of = |used: f64, whole: f64, whole_text: String| match percent(used, whole) {
        Some(share) => format!(" of {whole_text} reserved ({share})"),
        None => String::new(),
    };
    // Milliseconds of CPU time by milliseconds on the clock, in thousandths.
    let cpu = usage.cpu_ms as f64 * 1000.0 / (usage.duration_ms.max(1)) as f64;
    let mut text = format!("It used memory: {}", bytes(usage.memory_bytes));
    if let Some(held) = held {
        text += &of(usage.memory_bytes as f64, held.memory_bytes as f64, bytes(held.memory_bytes));
    }
    let _ = write!(text, "; CPU: {}", cores(cpu));
    if let Some(held) = held {
        let whole = f64::from(held.cpu_millis);
        text += &of(cpu, whole, cores(whole));
    }
    let _ = write!(text, "; it ran {}, after {} of waiting", span(usage.duration_ms), span(waited_ms));
    if usage.io_read_bytes > 0 || usage.io_write_bytes > 0 {
        let _ = write!(text, "; it read {} and wrote {}", bytes(usage.io_read_bytes), bytes(usage.io_write_bytes));
    }
    if !usage.source.is_empty() {
        let _ = write!(text, " (measured by {})", usage.source);
    }
    text + "."
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn need(probability: f64, mib: f64) -> v1::NeedQuantile {
        v1::NeedQuantile {
            probability,
            cpu_millis: 900.0,
            memory_bytes: mib * MIB as f64,
            io_bytes_per_second: 0.0,
            duration_ms: 4_000.0,
        }
    }

    fn reservation(mib: u64) -> v1::Reservation {
        let vector = v1::ResourceVector { cpu_millis: 1000, memory_bytes: mib * MIB, ..Default::default() };
        v1::Reservation { vector: Some(vector), duration_ms: 4_000 }
    }

    fn killed() -> v1::RunEvent {
        let usage = v1::Usage {
            memory_bytes: 128 * MIB,
            cpu_ms: 1_500,
            duration_ms: 3_000,
            io_read_bytes: 2 * MIB,
            source: "cgroup-v2".to_owned(),
            ..Default::default()
        };
        let completed = v1::Completed {
            outcome: Outcome::OutOfMemory.into(),
            error: "killed at its limit".to_owned(),
            reservation: Some(reservation(128)),
            usage: Some(usage),
            waited_ms: 20,
            ..Default::default()
        };
        v1::RunEvent {
            run_id: "run-1".to_owned(),
            attempt: 1,
            worker_id: "w-1".to_owned(),
            kind: Some(run_event::Kind::Completed(completed)),
            ..Default::default()
        }
    }

    fn shard() -> v1::ShardExplanation {
        v1::ShardExplanation {
            shard_id: "r.0.3".to_owned(),
            stage: "work".to_owned(),
            unit: "compress".to_owned(),
            state: "released".to_owned(),
            attempt: 2,
            why: "attempt 2 was released and waits for a worker".to_owned(),
            queue: "forecastle.shards.default.standard.m".to_owned(),
            forecast: Some(v1::Forecast {
                source: "profile".to_owned(),
                model_version: "12".to_owned(),
                need: vec![need(0.95, 180.0), need(0.5, 96.0)],
                memory_ladder_bytes: vec![128 * MIB, 256 * MIB, 512 * MIB, 1024 * MIB],
                quantile: 0.95,
            }),
            reservation: Some(reservation(256)),
            size_class: "m".to_owned(),
            input_items: 3,
            input_bytes: 12 * MIB,
            runs: vec![killed()],
            ..Default::default()
        }
    }

    fn fleet() -> v1::FleetStatus {
        let report =
            v1::LoadReport { worker_id: "w-1".to_owned(), worker_name: "north".to_owned(), ..Default::default() };
        v1::FleetStatus { workers: vec![v1::WorkerStatus { report: Some(report), age_ms: 10 }], ..Default::default() }
    }

    #[test]
    fn a_shard_is_explained_from_prediction_to_use() {
        let text = sentences(&shard(), &fleet());
        let expected = "\
Shard r.0.3: unit compress of stage work; it reads 3 items (12 MiB).
It is released: attempt 2 was released and waits for a worker. Its queue is forecastle.shards.default.standard.m.
What was learnt from earlier runs of this unit (version 12) predicts memory: 96 MiB at p50, 180 MiB at p95; CPU: 0.9 cores; duration: 4.0 s.
Reserved for this attempt: 1 core, 256 MiB, for an expected 4.0 s; size class m; the memory is the p95 of what is predicted.
If it is killed for memory, the next attempts get 512 MiB, then 1 GiB.
Attempt 1 on worker north (run run-1) was killed for memory: killed at its limit. It used memory: 128 MiB of 128 MiB reserved (100 %); CPU: 0.5 cores of 1 core reserved (50 %); it ran 3.0 s, after 20 ms of waiting; it read 2 MiB and wrote 0 B (measured by cgroup-v2).
";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_running_shard_names_its_worker_and_an_unknown_one_by_its_id() {
        let mut running = shard();
        (running.worker_id, running.run_id) = ("w-1".to_owned(), "run-2".to_owned());
        assert!(sentences(&running, &fleet()).contains("Worker north runs it, as run run-2."));
        assert!(sentences(&running, &v1::FleetStatus::default()).contains("Worker w-1 runs it"));
    }

    #[test]
    fn what_the_frontend_tells_is_not_said_twice() {
        let mut waiting = shard();
        waiting.why = format!("attempt 2 was released to queue {} 2 s ago and waits for a worker", waiting.queue);
        assert_eq!(now(&waiting, &fleet()), format!("It is released: {}.", waiting.why));
        let mut running = shard();
        (running.worker_id, running.run_id) = ("w-1".to_owned(), "run-2".to_owned());
        running.why = "attempt 2 has been running on worker north (w-1) for 2 s".to_owned();
        assert_eq!(now(&running, &fleet()), format!("It is released: {}. Its run is run-2.", running.why));
        let backing_off = v1::ShardExplanation { why: "it backs off".to_owned(), queue: String::new(), ..shard() };
        assert_eq!(now(&backing_off, &fleet()), "It is released (attempt 2): it backs off.");
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let text = sentences(&v1::ShardExplanation::default(), &fleet());
        assert!(text.contains("No run of it has ended yet.") && !text.contains("Reserved"), "{text}");
        let empty = v1::ShardExplanation { forecast: Some(v1::Forecast::default()), ..shard() };
        assert!(sentences(&empty, &fleet()).contains("gave no quantiles"));
    }

    #[test]
    fn changes_of_the_lease_are_told_with_their_reasons() {
        let change = |at_unix_ms, change: &str, from, to, reason: &str| v1::Adjusted {
            at_unix_ms,
            change: change.to_owned(),
            from: reservation(from).vector,
            to: reservation(to).vector,
            reason: reason.to_owned(),
        };
        let completed = v1::Completed {
            started_unix_ms: 10_000,
            adjustments: vec![
                change(12_000, "grow", 64, 128, "memory-near-limit"),
                change(13_000, "throttle", 128, 128, "memory-short"),
            ],
            further_adjustments: 7,
            ..Default::default()
        };
        let expected = " Its lease changed: grow to 1 core, 128 MiB after 2.0 s (memory-near-limit), \
                        throttle after 3.0 s (memory-short), and 7 more.";
        assert_eq!(adjusted(&completed), expected);
    }

    #[test]
    fn every_outcome_has_words_of_its_own() {
        let all: Vec<_> =
            (0..=10).map(|number| outcome(&v1::Completed { outcome: number, ..Default::default() })).collect();
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len(), "{all:?}");
    }
}
