//! The names of outcomes in history.

/// The first success of a shard, or a later one that lost.
pub const SUCCEEDED: &str = "succeeded";
/// The task failed and may succeed another time.
pub const TASK_ERROR: &str = "task-error";
/// The task failed and would fail again.
pub const PERMANENT_ERROR: &str = "permanent-error";
/// Killed for memory.
pub const OUT_OF_MEMORY: &str = "out-of-memory";
/// It took too long.
pub const TIMEOUT: &str = "timeout";
/// Its worker fell silent; the ledger's word, never a worker's.
pub const WORKER_LOST: &str = "worker-lost";
/// Stopped for others.
pub const PREEMPTED: &str = "preempted";
/// Stopped because its worker left.
pub const DRAINED: &str = "drained";
/// Stopped because nobody wanted it any more.
pub const CANCELLED: &str = "cancelled";
/// The worker does not know the unit or could not read the message.
pub const UNSUPPORTED: &str = "unsupported";

/// All of them.
pub const ALL: [&str; 10] = [
    SUCCEEDED,
    TASK_ERROR,
    PERMANENT_ERROR,
    OUT_OF_MEMORY,
    TIMEOUT,
    WORKER_LOST,
    PREEMPTED,
    DRAINED,
    CANCELLED,
    UNSUPPORTED,
];
