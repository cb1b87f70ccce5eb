//! One recorded run.

/// One recorded run of a task, as it ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// The type of task.
    pub kind: String,
    /// The size of its input in bytes, as far as it was known before.
    pub input: f64,
    /// The memory that its owner gave it, in bytes: always enough.
    pub preset: f64,
    /// When it started, in milliseconds.
    pub start: f64,
    /// When its outcome was known, in milliseconds.
    pub end: f64,
    /// The memory that it needed, in bytes.
    pub needed: f64,
    /// How long it ran, in milliseconds.
    pub time: f64,
    /// CPU that it used while it ran, in thousandths of a core; zero if unknown.
    pub cpu_millis: f64,
    /// Bytes that it read and wrote; zero if unknown.
    pub io_bytes: f64,
}
