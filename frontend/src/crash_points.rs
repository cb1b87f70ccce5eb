//! Where a test can kill the frontend: one point before and one after each step that makes something durable.

pub use points::*;

forecastle_service::crash_points! {
    /// The points.
    pub mod points {
        /// A request passed its checks and is not in the ledger yet.
        INTAKE_BEFORE_COMMIT = "frontend/intake/before-commit";
        /// A request is in the ledger; its producer has not heard.
        INTAKE_AFTER_COMMIT = "frontend/intake/after-commit";
        /// A request's message was answered and is not acknowledged.
        INTAKE_BEFORE_ACK = "frontend/intake/before-ack";
        /// A request is about to be planned.
        PLANNER_BEFORE_COMMIT = "frontend/planner/before-commit";
        /// A plan is in the ledger; nobody was told.
        PLANNER_AFTER_COMMIT = "frontend/planner/after-commit";
        /// Attempts are about to be ordered.
        RELEASE_BEFORE_COMMIT = "frontend/release/before-commit";
        /// Attempts are ordered in the ledger; their messages are not published.
        RELEASE_AFTER_COMMIT = "frontend/release/after-commit";
        /// The broker has a shard's message; the ledger does not know.
        RELEASE_AFTER_CONFIRM = "frontend/release/after-confirm";
        /// Events arrived and are not in the ledger yet.
        COMPLETIONS_BEFORE_COMMIT = "frontend/completions/before-commit";
        /// Events are in the ledger and are not acknowledged.
        COMPLETIONS_AFTER_COMMIT = "frontend/completions/after-commit";
        /// Events are acknowledged; nobody was told what they mean.
        COMPLETIONS_AFTER_ACK = "frontend/completions/after-ack";
        /// A final reply was delivered; the ledger does not know.
        REPLY_AFTER_CONFIRM = "frontend/reply/after-confirm";
        /// ClickHouse has a batch; the watermark has not moved.
        SINK_AFTER_INSERT = "frontend/sink/after-insert";
    }
}
