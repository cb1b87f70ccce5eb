//! Recorded loads.

use std::time::Duration;

use forecastle_resources::{Bytes, CpuMillis, Priority, ResourceVector};

use crate::simulation::load::Job;
use crate::time::Time;

/// The first line of a trace.
pub const HEADER: &str = "released_ms,cpu_millis,memory_bytes,predicted_ms,duration_ms";

/// Why a text is no trace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TraceError {
    /// It begins with something else.
    #[error("the first line is not `{HEADER}`")]
    Header,
    /// A line is no job.
    #[error("line {line}: `{text}` is not five whole numbers")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// Its text.
        text: String,
    },
}

/// Reads a trace, a CSV file with [`HEADER`]; jobs in any order. All count as standard. Those that do not fit into
/// `capacity` are cut to its size.
pub fn parse(text: &str, capacity: &ResourceVector) -> Result<Vec<Job>, TraceError> {
    let mut lines = text.lines().map(str::trim).enumerate();
    if lines.next().map(|(_, line)| line) != Some(HEADER) {
        return Err(TraceError::Header);
    }
    lines
        .filter(|(_, line)| !line.is_empty())
        .map(|(number, line)| {
            let numbers: Vec<u64> = line.split(',').map_while(|field| field.trim().parse().ok()).collect();
            let wrong = || TraceError::Line { line: number + 1, text: line.to_owned() };
            let &[released, cpu, memory, predicted, lasts] = numbers.as_slice() else { return Err(wrong()) };
            Ok(Job {
                released: Time(Duration::from_millis(released)),
                priority: Priority::Standard,
                vector: ResourceVector::new(CpuMillis(cpu), Bytes(memory)).min(capacity),
                predicted: Duration::from_millis(predicted),
                lasts: Duration::from_millis(lasts),
                in_process: false,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_cut_to_the_capacity_and_a_wrong_line_is_named() {
        let capacity = ResourceVector::new(CpuMillis(500), Bytes(1000));
        let read = |lines: &str| parse(&format!("{HEADER}\n{lines}"), &capacity);
        let jobs = read("7,900,10,1000,2000\n\n").unwrap();
        assert_eq!((jobs.len(), jobs[0].vector.cpu, jobs[0].lasts), (1, CpuMillis(500), Duration::from_secs(2)));
        for wrong in ["1,2,3,4", "1,2,3,4,5,6", "1,2,x,4,5", "1,2,-3,4,5"] {
            let error = read(&format!("1,1,1,1,1\n{wrong}")).unwrap_err();
            // Six numbers are as wrong as four.
            assert_eq!(error, TraceError::Line { line: 3, text: wrong.to_owned() });
        }
        assert_eq!(parse("released\n", &capacity).unwrap_err(), TraceError::Header);
        assert_eq!(parse("", &capacity).unwrap_err(), TraceError::Header);
    }
}
