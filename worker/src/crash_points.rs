//! Where a test can kill the worker: around each step after which somebody else answers for a shard.

pub use points::*;

forecastle_service::crash_points! {
    /// The points.
    pub mod points {
        /// A lease is held; the ledger has not heard of the claim.
        CLAIM_BEFORE_EVENT = "worker/claim/before-event";
        /// The broker has the claim for the ledger; the offer is not acknowledged.
        CLAIM_AFTER_EVENT = "worker/claim/after-event";
        /// The offer is acknowledged; nothing runs yet.
        CLAIM_AFTER_ACK = "worker/claim/after-ack";
        /// The run has ended; nobody has heard how.
        RUN_FINISHED = "worker/run/finished";
        /// The broker has the completion for the ledger.
        COMPLETION_AFTER_CONFIRM = "worker/completion/after-confirm";
    }
}
