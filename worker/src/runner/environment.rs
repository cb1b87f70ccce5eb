//! What a command is told: an environment that is cleared first.

use std::collections::BTreeMap;
use std::path::Path;

use forecastle_catalogue::Command;

use crate::adjustment::allocation_file::threads;
use crate::runner::meter::milliseconds;
use crate::runner::run_spec::RunSpec;

/// Where programs that a command starts are looked for.
pub(crate) const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Variables by which the usual thread pools take no more threads than cores are reserved: OpenMP, OpenBLAS, MKL,
/// Accelerate, BLIS, NumExpr, Numba, Rayon, Polars, Tokio, Go and Julia.
pub const THREAD_POOLS: [&str; 12] = [
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "RAYON_NUM_THREADS",
    "POLARS_MAX_THREADS",
    "TOKIO_WORKER_THREADS",
    "GOMAXPROCS",
    "JULIA_NUM_THREADS",
];

/// Where a run finds things.
#[derive(Debug, Clone, Copy)]
pub struct Paths<'a> {
    /// The folder for files that are kept.
    pub output: &'a Path,
    /// The folder for files that are not.
    pub scratch: &'a Path,
    /// The file with what it may use now.
    pub allocation: &'a Path,
}

/// The whole environment of a command. What the catalogue says comes last.
pub fn environment(spec: &RunSpec, command: &Command, paths: &Paths<'_>) -> BTreeMap<String, String> {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let reservation = &spec.reservation;
    let mut environment: BTreeMap<String, String> = [
        ("PATH", PATH.to_owned()),
        ("LC_ALL", "C.UTF-8".to_owned()),
        ("HOME", text(paths.scratch)),
        ("TMPDIR", text(paths.scratch)),
        ("FORECASTLE_RUN_ID", spec.run.to_string()),
        ("FORECASTLE_REQUEST_ID", spec.shard.request.to_string()),
        ("FORECASTLE_SHARD_ID", spec.shard.to_string()),
        ("FORECASTLE_ATTEMPT", spec.attempt.to_string()),
        ("FORECASTLE_REQUEST_TYPE", spec.request_type.clone()),
        ("FORECASTLE_UNIT", spec.unit.name.to_string()),
        ("FORECASTLE_TENANT", spec.tenant.clone()),
        ("FORECASTLE_CPU_MILLIS", reservation.cpu.get().to_string()),
        ("FORECASTLE_MEMORY_BYTES", reservation.memory.get().to_string()),
        ("FORECASTLE_IO_BYTES_PER_SECOND", reservation.io.get().to_string()),
        ("FORECASTLE_SCRATCH_BYTES", reservation.scratch.get().to_string()),
        ("FORECASTLE_DURATION_MS", milliseconds(spec.expected).to_string()),
        ("FORECASTLE_ALLOCATION_FILE", text(paths.allocation)),
        ("FORECASTLE_OUTPUT", text(paths.output)),
        ("FORECASTLE_SCRATCH", text(paths.scratch)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    // What is not there is not set, so that no program reads a limit of zero.
    let limits = [
        ("FORECASTLE_TIME_LIMIT_MS", spec.limit.map(milliseconds)),
        ("FORECASTLE_DEADLINE_UNIX_MS", spec.deadline_unix_ms),
    ];
    environment.extend(limits.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.to_string()))));
    environment.extend(thread_pools(threads(reservation)));
    environment.extend(spec.traceparent.iter().map(|context| ("TRACEPARENT".to_owned(), context.clone())));
    environment.extend(command.env.clone());
    environment
}

/// The variables that hold thread pools to so many threads.
pub(crate) fn thread_pools(threads: u64) -> [(String, String); THREAD_POOLS.len()] {
    THREAD_POOLS.map(|name| (name.to_owned(), threads.to_string()))
}
