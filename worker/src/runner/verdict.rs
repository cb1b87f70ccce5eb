//! What the end of a command means.

use forecastle_catalogue::{Command, ExitMeaning};
use forecastle_protos::v1::Outcome;

use crate::enforcement::launcher::protocol::{Ended, LaunchFailure, LaunchReport, LaunchStep};
use crate::runner::stop_cause::StopCause;

/// The most characters of a command's last words that an error repeats.
const LAST_WORDS: usize = 200;

/// How a run ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// In a word.
    pub outcome: Outcome,
    /// For failures: what is wrong.
    pub error: String,
    /// The exit code, or -1.
    pub exit_code: i32,
    /// The signal, or 0.
    pub signal: i32,
}

impl Verdict {
    /// A failure before there was an exit code.
    pub fn failed(outcome: Outcome, error: impl Into<String>) -> Self {
        Self { outcome, error: error.into(), exit_code: -1, signal: 0 }
    }

    /// All went well.
    pub fn succeeded(exit_code: i32) -> Self {
        Self { outcome: Outcome::Succeeded, error: String::new(), exit_code, signal: 0 }
    }

    /// A run that was stopped.
    pub fn stopped(cause: &StopCause) -> Self {
        Self::failed(cause.outcome(), cause.explanation())
    }

    /// True if all went well.
    pub fn is_success(&self) -> bool {
        self.outcome == Outcome::Succeeded
    }
}

/// What is known about the end of one process of a run.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// The unit's command.
    pub command: &'a Command,
    /// The program.
    pub program: &'a str,
    /// What it worked on, if that was one item.
    pub item: Option<&'a str>,
    /// What the launcher said, or why it said nothing.
    pub report: Result<&'a LaunchReport, &'a str>,
    /// The kernel killed something in the cage for memory.
    pub out_of_memory: bool,
    /// Why it was killed, if it was the worker that killed it.
    pub cause: Option<&'a StopCause>,
    /// The end of standard error.
    pub log_tail: &'a str,
}

/// Judges the end of a process.
///
/// Out of memory comes before everything: a program that survives the loss of a part of it has not done its work. Then
/// success, even if it was to be stopped at that moment (but not after it was told to end); then the reason for stopping it; then what it says itself.
pub fn judge(evidence: &Evidence<'_>) -> Verdict {
    let ended = match evidence.report {
        Ok(LaunchReport::Ended(ended)) => Some(ended),
        _ => None,
    };
    let (exit_code, signal) = ended.map_or((-1, 0), |ended| (ended.exit_code.unwrap_or(-1), ended.signal.unwrap_or(0)));
    let verdict = |outcome, error: String| Verdict { outcome, error, exit_code, signal };
    if evidence.out_of_memory {
        return verdict(Outcome::OutOfMemory, format!("`{}` was killed for memory{}", evidence.program, on(evidence)));
    }
    let meaning = ended.and_then(|ended| ended.exit_code).map(|code| evidence.command.exit_meaning(code));
    // Many programs exit with 0 when they are told to end, whether they had finished or not.
    if meaning == Some(ExitMeaning::Succeeded) && ended.is_some_and(|ended| ended.immortal == 0 && !ended.told_to_end) {
        return Verdict::succeeded(exit_code);
    }
    if let Some(cause) = evidence.cause {
        return verdict(cause.outcome(), cause.explanation());
    }
    match evidence.report {
        Ok(LaunchReport::Failed(failure)) => not_started(evidence, failure),
        Ok(LaunchReport::Ended(ended)) => {
            let outcome = match meaning {
                Some(ExitMeaning::Permanent) => Outcome::PermanentError,
                // A signal says nothing of the input; whoever sent it may not send it again.
                Some(ExitMeaning::Retryable | ExitMeaning::Succeeded) | None => Outcome::TaskError,
            };
            let program = format!("`{}`", evidence.program);
            verdict(outcome, how_it_ended(&program, &on(evidence), ended, evidence.log_tail))
        }
        Err(why) => verdict(Outcome::TaskError, format!("the launcher of `{}` failed: {why}", evidence.program)),
    }
}

fn on(evidence: &Evidence<'_>) -> String {
    evidence.item.map(|item| format!(" on `{}`", item.escape_debug())).unwrap_or_default()
}

/// How `program` ended, in words, with its last ones.
pub(crate) fn how_it_ended(program: &str, on: &str, ended: &Ended, log_tail: &str) -> String {
    let how = match (ended.exit_code, ended.signal) {
        _ if ended.immortal > 0 => format!("{program} left processes that cannot be killed{on}"),
        (Some(code), _) => format!("{program} exited with {code}{on}"),
        (None, Some(signal)) => format!("{program} was ended by signal {signal}{}{on}", signal_name(signal)),
        (None, None) => format!("{program} ended{on}, nobody knows how"),
    };
    let last_words = log_tail.lines().rev().map(str::trim).find(|line| !line.is_empty());
    match last_words {
        Some(line) => {
            format!("{how}: {}", line.chars().filter(|c| !c.is_control()).take(LAST_WORDS).collect::<String>())
        }
        None => how,
    }
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        1 => " (SIGHUP)",
        2 => " (SIGINT)",
        4 => " (SIGILL)",
        6 => " (SIGABRT)",
        7 => " (SIGBUS)",
        8 => " (SIGFPE)",
        9 => " (SIGKILL)",
        11 => " (SIGSEGV)",
        13 => " (SIGPIPE)",
        15 => " (SIGTERM)",
        24 => " (SIGXCPU)",
        25 => " (SIGXFSZ)",
        _ => "",
    }
}

fn not_started(evidence: &Evidence<'_>, failure: &LaunchFailure) -> Verdict {
    use rustix::io::Errno;
    let program = evidence.program;
    let errno = Errno::from_raw_os_error(failure.errno);
    let (outcome, error) = match (failure.step, errno) {
        (LaunchStep::Execute, Errno::NOENT | Errno::NOTDIR) => {
            let name = program.rsplit('/').next().unwrap_or(program);
            let why = format!(
                "`{program}` is not installed on this worker (or the interpreter of that script is not): install the package that provides `{name}`, or correct the command in the catalogue"
            );
            (Outcome::PermanentError, why)
        }
        (LaunchStep::Execute, Errno::ACCESS) => {
            (Outcome::PermanentError, format!("`{program}` may not be executed on this worker: check its permissions"))
        }
        (LaunchStep::Execute, Errno::NOEXEC) => {
            (Outcome::PermanentError, format!("`{program}` is no program for this machine"))
        }
        (LaunchStep::Execute | LaunchStep::Prepare, Errno::TOOBIG) => {
            (Outcome::PermanentError, format!("`{program}` cannot take so many arguments: make the shards smaller"))
        }
        _ => (Outcome::TaskError, format!("`{program}` could not be started: {failure}")),
    };
    Verdict::failed(outcome, error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enforcement::launcher::protocol::ChildUsage;
    use crate::stop::StopReason;
    use forecastle_catalogue::Catalogue;
    use std::time::Duration;

    fn command(codes: &str) -> Command {
        let text = format!("version = 1\n[units.u]\ncommand = [\"/usr/bin/x\"]\ninvoke = \"once\"\n{codes}\n");
        let catalogue = Catalogue::parse(&text).unwrap_or_else(|errors| panic!("{errors}"));
        catalogue.unit("u").unwrap().command().unwrap().clone()
    }

    fn ended(exit_code: Option<i32>, signal: Option<i32>) -> LaunchReport {
        LaunchReport::Ended(Ended {
            exit_code,
            signal,
            usage: ChildUsage::default(),
            left_behind: 0,
            immortal: 0,
            told_to_end: false,
        })
    }

    fn evidence<'a>(command: &'a Command, report: &'a LaunchReport) -> Evidence<'a> {
        let report = Ok(report);
        Evidence {
            command,
            program: "/usr/bin/x",
            item: Some("a b"),
            report,
            out_of_memory: false,
            cause: None,
            log_tail: "",
        }
    }

    #[test]
    fn exit_codes_mean_what_the_catalogue_says() {
        let plain = command("");
        let listed = command("successful_exit_codes = [0, 2]\nretryable_exit_codes = [75]");
        for (command, code, outcome) in [
            (&plain, 0, Outcome::Succeeded),
            (&plain, 1, Outcome::TaskError),
            (&listed, 2, Outcome::Succeeded),
            (&listed, 75, Outcome::TaskError),
            (&listed, 1, Outcome::PermanentError),
        ] {
            let verdict = judge(&evidence(command, &ended(Some(code), None)));
            assert_eq!((verdict.outcome, verdict.exit_code, verdict.signal), (outcome, code, 0));
        }
        let verdict = judge(&evidence(&listed, &ended(None, Some(11))));
        assert_eq!((verdict.outcome, verdict.exit_code, verdict.signal), (Outcome::TaskError, -1, 11));
        assert!(verdict.error.contains("SIGSEGV") && verdict.error.contains("`a b`"), "{}", verdict.error);
    }

    #[test]
    fn a_kill_for_memory_counts_whatever_the_exit_status() {
        let command = command("");
        for report in [ended(Some(0), None), ended(Some(1), None), ended(None, Some(9))] {
            let cause = StopCause::TimedOut(Duration::from_secs(1));
            let evidence = Evidence { out_of_memory: true, cause: Some(&cause), ..evidence(&command, &report) };
            assert_eq!(judge(&evidence).outcome, Outcome::OutOfMemory);
        }
    }

    #[test]
    fn a_stopped_run_says_why_unless_it_had_succeeded() {
        let command = command("");
        let cause = StopCause::Asked(StopReason::Preempted);
        let judged = |report: LaunchReport| judge(&Evidence { cause: Some(&cause), ..evidence(&command, &report) });
        let verdict = judged(ended(None, Some(9)));
        assert_eq!((verdict.outcome, verdict.signal), (Outcome::Preempted, 9));
        assert_eq!(judged(ended(Some(0), None)).outcome, Outcome::Succeeded);
        assert_eq!(judged(ended(Some(1), None)).outcome, Outcome::Preempted);
    }

    #[test]
    fn a_command_that_cannot_start_says_what_to_do() {
        let command = command("");
        let failed = |step, errno| {
            let report = LaunchReport::Failed(LaunchFailure { step, errno, message: "no luck".to_owned() });
            judge(&evidence(&command, &report))
        };
        let missing = failed(LaunchStep::Execute, 2);
        assert_eq!(missing.outcome, Outcome::PermanentError);
        assert!(missing.error.contains("install the package that provides `x`"), "{}", missing.error);
        assert_eq!(failed(LaunchStep::Execute, 13).outcome, Outcome::PermanentError);
        assert_eq!(failed(LaunchStep::Prepare, 7).outcome, Outcome::PermanentError);
        let memory = failed(LaunchStep::Prepare, 12);
        assert_eq!(memory.outcome, Outcome::TaskError);
        assert!(memory.error.contains("no luck"), "{}", memory.error);
        assert_eq!(failed(LaunchStep::Join, 2).outcome, Outcome::TaskError);
    }

    #[test]
    fn the_last_words_of_a_command_are_repeated_without_control_characters() {
        let command = command("");
        let report = ended(Some(1), None);
        let tail = format!("first\n\x1b[31mno such level {}\n \n", "x".repeat(500));
        let verdict = judge(&Evidence { log_tail: &tail, ..evidence(&command, &report) });
        assert!(
            verdict.error.starts_with("`/usr/bin/x` exited with 1 on `a b`: [31mno such level"),
            "{}",
            verdict.error
        );
        assert!(verdict.error.len() < 300);
    }
}
