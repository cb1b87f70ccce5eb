//! Names and descriptions of this crate's metrics, and the buckets of every program's histograms.

use metrics::{Unit, describe_gauge};

/// Resident memory of this process, in bytes.
pub const PROCESS_RESIDENT_MEMORY_BYTES: &str = "process_resident_memory_bytes";
/// Open file descriptors of this process.
pub const PROCESS_OPEN_FDS: &str = "process_open_fds";
/// Threads of this process.
pub const PROCESS_THREADS: &str = "process_threads";
/// CPU time of this process since it started, in seconds. Rises only; a gauge because counters here are whole numbers.
pub const PROCESS_CPU_SECONDS: &str = "process_cpu_seconds";

/// Upper bounds of histograms whose name ends in `_seconds`: a millisecond to an hour.
pub(crate) const SECONDS_BUCKETS: [f64; 18] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 3600.0];
/// Upper bounds of histograms whose name ends in `_bytes`: 4 KiB to 64 GiB, by fours.
pub(crate) const BYTES_BUCKETS: [f64; 13] = [
    4096.0,
    16384.0,
    65536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
    268_435_456.0,
    1_073_741_824.0,
    4_294_967_296.0,
    17_179_869_184.0,
    68_719_476_736.0,
];
/// Upper bounds of histograms whose name ends in `_rows` or `_batch`: counts by fours.
pub(crate) const COUNT_BUCKETS: [f64; 10] = [1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262_144.0];

/// Tells the recorder what they mean.
pub(crate) fn describe() {
    describe_gauge!(PROCESS_RESIDENT_MEMORY_BYTES, Unit::Bytes, "Resident memory of this process.");
    describe_gauge!(PROCESS_OPEN_FDS, Unit::Count, "Open file descriptors of this process.");
    describe_gauge!(PROCESS_THREADS, Unit::Count, "Threads of this process.");
    describe_gauge!(PROCESS_CPU_SECONDS, Unit::Seconds, "CPU time of this process since it started.");
}
